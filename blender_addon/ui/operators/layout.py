"""Operators that create, paint and correct the layout and the region map. Painting needs a window."""

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.props import EnumProperty, FloatProperty, FloatVectorProperty, IntProperty, StringProperty
from bpy.types import Context, Event, Operator

from ... import wire
from ...scene import active_region, mesh_layout, painting, properties, regions, windows
from .label_maps import change, has_regions, map_property
from .reports import Done, fail


class DISTILL_OT_use_layout(Operator):
    """Paint where on the texture each material of the swatch appears. Adds regions and maps if there are none"""

    bl_idname = "distill.use_layout"
    bl_label = "Use Layout"
    bl_options = {"REGISTER"}

    def execute(self, context: Context) -> Done:
        settings = context.scene.distill
        if settings.use_layout:
            settings.use_layout = False
            windows.push_undo(self.bl_label)
            return {"FINISHED"}
        settings.use_layout = True
        done = change(self, regions.set_up, context.scene, *properties.output_size(settings))
        settings.use_layout = done == {"FINISHED"}
        return done


class DISTILL_OT_layout_new(Operator):
    """Create a layout with the aspect ratio of the texture, filled with the first region"""

    bl_idname = "distill.layout_new"
    bl_label = "New Layout"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return has_regions(cls, context)

    def execute(self, context: Context) -> Done:
        return change(self, regions.new_layout, context.scene, *properties.output_size(context.scene.distill))


class DISTILL_OT_layout_from_object(Operator):
    """Create the layout from the active object through its UV map, with regions of the same names"""

    bl_idname = "distill.layout_from_object"
    bl_label = "Layout from Object"
    bl_options = {"REGISTER"}

    source: EnumProperty(name="Source", items=[(n, *texts) for n, texts in mesh_layout.SOURCES.items()])

    @classmethod
    def poll(cls, context: Context) -> bool:
        return _has_mesh(cls, context)

    def execute(self, context: Context) -> Done:
        size = properties.output_size(context.scene.distill)
        done = change(self, mesh_layout.layout_from_object, context.scene, context.active_object, self.source, size)
        if done == {"FINISHED"}:
            self.report({"INFO"}, tr("The layout has {} regions").format(len(context.scene.distill.regions)))
        return done


class DISTILL_OT_fill_selected(Operator):
    """Fill the layout with the active region where the selected faces lie on the UV map"""

    bl_idname = "distill.fill_selected"
    bl_label = "Fill Selected Faces"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return has_regions(cls, context) and _has_mesh(cls, context)

    def execute(self, context: Context) -> Done:
        settings = context.scene.distill
        return change(
            self,
            mesh_layout.fill_selected,
            context.scene,
            context.active_object,
            settings.region_index,
            properties.output_size(settings),
            mesh_layout.takes_uv_selection(context),
        )


