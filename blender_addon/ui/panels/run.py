"""The section Run, above all others: the button, what is missing, errors, and the jobs without a result."""

from __future__ import annotations

from typing import Any

from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, UILayout

from ...link.records import JobRecord
from ...scene import materials, properties, queue, requests, session
from .elements import SERVICE_ERRORS, draw_error, draw_lines, draw_text, in_both_editors, is_narrow

SHOWN_UNFINISHED = 4
"""How many failed and canceled jobs are listed, the newest ones."""


class Run:
    """Submits jobs, and shows those that run, wait, failed or were canceled."""

    bl_label = "Run"
    layout: Any

    def draw(self, context: Context) -> None:
        layout = self.layout
        current = session.current()
        settings = context.scene.distill
        row = layout.row()
        row.scale_y = 1.6
        title, count = properties.kind_of(settings).title, settings.variations
        text = title if count == 1 else tr("{} {} Variations").format(tr(title), count)
        row.operator("distill.run", text=text, icon="RENDER_STILL")
        if missing := requests.missing(context.scene):
            draw_text(layout, missing, context, "INFO")
        elif current.is_recalling:
            draw_text(layout, "The pictures of the result are being downloaded", context, "SORTTIME")
        else:
            for warning in requests.warnings(context):
                draw_text(layout, warning, context, "INFO")
            if settings.use_at_once and materials.linked_materials(materials.target_objects(context)):
                layout.operator("distill.make_local", icon="LIBRARY_DATA_OVERRIDE")
        _draw_model(layout, context)
        if current.error is not None:
            draw_error(layout, context, current.error)
        elif current.status is None and current.service_message:
            draw_text(layout, tr(current.service_message), context, "SORTTIME")
        jobs = current.of_this_file()
        active = [record for record in reversed(jobs) if record.active]
        if len(active) > 1:
            layout.operator("distill.cancel", text="Cancel All", icon="X").job = ""
        for record in active:
            _draw_active(layout, record, context)
        for record in [record for record in jobs if record.state in ("failed", "canceled")][:SHOWN_UNFINISHED]:
            _draw_unfinished(layout, record, context)
        for record in current.of_other_files():
            _draw_other(layout, record, context)
        layout.prop(settings, "use_at_once", text="Apply Results" if is_narrow(context) else None)


def _draw_model(layout: UILayout, context: Context) -> None:
    """The chosen model, if the service does not have it: its download, or a button that begins it."""
    group = properties.parameters_of(context.scene.distill)
    current = session.current()
    if not current.models or not hasattr(group, "model"):
        return
    model = current.model(group.model)
    if model is None:
        draw_text(layout, tr("There is no model “{}”; choose another one").format(group.model), context, "ERROR")
    elif model.state == "downloading":
        text = tr("Downloading {}").format(model.title)
        layout.progress(factor=model.fraction, type="BAR", text=f"{text}: {model.fraction:.0%}")
    elif model.state == "available":
        draw_text(layout, tr("The model “{}” is not downloaded yet").format(model.title), context, "INFO")
        layout.operator("distill.fetch_model", icon="IMPORT").name = model.name


def _draw_active(layout: UILayout, record: JobRecord, context: Context) -> None:
    current = session.current()
    box = layout.box()
    row = box.row()
    draw_lines(row, record.title, context, "SORTTIME", buttons=1)
    row.operator("distill.cancel", text="", icon="X", emboss=False).job = record.job
    if record.state == "queued":
        titles = {job: known.title for job, known in current.records.items()}
        text = queue.waiting_text(record.job, current.queue, titles) or tr(current.progress_text(record))
        draw_text(box, text, context)
        return
    box.progress(factor=record.fraction, type="BAR", text=current.progress_text(record))
    if icon := current.preview_icon(record.job):
        box.template_icon(icon, scale=8.0)


def _draw_unfinished(layout: UILayout, record: JobRecord, context: Context) -> None:
    """A failed or canceled job, with what can be done about it. An error of the service is drawn once, above."""
    current = session.current()
    box = layout.box()
    row = box.row(align=True)
    failed = record.state == "failed"
    text = tr("Failed: {}") if failed else tr("Canceled: {}")
    draw_lines(row, text.format(record.title), context, "ERROR" if failed else "CANCEL", buttons=3)
    if record.parameters:
        row.operator("distill.reuse_parameters", text="", icon="COPYDOWN", emboss=False).job = record.job
    if not failed and current.can_retry(record):
        row.operator("distill.fetch_result", text="", icon="FILE_REFRESH", emboss=False).job = record.job
    row.operator("distill.dismiss", text="", icon="X", emboss=False).job = record.job
    if not failed:
        return
    if record.code == "service-unreachable" and current.can_retry(record):
        draw_text(box, tr("It continues as soon as the service responds"), context)
        if current.error is None:  # otherwise the error above has the button
            box.operator("distill.connect", text="Start Service", icon="PLAY")
        return
    if record.sentence and not (current.error is not None and record.code in SERVICE_ERRORS):
        draw_text(box, record.sentence, context)
    if current.can_retry(record):
        box.operator("distill.fetch_result", text="Run Again", icon="FILE_REFRESH").job = record.job


def _draw_other(layout: UILayout, record: JobRecord, context: Context) -> None:
    """A job of another file."""
    box = layout.box()
    downloaded = record.job in session.current().downloaded
    state = tr("ready") if downloaded else session.current().progress_text(record)
    draw_text(box, tr("Job of another file: {}, {}").format(record.title, state), context, "FILE_BLEND")
    if downloaded:
        box.operator("distill.fetch_result", text="Import into This File", icon="IMPORT").job = record.job
    else:
        box.operator("distill.cancel", icon="X").job = record.job


classes = in_both_editors(Run)
