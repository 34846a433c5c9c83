"""The section Results: the ended jobs of this file."""

from __future__ import annotations

from typing import Any

from bpy.types import Context, Image, UILayout

from ...link.records import QUALITY_METRICS, SEAM_METRICS, JobRecord, duration, metric_texts
from ...scene import materials, results, session
from .elements import draw_image, draw_text, in_both_editors

SHOWN_RESULTS = 8
ICONS = {"succeeded": "TEXTURE", "failed": "ERROR", "canceled": "CANCEL"}


class Results:
    """The ended jobs of this file, newest first."""

    bl_label = "Results"
    layout: Any

    def draw(self, context: Context) -> None:
        layout = self.layout
        current = session.current()
        ended = [r for r in current.of_this_file() if r.state == "succeeded" and r.job not in current.downloaded]
        material = materials.active_material()
        if material is not None and materials.PREVIOUS in material:
            layout.operator("distill.restore_previous", icon="LOOP_BACK")
            shading = getattr(context.space_data, "shading", None)
            if shading is not None and shading.type in {"WIREFRAME", "SOLID"}:
                layout.prop_enum(shading, "type", "MATERIAL", text="View in Material Preview")
        if not ended:
            layout.label(text="No results yet")
        for record in ended[:SHOWN_RESULTS]:
            _draw_ended(layout.box(), record, context)
        if (hidden := len(ended) - SHOWN_RESULTS) > 0:
            layout.label(text=f"{hidden} older result{'s are' if hidden > 1 else ' is'} not shown")


def _draw_ended(box: UILayout, record: JobRecord, context: Context) -> None:
    image = results.image_of(record.job)
    row = box.row()
    title = image.name if image else record.title
    row.label(text=f"Canceled: {title}" if record.state == "canceled" else title, icon=ICONS[record.state])
    if record.parameters:
        row.operator("distill.reuse_parameters", text="", icon="COPYDOWN", emboss=False).job = record.job
    row.operator("distill.dismiss", text="", icon="X", emboss=False).job = record.job
    if record.state != "succeeded":
        if record.sentence:
            draw_text(box, record.sentence, context)
        if record.request:
            box.operator("distill.fetch_result", text="Run Again", icon="FILE_REFRESH").job = record.job
    elif image is None:
        box.operator("distill.fetch_result", text="Download Again", icon="IMPORT").job = record.job
    else:
        _draw_result(box, record, image, context)


def _draw_result(box: UILayout, record: JobRecord, image: Image, context: Context) -> None:
    duration_text = [f"Took {duration(record.seconds)}"] if record.seconds else []
    seams = [text for text, _ in metric_texts(SEAM_METRICS, record.metrics)]
    draw_image(box, image, [f"{image.size[0]} x {image.size[1]}", f"Seed {record.seed}", *duration_text, *seams])
    for note in record.notes:
        draw_text(box, note, context, "INFO")
    if metrics := metric_texts(QUALITY_METRICS, record.metrics):
        _draw_metrics(box.column(align=True), context, metrics)
    row = box.row(align=True)
    if materials.in_use(materials.active_material(), record.job):
        row.label(text="Applied", icon="CHECKMARK")
    else:
        row.operator("distill.use_result", icon="MATERIAL").job = record.job
    row.operator("distill.show_result", icon="IMAGE_DATA").job = record.job


def _draw_metrics(column: UILayout, context: Context, metrics: list[tuple[str, str]]) -> None:
    """All metrics of a result with their tooltips; one click unfolds those of every result, to compare them."""
    manager = context.window_manager
    icon = "DOWNARROW_HLT" if manager.distill_show_metrics else "RIGHTARROW"
    row = column.row()
    row.alignment = "LEFT"
    row.prop(manager, "distill_show_metrics", icon=icon, emboss=False)
    if manager.distill_show_metrics:
        for text, help in metrics:
            row = column.row()
            row.scale_y = 0.8
            row.alignment = "LEFT"
            row.operator("distill.explain_metric", text=text, emboss=False).text = help


classes = in_both_editors(Results)
