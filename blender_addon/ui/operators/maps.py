"""Operators for the maps of the swatch, and for how a material uses the maps of a result."""

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.props import BoolProperty, EnumProperty, StringProperty
from bpy.types import Context, Event, Operator

from ... import wire
from ...scene import image_io, map_nodes, map_sources, mapping, maps, materials, result_nodes, session
from .reports import Done, fail


def use_swatch(operator: Operator, context: Context, found: map_sources.MaterialMaps) -> Done:
    """Chooses a swatch with its maps, and reports which they are and what was left out."""
    if maps.use(context.scene, found):
        session.current().announce_layout_off()
    for note in found.notes:
        operator.report({"WARNING"}, note)
    if found.maps:
        names = ", ".join(tr(maps.title_of(name)) for name in found.maps)
        operator.report({"INFO"}, tr("Swatch with maps: {}").format(names))
    return {"FINISHED"}


class DISTILL_OT_map_add(Operator):
    """Add a map that lies over the swatch pixel by pixel; the result gets it too"""

    bl_idname = "distill.map_add"
    bl_label = "Add Map"
    bl_options = {"REGISTER", "UNDO"}

    name: StringProperty(
        name="Name",
        description="Which map: normal, roughness, metallic, height, ambient_occlusion, alpha, emission, or a name of "
        "your own of small letters, digits and _",
        options={"SKIP_SAVE"},
    )
    filepath: StringProperty(
        name="File", description="Image file of the map. Empty: choose it later", subtype="FILE_PATH"
    )

    def invoke(self, context: Context, _event: Event) -> Done:
        return self.execute(context) if self.name else context.window_manager.invoke_props_dialog(self)

    def execute(self, context: Context) -> Done:
        name = self.name.strip().lower().replace(" ", "_")
        if not wire.MAP_NAME.fullmatch(name):
            self.report({"ERROR"}, tr("“{}” is no name of a map; use small letters, digits and _").format(self.name))
            return {"CANCELLED"}
        if len(context.scene.distill.maps) >= wire.MAX_MAPS:
            self.report({"ERROR"}, tr("A swatch has at most {} maps").format(wire.MAX_MAPS))
            return {"CANCELLED"}
        try:
            image = map_sources.load_color(Path(bpy.path.abspath(self.filepath))) if self.filepath else None
        except wire.WireError as error:
            return fail(self, error)
        maps.add(context.scene, name, image)
        return {"FINISHED"}


class DISTILL_OT_map_remove(Operator):
    """Remove the active map of the swatch; its image stays in the file"""

    bl_idname = "distill.map_remove"
    bl_label = "Remove Map"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not context.scene.distill.maps:
            cls.poll_message_set("The swatch has no maps")
            return False
        return True

    def execute(self, context: Context) -> Done:
        maps.remove(context.scene)
        return {"FINISHED"}


class DISTILL_OT_maps_find(Operator):
    """Find the maps of the swatch by their names: the files beside it, such as wall_nor_gl.png beside wall_diff.png"""

    bl_idname = "distill.maps_find"
    bl_label = "Find Maps of Swatch"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        image = context.scene.distill.image_swatch
        path = image_io.file_of(image) if image is not None else None
        if path is None or not path.is_file():
            cls.poll_message_set("The swatch is not a file on this computer")
            return False
        return True

    def execute(self, context: Context) -> Done:
        path = image_io.file_of(context.scene.distill.image_swatch)
        found = map_sources.set_of_file(path) if path is not None else None
        if found is None or path is None or not found.maps:
            self.report({"WARNING"}, "No file beside the swatch has a name like wall_normal.png or wall_rough_2k.jpg")
            return {"CANCELLED"}
        try:
            return use_swatch(self, context, map_sources.load_set(found, path.parent))
        except wire.WireError as error:
            return fail(self, error)


class DISTILL_OT_maps_from_folder(Operator):
    """Open a downloaded set of textures: its color becomes the swatch, its other files the maps"""

    bl_idname = "distill.maps_from_folder"
    bl_label = "Open Texture Set"
    bl_options = {"REGISTER", "UNDO"}

    directory: StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE"})
    filter_folder: BoolProperty(default=True, options={"HIDDEN"})
    filter_image: BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context: Context, _event: Event) -> Done:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Context) -> Done:
        folder = Path(bpy.path.abspath(self.directory))
        try:
            return use_swatch(self, context, map_sources.load_set(map_sources.set_in_folder(folder), folder))
        except wire.WireError as error:
            return fail(self, error)


def _items(choices: dict[str, tuple[str, str]]) -> list[tuple[str, str, str]]:
    return [(key, *texts) for key, texts in choices.items()]


class _UseOfMap(Operator):
    """What the operators about a material's maps have in common."""

    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, _context: Context) -> bool:
        if result_nodes.connected_frame(materials.active_material()) is None:
            cls.poll_message_set("The active material shows no result")
            return False
        return True

    def apply(self, context: Context, **chosen: str) -> Done:
        material = materials.active_material()
        if material is None:
            return {"CANCELLED"}
        try:
            result_nodes.set_use_of_maps(material, **chosen)
            mapping.fit_depth(material, context.active_object)
        except wire.WireError as error:
            return fail(self, error)
        return {"FINISHED"}


class DISTILL_OT_use_height(_UseOfMap):
    """How the active material uses the height map of its result"""

    bl_idname = "distill.use_height"
    bl_label = "Use Height"

    use: EnumProperty(name="Height", items=_items(map_nodes.HEIGHTS))

    def execute(self, context: Context) -> Done:
        return self.apply(context, height=self.use)


class DISTILL_OT_use_occlusion(_UseOfMap):
    """How the active material uses the ambient occlusion map of its result"""

    bl_idname = "distill.use_occlusion"
    bl_label = "Use Ambient Occlusion"

    use: EnumProperty(name="Ambient Occlusion", items=_items(map_nodes.OCCLUSIONS))

    def execute(self, context: Context) -> Done:
        return self.apply(context, occlusion=self.use)


classes = (
    DISTILL_OT_map_add,
    DISTILL_OT_map_remove,
    DISTILL_OT_maps_find,
    DISTILL_OT_maps_from_folder,
    DISTILL_OT_use_height,
    DISTILL_OT_use_occlusion,
)
