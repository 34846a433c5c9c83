"""The menu Distill, by which the operator search (F3) finds every operator, and the status bar."""

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, Menu

from ..scene import assets, session

STATUS_UNITS = 16
"""Width of the progress in the status bar, in Blender's units of about 20 pixels."""


class DISTILL_MT_main(Menu):
    """The operators of the add-on"""

    bl_label = "Distill"

    def draw(self, _context: Context) -> None:
        layout = self.layout
        layout.operator("distill.run", icon="RENDER_STILL")
        layout.operator("distill.cancel", text="Cancel All Jobs", icon="X")
        layout.menu("DISTILL_MT_main_input")
        layout.menu("DISTILL_MT_main_layout")
        layout.menu("DISTILL_MT_main_results")
        layout.menu("DISTILL_MT_main_edit")
        layout.separator()
        layout.operator("distill.random_seed")
        layout.operator("distill.connect")
        layout.operator("distill.preferences")
        layout.operator("distill.manual", icon="HELP")
        layout.operator("distill.bug_report")


class DISTILL_MT_main_input(Menu):
    """The pictures of a job"""

    bl_label = "Input"

    def draw(self, context: Context) -> None:
        layout = self.layout
        layout.operator("distill.picture_from_file", text="Open Swatch")
        layout.operator("distill.picture_from_material", text="Swatch from Material")
        if context.area.type == "IMAGE_EDITOR":
            layout.operator("distill.picture_from_editor", text="Swatch from Editor")
        layout.operator("distill.picture_paste", text="Paste Swatch")
        layout.operator("distill.example")
        layout.separator()
        layout.operator("distill.maps_from_folder")
        layout.operator("distill.maps_find")
        layout.operator("distill.map_add")
        layout.operator("distill.map_remove")
        layout.separator()
        layout.operator("distill.crop_swatch")
        layout.operator("distill.straighten_swatch")
        layout.operator("distill.whole_swatch")
        layout.operator("distill.compare_swatch")


class DISTILL_MT_main_layout(Menu):
    """Regions of the swatch, and the layout of the texture"""

    bl_label = "Regions and Layout"

    def draw(self, _context: Context) -> None:
        layout = self.layout
        layout.operator("distill.use_layout", text="Use Layout or Not")
        layout.operator("distill.suggest_regions")
        layout.operator("distill.region_add")
        layout.operator("distill.region_remove")
        layout.operator("distill.regions_from_map")
        layout.operator("distill.region_map_new", text="Split Swatch by Color").method = "COLOR"
        layout.operator("distill.region_map_new", text="New Region Map").method = "OVER"
        layout.operator("distill.layout_new", text="New Layout")
        paint = layout.operator("distill.paint", text="Paint Layout")
        paint.picture, paint.where = "layout", "EDITOR"
        paint = layout.operator("distill.paint", text="Paint Layout on Model")
        paint.picture, paint.where = "layout", "MODEL"
        layout.operator("distill.layout_from_object")
        layout.separator()
        layout.operator("distill.fill")
        layout.operator("distill.fill_area")
        layout.operator("distill.fill_selected")
        layout.operator("distill.fill_mask")
        layout.operator("distill.pick_region")
        layout.operator("distill.swap_regions")
        layout.operator("distill.meet_edges")
        layout.operator("distill.clean", text="Clean Up Layout").picture = "layout"


class DISTILL_MT_main_edit(Menu):
    """What changes a finished picture"""

    bl_label = "Edit"

    def draw(self, _context: Context) -> None:
        layout = self.layout
        layout.operator("distill.edit")
        layout.operator("distill.mask_paint")
        layout.operator("distill.mask_clear")


