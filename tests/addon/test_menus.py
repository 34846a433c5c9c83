"""Menus, shortcuts, help and the status bar: what the operator search (F3) and the preferences offer."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import blender_addon
from blender_addon.ui import help, keymaps, menus

MENUS = ast.parse(Path(menus.__file__).read_text(encoding="utf-8"))


def in_menus() -> set[str]:
    """The operators that the menus draw."""
    return {n.value for n in ast.walk(MENUS) if isinstance(n, ast.Constant) and str(n.value).startswith("distill.")}


def operators(blender: Any) -> list[Any]:
    return [cls for cls in blender_addon._classes() if issubclass(cls, blender.types.Operator)]


def test_every_operator_is_in_a_menu_or_internal(blender: Any) -> None:
    """The operator search finds what is in menus."""
    shown = {cls.bl_idname for cls in operators(blender) if "INTERNAL" not in getattr(cls, "bl_options", ())}
    assert sorted(shown - in_menus()) == []


def test_menus_and_shortcuts_name_operators_that_exist(blender: Any) -> None:
    known = {cls.bl_idname for cls in operators(blender)}
    assert in_menus() | {shortcut.operator for shortcut in keymaps.SHORTCUTS} <= known


def test_shortcuts_are_in_their_keymaps_and_off(blender: Any) -> None:
    keymaps_of_addons = blender.context.window_manager.keyconfigs.addon.keymaps
    for shortcut in keymaps.SHORTCUTS:
        items = [item for item in keymaps_of_addons[shortcut.keymap].keymap_items if item.idname == shortcut.operator]
        assert [(item.type, item.any or item.ctrl, item.active) for item in items] == [
            (shortcut.key, shortcut.modifiers, False)
        ]
    painting = {shortcut.operator for shortcut in keymaps.SHORTCUTS if shortcut.keymap == "Image Paint"}
    assert painting == {"distill.pick_region", "distill.swap_regions", "distill.fill_area"}


def test_a_menu_is_in_each_editor_that_has_the_tab(blender: Any) -> None:
    for menu, draw in menus._hooks():
        assert draw in menu.draw._draw_funcs


def test_help_of_each_operator_leads_to_a_section(blender: Any) -> None:
    from fnmatch import fnmatchcase

    prefix, table = help.manual_map()
    assert prefix.startswith("file://") and prefix.endswith("manual.html")
    for cls in operators(blender):
        identifier = f"bpy.ops.{cls.bl_idname}"
        found = next((anchor for pattern, anchor in table if fnmatchcase(identifier, pattern)), "")
        assert found.startswith("#"), identifier
