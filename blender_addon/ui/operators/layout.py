# ruff: noqa: N801, RUF012 - class names and options are as Blender wants them
"""The operators for the swatch, its regions and the painted layout. All work from a script; painting needs a window."""

from collections.abc import Callable
from typing import Any

import bpy
from bpy.app.handlers import persistent
from bpy.props import BoolProperty, EnumProperty, FloatVectorProperty, IntProperty, StringProperty
from bpy.types import Context, Event, Operator

from ... import wire
from ...scene import materials, painting, properties, regions, session
from .jobs import Done, fail

_PICTURES = [
    ("regions", "Region Map", "The map over the swatch"),
    ("layout", "Layout", "The map over the texture to be made"),
]


def _needs_swatch(cls: type[Operator], context: Context) -> bool:
    if context.scene.distill.image_swatch is None:
        cls.poll_message_set("Choose the swatch first")
        return False
    return True


def _needs_regions(cls: type[Operator], context: Context, least: int = 1) -> bool:
    if len(context.scene.distill.regions) < least:
        cls.poll_message_set(f"Add {'a region' if least == 1 else 'two regions'} first")
        return False
    return True


def _change(operator: Operator, change: Callable[..., object], *arguments: object) -> Done:
    """Change the regions or their maps; what was amiss with them before is then no news any more."""
    settings = bpy.context.scene.distill
    before = settings.image_regions, settings.image_layout
    try:
        change(*arguments)
    except wire.WireError as error:
        return fail(operator, error)
    for old, new in zip(before, (settings.image_regions, settings.image_layout), strict=True):
        if old is not None and new != old:
            painting.go_on_with(bpy.context, old, new)
    regions.remember_colors(bpy.context.scene)
    if session.desk.error is not None and session.desk.error.code in ("invalid-labels", "invalid-image"):
        session.desk.error = None
    return {"FINISHED"}


_SOURCE = EnumProperty(
    name="Picture",
    items=[(p.name, properties.title(p.name), p.help) for p in (wire.SWATCH, wire.CONTENT)],
    options={"SKIP_SAVE"},
)


class DISTILL_OT_picture_from_material(Operator):
    """Take the base colour image of the active material as this picture"""

    bl_idname = "distill.picture_from_material"
    bl_label = "From Material"
    bl_options = {"REGISTER", "UNDO"}

    picture: _SOURCE

    @classmethod
    def poll(cls, _context: Context) -> bool:
        material = session.active_material()
        if materials.base_color_image(material) is None:
            what = f"The material “{material.name}”" if material else "The active object"
            cls.poll_message_set(f"{what} has no {'image for its base colour' if material else 'material'}")
            return False
        return True

    def execute(self, context: Context) -> Done:
        setattr(context.scene.distill, f"image_{self.picture}", materials.base_color_image(session.active_material()))
        return {"FINISHED"}


class DISTILL_OT_picture_from_editor(Operator):
    """Take the image that this Image Editor shows as this picture"""

    bl_idname = "distill.picture_from_editor"
    bl_label = "From Editor"
    bl_options = {"REGISTER", "UNDO"}

    picture: _SOURCE

    @classmethod
    def poll(cls, context: Context) -> bool:
        if context.area is None or context.area.type != "IMAGE_EDITOR" or context.area.spaces.active.image is None:
            cls.poll_message_set("This Image Editor shows no image")
            return False
        return True

    def execute(self, context: Context) -> Done:
        setattr(context.scene.distill, f"image_{self.picture}", context.area.spaces.active.image)
        return {"FINISHED"}


class DISTILL_OT_picture_from_file(Operator):
    """Open a file as this picture"""

    bl_idname = "distill.picture_from_file"
    bl_label = "Open"
    bl_options = {"REGISTER", "UNDO"}

    picture: _SOURCE
    filepath: StringProperty(subtype="FILE_PATH")
    filter_image: BoolProperty(default=True, options={"HIDDEN"})
    filter_folder: BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context: Context, _event: Event) -> Done:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Context) -> Done:
        try:
            image = bpy.data.images.load(self.filepath, check_existing=True)
        except RuntimeError:
            self.report({"ERROR"}, f"{self.filepath} cannot be opened as a picture")
            return {"CANCELLED"}
        setattr(context.scene.distill, f"image_{self.picture}", image)
        return {"FINISHED"}


