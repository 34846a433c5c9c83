"""The sections Maps, of the swatch, and Surface, of the active material; and the maps of a result in the gallery."""

from __future__ import annotations

from typing import Any

from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, Menu, PropertyGroup, UILayout, UIList

from ...scene import map_nodes, mapping, maps, materials, properties, result_nodes, results
from .elements import draw_text, in_both_editors, property_column
from .mapping import Mapping
from .parameters import draw_parameter

ICONS = {
    "normal": "NORMALS_FACE",
    "roughness": "SHADING_TEXTURE",
    "metallic": "MATSHADERBALL",
    "height": "MOD_DISPLACE",
    "ambient_occlusion": "META_BALL",
    "alpha": "IMAGE_ALPHA",
    "emission": "OUTLINER_OB_LIGHT",
}
OTHER_ICON = "IMAGE_DATA"


def icon_of(name: str) -> str:
    """The icon of a map."""
    return ICONS.get(name, OTHER_ICON)


class DISTILL_UL_maps(UIList):
    """Maps of the swatch: what each is, and its image."""

    def draw_item(
        self,
        _context: Context,
        layout: UILayout,
        _settings: PropertyGroup,
        item: PropertyGroup,
        _icon: int,
        _active: PropertyGroup,
        _name: str,
        _index: int = 0,
        _flag: int = 0,
    ) -> None:
        split = layout.split(factor=0.5)
        split.label(text=tr(maps.title_of(item.name)), icon=icon_of(item.name), translate=False)
        row = split.row()
        row.active = item.image is not None
        text = item.image.name if item.image is not None else tr("no image")
        row.label(text=text if item.channel == "RGB" else f"{item.channel}: {text}", translate=False)


class DISTILL_MT_maps(Menu):
    """Maps that the swatch can have"""

    bl_label = "Add Map"

    def draw(self, context: Context) -> None:
        for name in maps.missing(context.scene.distill):
            self.layout.operator(
                "distill.map_add", text=tr(maps.title_of(name)), icon=icon_of(name), translate=False
            ).name = name
        self.layout.operator_context = "INVOKE_DEFAULT"
        self.layout.operator("distill.map_add", text="Other...", icon=OTHER_ICON).name = ""


class Maps:
    """The maps of the swatch, and what the result will have."""

    bl_label = "Maps"
    bl_options = {"DEFAULT_CLOSED"}
    layout: Any

    @classmethod
    def poll(cls, context: Context) -> bool:
        return maps.takes_maps(context.scene.distill)

    def draw_header(self, context: Context) -> None:
        if count := len(maps.given(context.scene.distill)):
            self.layout.label(text=f"({count})", translate=False)

    def draw(self, context: Context) -> None:
        settings, layout = context.scene.distill, self.layout
        if not settings.maps:
            text = tr("With its normal, roughness and other maps, the swatch is a whole material, and so is the result")
            draw_text(layout, text, context)
        else:
            row = layout.row()
            row.template_list("DISTILL_UL_maps", "", settings, "maps", settings, "map_index", rows=3)
            column = row.column(align=True)
            column.menu("DISTILL_MT_maps", text="", icon="ADD")
            column.operator("distill.map_remove", text="", icon="REMOVE")
            _draw_map(layout, settings)
            for problem in maps.problems(settings):
                draw_text(layout, problem, context, "ERROR")
        column = layout.column(align=True)
        if not settings.maps:
            column.menu("DISTILL_MT_maps", icon="ADD")
        column.operator("distill.maps_find", text="Find Beside Swatch", icon="VIEWZOOM")
        column.operator("distill.maps_from_folder", text="Open Texture Set...", icon="FILE_FOLDER")
        column = property_column(layout, context)
        kind, has_normal = properties.kind_of(settings), "normal" in maps.given(settings)
        overview = maps.overview(settings)
        shown = {"estimate_maps": True, "normal_format": has_normal, "normal_strength": bool(overview.estimated)}
        for parameter in kind.parameters:
            if shown.get(parameter.name):
                draw_parameter(column, settings, parameter)
        for text, names in (
            (tr("Follow the color: {}"), overview.followed),
            (tr("Estimated from the color: {}"), overview.estimated),
        ):
            if names:
                draw_text(layout, text.format(", ".join(tr(maps.title_of(n)) for n in names)), context)


