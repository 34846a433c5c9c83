"""The section Regions and Layout: the materials in the swatch, and where they appear on the texture."""

from __future__ import annotations

from typing import Any

from bpy.types import Context, PropertyGroup, UILayout, UIList

from ...scene import properties, regions
from .elements import draw_text, in_both_editors


class DISTILL_UL_regions(UIList):
    """Regions: color and name."""

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


class Layout:
    """Regions of the swatch, and the layout that is painted in their colors."""

    bl_label = "Regions and Layout"
    bl_options = {"DEFAULT_CLOSED"}
    layout: Any

    @classmethod
    def poll(cls, context: Context) -> bool:
        return properties.takes_layout(context.scene.distill)

    def draw_header(self, context: Context) -> None:
        self.layout.prop(context.scene.distill, "use_layout", text="")

    def draw(self, context: Context) -> None:
        settings = context.scene.distill
        layout = self.layout
        layout.active = settings.use_layout
        row = layout.row()
        row.template_list("DISTILL_UL_regions", "", settings, "regions", settings, "region_index", rows=3)
        column = row.column(align=True)
        column.operator("distill.region_add", text="", icon="ADD")
        column.operator("distill.region_remove", text="", icon="REMOVE")
        column.operator("distill.regions_from_map", text="", icon="EYEDROPPER")

        column = layout.column(align=True)
        column.label(text=f"{regions.TITLES['regions'].title()} of the Swatch")
        column.template_ID(settings, "image_regions", open="image.open")
        column.operator("distill.region_map_new", text="Split by Color", icon="COLOR").method = "COLOR"
        row = column.row(align=True)
        row.operator("distill.region_map_new", text="New", icon="FILE_NEW").method = "OVER"
        _draw_paint(row, "regions", "EDITOR", "Paint", settings.image_regions is not None)

        has_layout = settings.image_layout is not None
        column = layout.column(align=True)
        column.label(text=f"{regions.TITLES['layout'].title()} of the Texture")
        column.template_ID(settings, "image_layout", open="image.open")
        row = column.row(align=True)
        row.operator("distill.layout_new", text="New", icon="FILE_NEW")
        part = row.row(align=True)
        part.enabled = has_layout
        part.operator("distill.clean", icon="BRUSH_DATA").picture = "layout"
        row = column.row(align=True)
        _draw_paint(row, "layout", "EDITOR", "Paint", has_layout)
        _draw_paint(row, "layout", "MODEL", "Paint on Model", has_layout)
        if has_layout and regions.is_stretched(settings.image_layout, *properties.output_size(settings)):
            text = "The layout has another aspect ratio than the texture and will be stretched"
            draw_text(layout, text, context, "INFO")


def _draw_paint(row: UILayout, picture: str, where: str, text: str, enabled: bool) -> None:
    part = row.row(align=True)
    part.enabled = enabled
    button = part.operator("distill.paint", text=text, icon="GREASEPENCIL" if where == "EDITOR" else "TPAINT_HLT")
    button.picture, button.where = picture, where


classes = (DISTILL_UL_regions, *in_both_editors(Layout))
