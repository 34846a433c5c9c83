"""Operators that set parameters of the chosen job kind."""

import random
from typing import Any

from bl_operators.presets import AddPresetBase
from bpy.app.translations import pgettext_iface as tr
from bpy.props import BoolProperty, IntProperty, StringProperty
from bpy.types import Context, Operator

from ... import wire
from ...scene import presets, properties
from .reports import Done


class DISTILL_OT_output_size(Operator):
    """Set the resolution of the texture"""

    bl_idname = "distill.output_size"
    bl_label = "Resolution"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    width: IntProperty(default=512)
    height: IntProperty(default=512)

    def execute(self, context: Context) -> Done:
        parameters = properties.parameters_of(context.scene.distill)
        parameters.width, parameters.height = self.width, self.height
        return {"FINISHED"}


class DISTILL_OT_toggle_automatic(Operator):
    """Choose the value of this parameter, or reset it to automatic"""

    bl_idname = "distill.toggle_automatic"
    bl_label = "Automatic"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    name: StringProperty(name="Name")
    edit: BoolProperty(name="Edit", description="A parameter of the chosen edit", options={"SKIP_SAVE"})

    @classmethod
    def description(cls, context: Context, operator: Any) -> str:
        parameter = properties.automatic_parameters(context.scene.distill, operator.edit).get(operator.name)
        if parameter is None:  # the operator search has no name
            return tr(str(cls.__doc__))
        return f"{tr(parameter.help)}.\n{tr('Click to switch between an automatic value and your own')}"

    def execute(self, context: Context) -> Done:
        names = properties.automatic_parameters(context.scene.distill, self.edit)
        if self.name not in names:
            text = tr("No parameter “{}” can be automatic; choose one of {}")
            self.report({"ERROR"}, text.format(self.name, ", ".join(names)))
            return {"CANCELLED"}
        properties.toggle_automatic(context.scene.distill, self.name, self.edit)
        return {"FINISHED"}


class DISTILL_OT_choose_model(Operator):
    """Use this model"""

    bl_idname = "distill.choose_model"
    bl_label = "Model"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    name: StringProperty(name="Name")

    def execute(self, context: Context) -> Done:
        properties.parameters_of(context.scene.distill).model = self.name
        return {"FINISHED"}


class DISTILL_OT_random_seed(Operator):
    """Choose a random seed, which gives another texture with the same settings"""

    bl_idname = "distill.random_seed"
    bl_label = "Random Seed"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> Done:
        properties.parameters_of(context.scene.distill).seed = random.randrange(1_000_000)
        return {"FINISHED"}


def _preset_operator(kind: wire.JobKind) -> type[Operator]:
    """Blender's operator to save and delete presets, for the parameters of a job kind."""
    members = {
        "__doc__": "Save the parameters as a preset, or delete one. Presets contain neither seed nor model",
        "bl_idname": f"distill.preset_{kind.name}",
        "bl_label": "Save Preset",
        "bl_options": {"REGISTER", "INTERNAL"},  # the menus of the presets have it
        "preset_menu": f"DISTILL_MT_presets_{kind.name}",
        "preset_subdir": presets.subfolder(kind.name),
        "preset_defines": [f"settings = bpy.context.scene.distill.parameters_{kind.name}"],
        "preset_values": [f"settings.{name}" for name in presets.names(kind)],
    }
    return type(f"DISTILL_OT_preset_{kind.name}", (AddPresetBase, Operator), members)


classes = (
    DISTILL_OT_output_size,
    DISTILL_OT_toggle_automatic,
    DISTILL_OT_choose_model,
    DISTILL_OT_random_seed,
    *(_preset_operator(kind) for kind in presets.KINDS),
)
