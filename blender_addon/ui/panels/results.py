"""The section Results: a gallery of the results of this file, the active one large with its facts."""

from __future__ import annotations

from typing import Any

from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, Image, Menu, UILayout, WindowManager

from ...link.records import JobRecord, Rating, duration, rated_metrics
from ...scene import image_io, materials, result_assets, result_nodes, results, session, windows
from ...translations import OWN_CONTEXT
from .elements import draw_lines, draw_text, in_both_editors

CELL_WIDTH = 74
"""Width of a thumbnail with its button, in pixels at an interface scale of 1."""
ROWS = 3
"""Rows of thumbnails on a page of the gallery."""
SHOWN_JOBS = 3
"""How many results without images are shown."""
TILING = {"none": "does not tile", "x": "tiles along X", "y": "tiles along Y", "xy": "tiles"}
"""How a result repeats, by the parameter."""
RATING_ICONS = {Rating.GOOD: "CHECKMARK", Rating.FAIR: "DOT", Rating.POOR: "ERROR", Rating.NONE: "BLANK1"}


class Results:
    """The results of this file, newest first."""

    bl_label = "Results"
    layout: Any

    def draw(self, context: Context) -> None:
        layout, manager, current = self.layout, context.window_manager, session.current()
        found = results.all_results()
        ended = [r for r in current.of_this_file() if r.state == "succeeded" and r.job not in current.downloaded]
        _draw_without_images(layout, [r for r in ended if r.job not in found], context)
        if not found:
            if not ended:
                layout.label(text="No results yet")
            return
        chosen = results.Filter(manager.distill_only_favorites, manager.distill_swatch, manager.distill_search)
        shown = results.gallery(found, (r.job for r in ended), chosen)
        _draw_filter(layout, manager, len(results.swatches(found)) > 1)
        shown_job = result_nodes.shown_job(materials.active_material())
        if shown:
            _draw_grid(layout, context, shown, shown_job)
        else:
            text = tr("None of {} results matches").format(len(found))
            layout.label(text=text, icon="INFO", translate=False)
        active = found.get(manager.distill_result) or (shown[0] if shown else None)
        if active is not None:
            _draw_active(layout, context, active, shown_job)


class DISTILL_MT_swatches(Menu):
    """The swatches of the results"""

    bl_label = "Swatch"

    def draw(self, _context: Context) -> None:
        self.layout.operator("distill.gallery_swatch", text="All Swatches").name = ""
        for name in results.swatches(results.all_results()):
            self.layout.operator("distill.gallery_swatch", text=name, translate=False).name = name


class DISTILL_MT_result(Menu):
    """More actions for the active result"""

    bl_label = "More"

    def draw(self, context: Context) -> None:
        layout, job = self.layout, context.window_manager.distill_result
        item = layout.operator("distill.use_result", text="Apply to All Slots", icon="MATERIAL")
        item.job, item.slots = job, "ALL"
        layout.operator("distill.udim", text="Make UDIM Tiles...", icon="UV").job = job
        layout.separator()
        layout.operator("distill.reuse_parameters", icon="COPYDOWN").job = job
        layout.separator()
        layout.operator("distill.mark_asset", text="Mark as Asset in This File", icon="ASSET_MANAGER").job = job
        for name in result_assets.libraries():
            item = layout.operator(
                "distill.mark_asset", text=tr("Save to Asset Library {}").format(name), icon="ASSET_MANAGER"
            )
            item.job, item.library = job, name
        layout.operator("distill.save_result", text="Save to Files...", icon="EXPORT").job = job
        for which, text in (("FAVORITES", "Save All Favorites to Files..."), ("ALL", "Save All to Files...")):
            layout.operator("distill.save_result", text=text, icon="BLANK1").which = which
        layout.separator()
        layout.operator("distill.delete_unused", text="Delete Unused...", icon="BRUSH_DATA")


# ---------------------------------------------------------------------------------------------- without images


