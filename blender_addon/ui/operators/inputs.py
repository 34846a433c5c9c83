"""Operators that choose a job's pictures."""

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty
from bpy.types import Context, Event, Operator

from ...scene import materials, properties
from .reports import Done

_PICTURE = EnumProperty(
    name="Picture",
    items=[(p.name, properties.label(p.name), p.help) for p in properties.PICTURES.values() if p.role != "labels"],
    default="swatch",
    options={"SKIP_SAVE"},
)


class DISTILL_OT_picture_from_material(Operator):
    """Use the base color image of the active material"""

    bl_idname = "distill.picture_from_material"
    bl_label = "From Material"
    bl_options = {"REGISTER", "UNDO"}

    picture: _PICTURE

    @classmethod
    def poll(cls, _context: Context) -> bool:
        material = materials.active_material()
        if materials.base_color_image(material) is None:
            what = f"The material “{material.name}”" if material else "The active object"
            cls.poll_message_set(f"{what} has no {'image as its base color' if material else 'material'}")
            return False
        return True

    def execute(self, context: Context) -> Done:
        setattr(context.scene.distill, f"image_{self.picture}", materials.base_color_image(materials.active_material()))
        return {"FINISHED"}


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
        setattr(context.scene.distill, f"image_{self.picture}", context.area.spaces.active.image)
        return {"FINISHED"}


class DISTILL_OT_picture_from_file(Operator):
    """Open an image file"""

    bl_idname = "distill.picture_from_file"
    bl_label = "Open"
    bl_options = {"REGISTER", "UNDO"}

    picture: _PICTURE
    filepath: StringProperty(subtype="FILE_PATH")
    filter_image: BoolProperty(default=True, options={"HIDDEN"})
    filter_folder: BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context: Context, _event: Event) -> Done:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Context) -> Done:
        try:
            image = bpy.data.images.load(self.filepath, check_existing=True)
        except RuntimeError:
            self.report({"ERROR"}, f"{self.filepath} cannot be opened as an image")
            return {"CANCELLED"}
        setattr(context.scene.distill, f"image_{self.picture}", image)
        return {"FINISHED"}


classes = (DISTILL_OT_picture_from_material, DISTILL_OT_picture_from_editor, DISTILL_OT_picture_from_file)
