"""The tab “Distill” in the sidebars of the 3D View and the Image Editor."""

from __future__ import annotations

from collections.abc import Callable

import bpy
from bpy.types import Context, Menu, Panel, PropertyGroup, UILayout, UIList

from ... import wire
from ...link import background
from ...link.records import FIGURES, SEAMS, Record, duration
from ...scene import materials, preferences, properties, regions, requests, session

SPACES = ("VIEW_3D", "IMAGE_EDITOR")
SIZES = (512, 1024, 2048, 4096)
SHOWN_RESULTS = 8
SERVICE_ERRORS = (*background.SERVICE_ERRORS, "device-unavailable")
"""Errors that the panel shows with the service; the others are shown where the job is asked for."""


def _sentence(layout: UILayout, text: str, context: Context, icon: str = "NONE") -> None:
    """A sentence in as many lines as it needs; labels do not break lines."""
    letters = max(20, int(context.region.width / (6.4 * context.preferences.system.ui_scale)) - 6)
    column = layout.column(align=True)
    column.scale_y = 0.8
    line = ""
    for word in _capitalized(text).split():
        if line and len(line) + 1 + len(word) > letters:
            column.label(text=line, icon=icon)
            line, icon = "", "BLANK1" if icon != "NONE" else "NONE"
        line = f"{line} {word}" if line else word
    column.label(text=line, icon=icon)


def _capitalized(text: str) -> str:
    """The service's sentences begin small, since a program's name goes before them in a terminal."""
    return text[:1].upper() + text[1:]


# ---------------------------------------------------------------------------------------------- sub-panels


def draw_service(layout: UILayout, context: Context) -> None:
    desk = session.desk
    row = layout.row(align=True)
    if desk.status is not None:
        row.label(text=desk.status.device or "Connected")
        row.operator("distill.connect", text="", icon="FILE_REFRESH")
    elif desk.connecting or desk.note:
        row.label(text=_capitalized(desk.note), icon="SORTTIME")
    else:
        row.operator("distill.connect", text="Connect", icon="LINKED")
    row.operator("distill.preferences", text="", icon="PREFERENCES")
    if desk.error is not None and desk.error.code in SERVICE_ERRORS:
        _draw_error(layout, context, desk.error)


def _draw_error(layout: UILayout, context: Context, error: wire.WireError) -> None:
    """An error, what to do about it, and the buttons that do it."""
    box = layout.box()
    _sentence(box, error.sentence, context, "ERROR")
    row = box.row(align=True)
    for operator, text, settings in _remedies(error):
        button = row.operator(operator, text=text)
        for name, value in settings.items():
            setattr(button, name, value)
    row.operator("distill.dismiss_error", text="Dismiss")


def _remedies(error: wire.WireError) -> list[tuple[str, str, dict[str, str]]]:
    """The buttons that may mend an error: operator, text, settings."""
    if error.code in SERVICE_ERRORS:
        place = preferences.place()
        if error.code != "service-unreachable" or place.url:
            return [("distill.connect", "Reconnect", {})]
        if background.client.executable_of(place):
            return [("distill.connect", "Start", {})]
        return [("distill.preferences", "Preferences", {})]
    if error.code == "invalid-labels" and "have no region's colour" in error.detail:
        picture = "regions" if "of the region map" in error.detail else "layout"
        return [("distill.clean", "Clean Up", {"picture": picture})]
    return []


def draw_swatch(layout: UILayout, context: Context) -> None:
    settings = context.scene.distill
    layout.row().prop(settings, "kind", expand=True)
    pictures = [p for p in properties.kind_of(settings).pictures if p.name not in ("regions", "layout")]
    for picture in pictures:
        column = layout.column(align=True)
        if len(pictures) > 1:
            column.label(text=properties.title(picture.name))
        column.template_ID(settings, f"image_{picture.name}", open="image.open")
        row = column.row(align=True)
        row.operator("distill.picture_from_material", icon="MATERIAL").picture = picture.name
        if context.area.type == "IMAGE_EDITOR":
            row.operator("distill.picture_from_editor", icon="IMAGE_DATA").picture = picture.name
        if (image := getattr(settings, f"image_{picture.name}")) is not None:
            facts = [f"{image.size[0]} x {image.size[1]}", *(["Painted on"] if image.is_dirty else [])]
            _show_image(layout, image, facts)


