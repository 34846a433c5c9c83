"""The sections Service and Models: where textures are computed, the jobs of other programs, and the models."""

from __future__ import annotations

from typing import Any

from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, UILayout

from ... import wire
from ...scene import preferences, queue, session
from .elements import SERVICE_ERRORS, capitalize, draw_text, in_both_editors


class Service:
    """The service that computes the textures, and the jobs that other programs have given to it."""

    bl_label = "Service"
    bl_options = {"DEFAULT_CLOSED"}
    layout: Any

    def draw_header(self, _context: Context) -> None:
        current = session.current()
        if current.error is not None and current.error.code in SERVICE_ERRORS:
            icon = "ERROR"
        elif current.connecting or current.service_message:
            icon = "SORTTIME"
        elif current.status is not None:
            icon = "CHECKMARK" if current.status.ready else "SORTTIME"
        else:
            icon = "UNLINKED"
        self.layout.label(text="", icon=icon)

    def draw(self, context: Context) -> None:
        layout = self.layout
        current = session.current()
        if current.status is not None:
            draw_text(layout, current.status.device or tr("Connected"), context)
        elif current.connecting or current.service_message:
            draw_text(layout, tr(current.service_message), context, "SORTTIME")
        elif preferences.may_start():
            draw_text(layout, tr("The service starts when a texture is requested"), context)
        row = layout.row(align=True)
        if current.status is None and not current.connecting:
            row.operator("distill.connect", icon="PLAY")
        else:
            row.operator("distill.connect", text="Reconnect", icon="FILE_REFRESH")
        row.operator("distill.preferences", text="", icon="PREFERENCES")
        foreign = current.foreign_jobs()
        if foreign:
            layout.label(text="Jobs of Other Programs")
        for status in foreign:
            row = layout.row()
            text = f"{queue.describe(status)}: {queue.state_of(status)}"
            draw_text(row, text, context, "SORTTIME" if status.state == "queued" else "RENDER_STILL", buttons=1)
            row.operator("distill.cancel_foreign", text="", icon="X", emboss=False).job = status.id


class Models:
    """The models that the service has, and those that it can download."""

    bl_label = "Models"
    bl_options = {"DEFAULT_CLOSED"}
    layout: Any

    def draw(self, context: Context) -> None:
        models = session.current().models
        if not models:
            draw_text(self.layout, tr("The models are listed when the service runs"), context, "INFO")
        for model in models:
            _draw_model(self.layout.box(), model, context)


def _draw_model(box: UILayout, model: wire.ModelEntry, context: Context) -> None:
    row = box.row()
    icon = {"installed": "CHECKMARK", "unusable": "ERROR"}.get(model.state, "IMPORT")
    row.label(text=model.title, icon=icon, translate=False)
    column = box.column(align=True)
    if model.purpose:
        draw_text(column, model.purpose, context)
    if model.state != "unusable":
        facts = [size_text(model.bytes)] if model.bytes else []
        facts += [tr("License: {}").format(model.license)] if model.license else []
        draw_text(column, ", ".join(facts), context)
    if model.problem is not None:
        draw_text(column, capitalize(wire.WireError.from_problem(model.problem).sentence), context, "ERROR")
    if model.state == "downloading":
        text = f"{size_text(model.received)} / {size_text(model.bytes)}"
        row = box.row(align=True)
        row.progress(factor=model.fraction, type="BAR", text=text)
        row.operator("distill.cancel_model", text="", icon="X").name = model.name
    elif model.state == "available":
        row = box.row(align=True)
        row.operator("distill.fetch_model", icon="IMPORT").name = model.name
        if model.problem is not None:
            row.operator("distill.cancel_model", text="", icon="X").name = model.name


def size_text(number: int) -> str:
    """`2.1 GB` or `48 MB`."""
    return f"{number / 1e9:.1f} GB" if number >= 5e8 else f"{number / 1e6:.0f} MB"


classes = (*in_both_editors(Service), *in_both_editors(Models, Service))
