"""The section Regions and Layout: the materials in the swatch, and where they appear on the texture."""

from __future__ import annotations

from typing import Any

from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, Image, Menu, PropertyGroup, UILayout, UIList

from ...scene import label_arrays, map_watch, materials, mesh_layout, properties, regions, suggestion
from .elements import draw_image_choice, draw_lines, draw_text, in_both_editors, is_narrow, side_by_side


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


class DISTILL_MT_regions(Menu):
    """What is seldom needed for the region map."""

    bl_label = "Region Map"

    def draw(self, _context: Context) -> None:
        layout = self.layout
        layout.operator("distill.region_map_new", text="New from Gray Swatch", icon="FILE_NEW").method = "OVER"
        layout.operator(
            "distill.regions_from_map", text="Regions from Its Colors", icon="EYEDROPPER"
        ).picture = "regions"
        layout.operator("distill.clean", icon="BRUSH_DATA").picture = "regions"


class DISTILL_MT_layout_sources(Menu):
    """Where a layout can come from, and what corrects it."""

    bl_label = "Layout"

    def draw(self, _context: Context) -> None:
        layout = self.layout
        layout.operator("distill.layout_new", icon="FILE_NEW")
        layout.separator()
        for source, icon in zip(mesh_layout.SOURCES, ("MATERIAL", "GROUP_VERTEX", "FACE_MAPS"), strict=True):
            text = tr("From {}").format(tr(mesh_layout.SOURCES[source][0]))
            layout.operator("distill.layout_from_object", text=text, icon=icon).source = source
        layout.separator()
        layout.operator("distill.fill_selected", icon="FACESEL")
        layout.operator("distill.fill_mask", text="Fill from Mask...", icon="IMAGE_ALPHA")
        layout.separator()
        layout.operator(
            "distill.regions_from_map", text="Regions from Its Colors", icon="EYEDROPPER"
        ).picture = "layout"
        layout.operator("distill.clean", icon="BRUSH_DATA").picture = "layout"
        layout.operator("distill.meet_edges", icon="UV_EDGESEL")


class Layout:
    """Regions of the swatch, and the layout that is painted in their colors."""

    bl_label = "Regions and Layout"
    bl_options = {"DEFAULT_CLOSED"}
    layout: Any

    @classmethod
    def poll(cls, context: Context) -> bool:
        return properties.takes_layout(context.scene.distill)

    def draw_header(self, context: Context) -> None:
        used = context.scene.distill.use_layout
        self.layout.operator(
            "distill.use_layout", text="", icon="CHECKBOX_HLT" if used else "CHECKBOX_DEHLT", emboss=False
        )

    def draw(self, context: Context) -> None:
        settings = context.scene.distill
        layout = self.layout
        if not settings.use_layout and not settings.regions:
            draw_text(layout, "Paint where on the texture each material of the swatch appears", context)
            layout.operator("distill.use_layout", text="Set Up Regions", icon="ADD")
            return
        layout.active = settings.use_layout
        row = layout.row()
        row.template_list("DISTILL_UL_regions", "", settings, "regions", settings, "region_index", rows=2)
        column = row.column(align=True)
        column.operator("distill.region_add", text="", icon="ADD")
        column.operator("distill.region_remove", text="", icon="REMOVE")
        _draw_region_map(layout.box(), context)
        _draw_layout(layout.box(), context)
        manager = context.window_manager
        row = layout.row(align=True)
        row.prop(manager, "distill_overlay", toggle=True, icon="OVERLAY")
        part = row.row(align=True)
        part.active = manager.distill_overlay
        part.prop(manager, "distill_overlay_strength", slider=True)


