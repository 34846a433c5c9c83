"""Operators that take results out of the file or to more tiles: assets, PNG files, UDIM images."""

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.props import BoolProperty, EnumProperty, IntProperty, StringProperty
from bpy.types import Context, Event, Material, Operator

from ... import wire
from ...scene import mapping, materials, properties, result_assets, result_nodes, results, udim
from .reports import Done, fail, find_record, job_property


class DISTILL_OT_mark_asset(Operator):
    """Mark this result, and the materials that show it, as assets in the catalog Texture Distiller"""

    bl_idname = "distill.mark_asset"
    bl_label = "Mark as Asset"
    bl_options = {"REGISTER", "UNDO"}

    job: job_property()
    library: StringProperty(
        name="Library",
        description="Asset library that a copy is saved to, by name. Empty: the assets stay in this file",
        options={"SKIP_SAVE"},
    )
    image: BoolProperty(name="Image", description="Mark the image", default=True)
    material: BoolProperty(name="Materials", description="Mark the materials that show the result", default=True)

    def execute(self, context: Context) -> Done:
        record = find_record(self, "succeeded")
        image = results.image_of(record.job) if record is not None else None
        if record is None or image is None:
            return {"CANCELLED"}
        folders = result_assets.libraries()
        if self.library and self.library not in folders:
            self.report({"ERROR"}, tr("There is no asset library “{}”; add it in the preferences").format(self.library))
            return {"CANCELLED"}
        marked = result_assets.mark(image, result_assets.materials_showing(record.job) if self.material else [])
        if not self.image:
            image.asset_clear()
            marked.remove(image)
        try:
            if self.library:
                path = result_assets.save_to_library(folders[self.library], image.name, marked)
                for item in marked:
                    item.asset_clear()  # the copy in the library is the asset
                self.report({"INFO"}, tr("Saved {} to the asset library {}").format(path.name, self.library))
            elif bpy.data.filepath:
                result_assets.add_catalog(Path(bpy.data.filepath).parent)
                self.report(
                    {"INFO"}, tr("Marked {} assets in the catalog {}").format(len(marked), result_assets.CATALOG)
                )
            else:
                self.report({"WARNING"}, tr("Marked. Save the file and mark again to get the catalog"))
        except wire.WireError as error:
            return fail(self, error)
        if not any(isinstance(item, Material) for item in marked):
            self.report({"WARNING"}, tr("Asset Browsers list materials, not images; apply the result and mark again"))
        return {"FINISHED"}


class DISTILL_OT_save_result(Operator):
    """Save results as PNG files, as the service made them: each contains the job that made it"""

    bl_idname = "distill.save_result"
    bl_label = "Save to Files"

    job: job_property()
    which: EnumProperty(
        name="Results",
        items=[
            ("ACTIVE", "This Result", "The chosen result with all its maps"),
            ("FAVORITES", "Favorites", "All favorites"),
            ("ALL", "All Results", "All results of this file"),
        ],
    )
    directory: StringProperty(subtype="DIR_PATH")
    filter_folder: BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context: Context, _event: Event) -> Done:
        if not self.directory:
            self.directory = bpy.path.abspath("//") or str(Path.home())
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, _context: Context) -> Done:
        if self.which == "ACTIVE":
            record = find_record(self, "succeeded")
            jobs = [record.job] if record is not None else []
        else:
            found = results.all_results()
            jobs = [job for job, i in found.items() if self.which == "ALL" or i.get(results.FAVORITE)]
        try:
            paths = [path for job in jobs for path in result_assets.save_pictures(job, Path(self.directory))]
        except wire.WireError as error:
            return fail(self, error)
        if not paths:
            self.report({"WARNING"}, "There is no such result to save")
            return {"CANCELLED"}
        saved = tr("Saved {}").format(paths[0].name) if len(paths) == 1 else tr("Saved {} files").format(len(paths))
        self.report({"INFO"}, saved)
        return {"FINISHED"}


_TILES = {"min": 1, "max": 10, "default": 2}


class DISTILL_OT_udim(Operator):
    """Make a UDIM image of this result and show it on the active material"""

    bl_idname = "distill.udim"
    bl_label = "Make UDIM Tiles"
    bl_options = {"REGISTER", "UNDO"}

    job: job_property()
    columns: IntProperty(name="Columns", description="UDIM tiles side by side", **_TILES)
    rows: IntProperty(name="Rows", description="UDIM tiles on top of each other", **_TILES)
    mode: EnumProperty(
        name="Texture",
        items=[
            ("CUT", "Across All Tiles", "Cut the texture into tiles that continue each other without a seam"),
            ("REPEAT", "In Every Tile", "Use the whole texture in every tile"),
        ],
    )
    use: BoolProperty(name="Apply", description="Show it on the active material", default=True)

    def invoke(self, context: Context, _event: Event) -> Done:
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context: Context) -> Done:
        record = find_record(self, "succeeded")
        images = results.images_of(record.job) if record is not None else {}
        if record is None or not images:
            return {"CANCELLED"}
        thing = context.active_object
        try:
            tiled = udim.tiled_images(images, self.columns, self.rows, self.mode == "REPEAT")
            if self.use and materials.can_have_material(thing):
                material = materials.ensure_material(thing, record.title)
                results.apply(record.job, tiled["image"].name, [material], tiled)
                if result_nodes.projection_of(result_nodes.frame_of(material)) != "UV":
                    mapping.set_projection(material, "UV", thing)
        except wire.WireError as error:
            return fail(self, error)
        return {"FINISHED"}


class DISTILL_OT_udim_size(Operator):
    """Set the resolution of the texture to that of several UDIM tiles together"""

    bl_idname = "distill.udim_size"
    bl_label = "Resolution for UDIM Tiles"
    bl_options = {"REGISTER", "UNDO"}

    columns: IntProperty(name="Columns", description="UDIM tiles side by side", **_TILES)
    rows: IntProperty(name="Rows", description="UDIM tiles on top of each other", **_TILES)
    size: IntProperty(name="Tile", description="Side of one tile in pixels", default=512, min=64, max=8192)

    def invoke(self, context: Context, _event: Event) -> Done:
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context: Context) -> Done:
        width, height = self.columns * self.size, self.rows * self.size
        if max(width, height) > wire.MAX_PICTURE_SIDE:
            text = tr("{} x {} is larger than {}; choose smaller tiles")
            self.report({"ERROR"}, text.format(width, height, wire.MAX_PICTURE_SIDE))
            return {"CANCELLED"}
        group = properties.parameters_of(context.scene.distill)
        group.width, group.height = width, height
        return {"FINISHED"}


classes = (DISTILL_OT_mark_asset, DISTILL_OT_save_result, DISTILL_OT_udim, DISTILL_OT_udim_size)
