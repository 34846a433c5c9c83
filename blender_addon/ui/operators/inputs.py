"""Operators that choose a picture: from a material, an editor, a file, the clipboard, an asset, or the example."""

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.props import BoolProperty, EnumProperty, StringProperty
from bpy.types import Context, Event, FileHandler, Image, Operator

from ... import wire
from ...scene import assets, image_editors, map_sources, materials, properties, session, swatch
from .maps import use_swatch
from .reports import Done, fail

_PICTURE = EnumProperty(
    name="Picture",
    items=[(p.name, properties.label(p.name), p.help) for p in properties.PICTURES.values() if p.role != "labels"],
    default="swatch",
    options={"SKIP_SAVE"},
)


class DISTILL_OT_picture_from_material(Operator):
    """Use the images of the active material: its base color as the swatch, the others as its maps"""

    bl_idname = "distill.picture_from_material"
    bl_label = "From Material"
    bl_options = {"REGISTER", "UNDO"}

    picture: _PICTURE

    @classmethod
    def poll(cls, _context: Context) -> bool:
        material = materials.active_material()
        if materials.base_color_image(material) is None:
            text = (
                tr("The material “{}” has no image as its base color")
                if material
                else tr("The active object has no material")
            )
            cls.poll_message_set(text.format(material.name if material else ""))
            return False
        return True

    def execute(self, context: Context) -> Done:
        found = map_sources.of_material(materials.active_material())
        if self.picture == "swatch" and found is not None:
            return use_swatch(self, context, found)
        return _use(context, self.picture, materials.base_color_image(materials.active_material()))


class DISTILL_OT_picture_from_editor(Operator):
    """Use the image that this Image Editor shows"""

    bl_idname = "distill.picture_from_editor"
    bl_label = "From Editor"
    bl_options = {"REGISTER", "UNDO"}

    picture: _PICTURE

    @classmethod
    def poll(cls, context: Context) -> bool:
        if context.area is None or context.area.type != "IMAGE_EDITOR" or context.area.spaces.active.image is None:
            cls.poll_message_set("This Image Editor shows no image")
            return False
        return True

    def execute(self, context: Context) -> Done:
        return _use(context, self.picture, context.area.spaces.active.image)


class DISTILL_OT_picture_from_file(Operator):
    """Open an image file"""

    bl_idname = "distill.picture_from_file"
    bl_label = "Open"
    bl_options = {"REGISTER", "UNDO"}

    picture: _PICTURE
    filepath: StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_image: BoolProperty(default=True, options={"HIDDEN"})
    filter_folder: BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context: Context, _event: Event) -> Done:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Context) -> Done:
        return _use_file(self, context, self.picture)


class DISTILL_OT_drop_swatch(Operator):
    """Use the image file that was dropped"""

    bl_idname = "distill.drop_swatch"
    bl_label = "Use as Swatch"  # shown in the menu beside Blender's own uses of the file
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    filepath: StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})

    def execute(self, context: Context) -> Done:
        return _use_file(self, context, "swatch")


class DISTILL_FH_swatch(FileHandler):
    """An image file that is dropped on the 3D View or the Image Editor"""

    bl_idname = "DISTILL_FH_swatch"
    bl_label = "Use as Swatch"
    bl_import_operator = "distill.drop_swatch"
    bl_file_extensions = ";".join(sorted(bpy.path.extensions_image))

    @classmethod
    def poll_drop(cls, context: Context) -> bool:
        return context.area is not None and context.area.type in {"VIEW_3D", "IMAGE_EDITOR"}


class DISTILL_OT_picture_paste(Operator):
    """Use the image in the clipboard"""

    bl_idname = "distill.picture_paste"
    bl_label = "Paste"
    bl_options = {"REGISTER", "UNDO"}

    picture: _PICTURE

    @classmethod
    def poll(cls, context: Context) -> bool:
        if context.area is None:
            cls.poll_message_set("Pasting needs a window")
            return False
        return True

    def execute(self, context: Context) -> Done:
        image = image_editors.paste(context)
        if image is None:
            self.report({"ERROR"}, "There is no image in the clipboard; copy one in another program first")
            return {"CANCELLED"}
        return _use(context, self.picture, image)


class DISTILL_OT_picture_from_asset(Operator):
    """Use this asset as the swatch: an image, or the images of a material"""

    bl_idname = "distill.picture_from_asset"
    bl_label = "Use as Swatch"
    bl_options = {"REGISTER", "UNDO"}

    picture: _PICTURE

    @classmethod
    def poll(cls, context: Context) -> bool:
        asset = getattr(context, "asset", None)
        if asset is None or asset.id_type not in assets.TYPES:
            cls.poll_message_set("Choose an image or a material in an Asset Browser")
            return False
        return True

    def execute(self, context: Context) -> Done:
        try:
            found = assets.maps_of(context.asset)
        except wire.WireError as error:
            return fail(self, error)
        return (
            use_swatch(self, context, found) if self.picture == "swatch" else _use(context, self.picture, found.color)
        )


class DISTILL_OT_example(Operator):
    """Load the example: a swatch of cobbles and moss with its maps, its two regions, and a painted layout"""

    bl_idname = "distill.example"
    bl_label = "Try the Example"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> Done:
        swatch.use_example(context.scene)
        return {"FINISHED"}


def _use_file(operator: Operator, context: Context, picture: str) -> Done:
    """Opens the operator's file as a picture, a swatch with its maps beside it, and shows it where it was dropped."""
    path = Path(bpy.path.abspath(operator.filepath))
    textures = map_sources.set_of_file(path) if picture == "swatch" else None
    try:
        found = map_sources.load_set(textures, path.parent) if textures is not None else None
        image = found.color if found is not None else map_sources.load_color(path)
    except wire.WireError as error:
        return fail(operator, error)
    if context.area is not None and context.area.type == "IMAGE_EDITOR":
        context.area.spaces.active.image = image
    return use_swatch(operator, context, found) if found is not None else _use(context, picture, image)


def _use(context: Context, picture: str, image: Image) -> Done:
    if picture == "swatch":
        if swatch.use(context.scene, image):
            session.current().announce_layout_off()
    else:
        setattr(context.scene.distill, f"image_{picture}", image)
    return {"FINISHED"}


classes = (
    DISTILL_OT_picture_from_material,
    DISTILL_OT_picture_from_editor,
    DISTILL_OT_picture_from_file,
    DISTILL_OT_drop_swatch,
    DISTILL_FH_swatch,
    DISTILL_OT_picture_paste,
    DISTILL_OT_picture_from_asset,
    DISTILL_OT_example,
)