class DISTILL_MT_main_results(Menu):
    """The results of this file"""

    bl_label = "Results"

    def draw(self, _context: Context) -> None:
        layout = self.layout
        layout.operator("distill.use_result", text="Apply Newest Result")
        layout.operator("distill.show_result", text="View Newest Result")
        layout.operator("distill.restore_previous")
        layout.operator("distill.reuse_parameters", text="Reuse Parameters of Newest Result")
        layout.operator("distill.fetch_result", text="Get Newest Result")
        layout.operator("distill.again_exactly")
        layout.operator("distill.more_like_this")
        layout.operator("distill.compare_switch")
        layout.operator("distill.compare_split")
        layout.separator()
        layout.operator_menu_enum("distill.projection", "projection")
        layout.operator_menu_enum("distill.use_height", "use")
        layout.operator_menu_enum("distill.use_occlusion", "use")
        layout.operator("distill.tile_width")
        layout.operator("distill.texel_density")
        layout.operator("distill.repeats", text="Double the Repeats").factor = 2.0
        layout.operator("distill.repeats", text="Halve the Repeats").factor = 0.5
        layout.separator()
        layout.operator("distill.mark_asset")
        layout.operator("distill.save_result")
        layout.operator("distill.export_set")
        layout.operator("distill.udim")
        layout.operator("distill.udim_size")
        layout.separator()
        layout.operator("distill.remove_frames")
        layout.operator("distill.make_local")
        layout.operator("distill.delete_result", text="Delete Newest Result")
        layout.operator("distill.delete_unused")
        layout.operator("distill.dismiss", text="Remove Newest Result from List")
        layout.operator("distill.dismiss_missing")


def _draw_in_header(self: Any, _context: Context) -> None:
    self.layout.menu("DISTILL_MT_main")


def _draw_in_shader_editor(self: Any, context: Context) -> None:
    if context.space_data.tree_type == "ShaderNodeTree":
        self.layout.menu("DISTILL_MT_main")


def _draw_in_texture_paint(self: Any, context: Context) -> None:
    if context.mode == "PAINT_TEXTURE":
        self.layout.menu("DISTILL_MT_main")


def _draw_in_object_menu(self: Any, _context: Context) -> None:
    self.layout.separator()
    self.layout.menu("DISTILL_MT_main", icon="TEXTURE")


def _draw_in_asset_browser(self: Any, context: Context) -> None:
    if getattr(context, "asset", None) is not None and context.asset.id_type in assets.TYPES:
        self.layout.separator()
        self.layout.operator("distill.picture_from_asset")


def _draw_in_status_bar(self: Any, _context: Context) -> None:
    """The progress of the running job and how many wait; after the end, whether it succeeded."""
    current = session.current()
    active = [record for record in current.of_this_file() if record.active]
    running = next((record for record in active if record.state != "queued"), None)
    downloading = next((model for model in current.models if model.state == "downloading"), None)
    if running is not None:
        row = self.layout.row(align=True)
        row.ui_units_x = STATUS_UNITS
        text = f"{running.title}: {current.progress_text(running)}"
        if len(active) > 1:
            text = tr("{} ({} more)").format(text, len(active) - 1)
        row.progress(factor=running.fraction, type="BAR", text=text)
        row.operator("distill.cancel", text="", icon="X").job = running.job
    elif active:
        self.layout.label(text=tr("{} waits").format(active[-1].title), icon="SORTTIME", translate=False)
    elif downloading is not None:
        text = tr("Downloading {}").format(downloading.title)
        row = self.layout.row()
        row.ui_units_x = STATUS_UNITS
        row.progress(factor=downloading.fraction, type="BAR", text=f"{text}: {downloading.fraction:.0%}")
    elif current.notice.current:
        self.layout.label(text=current.notice.text, icon=current.notice.icon, translate=False)


def _hooks() -> tuple[tuple[Any, Any], ...]:
    """Blender's menus and headers, and what is appended to them."""
    return (
        (bpy.types.VIEW3D_MT_object, _draw_in_object_menu),
        (bpy.types.VIEW3D_MT_editor_menus, _draw_in_texture_paint),
        (bpy.types.IMAGE_MT_editor_menus, _draw_in_header),
        (bpy.types.NODE_MT_editor_menus, _draw_in_shader_editor),
        (bpy.types.ASSETBROWSER_MT_context_menu, _draw_in_asset_browser),
        (bpy.types.STATUSBAR_HT_header, _draw_in_status_bar),
    )


def add() -> None:
    for menu, draw in _hooks():
        menu.append(draw)


def remove() -> None:
    for menu, draw in _hooks():
        menu.remove(draw)


classes = (
    DISTILL_MT_main,
    DISTILL_MT_main_input,
    DISTILL_MT_main_layout,
    DISTILL_MT_main_results,
    DISTILL_MT_main_edit,
)