def _draw_region_map(box: UILayout, context: Context) -> None:
    """The map of the swatch: how it is made, its picture, and what to do next."""
    settings = context.scene.distill
    _draw_title(box, context, tr("Which Part of the Swatch Is Which"), "DISTILL_MT_regions")
    column = box.column(align=True)
    row = side_by_side(column, context)
    pending = suggestion.is_pending()
    part = row.row(align=True)
    part.enabled = not pending
    text = "Suggesting..." if pending else "Suggest"
    part.operator("distill.suggest_regions", text=text, icon="OUTLINER_OB_LIGHT")
    row.prop(context.window_manager, "distill_parts")
    column.operator("distill.region_map_new", text="Split by Color", icon="COLOR").method = "COLOR"
    draw_image_choice(box, context, settings, "image_regions")
    image = settings.image_regions
    if image is None:
        if settings.image_swatch is None:
            draw_text(box, "Choose the swatch first", context, "INFO")
        return
    column = _draw_map(box, context, image)
    _draw_paint(column, "regions", "EDITOR", "Paint")
    if lacking := map_watch.unmapped_regions(context.scene):
        names = ", ".join(f"“{name}”" for name in lacking)
        draw_text(box, tr("Paint {} here too: the swatch has no such part yet").format(names), context, "ERROR")


def _draw_layout(box: UILayout, context: Context) -> None:
    """The map of the texture: its picture, where to paint it, and what is wrong with it."""
    settings = context.scene.distill
    _draw_title(box, context, tr("Where It Appears on the Texture"), "DISTILL_MT_layout_sources")
    draw_image_choice(box, context, settings, "image_layout")
    image = settings.image_layout
    if image is None:
        box.operator("distill.layout_new", icon="FILE_NEW")
        return
    column = _draw_map(box, context, image)
    _draw_paint(column, "layout", "MODEL", "Paint on Model")
    _draw_paint(column, "layout", "EDITOR", "Paint")
    column.operator("distill.fill", icon="IMAGE").picture = "layout"
    facts = map_watch.facts(context.scene, image)
    if facts is not None and len(facts.shares) > 1 and max(facts.shares) == 1.0:
        names = [region.name for region in settings.regions]
        filled = names[facts.shares.index(1.0)] if 1.0 in facts.shares[: len(names)] else ""
        draw_text(box, tr("All of it is “{}”. Choose another region above and paint").format(filled), context, "INFO")
    if edges := map_watch.differing_edges(context.scene):
        text = tr("Opposite edges of the layout differ ({}), which makes a straight cut in the texture")
        draw_text(box, text.format(", ".join(edges)), context, "ERROR")
        box.operator("distill.meet_edges", icon="UV_EDGESEL")
    if facts is not None and facts.other > label_arrays.DEFAULTS.max_other_share:
        draw_text(box, tr("{:.1%} of the pixels have the color of no region").format(facts.other), context, "ERROR")
        box.operator("distill.clean", icon="BRUSH_DATA").picture = "layout"
    if regions.is_stretched(image, *properties.output_size(settings)):
        draw_text(box, "The layout has another aspect ratio than the texture and will be stretched", context, "INFO")
    if materials.is_mapped(materials.active_material()):
        text = "The Mapping node of the material is not used for a layout: the texture lies where you paint"
        draw_text(box, text, context, "INFO")


def _draw_title(box: UILayout, context: Context, text: str, menu: str) -> None:
    row = box.row(align=True)
    draw_lines(row, text, context, buttons=1)
    row.menu(menu, text="", icon="DOWNARROW_HLT")


def _draw_map(box: UILayout, context: Context, image: Image) -> UILayout:
    """A map's thumbnail, and a column for buttons beside it, or below it if the sidebar is narrow."""
    split = box.column() if is_narrow(context) else box.split(factor=0.35)
    if icon := map_watch.icon(context.scene, image):
        split.template_icon(icon, scale=4.0)
    else:
        split.label(icon="IMAGE_DATA")
    return split.column(align=True)


def _draw_paint(column: UILayout, picture: str, where: str, text: str) -> None:
    button = column.operator("distill.paint", text=text, icon="GREASEPENCIL" if where == "EDITOR" else "TPAINT_HLT")
    button.picture, button.where = picture, where


classes = (DISTILL_UL_regions, DISTILL_MT_regions, DISTILL_MT_layout_sources, *in_both_editors(Layout))
