"""The sections Output and Advanced: the parameters of the chosen job kind."""

from __future__ import annotations

from typing import Any

from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, Menu, PropertyGroup, UILayout

from ... import wire
from ...scene import properties, session, swatch
from .elements import in_both_editors, property_column
from .presets import draw_presets

SIZES = (512, 1024, 2048, 4096)
"""Sides of the square textures that have a button, in pixels."""


class Output:
    """Resolution, tiling, seed and quality of the texture."""

    bl_label = "Output"
    layout: Any

    def draw_header_preset(self, context: Context) -> None:
        draw_presets(self.layout, context)

    def draw(self, context: Context) -> None:
        _draw_parameters(self.layout, context, advanced=False)


class Advanced:
    """Parameters of the algorithm."""

    bl_label = "Advanced"
    bl_options = {"DEFAULT_CLOSED"}
    layout: Any

    def draw(self, context: Context) -> None:
        _draw_parameters(self.layout, context, advanced=True)


class DISTILL_MT_models(Menu):
    """The models that the service has, and those that it can download."""

    bl_label = "Models"

    def draw(self, _context: Context) -> None:
        models = session.current().models
        for model in [model for model in models if model.state == "installed"]:
            self.layout.operator("distill.choose_model", text=model.name, translate=False).name = model.name
        self.layout.separator()
        for model in [model for model in models if model.state == "available"]:
            text = tr("Download {}").format(model.title)
            self.layout.operator("distill.fetch_model", text=text, icon="IMPORT", translate=False).name = model.name


def _draw_parameters(layout: UILayout, context: Context, advanced: bool) -> None:
    settings = context.scene.distill
    column = property_column(layout, context)
    for parameter in properties.kind_of(settings).parameters:
        if parameter.advanced == advanced and parameter.name not in swatch.PARAMETERS:  # those are in Input
            draw_parameter(column, settings, parameter)


def draw_parameter(column: UILayout, settings: PropertyGroup, parameter: wire.Parameter) -> None:
    """A parameter of the chosen job kind; with a button if its value is automatic."""
    draw = _SPECIAL.get(parameter.name) or (_draw_value if parameter.automatic is None else _draw_automatic)
    draw(column, settings, parameter)


def _draw_value(column: UILayout, settings: PropertyGroup, parameter: wire.Parameter) -> None:
    column.prop(properties.parameters_of(settings), parameter.name)


def _draw_automatic(column: UILayout, settings: PropertyGroup, parameter: wire.Parameter) -> None:
    """The value with a button to reset it, or a button “Automatic” in its place."""
    group = properties.parameters_of(settings)
    if getattr(group, parameter.name) == parameter.automatic:
        block = column.split(factor=0.4) if column.use_property_split else column.column(align=True)
        label = block.row()
        label.alignment = "RIGHT" if column.use_property_split else "LEFT"
        label.label(text=properties.label(parameter.name))
        text = properties.AUTOMATIC_LABELS.get(parameter.name, "Automatic")
        block.operator("distill.toggle_automatic", text=text).name = parameter.name
    else:
        row = column.row(align=True)
        row.prop(group, parameter.name)
        row.operator("distill.toggle_automatic", text="", icon="LOOP_BACK").name = parameter.name


def _draw_size(column: UILayout, settings: PropertyGroup, parameter: wire.Parameter) -> None:
    """Width and height together, with buttons for common sizes."""
    group = properties.parameters_of(settings)
    block = column.column(align=True)
    row = block.row(align=True)
    automatic = {} if parameter.automatic is None else {"Auto": parameter.automatic}
    for text, size in (automatic | {str(size): size for size in SIZES}).items():
        button = row.operator("distill.output_size", text=text, depress=group.width == group.height == size)
        button.width = button.height = size
    if not group.width == group.height == parameter.automatic:
        row = block.row(align=True)
        row.use_property_split = False
        row.prop(group, "width")
        row.prop(group, "height")
    width, height = properties.output_size(settings)
    if (group.width, group.height) != (width, height):  # automatic, or not a multiple of what the job makes
        block.label(text=tr("Size of the texture: {} x {}").format(width, height), translate=False)


def _draw_nothing(_column: UILayout, _settings: PropertyGroup, _parameter: wire.Parameter) -> None:
    """For the height, which is drawn with the width."""


def _draw_model(column: UILayout, settings: PropertyGroup, parameter: wire.Parameter) -> None:
    row = column.row(align=True)
    _draw_value(row, settings, parameter)
    if session.current().models:
        row.menu("DISTILL_MT_models", text="", icon="DOWNARROW_HLT")


def _draw_seed(column: UILayout, settings: PropertyGroup, parameter: wire.Parameter) -> None:
    row = column.row(align=True)
    _draw_value(row, settings, parameter)
    row.operator("distill.random_seed", text="", icon="FILE_REFRESH")
    column.prop(settings, "variations")


_SPECIAL = {
    "model": _draw_model,
    "width": _draw_size,
    "height": _draw_nothing,
    "seed": _draw_seed,
}
"""Parameters that are not drawn as a plain property."""

classes = (DISTILL_MT_models, *in_both_editors(Output), *in_both_editors(Advanced, Output))
