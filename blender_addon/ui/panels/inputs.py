"""The section Input: the kind of job, its pictures without label maps, and what of the swatch is used."""

from __future__ import annotations

from typing import Any

from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, PropertyGroup, UILayout

from ... import wire
from ...scene import properties, session
from ...scene.plans import estimate
from ..operators.image_tool import is_running
from ..operators.swatch_tools import DISTILL_OT_straighten_swatch
from .elements import (
    draw_image,
    draw_image_choice,
    draw_lines,
    draw_text,
    in_both_editors,
    property_column,
    side_by_side,
    wrap,
)
from .parameters import draw_parameter

USUAL_PLAN, USUAL_ESTIMATE = "Uses 3210 x 3000 of 4000 x 3000, at 29%", "About 40 s, 0.8 GB of memory"
"""As long as most plans, so that the panel does not move when a plan arrives."""


class Input:
    """The kind of job, its pictures, and what of the swatch is used."""

    bl_label = "Input"
    layout: Any

    def draw(self, context: Context) -> None:
        settings = context.scene.distill
        self.layout.row().prop(settings, "kind", expand=True)
        for picture in properties.kind_of(settings).pictures:
            if picture.role != "labels":
                _draw_picture(self.layout, context, picture)
        if settings.image_swatch is not None:
            _draw_swatch(self.layout, context, settings)


def _draw_picture(layout: UILayout, context: Context, picture: wire.Picture) -> None:
    """A picture: the choice of an image, and how to get one if there is none."""
    settings = context.scene.distill
    image = getattr(settings, f"image_{picture.name}")
    column = layout.column(align=True)
    column.label(text=properties.label(picture.name))
    draw_image_choice(column, context, settings, f"image_{picture.name}")
    if image is not None:
        row = column.row(align=True)
        row.operator("distill.picture_from_material", icon="MATERIAL").picture = picture.name
        if context.area.type == "IMAGE_EDITOR" and context.area.spaces.active.image not in (None, image):
            row.operator("distill.picture_from_editor", icon="IMAGE_DATA").picture = picture.name
        unsaved = [tr("Unsaved changes")] if image.is_dirty else []
        draw_image(layout, image, [f"{image.size[0]} x {image.size[1]}", *unsaved])
        return
    if picture.name == "swatch":
        text = tr("Open a photograph or a scan of a material, or drop its file into the view")
        draw_text(layout, text, context, "INFO")
    buttons = side_by_side(layout, context)
    buttons.operator("distill.picture_from_material", icon="MATERIAL").picture = picture.name
    buttons.operator("distill.picture_paste", icon="PASTEDOWN").picture = picture.name
    if context.area.type == "IMAGE_EDITOR" and context.area.spaces.active.image is not None:
        layout.operator("distill.picture_from_editor", icon="IMAGE_DATA").picture = picture.name
    if picture.name == "swatch":
        layout.operator("distill.example", icon="OUTLINER_OB_LIGHT")


def _draw_swatch(layout: UILayout, context: Context, settings: PropertyGroup) -> None:
    """What of the swatch is used, and at which size."""
    group = properties.parameters_of(settings)
    _draw_plan(layout, context)
    buttons = side_by_side(layout, context)
    buttons.operator("distill.crop_swatch", text="Crop", icon="SELECT_SET", depress=bool(group.crop))
    buttons.operator("distill.straighten_swatch", text="Straighten", icon="MOD_LATTICE", depress=bool(group.corners))
    if is_running(context):
        draw_text(layout, tr("In the Image Editor, Enter applies and Escape cancels"), context, "INFO")
    elif group.crop or group.corners or group.lens:
        layout.operator("distill.whole_swatch", icon="LOOP_BACK")
    column = property_column(layout, context)
    kind = properties.kind_of(settings)
    straightening = is_running(context, DISTILL_OT_straighten_swatch)
    if group.corners or group.lens or straightening:
        draw_parameter(column, settings, kind.parameter("lens"))
    for name in ("scale", "real_width"):
        draw_parameter(column, settings, kind.parameter(name))
    draw_parameter(column, settings, kind.parameter("even_light"))
    if group.even_light > 0:
        split = column.split(factor=0.4)
        split.label()
        split.operator("distill.compare_swatch", text="Compare", icon="SPLIT_HORIZONTAL")


def _draw_plan(layout: UILayout, context: Context) -> None:
    """What a job would use, its time and memory, and what the artist should know; gray while it is out of date."""
    if session.current().status is None:
        return
    plans, scene = session.current().plans, context.scene
    current, newest = plans.current(scene), plans.newest(scene)
    column = layout.column()
    column.active = current is not None
    if (shown := current or newest) is not None:
        draw_text(column, shown.sentence, context)
        if text := estimate(shown):
            draw_text(column, text, context, "TIME")
    elif not plans.notes(scene):
        draw_text(column, "Measuring the swatch", context, least=len(wrap(USUAL_PLAN, context)))
        draw_lines(column, "", context, least=len(wrap(USUAL_ESTIMATE, context, 1)))
    for note in plans.notes(scene):
        draw_text(layout, note, context, "INFO")


classes = in_both_editors(Input)