def _show_image(layout: UILayout, image: bpy.types.Image, facts: list[str]) -> None:
    """A picture, and beside it what there is to say of it."""
    split = layout.split(factor=0.35)
    preview = image.preview_ensure()
    if preview is not None and preview.icon_id:
        split.template_icon(preview.icon_id, scale=4.0)
    column = split.column(align=True)
    column.scale_y = 0.8
    for text in facts:
        column.label(text=text)


class DISTILL_UL_regions(UIList):  # noqa: N801
    """Regions: colour and name."""

    def draw_item(
        self,
        _context: Context,
        layout: UILayout,
        _settings: PropertyGroup,
        region: PropertyGroup,
        _icon: int,
        _active: PropertyGroup,
        _name: str,
        _index: int = 0,
        _flag: int = 0,
    ) -> None:
        row = layout.row(align=True)
        color = row.row()
        color.scale_x = 0.4
        color.prop(region, "color", text="")
        row.prop(region, "name", text="", emboss=False)


def draw_layout(layout: UILayout, context: Context) -> None:
    settings = context.scene.distill
    layout.active = settings.use_layout
    row = layout.row()
    row.template_list("DISTILL_UL_regions", "", settings, "regions", settings, "region_index", rows=3)
    column = row.column(align=True)
    column.operator("distill.region_add", text="", icon="ADD")
    column.operator("distill.region_remove", text="", icon="REMOVE")
    column.operator("distill.regions_from_map", text="", icon="EYEDROPPER")

    column = layout.column(align=True)
    column.label(text="Region Map over the Swatch")
    column.template_ID(settings, "image_regions", open="image.open")
    row = column.row(align=True)
    row.operator("distill.region_map_new", text="New", icon="IMAGE_DATA").method = "OVER"
    row.operator("distill.region_map_new", text="By Color", icon="COLOR").method = "COLOR"
    _paint_button(row, "regions", "EDITOR", "Paint", "GREASEPENCIL", settings.image_regions is not None)

    column = layout.column(align=True)
    column.label(text="Layout of the Texture")
    column.template_ID(settings, "image_layout", open="image.open")
    row = column.row(align=True)
    row.operator("distill.layout_new", text="New", icon="IMAGE_DATA")
    there = settings.image_layout is not None
    part = row.row(align=True)
    part.enabled = there
    part.operator("distill.clean", text="Clean Up", icon="BRUSH_DATA").picture = "layout"
    row = column.row(align=True)
    _paint_button(row, "layout", "EDITOR", "Paint", "GREASEPENCIL", there)
    _paint_button(row, "layout", "MODEL", "Paint on Model", "TPAINT_HLT", there)
    if there and regions.is_stretched(settings.image_layout, *properties.output_size(settings)):
        _sentence(layout, "The layout has another shape than the texture and will be stretched", context, "INFO")


def _paint_button(row: UILayout, picture: str, where: str, text: str, icon: str, there: bool) -> None:
    part = row.row(align=True)
    part.enabled = there
    button = part.operator("distill.paint", text=text, icon=icon)
    button.picture, button.where = picture, where


def draw_output(layout: UILayout, context: Context) -> None:
    settings = context.scene.distill
    column = layout.column()
    column.use_property_split = True
    column.use_property_decorate = False
    for parameter in properties.kind_of(settings).parameters:
        if not parameter.advanced:
            _DRAWN_APART.get(parameter.name, _draw_plainly)(column, settings, parameter.name)


def _draw_plainly(column: UILayout, settings: PropertyGroup, name: str) -> None:
    column.prop(properties.parameters_of(settings), name)


def _draw_width(column: UILayout, settings: PropertyGroup, name: str) -> None:
    block = column.column(align=True)
    row = block.row(align=True)
    automatic = properties.kind_of(settings).parameter(name).automatic
    sizes = {str(size): size for size in SIZES}
    group = properties.parameters_of(settings)
    for text, size in (sizes if automatic is None else {"Auto": automatic} | sizes).items():
        button = row.operator("distill.output_size", text=text, depress=group.width == group.height == size)
        button.width = button.height = size
    row = block.row(align=True)
    row.use_property_split = False
    row.prop(group, "width")
    row.prop(group, "height")


def _drawn_with_width(_column: UILayout, _settings: PropertyGroup, _name: str) -> None:
    pass


