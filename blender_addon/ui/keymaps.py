"""Shortcuts. All are off until the artist turns them on in the preferences."""

from typing import Any

import bpy
from bpy.types import Context

SHORTCUTS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("distill.run", "RET", {}),
    ("distill.cancel", "BACK_SPACE", {}),
    ("distill.random_seed", "R", {}),
    ("distill.show_result", "V", {}),
    ("distill.paint", "P", {"picture": "layout", "where": "MODEL"}),
)
"""Operator, key (with Ctrl, Shift and Alt), and the operator's settings."""

_added: list[tuple[Any, Any]] = []


def add() -> None:
    """Adds the shortcuts to the add-on's keymap, turned off. Blender has no keymaps in background mode."""
    config = bpy.context.window_manager.keyconfigs.addon
    if config is None:
        return
    keymap = config.keymaps.new("Window")
    for operator, key, settings in SHORTCUTS:
        item = keymap.keymap_items.new(operator, key, "PRESS", ctrl=True, shift=True, alt=True)
        for name, value in settings.items():
            setattr(item.properties, name, value)
        item.active = False
        _added.append((keymap, item))


def remove() -> None:
    for keymap, item in _added:
        keymap.keymap_items.remove(item)
    _added.clear()


def user_items(context: Context) -> list[tuple[Any, Any]]:
    """The shortcuts in the artist's keymap: (keymap, item) of each."""
    keymap = context.window_manager.keyconfigs.user.keymaps.get("Window")
    names = [operator for operator, _, _ in SHORTCUTS]
    return [(keymap, item) for item in keymap.keymap_items if item.idname in names] if keymap else []
