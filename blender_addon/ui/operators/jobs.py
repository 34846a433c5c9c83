"""Operators that submit jobs, wait for them, cancel them, and remove them from the list."""

from bpy.app.translations import pgettext_iface as tr
from bpy.props import FloatProperty
from bpy.types import Context, Event, Operator

from ... import wire
from ...scene import materials, properties, requests, results, session, windows
from .reports import Done, fail, find_record, job_property


class DISTILL_OT_run(Operator):
    """Make the texture in the background. More textures can be requested meanwhile"""

    bl_idname = "distill.run"
    bl_label = "Synthesize"

    @classmethod
    def poll(cls, context: Context) -> bool:
        missing = requests.missing(context.scene)
        model = session.current().model(getattr(properties.parameters_of(context.scene.distill), "model", ""))
        if not missing and model is not None and model.state in ("available", "downloading"):
            missing = tr("The model “{}” is not downloaded yet").format(model.title)
        if not missing and session.current().is_recalling:
            missing = tr("The pictures of the result are being downloaded")
        if missing:
            cls.poll_message_set(missing)
        return not missing

    def execute(self, context: Context) -> Done:
        session.pump()
        current = session.current()
        current.error = None
        properties.show_used_values(context.scene.distill)
        try:
            with windows.busy_cursor(context):  # Blender copies 8192 x 8192 unsaved pixels in seconds
                drafts = requests.drafts(context.scene)
        except wire.WireError as error:
            return fail(self, error)
        targets = {}
        if context.scene.distill.use_at_once:
            objects = [o for o in materials.target_objects(context) if materials.can_have_material(o)]
            new = [thing.name for thing in objects if thing.active_material is None]
            found = materials.ensure_materials(objects, drafts[0].swatch_name)
            targets = {materials.ensure_id(material): material.name for material in found}
            if new:
                windows.push_undo(f"Material of {new[0]}")
        for index, draft in enumerate(drafts):
            current.submit(draft, targets if index == 0 else {})  # other variations are chosen in the gallery
        return {"FINISHED"}


class DISTILL_OT_wait(Operator):
    """Wait until every job of this file has ended. For scripts: it blocks the interface"""

    bl_idname = "distill.wait"
    bl_label = "Wait for Results"
    bl_options = {"INTERNAL"}

    timeout: FloatProperty(name="Timeout", description="Longest time to wait, in seconds", default=600.0, min=0.0)

    def execute(self, _context: Context) -> Done:
        current = session.current()
        active = {r.job for r in current.of_this_file() if r.active}
        if not session.wait(self.timeout):
            self.report({"ERROR"}, tr("The jobs have not ended within {:g} seconds").format(self.timeout))
            return {"CANCELLED"}
        sentences = [r.sentence for r in current.of_this_file() if r.job in active and r.sentence]
        if current.error is not None:
            sentences.append(current.error.sentence)
        if sentences:
            self.report({"ERROR"}, sentences[0])
            return {"CANCELLED"}
        return {"FINISHED"}


class DISTILL_OT_cancel(Operator):
    """Cancel this job"""

    bl_idname = "distill.cancel"
    bl_label = "Cancel"

    job: job_property("all jobs of this file")

    def execute(self, _context: Context) -> Done:
        session.pump()
        current = session.current()
        records = [current.records.get(self.job)] if self.job else current.of_this_file()
        active = [r for r in records if r is not None and r.active]
        if not active:
            self.report({"INFO"}, "No job is active")
            return {"CANCELLED"}
        for record in active:
            current.cancel(record)
        return {"FINISHED"}


class DISTILL_OT_cancel_foreign(Operator):
    """Cancel this job, which another program or another Blender has given to the service"""

    bl_idname = "distill.cancel_foreign"
    bl_label = "Cancel Job of Another Program"
    bl_options = {"INTERNAL"}

    job: job_property("none")

    def invoke(self, context: Context, event: Event) -> Done:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, _context: Context) -> Done:
        session.current().cancel_foreign(self.job)
        return {"FINISHED"}


class DISTILL_OT_dismiss(Operator):
    """Remove this job from the list. Images of its result stay only where they are used"""

    bl_idname = "distill.dismiss"
    bl_label = "Remove from List"

    job: job_property()

    def execute(self, _context: Context) -> Done:
        record = find_record(self)
        if record is None or record.active:
            return {"CANCELLED"}
        results.release(record.job)
        session.current().remove(record)
        return {"FINISHED"}


class DISTILL_OT_dismiss_missing(Operator):
    """Remove the results whose images are not in this file from the list"""

    bl_idname = "distill.dismiss_missing"
    bl_label = "Clear Missing Results"

    def execute(self, _context: Context) -> Done:
        current, found = session.current(), results.all_results()
        for record in current.of_this_file():
            if record.state == "succeeded" and record.job not in found and record.job not in current.downloaded:
                current.remove(record)
        return {"FINISHED"}


classes = (
    DISTILL_OT_run,
    DISTILL_OT_wait,
    DISTILL_OT_cancel,
    DISTILL_OT_cancel_foreign,
    DISTILL_OT_dismiss,
    DISTILL_OT_dismiss_missing,
)