def _draw_model(column: UILayout, settings: PropertyGroup, name: str) -> None:
    row = column.row(align=True)
    _draw_plainly(row, settings, name)
    if session.desk.status is not None:
        row.menu("DISTILL_MT_models", text="", icon="DOWNARROW_HLT")


def _draw_seed(column: UILayout, settings: PropertyGroup, name: str) -> None:
    row = column.row(align=True)
    _draw_plainly(row, settings, name)
    row.operator("distill.random_seed", text="", icon="FILE_REFRESH")
    column.prop(settings, "variations")


def _draw_preset(column: UILayout, settings: PropertyGroup, name: str) -> None:
    row = column.row()
    row.use_property_split = False
    row.prop(properties.parameters_of(settings), name, expand=True)


_DRAWN_APART = {
    "model": _draw_model,
    "width": _draw_width,
    "height": _drawn_with_width,
    "seed": _draw_seed,
    "preset": _draw_preset,
}


class DISTILL_MT_models(Menu):  # noqa: N801
    """The models that the service has."""

    bl_label = "Models"

    def draw(self, _context: Context) -> None:
        status = session.desk.status
        for name in status.models if status else ():
            self.layout.operator("distill.choose_model", text=name).name = name


def draw_advanced(layout: UILayout, context: Context) -> None:
    settings = context.scene.distill
    layout.use_property_split = True
    layout.use_property_decorate = False
    for parameter in properties.kind_of(settings).parameters:
        if parameter.advanced:
            layout.prop(properties.parameters_of(settings), parameter.name)


def draw_run(layout: UILayout, context: Context) -> None:
    desk = session.desk
    settings = context.scene.distill
    row = layout.row()
    row.scale_y = 1.6
    count = settings.variations
    row.operator("distill.run", text="Distill" if count == 1 else f"Distill {count} Variations", icon="RENDER_STILL")
    if missing := requests.missing(context.scene):
        _sentence(layout, missing, context, "INFO")
    layout.prop(settings, "use_at_once")
    if desk.error is not None and desk.error.code not in SERVICE_ERRORS:
        _draw_error(layout, context, desk.error)
    active = [r for r in reversed(desk.of_this_file()) if r.active]
    if len(active) > 1:
        layout.operator("distill.cancel", text="Cancel All", icon="X").job = ""
    for record in active:
        _draw_active(layout, record)
    for record in desk.of_other_files():
        box = layout.box()
        there = record.job in desk.arrived
        words = "ready" if there else record.progress_text()
        _sentence(box, f"{record.title}, of another file: {words}", context, "FILE_BLEND")
        if there:
            box.operator("distill.fetch_result", text="Bring In").job = record.job


def _draw_active(layout: UILayout, record: Record) -> None:
    box = layout.box()
    row = box.row()
    waits = record.state == "queued"
    row.label(text=f"{record.title}: {record.progress_text()}" if waits else record.title, icon="SORTTIME")
    row.operator("distill.cancel", text="", icon="X", emboss=False).job = record.job
    if waits:
        return
    box.progress(factor=record.fraction, type="BAR", text=record.progress_text())
    if icon := session.desk.preview_icon(record.job):
        box.template_icon(icon, scale=8.0)


def draw_results(layout: UILayout, context: Context) -> None:
    ended = [r for r in session.desk.of_this_file() if not r.active and r.job not in session.desk.arrived]
    material = session.active_material()
    if material is not None and materials.PREVIOUS in material:
        layout.operator("distill.restore_previous", icon="LOOP_BACK")
        shading = getattr(context.space_data, "shading", None)
        if shading is not None and shading.type in {"WIREFRAME", "SOLID"}:
            layout.prop_enum(shading, "type", "MATERIAL", text="See It on the Model")
    if not ended:
        layout.label(text="Nothing has been made in this file yet")
    for record in ended[:SHOWN_RESULTS]:
        _draw_ended(layout.box(), record, context)
    if len(ended) > SHOWN_RESULTS:
        layout.label(text=f"and {len(ended) - SHOWN_RESULTS} more")


