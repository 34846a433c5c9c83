"""Every text of the interface that Blender can translate: from the registered classes, and from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import blender_addon
from blender_addon import wire
from blender_addon.scene import map_nodes, maps, properties, regions
from blender_addon.ui.panels.results import TILING

FOLDER = Path(blender_addon.__file__).parent
LAYOUT = (
    "label",
    "prop",
    "progress",
    "menu",
    "popover",
    "prop_enum",
    "prop_search",
    "operator",
    "operator_menu_enum",
)
"""Methods of a layout whose `text` is shown."""
ARGUMENTS = {"tr": 0, "poll_message_set": 0, "report": 1, "draw_text": 1}
"""Functions that show or translate one of their arguments, and which."""
NAMES = ("Texture Distiller", "Distill", "Pocket")
"""Names that are the same in every language."""


def ui_texts() -> set[str]:
    """Every text of the interface."""
    found = {*_of_classes(), *_of_code(), *regions.TITLES.values(), *properties.AUTOMATIC_LABELS.values()}
    found |= set(TILING.values())
    found |= {maps.BASE_COLOR, *(kind.title for kind in wire.MAPS.values())}
    found |= {text for texts in (map_nodes.HEIGHTS | map_nodes.OCCLUSIONS).values() for text in texts}
    found |= {text for kind in properties.EDIT_KINDS.values() for text in (kind.title, kind.help)}
    found |= {properties.label(picture.name).lower() for picture in properties.EDIT_PICTURES.values()}
    found |= {properties.label(picture.name).lower() for picture in properties.PICTURES.values()}
    return {text for text in found if any(c.isalpha() for c in text.replace("{}", "")) and text not in NAMES}


# ---------------------------------------------------------------------------------------------- registered classes


def _of_classes() -> Iterator[str]:
    import bpy

    for cls in blender_addon._classes():
        if issubclass(cls, bpy.types.Operator):
            rna = getattr(bpy.ops.distill, cls.bl_idname.split(".")[1]).get_rna_type()
            yield rna.name
            yield rna.description
            yield from _of_properties(rna)
        elif hasattr(cls, "preset_subdir"):
            yield "Presets"  # its label is the name of the last preset that was chosen
        elif issubclass(cls, bpy.types.Panel | bpy.types.Menu):
            yield getattr(cls, "bl_label", "")
        elif issubclass(cls, bpy.types.PropertyGroup | bpy.types.AddonPreferences):
            yield from _of_properties(cls.bl_rna)
    for name, prop in bpy.types.WindowManager.bl_rna.properties.items():
        if name.startswith("distill_"):
            yield from _of_property(prop)


def _of_properties(rna: Any) -> Iterator[str]:
    for prop in rna.properties:
        if prop.identifier not in ("rna_type", "bl_idname") and not (prop.identifier == "name" and prop.name == "Name"):
            yield from _of_property(prop)


def _of_property(prop: Any) -> Iterator[str]:
    if prop.is_hidden:
        return
    if prop.name != prop.identifier:
        yield prop.name
    yield prop.description
    if prop.type == "ENUM":
        for item in prop.enum_items_static:
            yield item.name
            yield item.description


# ---------------------------------------------------------------------------------------------- literals in the code


def _of_code() -> Iterator[str]:
    for file in sorted((FOLDER / "ui").rglob("*.py")) + sorted((FOLDER / "scene").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        constants = {ast.unparse(n.targets[0]): n.value for n in tree.body if isinstance(n, ast.Assign)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield from _of_call(node, constants)


def _of_call(call: ast.Call, constants: Mapping[str, ast.expr]) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if any(k.arg == "translate" and isinstance(k.value, ast.Constant) and not k.value.value for k in call.keywords):
        return
    if name in LAYOUT:
        for keyword in call.keywords:
            if keyword.arg in ("text", "heading"):
                yield from _literals(keyword.value, constants)
    if name in ARGUMENTS and len(call.args) > ARGUMENTS[name]:
        yield from _literals(call.args[ARGUMENTS[name]], constants)


def _literals(node: ast.expr, constants: Mapping[str, ast.expr]) -> Iterator[str]:
    """The texts that an expression may be: a literal, a constant of its file, or one of a condition's."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _literals(node.body, constants)
        yield from _literals(node.orelse, constants)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _literals(value, constants)
    elif isinstance(node, ast.Name) and isinstance(constants.get(node.id), ast.Constant):
        yield from _literals(constants[node.id], {})
