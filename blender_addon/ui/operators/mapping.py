"""Operators for the size and the projection of the result that a material shows, and for its nodes."""

from collections.abc import Callable
from typing import Any

from bpy.app.translations import pgettext_iface as tr
from bpy.props import EnumProperty, FloatProperty
from bpy.types import Context, Event, Material, Object, Operator

from ... import wire
from ...scene import mapping, materials, result_nodes
from .reports import Done, fail

Shown = list[tuple[Material, Object]]
"""Materials that show a result, each with the object that it is measured on."""


def shown(context: Context) -> Shown:
    """The active materials of the selected objects that show a result."""
    found: dict[str, tuple[Material, Object]] = {}
    for thing in materials.target_objects(context):
        material = thing.active_material if materials.can_have_material(thing) else None
        if material is not None and material.library is None and result_nodes.connected_frame(material) is not None:
            found.setdefault(material.name_full, (material, thing))
    return list(found.values())


def shows_result(cls: type[Operator], context: Context) -> bool:
    """Whether a selected object shows a result; sets the poll message otherwise."""
    if not shown(context):
        cls.poll_message_set("No result is applied to the active material")
        return False
    return True


def _each(operator: Operator, context: Context, function: Callable[[Material, Object], object]) -> Done:
    try:
        for material, thing in shown(context):
            function(material, thing)
    except wire.WireError as error:
        return fail(operator, error)
    return {"FINISHED"}


class DISTILL_OT_projection(Operator):
    """Choose how the result lies on the selected objects"""

    bl_idname = "distill.projection"
    bl_label = "Projection"
    bl_options = {"REGISTER", "UNDO"}

    projection: EnumProperty(
        name="Projection", items=[(key, name, help) for key, (name, help) in mapping.PROJECTIONS.items()]
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        return shows_result(cls, context)

    @classmethod
    def description(cls, _context: Context, properties: Any) -> str:
        return mapping.PROJECTIONS[properties.projection][1]

    def execute(self, context: Context) -> Done:
        return _each(self, context, lambda m, thing: mapping.set_projection(m, self.projection, thing))


class DISTILL_OT_tile_width(Operator):
    """Set how wide one tile of the result is on the selected objects, in meters"""

    bl_idname = "distill.tile_width"
    bl_label = "Set Real Width"
    bl_options = {"REGISTER", "UNDO"}

    width: FloatProperty(
        name="Width of a Tile",
        description="Width of one tile on the object. Its height keeps the proportions of the texture",
        default=1.0,
        min=0.0001,
        soft_max=100.0,
        subtype="DISTANCE",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        return shows_result(cls, context)

    def invoke(self, context: Context, _event: Event) -> Done:
        material, thing = shown(context)[0]
        unit = context.scene.unit_settings.scale_length
        if not self.properties.is_property_set("width"):
            self.width = (mapping.tile_width(material, mapping.surface_of(thing)) or 1.0) / unit
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context: Context) -> Done:
        meters = self.width * context.scene.unit_settings.scale_length
        return _each(self, context, lambda m, o: mapping.set_tile_width(m, mapping.surface_of(o), meters))


class DISTILL_OT_texel_density(Operator):
    """Set how many pixels of the result one meter of the selected objects shows"""

    bl_idname = "distill.texel_density"
    bl_label = "Set Texel Density"
    bl_options = {"REGISTER", "UNDO"}

    density: FloatProperty(
        name="Pixels per Meter",
        description="Texel density: pixels of the result on one meter of the object",
        default=512.0,
        min=0.01,
        soft_max=8192.0,
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        return shows_result(cls, context)

    def invoke(self, context: Context, _event: Event) -> Done:
        material, thing = shown(context)[0]
        if not self.properties.is_property_set("density"):
            self.density = mapping.texel_density(material, mapping.surface_of(thing)) or 512.0
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context: Context) -> Done:
        return _each(self, context, lambda m, o: mapping.set_texel_density(m, mapping.surface_of(o), self.density))


class DISTILL_OT_repeats(Operator):
    """Set how often the result repeats, with its own proportions"""

    bl_idname = "distill.repeats"
    bl_label = "Repeats"
    bl_options = {"REGISTER", "UNDO"}

    factor: FloatProperty(name="Factor", description="Factor on the repeats", default=2.0, min=0.001, soft_max=10.0)

    @classmethod
    def poll(cls, context: Context) -> bool:
        return shows_result(cls, context)

    def execute(self, context: Context) -> Done:
        return _each(self, context, lambda m, _: mapping.set_repeats(m, mapping.repeats(m)[0] * self.factor))


class DISTILL_OT_remove_frames(Operator):
    """Remove the nodes of results that the active material does not show"""

    bl_idname = "distill.remove_frames"
    bl_label = "Remove Unused Nodes"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, _context: Context) -> bool:
        material = materials.active_material()
        if material is None or material.library is not None or not result_nodes.is_stale(material):
            cls.poll_message_set("The active material has no unused nodes of results")
            return False
        return True

    def execute(self, _context: Context) -> Done:
        count = result_nodes.remove_frames(materials.active_material())
        self.report(
            {"INFO"},
            tr("Removed the nodes of {} results").format(count) if count != 1 else tr("Removed the nodes of 1 result"),
        )
        return {"FINISHED"}


class DISTILL_OT_make_local(Operator):
    """Make the linked materials of the selected objects local to this file, so that results can be applied to them"""

    bl_idname = "distill.make_local"
    bl_label = "Make Material Local"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not materials.linked_materials(materials.target_objects(context)):
            cls.poll_message_set("No active material of the selected objects is linked")
            return False
        return True

    def execute(self, context: Context) -> Done:
        count = materials.make_local(materials.target_objects(context))
        self.report(
            {"INFO"}, tr("Made {} materials local").format(count) if count != 1 else tr("Made 1 material local")
        )
        return {"FINISHED"}


classes = (
    DISTILL_OT_projection,
    DISTILL_OT_tile_width,
    DISTILL_OT_texel_density,
    DISTILL_OT_repeats,
    DISTILL_OT_remove_frames,
    DISTILL_OT_make_local,
)