class DISTILL_OT_region_add(Operator):
    """Add a region: a part of the swatch, such as moss, that can be laid out by hand"""

    bl_idname = "distill.region_add"
    bl_label = "Add Region"
    bl_options = {"REGISTER", "UNDO"}

    name: StringProperty(name="Name", options={"SKIP_SAVE"})

    def execute(self, context: Context) -> Done:
        regions.add_region(context.scene, self.name)
        return {"FINISHED"}


class DISTILL_OT_region_remove(Operator):
    """Remove the chosen region. What was painted with its colour stays until it is cleaned up"""

    bl_idname = "distill.region_remove"
    bl_label = "Remove Region"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return _needs_regions(cls, context)

    def execute(self, context: Context) -> Done:
        settings = context.scene.distill
        settings.regions.remove(settings.region_index)
        settings.region_index = max(0, min(settings.region_index, len(settings.regions) - 1))
        return {"FINISHED"}


class DISTILL_OT_region_map_new(Operator):
    """Make the map that says which part of the swatch is which region"""

    bl_idname = "distill.region_map_new"
    bl_label = "New Region Map"
    bl_options = {"REGISTER", "UNDO"}

    method: EnumProperty(
        name="Method",
        items=[
            ("OVER", "Paint Over the Swatch", "The swatch in grey, to be painted over. Grey is the first region"),
            ("COLOR", "Tell Apart by Color", "Divide the swatch among the regions by its colours"),
        ],
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        return _needs_swatch(cls, context) and _needs_regions(cls, context, 2)

    @classmethod
    def description(cls, _context: Context, properties: Any) -> str:
        return {
            "OVER": "Make a region map to be painted by hand: the swatch in grey, which stands for the first region",
            "COLOR": "Make a region map by dividing the swatch among the regions by its colours",
        }[properties.method]

    def execute(self, context: Context) -> Done:
        by_color = self.method == "COLOR"
        done = _change(self, regions.map_by_color if by_color else regions.map_over_swatch, context.scene)
        if by_color and done == {"FINISHED"}:
            largest = context.scene.distill.regions[0].name
            self.report({"INFO"}, f"The largest part became “{largest}”. Rename the regions if they are mixed up")
        return done


class DISTILL_OT_layout_new(Operator):
    """Make a layout in the aspect of the texture, all of it the first region"""

    bl_idname = "distill.layout_new"
    bl_label = "New Layout"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return _needs_regions(cls, context)

    def execute(self, context: Context) -> Done:
        return _change(self, regions.new_layout, context.scene, *properties.output_size(context.scene.distill))


class DISTILL_OT_paint(Operator):
    """Paint with a hard brush in the colour of the chosen region"""

    bl_idname = "distill.paint"
    bl_label = "Paint"
    bl_options = {"REGISTER", "UNDO"}

    picture: EnumProperty(name="Picture", items=_PICTURES, default="layout")
    where: EnumProperty(
        name="Where",
        items=[
            ("EDITOR", "Image Editor", "Paint in the Image Editor"),
            ("MODEL", "Model", "Paint on the active object, through its UV map"),
        ],
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        return _needs_regions(cls, context)

    @classmethod
    def description(cls, _context: Context, properties: Any) -> str:
        if properties.where == "MODEL":
            return "Paint the layout on the active object, through its UV map, with a hard brush in the region's colour"
        return "Paint in the Image Editor, with a hard brush in the colour of the chosen region"

    def execute(self, context: Context) -> Done:
        settings = context.scene.distill
        image = getattr(settings, f"image_{self.picture}")
        if image is None:
            self.report(
                {"ERROR"}, f"There is no {'layout' if self.picture == 'layout' else 'region map'} yet; make one"
            )
            return {"CANCELLED"}
        try:
            image = regions.renew(context.scene, self.picture)
            if self.where == "MODEL":
                painting.on_model(context, image)
            elif not painting.in_image_editor(context, image):
                self.report({"WARNING"}, "There is no Image Editor to paint in")
        except wire.WireError as error:
            return fail(self, error)
        regions.remember_colors(context.scene)
        painting.prepare(context, settings.regions[settings.region_index].color)
        return {"FINISHED"}


class DISTILL_OT_fill(Operator):
    """Fill the map with the chosen region"""

    bl_idname = "distill.fill"
    bl_label = "Fill"
    bl_options = {"REGISTER", "UNDO"}

    picture: EnumProperty(name="Picture", items=_PICTURES, default="layout")
    region: IntProperty(name="Region", description="Index of the region; -1: the chosen one", default=-1, min=-1)
    box: FloatVectorProperty(
        name="Box",
        description="Left, bottom, right and top of what is filled, in parts of the picture",
        size=4,
        min=0.0,
        max=1.0,
        default=(0.0, 0.0, 1.0, 1.0),
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        return _needs_regions(cls, context)

    def execute(self, context: Context) -> Done:
        settings = context.scene.distill
        region = settings.region_index if self.region < 0 else self.region
        if region >= len(settings.regions):
            self.report({"ERROR"}, f"There is no region {region}; there are {len(settings.regions)}, counted from 0")
            return {"CANCELLED"}
        return _change(self, regions.fill, context.scene, self.picture, region, self.box)


class DISTILL_OT_clean(Operator):
    """Give every pixel of the map the colour of the nearest region: mends soft strokes, scaling and JPEG noise"""

    bl_idname = "distill.clean"
    bl_label = "Clean Up"
    bl_options = {"REGISTER", "UNDO"}

    picture: EnumProperty(name="Picture", items=_PICTURES, default="layout")

    @classmethod
    def poll(cls, context: Context) -> bool:
        return _needs_regions(cls, context)

    def execute(self, context: Context) -> Done:
        return _change(self, regions.clean, context.scene, self.picture)


class DISTILL_OT_regions_from_map(Operator):
    """Make the list of regions from the flat colours of a map that was painted elsewhere"""

    bl_idname = "distill.regions_from_map"
    bl_label = "Regions from Map"
    bl_options = {"REGISTER", "UNDO"}

    picture: EnumProperty(name="Picture", items=_PICTURES, default="regions")

    @classmethod
    def poll(cls, context: Context) -> bool:
        settings = context.scene.distill
        if settings.image_regions is None and settings.image_layout is None:
            cls.poll_message_set("Choose a region map first")
            return False
        return True

    def execute(self, context: Context) -> Done:
        done = _change(self, regions.adopt, context.scene, self.picture)
        if done == {"FINISHED"}:
            self.report({"INFO"}, f"Found {len(context.scene.distill.regions)} regions")
        return done


_owner = object()


@persistent
def _watch_choice(*_args: object) -> None:
    """The region that is chosen in the list is the one that the brush paints, in the colour that it has."""
    bpy.msgbus.clear_by_owner(_owner)
    for key in ((properties.DistillSettings, "region_index"), (properties.DistillRegion, "color")):
        bpy.msgbus.subscribe_rna(key=key, owner=_owner, args=(), notify=_choice_changed)


def _choice_changed() -> None:
    settings = bpy.context.scene.distill
    regions.remember_colors(bpy.context.scene)
    if settings.region_index < len(settings.regions):
        painting.set_color(bpy.context, settings.regions[settings.region_index].color)


classes = (
    DISTILL_OT_picture_from_material,
    DISTILL_OT_picture_from_editor,
    DISTILL_OT_picture_from_file,
    DISTILL_OT_region_add,
    DISTILL_OT_region_remove,
    DISTILL_OT_region_map_new,
    DISTILL_OT_layout_new,
    DISTILL_OT_paint,
    DISTILL_OT_fill,
    DISTILL_OT_clean,
    DISTILL_OT_regions_from_map,
)


def register() -> None:
    for cls in classes:
        bpy.utils.register_class(cls)
    bpy.app.handlers.load_post.append(_watch_choice)
    _watch_choice()


def unregister() -> None:
    bpy.app.handlers.load_post.remove(_watch_choice)
    bpy.msgbus.clear_by_owner(_owner)
    for cls in reversed(classes):
        bpy.utils.unregister_class(cls)