class DISTILL_OT_fill_mask(Operator):
    """Fill the layout with the active region where an image is bright"""

    bl_idname = "distill.fill_mask"
    bl_label = "Fill from Mask"
    bl_options = {"REGISTER"}

    image: StringProperty(name="Mask", description="Name of the image")
    threshold: FloatProperty(
        name="Threshold", description="Brightness from which a pixel counts", default=0.5, min=0.0, max=1.0
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        return has_regions(cls, context)

    def invoke(self, context: Context, _event: Event) -> Done:
        return context.window_manager.invoke_props_dialog(self)

    def draw(self, _context: Context) -> None:
        self.layout.prop_search(self, "image", bpy.data, "images")
        self.layout.prop(self, "threshold", slider=True)

    def execute(self, context: Context) -> Done:
        mask, settings = bpy.data.images.get(self.image), context.scene.distill
        if mask is None:
            self.report({"ERROR"}, tr("There is no image “{}”; choose the mask").format(self.image))
            return {"CANCELLED"}
        size = properties.output_size(settings)
        return change(self, mesh_layout.fill_mask, context.scene, mask, self.threshold, settings.region_index, size)


class DISTILL_OT_paint(Operator):
    """Paint with a hard brush in the color of the active region"""

    bl_idname = "distill.paint"
    bl_label = "Paint"
    bl_options = {"REGISTER"}

    picture: map_property("layout")
    where: EnumProperty(
        name="Where",
        items=[
            ("EDITOR", "Image Editor", "Paint in the Image Editor"),
            ("MODEL", "Model", "Paint on the active object, through its UV map"),
        ],
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        return has_regions(cls, context)

    @classmethod
    def description(cls, _context: Context, properties: Any) -> str:
        if properties.where == "MODEL":
            return tr("Paint the layout on the active object through its UV map, in the color of the active region")
        return tr("Paint in the Image Editor with a hard brush, in the color of the active region")

    def execute(self, context: Context) -> Done:
        settings = context.scene.distill
        if getattr(settings, f"image_{self.picture}") is None:
            self.report({"ERROR"}, tr("There is no {} yet; create one").format(tr(regions.TITLES[self.picture])))
            return {"CANCELLED"}
        try:
            image = regions.update_colors(context.scene, self.picture)
            if self.where == "MODEL":
                painting.on_model(context, image)
            elif not painting.in_image_editor(context, image):
                self.report({"WARNING"}, "There is no Image Editor to paint in")
        except wire.WireError as error:
            return fail(self, error)
        regions.remember_colors(context.scene)
        painting.prepare(context, settings.regions[settings.region_index].color)
        windows.push_undo(self.bl_label)
        return {"FINISHED"}


class DISTILL_OT_fill(Operator):
    """Fill the map with the active region"""

    bl_idname = "distill.fill"
    bl_label = "Fill"
    bl_options = {"REGISTER"}

    picture: map_property("layout")
    region: IntProperty(name="Region", description="Index of the region. -1: the active one", default=-1, min=-1)
    box: FloatVectorProperty(
        name="Box",
        description="Left, bottom, right and top of the rectangle to fill, as fractions of the picture",
        size=4,
        min=0.0,
        max=1.0,
        default=(0.0, 0.0, 1.0, 1.0),
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        return has_regions(cls, context)

    def execute(self, context: Context) -> Done:
        settings = context.scene.distill
        region = settings.region_index if self.region < 0 else self.region
        if region >= len(settings.regions):
            last = len(settings.regions) - 1
            text = tr("Region {} does not exist; choose 0 to {}, or -1 for the active one")
            self.report({"ERROR"}, text.format(region, last))
            return {"CANCELLED"}
        return change(self, regions.fill, context.scene, self.picture, region, self.box)


class _MapPoint(Operator):
    """What operators at a point of a map have in common: the point, or the place under the mouse in the interface."""

    picture: map_property("layout")
    point: FloatVectorProperty(
        name="Point", description="Place in the picture, from its bottom left corner", size=2, min=0.0, max=1.0
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        return has_regions(cls, context)

    def invoke(self, context: Context, event: Event) -> Done:
        """Executes the operator with the map and the point under the mouse."""
        for picture in properties.LABEL_MAPS:
            image = getattr(context.scene.distill, f"image_{picture}")
            if context.area is not None and context.area.type == "IMAGE_EDITOR" and context.space_data.image == image:
                self.picture = picture
        if getattr(context.scene.distill, f"image_{self.picture}") is None:
            self.report({"WARNING"}, tr("There is no {} yet; create one").format(tr(regions.TITLES[self.picture])))
            return {"CANCELLED"}
        point = painting.place_under(context, event, self.picture)
        if point is None:
            self.report({"WARNING"}, "Move the mouse over the map or the active object")
            return {"CANCELLED"}
        self.point = point
        return self.execute(context)


class DISTILL_OT_fill_area(_MapPoint):
    """Fill the connected area under the mouse with the active region"""

    bl_idname = "distill.fill_area"
    bl_label = "Fill Area"
    bl_options = {"REGISTER"}

    def execute(self, context: Context) -> Done:
        settings = context.scene.distill
        tiles = properties.tiles(settings) if self.picture == "layout" else (False, False)
        return change(self, regions.flood, context.scene, self.picture, settings.region_index, tuple(self.point), tiles)


class DISTILL_OT_pick_region(_MapPoint):
    """Make the region under the mouse the active one"""

    bl_idname = "distill.pick_region"
    bl_label = "Pick Region"
    bl_options = {"REGISTER"}

    def execute(self, context: Context) -> Done:
        try:
            index = regions.region_at(context.scene, self.picture, tuple(self.point))
        except wire.WireError as error:
            return fail(self, error)
        if index < 0:
            self.report({"WARNING"}, "The color there belongs to no region; press Clean Up to correct it")
            return {"CANCELLED"}
        active_region.choose(context.scene, index)
        return {"FINISHED"}


class DISTILL_OT_swap_regions(Operator):
    """Make the region active that was active before"""

    bl_idname = "distill.swap_regions"
    bl_label = "Swap Regions"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return has_regions(cls, context, 2)

    def execute(self, context: Context) -> Done:
        active_region.swap(context.scene)
        return {"FINISHED"}


class DISTILL_OT_meet_edges(Operator):
    """Change the layout near its right and bottom edge so that opposite edges continue each other"""

    bl_idname = "distill.meet_edges"
    bl_label = "Make Edges Meet"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return has_regions(cls, context)

    def execute(self, context: Context) -> Done:
        return change(self, regions.meet_edges, context.scene, properties.tiles(context.scene.distill))


class DISTILL_OT_clean(Operator):
    """Give every pixel of the map the color of the nearest region. Corrects soft strokes, scaling and JPEG noise"""

    bl_idname = "distill.clean"
    bl_label = "Clean Up"
    bl_options = {"REGISTER"}

    picture: map_property("layout")

    @classmethod
    def poll(cls, context: Context) -> bool:
        return has_regions(cls, context)

    def execute(self, context: Context) -> Done:
        return change(self, regions.clean, context.scene, self.picture)


def _has_mesh(cls: type[Operator], context: Context) -> bool:
    """Whether the active object is a mesh; sets the poll message otherwise."""
    thing = context.active_object
    if thing is None or thing.type != "MESH":
        cls.poll_message_set("Make a mesh the active object first")
        return False
    return True


classes = (
    DISTILL_OT_use_layout,
    DISTILL_OT_layout_new,
    DISTILL_OT_layout_from_object,
    DISTILL_OT_fill_selected,
    DISTILL_OT_fill_mask,
    DISTILL_OT_paint,
    DISTILL_OT_fill,
    DISTILL_OT_fill_area,
    DISTILL_OT_pick_region,
    DISTILL_OT_swap_regions,
    DISTILL_OT_meet_edges,
    DISTILL_OT_clean,
)
