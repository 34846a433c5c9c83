"""The section Run: the button, errors of a job, and the active jobs."""

from __future__ import annotations

from typing import Any

from bpy.types import Context, UILayout

from ...link.records import JobRecord
from ...scene import properties, requests, session
from .elements import SERVICE_ERRORS, draw_error, draw_text, in_both_editors


class Run:
    """Submits jobs, and shows the active ones."""

    bl_label = "Run"
    layout: Any

    def draw(self, context: Context) -> None:
        layout = self.layout
        current = session.current()
        settings = context.scene.distill
        row = layout.row()
        row.scale_y = 1.6
        title, count = properties.kind_of(settings).title, settings.variations
        text = title if count == 1 else f"{title} {count} Variations"
        row.operator("distill.run", text=text, icon="RENDER_STILL")
        if missing := requests.missing(context.scene):
            draw_text(layout, missing, context, "INFO")
        layout.prop(settings, "use_at_once")
        if current.error is not None and current.error.code not in SERVICE_ERRORS:
            draw_error(layout, context, current.error)
        active = [r for r in reversed(current.of_this_file()) if r.active]
        if len(active) > 1:
            layout.operator("distill.cancel", text="Cancel All", icon="X").job = ""
        for record in active:
            _draw_active(layout, record)
        for record in current.of_other_files():
            _draw_other(layout, record, context)


def _draw_active(layout: UILayout, record: JobRecord) -> None:
    box = layout.box()
    row = box.row()
    waiting = record.state == "queued"
    row.label(text=f"{record.title}: {record.progress_text()}" if waiting else record.title, icon="SORTTIME")
    row.operator("distill.cancel", text="", icon="X", emboss=False).job = record.job
    if waiting:
        return
    box.progress(factor=record.fraction, type="BAR", text=record.progress_text())
    if icon := session.current().preview_icon(record.job):
        box.template_icon(icon, scale=8.0)


def _draw_other(layout: UILayout, record: JobRecord, context: Context) -> None:
    """A job of another file."""
    box = layout.box()
    downloaded = record.job in session.current().downloaded
    state = "ready" if downloaded else record.progress_text()
    draw_text(box, f"Job of another file: {record.title}, {state}", context, "FILE_BLEND")
    if downloaded:
        box.operator("distill.fetch_result", text="Import into This File", icon="IMPORT").job = record.job
    else:
        box.operator("distill.cancel", icon="X").job = record.job


classes = in_both_editors(Run)
