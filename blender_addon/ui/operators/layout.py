"""Operators that create, paint and correct the layout and the region map. Painting needs a window."""

from typing import Any

from bpy.props import EnumProperty, FloatVectorProperty, IntProperty
from bpy.types import Context, Operator

from ... import wire
from ...scene import painting, properties, regions, session
from .label_maps import change, has_regions, map_property
from .reports import Done, fail


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
            return "Paint the layout on the active object through its UV map, in the color of the active region"
        return "Paint in the Image Editor with a hard brush, in the color of the active region"

    def execute(self, context: Context) -> Done:
        settings = context.scene.distill
        if getattr(settings, f"image_{self.picture}") is None:
            self.report({"ERROR"}, f"There is no {regions.TITLES[self.picture]} yet; create one")
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
        session.push_undo(self.bl_label)
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
            choices = f"choose 0 to {last}, or -1 for the active one"
            self.report({"ERROR"}, f"Region {region} does not exist; {choices}")
            return {"CANCELLED"}
        return change(self, regions.fill, context.scene, self.picture, region, self.box)


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


classes = (DISTILL_OT_layout_new, DISTILL_OT_paint, DISTILL_OT_fill, DISTILL_OT_clean)