def _draw_without_images(layout: UILayout, records: list[JobRecord], context: Context) -> None:
    """Results whose images were deleted or are not in the file after undo."""
    for record in records[:SHOWN_JOBS]:
        box = layout.box()
        row = box.row()
        draw_text(row, tr("Not in this file: {}").format(record.title), context, "TEXTURE")
        row.operator("distill.dismiss", text="", icon="X", emboss=False).job = record.job
        box.operator("distill.fetch_result", text="Download Again", icon="IMPORT").job = record.job
    if (hidden := len(records) - SHOWN_JOBS) > 0:
        row = layout.row()
        row.label(text=tr("{} more are not in this file").format(hidden), translate=False)
        row.operator("distill.dismiss_missing", text="Clear", icon="X")


# ---------------------------------------------------------------------------------------------- the gallery


def _draw_filter(layout: UILayout, manager: WindowManager, has_swatches: bool) -> None:
    row = layout.row(align=True)
    row.prop(manager, "distill_search", text="", icon="VIEWZOOM")
    if has_swatches or manager.distill_swatch:
        row.menu("DISTILL_MT_swatches", text=manager.distill_swatch or tr("All Swatches"), translate=False)
    icon = "FUND" if manager.distill_only_favorites else "HEART"
    row.prop(manager, "distill_only_favorites", text="", icon=icon)


def _draw_grid(layout: UILayout, context: Context, images: list[Image], shown_job: str) -> None:
    """A page of thumbnails with a button each. Blender has no list of thumbnails since 5.0."""
    manager = context.window_manager
    scale = context.preferences.system.ui_scale
    columns = max(2, int((context.region.width - 40 * scale) / (CELL_WIDTH * scale)))
    size = columns * ROWS
    last = (len(images) - 1) // size
    page = min(manager.distill_page, last)
    active = manager.distill_result
    grid = layout.grid_flow(row_major=True, columns=columns, even_columns=True, even_rows=True, align=True)
    cells = images[page * size : (page + 1) * size]
    for image in cells:
        _draw_cell(grid.column(align=True), image, active, shown_job)
    for _ in range(columns - len(cells)):  # a single row does not grow to the whole width
        grid.column(align=True)
    if last > 0:
        row = layout.row(align=True)
        row.operator("distill.gallery_page", text="", icon="TRIA_LEFT").page = (page - 1) % (last + 1)
        text = row.row(align=True)
        text.alignment = "CENTER"
        shown = tr("{} to {} of {}").format(page * size + 1, page * size + len(cells), len(images))
        text.label(text=shown, translate=False)
        row.operator("distill.gallery_page", text="", icon="TRIA_RIGHT").page = (page + 1) % (last + 1)


def _draw_cell(column: UILayout, image: Image, active: str, shown_job: str) -> None:
    job = image[materials.JOB]
    _draw_thumbnail(column, image, 3.4)
    seed = f"{image.get('distill_seed', 0)}"
    icon = "FUND" if image.get(results.FAVORITE) else ("MATERIAL" if job == shown_job else "NONE")
    column.operator("distill.select_result", text=seed, icon=icon, depress=job == active, translate=False).job = job


def _draw_thumbnail(layout: UILayout, image: Image, scale: float) -> None:
    """An image's preview. Blender makes it in the background, and does not draw the panel again when it is ready."""
    preview = image.preview_ensure()
    layout.template_icon(preview.icon_id if preview is not None else 0, scale=scale)
    if preview is not None and not preview.image_size[0]:
        windows.redraw_soon()


# ---------------------------------------------------------------------------------------------- the active result


