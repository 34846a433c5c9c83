"""Operators for the regions of the swatch and their map."""

from typing import Any

from bpy.app.translations import pgettext_iface as tr
from bpy.props import EnumProperty, IntProperty, StringProperty
from bpy.types import Context, Operator

from ... import wire
from ...scene import regions, session, suggestion
from .label_maps import change, has_regions, map_property
from .reports import Done, fail


class DISTILL_OT_region_add(Operator):
    """Add a region: a material in the swatch, such as stone or moss"""

    bl_idname = "distill.region_add"
    bl_label = "Add Region"
    bl_options = {"REGISTER"}

    name: StringProperty(name="Name", options={"SKIP_SAVE"})

    def execute(self, context: Context) -> Done:
        return change(self, regions.add_region, context.scene, self.name)


class DISTILL_OT_region_remove(Operator):
    """Remove the active region. Its pixels stay; those of a similar color then belong to the nearest region"""

    bl_idname = "distill.region_remove"
    bl_label = "Remove Region"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return has_regions(cls, context)

    def execute(self, context: Context) -> Done:
        return change(self, regions.remove_region, context.scene)


class DISTILL_OT_region_map_new(Operator):
    """Create the map that shows which part of the swatch is which region"""

    bl_idname = "distill.region_map_new"
    bl_label = "New Region Map"
    bl_options = {"REGISTER"}

    method: EnumProperty(
        name="Method",
        items=[
            ("OVER", "Paint over Swatch", "Start from the swatch in gray. Gray is the first region"),
            ("COLOR", "Split by Color", "Divide the swatch among the regions by its colors"),
        ],
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        if context.scene.distill.image_swatch is None:
            cls.poll_message_set("Choose the swatch first")
            return False
        return has_regions(cls, context, 2)

    @classmethod
    def description(cls, _context: Context, properties: Any) -> str:
        return {
            "OVER": "Create a region map to paint by hand. It starts as the swatch in gray, which is the first region",
            "COLOR": "Create a region map by dividing the swatch among the regions by its colors",
        }[properties.method]

    def execute(self, context: Context) -> Done:
        by_color = self.method == "COLOR"
        done = change(self, regions.map_by_color if by_color else regions.map_over_swatch, context.scene)
        if by_color and done == {"FINISHED"}:
            largest = context.scene.distill.regions[0].name
            self.report(
                {"INFO"}, tr("The largest part is now “{}”. Rename the regions if they are swapped").format(largest)
            )
        return done


class DISTILL_OT_suggest_regions(Operator):
    """Divide the swatch into parts by color and texture. The service does it, in a second or two"""

    bl_idname = "distill.suggest_regions"
    bl_label = "Suggest Regions"

    parts: IntProperty(name="Parts", description="Number of parts. 0: as set in the panel", default=0, min=0, max=8)

    @classmethod
    def poll(cls, context: Context) -> bool:
        if context.scene.distill.image_swatch is None:
            cls.poll_message_set("Choose the swatch first")
            return False
        return True

    def execute(self, context: Context) -> Done:
        parts = max(2, self.parts or context.window_manager.distill_parts)
        session.current().error = None
        try:
            suggestion.submit(context.scene, parts)
        except wire.WireError as error:
            return fail(self, error)
        return {"FINISHED"}


class DISTILL_OT_regions_from_map(Operator):
    """Replace the list of regions by the flat colors of the region map, or of the layout if there is no region map"""

    bl_idname = "distill.regions_from_map"
    bl_label = "Regions from Map"
    bl_options = {"REGISTER"}

    picture: map_property("regions")

    @classmethod
    def poll(cls, context: Context) -> bool:
        settings = context.scene.distill
        if settings.image_regions is None and settings.image_layout is None:
            cls.poll_message_set("Choose a region map or a layout first")
            return False
        return True

    def execute(self, context: Context) -> Done:
        chosen = self.properties.is_property_set("picture") or context.scene.distill.image_regions is not None
        done = change(self, regions.regions_from_map, context.scene, self.picture if chosen else "layout")
        if done == {"FINISHED"}:
            self.report({"INFO"}, tr("Found {} regions").format(len(context.scene.distill.regions)))
        return done


classes = (
    DISTILL_OT_region_add,
    DISTILL_OT_region_remove,
    DISTILL_OT_region_map_new,
    DISTILL_OT_suggest_regions,
    DISTILL_OT_regions_from_map,
)
