"""The section Mapping: how the result that the active material shows lies on the object."""

from __future__ import annotations

from typing import Any

from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, Material

from ...scene import mapping, materials, result_nodes
from ...translations import OWN_CONTEXT
from .elements import draw_text, in_both_editors

STRETCH_SHOWN = 1.02
"""Ratio of a pixel's sides from which the panel says that a result is stretched."""


class Mapping:
    """Projection, repeats, real width and texel density of the result on the active object."""

    bl_label = "Mapping"
    layout: Any

    @classmethod
    def poll(cls, _context: Context) -> bool:
        return bool(result_nodes.frames(materials.active_material()))

    def draw(self, context: Context) -> None:
        layout, material = self.layout, materials.active_material()
        if material is None:
            return
        frame = result_nodes.connected_frame(material)
        if frame is None:
            draw_text(layout, tr("“{}” shows its original texture").format(material.name), context, "INFO")
        else:
            self._draw_shown(context, material, frame)
        if material.library is None and result_nodes.is_stale(material):
            layout.operator("distill.remove_frames", icon="TRASH")

    def _draw_shown(self, context: Context, material: Material, frame: Any) -> None:
        layout = self.layout
        projection = result_nodes.projection_of(frame)
        row = layout.row(align=True)
        for key, (name, _) in mapping.PROJECTIONS.items():
            text = tr(name, OWN_CONTEXT)  # "Box" is a rectangle elsewhere
            button = row.operator("distill.projection", text=text, translate=False, depress=projection == key)
            button.projection = key
        thing = context.active_object
        if thing is not None and thing.type == "MESH" and not thing.data.uv_layers:
            is_uv = projection == "UV"
            text = tr("“{}” has no UV map; choose Box") if is_uv else tr("“{}” has no UV map")
            draw_text(layout, text.format(thing.name), context, "ERROR" if is_uv else "INFO")
        node = result_nodes.find_mapping(material.node_tree, frame)
        if node is None:
            layout.label(text="Apply the result again to get its Mapping node", icon="INFO")
            return
        column = layout.column(align=True)
        row = column.row(align=True)
        scale = node.inputs["Scale"]
        if projection == "UV":
            row.label(text="Repeats")
            row.prop(scale, "default_value", index=0, text="X")
            row.prop(scale, "default_value", index=1, text="Y")
            row.operator("distill.repeats", text="", icon="REMOVE").factor = 0.5
            row.operator("distill.repeats", text="", icon="ADD").factor = 2.0
        column.prop(node.inputs["Rotation"], "default_value", index=2, text="Rotation")
        surface = mapping.shown_surface(thing)
        width = mapping.tile_width(material, surface)
        density = mapping.texel_density(material, surface)
        if width is not None and density is not None:
            row = column.row(align=True)
            row.operator("distill.tile_width", text=tr("1 Tile = {}").format(_meters(width)), icon="DRIVER_DISTANCE")
            row.operator("distill.texel_density", text=f"{density:.0f} px/m", icon="TEXTURE")
        stretch = mapping.stretch(material)
        if max(stretch, 1 / stretch) > STRETCH_SHOWN:
            text = tr("Pixels are stretched {:.2g} to 1 in the UV map").format(max(stretch, 1 / stretch))
            draw_text(layout, text, context, "INFO")
        picture = result_nodes.picture_nodes(material.node_tree, frame).get("image")
        sharpness = result_nodes.sharpness_node(material.node_tree, frame)
        if projection == "BOX" and picture is not None and picture.type == "TEX_IMAGE":
            layout.prop(picture, "projection_blend", text="Blend", slider=True)
        elif sharpness is not None:
            layout.prop(sharpness.outputs[0], "default_value", text="Sharpness")


def _meters(width: float) -> str:
    """`1.5 m`, `25 cm`, `8 mm`."""
    if width >= 1:
        return f"{width:.3g} m"
    return f"{width * 100:.3g} cm" if width >= 0.01 else f"{width * 1000:.3g} mm"


classes = in_both_editors(Mapping)
