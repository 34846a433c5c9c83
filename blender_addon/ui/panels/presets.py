"""Menus of the presets of each job kind: those that ship with the add-on, and the artist's."""

from __future__ import annotations

import bpy
from bpy.types import Context, Menu, UILayout

from ...scene import presets, properties


def _menu(kind: str) -> type[Menu]:
    def draw(self: Menu, _context: Context) -> None:
        own = bpy.utils.preset_paths(presets.subfolder(kind))
        self.path_menu(
            [str(presets.SHIPPED / kind), *own],
            self.preset_operator,
            props_default={"menu_idname": self.bl_idname},
            filter_ext=lambda suffix: suffix.lower() == ".py",
        )
        self.layout.separator()
        self.layout.operator(f"distill.preset_{kind}", text="Save Preset...", icon="ADD")
        if own:
            remove = self.layout.operator(f"distill.preset_{kind}", text="Delete Last Used Preset", icon="REMOVE")
            remove.remove_active = True

    members = {
        "__doc__": "Presets of the parameters",
        "bl_idname": f"DISTILL_MT_presets_{kind}",
        "bl_label": "Presets",
        "preset_subdir": presets.subfolder(kind),
        "preset_operator": "script.execute_preset",
        "draw": draw,
    }
    return type(f"DISTILL_MT_presets_{kind}", (Menu,), members)


def draw_presets(layout: UILayout, context: Context) -> None:
    """A button for the menu of the chosen job kind's presets."""
    kind = properties.kind_of(context.scene.distill)
    if kind in presets.KINDS:
        layout.menu(f"DISTILL_MT_presets_{kind.name}", text="", icon="PRESET")


classes = tuple(_menu(kind.name) for kind in presets.KINDS)