def _draw_active(layout: UILayout, context: Context, image: Image, shown_job: str) -> None:
    job = image[materials.JOB]
    record = session.current().records.get(job) or results.record_of(image)
    box = layout.box()
    row = box.row(align=True)
    draw_lines(row, image.name, context)
    favorite = "FUND" if image.get(results.FAVORITE) else "HEART"
    row.operator("distill.favorite", text="", icon=favorite, emboss=False).job = job
    row.operator("distill.delete_result", text="", icon="TRASH", emboss=False).job = job
    _draw_thumbnail(box, image, 7.0)
    _draw_facts(box, record, image)
    row = box.row(align=True)
    if job == shown_job:
        row.operator("distill.restore_previous", text="Restore", icon="LOOP_BACK")
    else:
        row.operator("distill.use_result", icon="MATERIAL").job = job
    row.operator("distill.show_result", icon="IMAGE_DATA").job = job
    row.menu("DISTILL_MT_result", text="", icon="DOWNARROW_HLT")
    shading = getattr(context.space_data, "shading", None)
    if job == shown_job and shading is not None and shading.type in {"WIREFRAME", "SOLID"}:
        box.prop_enum(shading, "type", "MATERIAL", text="View in Material Preview")
    row = box.row(align=True)
    row.operator("distill.more_like_this", icon="ADD").job = job
    row.operator("distill.again_exactly", icon="FILE_REFRESH").job = job
    for note in record.notes:
        draw_text(box, note, context, "INFO")
    _draw_metrics(box.column(align=True), context, record)
    _draw_compare(box, context, job)


def _draw_facts(box: UILayout, record: JobRecord, image: Image) -> None:
    width, height = image_io.size_of(image)
    lines = [f"{width} x {height}"]
    if shape := TILING.get(str(record.parameters.get("tile", ""))):
        lines[0] += f", {tr(shape)}"
    lines.append(tr("Seed {}").format(record.seed))
    if record.seconds:
        lines[1] += f", {tr('took {}').format(duration(record.seconds))}"
    if layout := record.sources.get("layout", ""):
        lines.append(tr("Layout: {}").format(layout))
    column = box.column(align=True)
    column.scale_y = 0.8
    for text in lines:
        column.label(text=text, translate=False)


def _draw_metrics(column: UILayout, context: Context, record: JobRecord) -> None:
    """The measurements with an icon for how good each is; the share of copies is shown when the others are folded."""
    metrics = rated_metrics(record.metrics)
    if not metrics:
        return
    manager = context.window_manager
    icon = "DOWNARROW_HLT" if manager.distill_show_metrics else "RIGHTARROW"
    row = column.row()
    row.alignment = "LEFT"
    row.prop(manager, "distill_show_metrics", icon=icon, emboss=False)
    for text, help, rating in metrics if manager.distill_show_metrics else metrics[:1]:
        row = column.row()
        row.scale_y = 0.8
        row.alignment = "LEFT"
        row.operator("distill.explain_metric", text=text, icon=RATING_ICONS[rating], emboss=False).text = help


def _draw_compare(box: UILayout, context: Context, job: str) -> None:
    """The result that the active one is compared with, and the ways to do so."""
    manager = context.window_manager
    other = results.image_of(manager.distill_compare) if manager.distill_compare else None
    if other is None:
        row = box.row()
        row.operator("distill.compare", text="Compare with Another", icon="ARROW_LEFTRIGHT").job = job
        return
    if manager.distill_compare == job:
        box.label(text="Choose the result to compare with", icon="INFO")
        box.operator("distill.compare", text="End Comparison", icon="X").job = ""
        return
    column = box.column(align=True)
    draw_lines(column, tr("Compared with {}").format(other.name), context, "ARROW_LEFTRIGHT")
    row = column.row(align=True)
    row.operator("distill.compare_switch", text="Switch", text_ctxt=OWN_CONTEXT, icon="MATERIAL")
    row.operator("distill.compare_split", icon="MOD_MIRROR", depress=manager.distill_split_on)
    row.operator("distill.compare", text="", icon="X").job = ""
    if manager.distill_split_on:
        column.prop(manager, "distill_split", slider=True)


classes = (DISTILL_MT_swatches, DISTILL_MT_result, *in_both_editors(Results))