def _draw_map(layout: UILayout, settings: PropertyGroup) -> None:
    """The image of the active map, and which part of it is used."""
    if not 0 <= settings.map_index < len(settings.maps):
        return
    item = settings.maps[settings.map_index]
    column = layout.column(align=True)
    column.template_ID(item, "image", open="image.open")
    row = column.row(align=True)
    row.prop(item, "channel", text="")
    row.prop(item, "inverted", toggle=True)


class Surface:
    """How the active material uses the height and the ambient occlusion of its result."""

    bl_label = "Surface"
    layout: Any

    @classmethod
    def poll(cls, _context: Context) -> bool:
        material = materials.active_material()
        frame = result_nodes.connected_frame(material)
        if material is None or frame is None:
            return False
        return bool({"height", "ambient_occlusion"} & set(result_nodes.picture_nodes(material.node_tree, frame)))

    def draw(self, context: Context) -> None:
        layout, material = self.layout, materials.active_material()
        frame = result_nodes.connected_frame(material)
        if material is None or frame is None:
            return
        pictures = result_nodes.picture_nodes(material.node_tree, frame)
        if "height" in pictures:
            used = map_nodes.height_of(frame, "normal" in pictures)
            column = layout.column(align=True)
            column.label(text="Height", icon=ICONS["height"])
            row = column.row(align=True)
            for key, (name, _) in map_nodes.HEIGHTS.items():
                row.operator("distill.use_height", text=name, depress=used == key).use = key
            depth = map_nodes.depth_of(material.node_tree, frame)
            if depth is not None:
                column.prop(depth, "default_value", text="Depth")
            if used != "BUMP" and mapping.is_coarse(context.active_object):
                draw_text(layout, "Displacement needs a mesh with many faces: subdivide this one", context, "INFO")
        if "ambient_occlusion" in pictures:
            used = map_nodes.occlusion_of(frame)
            column = layout.column(align=True)
            column.label(text="Ambient Occlusion", icon=ICONS["ambient_occlusion"])
            row = column.row(align=True)
            for key, (name, _) in map_nodes.OCCLUSIONS.items():
                row.operator("distill.use_occlusion", text=name, depress=used == key).use = key
            mix = map_nodes.find(material.node_tree, frame, "occlusion")
            if mix is not None:
                column.prop(map_nodes.socket_of(mix.inputs, "Factor_Float"), "default_value", text="Strength")


def draw_result_maps(box: UILayout, context: Context, job: str) -> None:
    """The maps of a result with a button to view each, and where they come from."""
    images = results.images_of(job)
    if len(images) < 2:
        return
    flow = box.grid_flow(row_major=True, columns=2, even_columns=True, align=True)
    for name in images:
        title = maps.BASE_COLOR if name == "image" else maps.title_of(name)
        icon = "COLOR" if name == "image" else icon_of(name)
        button = flow.operator("distill.show_result", text=tr(title), icon=icon, translate=False)
        button.job, button.picture = job, name
    estimated = [n for n, i in images.items() if i.get(results.ORIGIN) == "estimated"]
    if estimated:
        names = ", ".join(tr(maps.title_of(name)) for name in estimated)
        draw_text(box, tr("Estimated from the color: {}").format(names), context)


classes = (DISTILL_UL_maps, DISTILL_MT_maps, *in_both_editors(Maps))
surface_classes = in_both_editors(Surface, Mapping)
"""A part of the section Mapping, which has to be registered before it."""
