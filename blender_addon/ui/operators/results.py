"""Operators for the results of jobs."""

from typing import Any

from bpy.props import StringProperty
from bpy.types import Context, Operator

from ... import wire
from ...scene import materials, painting, properties, results, session
from .reports import Done, fail, find_record, job_property


class DISTILL_OT_use_result(Operator):
    """Connect this result to the active material. The original texture can be restored"""

    bl_idname = "distill.use_result"
    bl_label = "Apply"
    bl_options = {"REGISTER", "UNDO"}

    job: job_property()

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not materials.can_have_material(context.active_object):
            cls.poll_message_set("Select an object that can have a material")
            return False
        return True

    def execute(self, context: Context) -> Done:
        record = find_record(self, "succeeded")
        if record is None:
            return {"CANCELLED"}
        images = results.images_of(record.job)
        if not images:
            self.report({"ERROR"}, "The images of this result were deleted from the file; download them again")
            return {"CANCELLED"}
        try:
            material = materials.ensure_material(context.active_object, record.title)
            materials.add_result(material, record.job, record.title, images)
            materials.use_result(material, record.job)
        except wire.WireError as error:
            return fail(self, error)
        return {"FINISHED"}


class DISTILL_OT_restore_previous(Operator):
    """Connect the texture that the active material had before results were applied"""

    bl_idname = "distill.restore_previous"
    bl_label = "Restore Original"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, _context: Context) -> bool:
        material = materials.active_material()
        if material is None or materials.PREVIOUS not in material:
            cls.poll_message_set("No result is applied to the active material")
            return False
        return True

    def execute(self, _context: Context) -> Done:
        try:
            materials.restore(materials.active_material())
        except wire.WireError as error:
            return fail(self, error)
        return {"FINISHED"}


class DISTILL_OT_fetch_result(Operator):
    """Get the result of this job: import it, download it again, or run the job again if it failed"""

    bl_idname = "distill.fetch_result"
    bl_label = "Get Result"

    job: job_property()

    def execute(self, _context: Context) -> Done:
        record = find_record(self)
        if record is None or record.active:
            return {"CANCELLED"}
        current = session.current()
        if record.document != current.document:
            record.document, record.material = current.document, ""
            session.pump()
        elif record.state == "succeeded":
            current.watch(record)
        elif record.request:
            current.retry(record)
        else:
            self.report({"ERROR"}, "This job was not submitted to the service; run it again from the panel")
            return {"CANCELLED"}
        return {"FINISHED"}


class DISTILL_OT_show_result(Operator):
    """Show this result in an Image Editor, repeated to make seams visible"""

    bl_idname = "distill.show_result"
    bl_label = "View"

    job: job_property()

    def execute(self, context: Context) -> Done:
        record = find_record(self, "succeeded")
        if record is None:
            return {"CANCELLED"}
        image = results.image_of(record.job)
        if image is None:
            self.report({"ERROR"}, "The image of this result was deleted from the file; download it again")
            return {"CANCELLED"}
        area = painting.image_editor(context)
        if area is None:
            self.report({"WARNING"}, "There is no Image Editor to show the result in")
            return {"CANCELLED"}
        space = area.spaces.active
        space.image = image
        space.ui_mode = "VIEW"
        space.show_repeat = record.parameters.get("tile", "none") != "none"
        return {"FINISHED"}


class DISTILL_OT_reuse_parameters(Operator):
    """Copy the parameters and the seed of this result to the panel"""

    bl_idname = "distill.reuse_parameters"
    bl_label = "Reuse Parameters"
    bl_options = {"REGISTER", "UNDO"}

    job: job_property()

    def execute(self, context: Context) -> Done:
        record = find_record(self)
        if record is None:
            return {"CANCELLED"}
        try:
            properties.reuse(context.scene.distill, record.kind, record.parameters)
        except wire.WireError as error:
            return fail(self, error)
        return {"FINISHED"}


class DISTILL_OT_explain_metric(Operator):
    """A number about the quality of a result"""

    bl_idname = "distill.explain_metric"
    bl_label = "Measurement"
    bl_options = {"INTERNAL"}

    text: StringProperty()

    @classmethod
    def description(cls, _context: Context, properties: Any) -> str:
        return str(properties.text)

    def execute(self, _context: Context) -> Done:
        self.report({"INFO"}, self.text)
        return {"FINISHED"}


classes = (
    DISTILL_OT_use_result,
    DISTILL_OT_restore_previous,
    DISTILL_OT_fetch_result,
    DISTILL_OT_show_result,
    DISTILL_OT_reuse_parameters,
    DISTILL_OT_explain_metric,
)
