"""Operators that edit a finished picture: run the edit, and paint its mask."""

from bpy.types import Context, Operator

from ... import wire
from ...scene import edits, materials, painting, session, windows
from .reports import Done, fail

WHITE = (1.0, 1.0, 1.0)


class DISTILL_OT_edit(Operator):
    """Run the chosen edit in the background. The picture stays; the edited one is a new result"""

    bl_idname = "distill.edit"
    bl_label = "Edit Picture"

    @classmethod
    def poll(cls, context: Context) -> bool:
        if missing := edits.missing(context):
            cls.poll_message_set(missing)
        return not missing

    def execute(self, context: Context) -> Done:
        session.pump()
        current = session.current()
        current.error = None
        try:
            with windows.busy_cursor(context):
                draft = edits.draft(context)
        except wire.WireError as error:
            return fail(self, error)
        shown = edits.users_of(edits.target(context)) if context.scene.distill.use_at_once else []
        current.submit(draft, {materials.ensure_id(material): material.name for material in shown})
        return {"FINISHED"}


class DISTILL_OT_mask_paint(Operator):
    """Paint white over the picture where it changes. Adds the mask if there is none"""

    bl_idname = "distill.mask_paint"
    bl_label = "Paint Mask"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if edits.target(context) is None:
            cls.poll_message_set("Choose a picture, or make a texture first")
            return False
        return True

    def execute(self, context: Context) -> Done:
        mask = edits.ensure_mask(context.scene, edits.target(context))
        windows.push_undo(self.bl_label)
        painting.prepare(context, WHITE)
        if not painting.in_image_editor(context, mask):
            self.report({"WARNING"}, "There is no Image Editor to paint in")
        return {"FINISHED"}


class DISTILL_OT_mask_clear(Operator):
    """Begin with an empty mask again"""

    bl_idname = "distill.mask_clear"
    bl_label = "Clear Mask"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if edits.mask_of(context.scene) is None:
            cls.poll_message_set("There is no mask")
            return False
        return True

    def execute(self, context: Context) -> Done:
        old = edits.mask_of(context.scene)
        edits.clear_mask(context.scene)
        painting.replace_canvas(context, old, edits.mask_of(context.scene))
        return {"FINISHED"}


classes = (DISTILL_OT_edit, DISTILL_OT_mask_paint, DISTILL_OT_mask_clear)
