"""The section Edit: what is changed in a finished picture, its mask, and the parameters of the edit."""

from __future__ import annotations

from typing import Any

from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, PropertyGroup, UILayout

from ...scene import edits, properties, results
from .elements import draw_image, draw_text, in_both_editors, property_column
from .parameters import draw_edit_parameters

COLUMNS = 2
"""Edits side by side."""


class Edit:
    """Edits a finished picture with its maps."""

    bl_label = "Edit"
    bl_options = {"DEFAULT_CLOSED"}
    layout: Any

    def draw(self, context: Context) -> None:
        settings, layout = context.scene.distill, self.layout
        grid = layout.grid_flow(row_major=True, columns=COLUMNS, even_columns=True, align=True)
        for name in properties.EDIT_KINDS:
            grid.prop_enum(settings, "edit", name)
        kind = edits.kind_of(settings)
        draw_text(layout, kind.help, context)
        _draw_target(layout, context, settings)
        if edits.takes(settings, "mask"):
            _draw_mask(layout, context, settings)
        column = property_column(layout, context)
        draw_edit_parameters(column, settings, advanced=False)
        row = layout.row()
        row.scale_y = 1.4
        row.operator("distill.edit", text=kind.title, icon="BRUSHES_ALL")
        if missing := edits.missing(context):
            draw_text(layout, missing, context, "INFO")


class EditAdvanced:
    """Parameters of the edit's algorithm."""

    bl_label = "Advanced Edit"
    bl_options = {"DEFAULT_CLOSED"}
    layout: Any

    def draw(self, context: Context) -> None:
        column = property_column(self.layout, context)
        draw_edit_parameters(column, context.scene.distill, advanced=True)


def _draw_target(layout: UILayout, context: Context, settings: PropertyGroup) -> None:
    """The picture that is edited: a choice of an image, or the active result."""
    name = f"image_{edits.edited_picture(edits.kind_of(settings))}"
    column = layout.column(align=True)
    column.label(text="Picture")
    column.template_ID(settings, name, open="image.open")
    image = edits.target(context)
    if image is None:
        return
    lines = [f"{image.size[0]} x {image.size[1]}"]
    if getattr(settings, name) is None:
        lines.insert(0, tr("Active result: {}").format(image.name))
    job = str(image.get("distill_job", ""))
    count = len(results.images_of(job)) - 1 if job else 0
    if count > 0:
        lines.append(tr("with {} maps").format(count))
    draw_image(layout, image, lines)


def _draw_mask(layout: UILayout, context: Context, settings: PropertyGroup) -> None:
    column = layout.column(align=True)
    column.label(text="Mask")
    column.template_ID(settings, "image_mask", open="image.open")
    row = column.row(align=True)
    row.operator("distill.mask_paint", icon="GREASEPENCIL")
    row.operator("distill.mask_clear", text="", icon="TRASH")
    manager = context.window_manager
    if settings.image_mask is not None:
        row = column.row(align=True)
        row.prop(manager, "distill_overlay", toggle=True, icon="OVERLAY")
        part = row.row(align=True)
        part.active = manager.distill_overlay
        part.prop(manager, "distill_overlay_strength", slider=True)


classes = (*in_both_editors(Edit), *in_both_editors(EditAdvanced, Edit))
