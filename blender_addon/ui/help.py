"""“Online Manual” on the add-on's buttons opens the right section of manual.html, which is part of the add-on."""

from pathlib import Path

import bpy

PAGE = "manual.html"
SECTIONS = (
    ("bpy.ops.distill.region*", "painting-a-layout"),
    ("bpy.ops.distill.layout*", "painting-a-layout"),
    ("bpy.ops.distill.paint*", "painting-a-layout"),
    ("bpy.ops.distill.fill*", "painting-a-layout"),
    ("bpy.ops.distill.clean*", "painting-a-layout"),
    ("bpy.ops.distill.map_*", "whole-materials"),
    ("bpy.ops.distill.maps_*", "whole-materials"),
    ("bpy.ops.distill.use_height*", "whole-materials"),
    ("bpy.ops.distill.use_occlusion*", "whole-materials"),
    ("bpy.ops.distill.export_set*", "whole-materials"),
    ("bpy.types.distillmap.*", "whole-materials"),
    ("bpy.ops.distill.edit*", "editing-a-finished-picture"),
    ("bpy.ops.distill.mask_*", "editing-a-finished-picture"),
    ("bpy.ops.distill.explain_metric*", "the-measurements-of-a-result"),
    ("bpy.ops.distill.*model*", "models"),
    ("bpy.types.distill*.model*", "models"),
    ("bpy.ops.distill.connect*", "when-something-goes-wrong"),
    ("bpy.types.distillregion.*", "painting-a-layout"),
    ("bpy.types.distillsettings.use_layout*", "painting-a-layout"),
    ("bpy.types.distillrestyle*", "restyling-a-picture"),
    ("bpy.ops.distill.*", "your-first-texture-in-blender"),
    ("bpy.types.distill*", "your-first-texture-in-blender"),
)
"""Pattern of a Blender identifier and the heading of the manual; the first match counts."""


def address() -> str:
    """The url of the manual."""
    return (Path(__file__).resolve().parents[1] / PAGE).as_uri()


def manual_map() -> tuple[str, tuple[tuple[str, str], ...]]:
    """Blender calls this: the start of a url, and its end for each pattern."""
    return address(), tuple((pattern, f"#{anchor}") for pattern, anchor in SECTIONS)


def add() -> None:
    bpy.utils.register_manual_map(manual_map)


def remove() -> None:
    bpy.utils.unregister_manual_map(manual_map)
