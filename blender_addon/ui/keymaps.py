"""Shortcuts. All are off until the artist turns them on in the preferences."""

from dataclasses import dataclass, field
from typing import Any

import bpy
from bpy.types import Context


@dataclass(frozen=True)
class Shortcut:
    """An operator with its settings, a key, whether Ctrl, Shift and Alt are held with it, and one of Blender's keymaps.

    Those in Image Paint work while a map is painted, in the Image Editor and on the model, and act under the mouse.
    """

    operator: str
    key: str
    settings: dict[str, str] = field(default_factory=dict)
    modifiers: bool = True
    keymap: str = "Window"


SHORTCUTS = (
    Shortcut("distill.run", "RET"),
    Shortcut("distill.cancel", "BACK_SPACE"),
    Shortcut("distill.random_seed", "R"),
    Shortcut("distill.show_result", "V"),
    Shortcut("distill.paint", "P", {"picture": "layout", "where": "MODEL"}),
    Shortcut("distill.pick_region", "E", modifiers=False, keymap="Image Paint"),
    Shortcut("distill.swap_regions", "X", modifiers=False, keymap="Image Paint"),
    Shortcut("distill.fill_area", "G", modifiers=False, keymap="Image Paint"),
)

_added: list[tuple[Any, Any]] = []


def add() -> None:
    """Adds the shortcuts to the add-on's keymaps, turned off. Blender has no keymaps in background mode."""
    config = bpy.context.window_manager.keyconfigs.addon
    if config is None:
        return
    for shortcut in SHORTCUTS:
        keymap, held = config.keymaps.new(shortcut.keymap), shortcut.modifiers
        item = keymap.keymap_items.new(shortcut.operator, shortcut.key, "PRESS", ctrl=held, shift=held, alt=held)
        for name, value in shortcut.settings.items():
            setattr(item.properties, name, value)
        item.active = False
        _added.append((keymap, item))


def remove() -> None:
    for keymap, item in _added:
        keymap.keymap_items.remove(item)
    _added.clear()


def user_items(context: Context) -> list[tuple[Any, Any]]:
    """The shortcuts in the artist's keymaps: (keymap, item) of each."""
    keymaps = context.window_manager.keyconfigs.user.keymaps
    found = []
    for name in dict.fromkeys(shortcut.keymap for shortcut in SHORTCUTS):
        operators = {shortcut.operator for shortcut in SHORTCUTS if shortcut.keymap == name}
        if (keymap := keymaps.get(name)) is not None:
            found += [(keymap, item) for item in keymap.keymap_items if item.idname in operators]
    return found
