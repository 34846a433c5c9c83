"""What the sections have in common: panels in two editors, wrapped text, errors with their buttons, images."""

from __future__ import annotations

import re
from typing import Any

import blf
from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, Image, Panel, PropertyGroup, UILayout

from ... import wire
from ...link import background, client
from ...scene import preferences

SPACES = ("VIEW_3D", "IMAGE_EDITOR", "NODE_EDITOR")
MARGIN = 62
"""Pixels at interface scale 1 that a sidebar, a panel and a box take from the width of a label."""
NARROW = 230
"""Width of a sidebar in pixels at interface scale 1, below which buttons are stacked and labels have their own line."""
ICON = 28
"""Pixels at interface scale 1 that an icon beside a label takes, with its distances."""
CHOICE = 114
"""Pixels at interface scale 1 that the buttons beside the name of an image take; the number of users takes USERS."""
USERS = 20
SERVICE_ERRORS = (*background.SERVICE_ERRORS, "device-unavailable")
"""Errors of the service, whose remedy is the service's or the preferences' and not another parameter."""


def in_both_editors(section: type[Any], parent: type[Any] | None = None) -> tuple[type[Any], ...]:
    """A section, a class with a label and a draw method, as a panel of each editor of SPACES."""
    return tuple(
        type(_panel_id(section, space), (section, Panel), _members(section, parent, space)) for space in SPACES
    )


def _members(section: type[Any], parent: type[Any] | None, space: str) -> dict[str, Any]:
    members: dict[str, Any] = {"bl_idname": _panel_id(section, space), "bl_space_type": space, "bl_region_type": "UI"}
    if space == "NODE_EDITOR":
        members["poll"] = classmethod(lambda cls, context: _is_shader_editor(context) and _polls(section, context))
    return members | {"bl_category": "Distill"} | ({"bl_parent_id": _panel_id(parent, space)} if parent else {})


def _is_shader_editor(context: Context) -> bool:
    return context.space_data.tree_type == "ShaderNodeTree"


def _polls(section: type[Any], context: Context) -> bool:
    return not hasattr(section, "poll") or section.poll(context)


def _panel_id(section: type[Any], space: str) -> str:
    return f"DISTILL_PT_{section.__name__.lower()}_{space.lower()}"


def is_narrow(context: Context) -> bool:
    """Whether the sidebar is narrow."""
    return bool(context.region.width < NARROW * context.preferences.system.ui_scale)


def side_by_side(layout: UILayout, context: Context) -> UILayout:
    """A row for buttons, or a column if the sidebar is narrow."""
    return layout.column(align=True) if is_narrow(context) else layout.row(align=True)


def property_column(layout: UILayout, context: Context) -> UILayout:
    """A column for properties with their labels to the left, or in the fields if the sidebar is narrow."""
    column = layout.column()
    column.use_property_split, column.use_property_decorate = not is_narrow(context), False
    return column


def draw_image_choice(layout: UILayout, context: Context, settings: PropertyGroup, name: str) -> None:
    """The choice of an image of the settings, with its name below if Blender cuts it beside its buttons."""
    layout.template_ID(settings, name, open="image.open")
    image = getattr(settings, name)
    scale = context.preferences.system.ui_scale
    taken = (MARGIN + CHOICE + USERS * (image is not None and image.users > 1)) * scale
    if image is not None and _width(image.name, context) > context.region.width - taken:
        draw_lines(layout, image.name, context)


def draw_text(
    layout: UILayout, text: str, context: Context, icon: str = "NONE", buttons: int = 0, least: int = 0
) -> None:
    """A sentence in the interface's language, with a capital first letter; see `draw_lines`."""
    draw_lines(layout, capitalize(tr(text)), context, icon, buttons, least)


def draw_lines(
    layout: UILayout, text: str, context: Context, icon: str = "NONE", buttons: int = 0, least: int = 0
) -> None:
    """Text, such as a name, in as many lines as it needs: Blender's labels do not wrap.

    `buttons` is the number of icons beside the text, `least` that of the lines whose room it takes at least.
    """
    column = layout.column(align=True)
    column.scale_y = 0.8
    lines = wrap(text, context, buttons + (icon != "NONE"))
    for line in lines + [""] * (least - len(lines)):
        column.label(text=line, icon=icon, translate=False)
        icon = "BLANK1" if icon != "NONE" else "NONE"


def wrap(text: str, context: Context, icons: int = 0) -> list[str]:
    """The lines of a text in a box of the sidebar, measured in the interface's font. Blender cuts longer labels."""
    room = context.region.width - (MARGIN + ICON * icons) * context.preferences.system.ui_scale
    lines = [""]
    for word in _words(text):
        longer = f"{lines[-1]}{word}"
        if lines[-1] and _width(longer.rstrip(), context) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return [line.rstrip() for line in lines]


def _width(text: str, context: Context) -> float:
    """The width of a text in pixels, in the interface's font."""
    blf.size(0, context.preferences.ui_styles[0].widget.points * context.preferences.system.ui_scale)
    return float(blf.dimensions(0, text)[0])


def _words(text: str) -> list[str]:
    """The pieces between which a line may break: words with the space behind them, and each Chinese character.

    A name such as `cobbles_regions` may break behind its underscores, too.
    """
    return re.findall(r"[\u2e80-\u9fff\uff00-\uffef]|[^\s_\u2e80-\u9fff\uff00-\uffef]+_*\s*|_+\s*|\s+", text)


def capitalize(text: str) -> str:
    """The text with a capital first letter. The service's messages start with a small one, as in a terminal."""
    return text[:1].upper() + text[1:]


def draw_error(layout: UILayout, context: Context, error: wire.WireError) -> None:
    """An error, what to do about it, and the buttons for that."""
    box = layout.box()
    draw_text(box, error.sentence, context, "ERROR")
    row = box.row(align=True)
    buttons = remedies(error)
    for operator, text, settings in buttons:
        button = row.operator(operator, text=text)
        for name, value in settings.items():
            setattr(button, name, value)
    if buttons:  # room for their words
        row.operator("distill.dismiss_error", text="", icon="X")
    else:
        row.operator("distill.dismiss_error", text="Dismiss")


def remedies(error: wire.WireError) -> list[tuple[str, str, dict[str, str]]]:
    """The buttons that may correct an error: operator, text, settings."""
    if error.code in SERVICE_ERRORS:
        address = preferences.service_address()
        if error.code != "service-unreachable" or address.url:
            return [("distill.connect", "Reconnect", {}), ("distill.preferences", "Preferences", {})]
        if client.executable_of(address):
            return [("distill.connect", "Start Service", {})]
        return [("distill.preferences", "Preferences", {})]
    if "unclean" in error.data:
        return [("distill.clean", "Clean Up", {"picture": error.data["unclean"]})]
    return []


def draw_image(layout: UILayout, image: Image, texts: list[str]) -> None:
    """An image with lines of text beside it."""
    split = layout.split(factor=0.35)
    preview = image.preview_ensure()
    if preview is not None and preview.icon_id:
        split.template_icon(preview.icon_id, scale=4.0)
    column = split.column(align=True)
    column.scale_y = 0.8
    for text in texts:
        column.label(text=text)