def _draw_ended(box: UILayout, record: Record, context: Context) -> None:
    image = session.image_of(record.job)
    row = box.row()
    icon = {"succeeded": "TEXTURE", "failed": "ERROR"}.get(record.state, "CANCEL")
    row.label(text=image.name if image else record.title, icon=icon)
    if record.parameters:
        row.operator("distill.reuse_parameters", text="", icon="COPYDOWN", emboss=False).job = record.job
    row.operator("distill.dismiss", text="", icon="X", emboss=False).job = record.job
    if record.state == "failed" and record.sentence:
        _sentence(box, record.sentence, context)
        if record.request:
            box.operator("distill.fetch_result", text="Try Again", icon="FILE_REFRESH").job = record.job
    if record.state != "succeeded":
        return
    if image is None:
        box.operator("distill.fetch_result", text="Fetch Again", icon="IMPORT").job = record.job
        return
    _show_image(box, image, _facts(record, image))
    for note in record.notes:
        _sentence(box, note, context, "INFO")
    if figures := record.told(FIGURES):
        _draw_figures(box.column(align=True), context.scene.distill, figures)
    row = box.row(align=True)
    if materials.in_use(session.active_material(), record.job):
        row.label(text="In use", icon="CHECKMARK")
    else:
        row.operator("distill.use_result", icon="MATERIAL").job = record.job
    row.operator("distill.show_result", icon="IMAGE_DATA").job = record.job


def _facts(record: Record, image: bpy.types.Image) -> list[str]:
    """What the panel says of a result at once: size, seed, how long it took, its seams."""
    size = f"{image.size[0]} x {image.size[1]}"
    took = [f"Took {duration(record.seconds)}"] if record.seconds else []
    return [size, f"Seed {record.seed}", *took, *record.told(SEAMS)]


def _draw_figures(column: UILayout, settings: PropertyGroup, figures: list[str]) -> None:
    """All figures of a result, folded away; one click unfolds those of every result, to compare them."""
    row = column.row()
    row.alignment = "LEFT"
    row.prop(settings, "show_figures", icon="DOWNARROW_HLT" if settings.show_figures else "RIGHTARROW", emboss=False)
    if settings.show_figures:
        column.scale_y = 0.8
        for text in figures:
            column.label(text=text)


# ---------------------------------------------------------------------------------------------- one tab, two editors


def _draw_layout_header(self: Panel, context: Context) -> None:
    self.layout.prop(context.scene.distill, "use_layout", text="")


def _draw_service_header(self: Panel, _context: Context) -> None:
    desk = session.desk
    wrong = desk.error is not None and desk.error.code in SERVICE_ERRORS
    icon = (
        "ERROR" if wrong else "SORTTIME" if desk.connecting or desk.note else "CHECKMARK" if desk.status else "UNLINKED"
    )
    self.layout.label(text="", icon=icon)


def _poll_layout(_cls: type[Panel], context: Context) -> bool:
    """Hidden where the kind of job takes no layout."""
    return properties.takes(context.scene.distill, "layout")


_SECTIONS = (
    # name, label, draw, draw_header, parent, closed
    ("service", "Service", draw_service, _draw_service_header, "", False),
    ("swatch", "Swatch", draw_swatch, None, "", False),
    ("layout", "Regions and Layout", draw_layout, _draw_layout_header, "", True),
    ("output", "Output", draw_output, None, "", False),
    ("advanced", "Advanced", draw_advanced, None, "output", True),
    ("run", "Run", draw_run, None, "", False),
    ("results", "Results", draw_results, None, "", False),
)


def _as_method(draw: Callable[[UILayout, Context], None]) -> Callable[[Panel, Context], None]:
    def method(self: Panel, context: Context) -> None:
        draw(self.layout, context)

    return method


def _panels(space: str) -> list[type[Panel]]:
    """The sections as panels of one editor."""
    made = []
    for name, label, draw, draw_header, parent, closed in _SECTIONS:
        members = {
            "__doc__": f"{label}.",
            "bl_label": label,
            "bl_idname": f"DISTILL_PT_{name}_{space.lower()}",
            "bl_space_type": space,
            "bl_region_type": "UI",
            "bl_category": "Distill",
            "bl_options": {"DEFAULT_CLOSED"} if closed else set(),
            "draw": _as_method(draw),
        }
        if parent:
            members["bl_parent_id"] = f"DISTILL_PT_{parent}_{space.lower()}"
        if draw_header:
            members["draw_header"] = draw_header
        if name == "layout":
            members["poll"] = classmethod(_poll_layout)
        made.append(type(members["bl_idname"], (Panel,), members))
    return made


classes = (DISTILL_UL_regions, DISTILL_MT_models, *(panel for space in SPACES for panel in _panels(space)))


def register() -> None:
    for cls in classes:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(classes):
        bpy.utils.unregister_class(cls)
