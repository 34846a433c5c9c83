# ruff: noqa: N801, RUF012 - class names and options are as Blender wants them
"""The operators for the service, the jobs and their results. Each calls one function and reports.

All of them work from a script without a window. The whole way:

    bpy.ops.distill.connect()                                     # finds the service, starts it if need be
    settings = bpy.context.scene.distill
    settings.image_swatch = bpy.data.images.load("/path/to/swatch.png")
    bpy.ops.distill.region_add(name="Stone")                      # only for a texture laid out by hand
    bpy.ops.distill.region_add(name="Moss")
    bpy.ops.distill.region_map_new(method="COLOR")                # parts of the swatch, told apart by colour
    output = settings.parameters_synthesize                       # one such group for each kind of job
    output.width, output.height, output.seed = 1024, 512, 7
    bpy.ops.distill.layout_new()                                  # all of it the first region
    bpy.ops.distill.fill(picture="layout", region=1, box=(0.0, 0.0, 1.0, 0.3))
    settings.use_layout = True
    bpy.ops.distill.run()                                         # returns at once
    bpy.ops.distill.wait(timeout=600.0)                           # until every job of this file has ended
    image = bpy.data.images[settings.last_result]                 # also connected to the active material

In a script an operator that fails raises RuntimeError with the sentence that the panel would show.
"""

import random
from typing import TYPE_CHECKING

import bpy
from bpy.props import FloatProperty, IntProperty, StringProperty
from bpy.types import Context, Operator

from ... import wire
from ...scene import materials, painting, preferences, properties, requests, session

if TYPE_CHECKING:
    from ...link.records import Record

Done = set[str]
_JOB = StringProperty(name="Job", description="Which job. Empty: the newest one", options={"SKIP_SAVE"})


def fail(operator: Operator, error: wire.WireError) -> Done:
    """Show an error in the panel and report it."""
    session.desk.complain(error)
    operator.report({"ERROR"}, error.sentence)
    return {"CANCELLED"}


def _record(operator: Operator, fitting: str = "") -> "Record | None":
    """The job that the operator names, or the newest one (in the state `fitting`); reports when there is none."""
    session.pump()
    if operator.job:
        found = session.desk.records.get(operator.job)
    else:
        found = next((r for r in session.desk.of_this_file() if fitting in ("", r.state)), None)
    if found is None:
        operator.report({"WARNING"}, f"There is no job {operator.job}" if operator.job else "There is no job yet")
    return found


class DISTILL_OT_connect(Operator):
    """Look for the service, and start it if it is not there"""

    bl_idname = "distill.connect"
    bl_label = "Connect"

    def execute(self, _context: Context) -> Done:
        session.pump()
        session.desk.connect()
        return {"FINISHED"}


class DISTILL_OT_preferences(Operator):
    """Open the add-on's preferences, where the program of the service is chosen"""

    bl_idname = "distill.preferences"
    bl_label = "Preferences"

    def execute(self, _context: Context) -> Done:
        bpy.ops.preferences.addon_show(module=preferences.PACKAGE)
        return {"FINISHED"}


class DISTILL_OT_run(Operator):
    """Make the texture. Blender stays free meanwhile, and more can be asked for"""

    bl_idname = "distill.run"
    bl_label = "Distill"

    @classmethod
    def poll(cls, context: Context) -> bool:
        if missing := requests.missing(context.scene):
            cls.poll_message_set(missing)
        return not missing

    def execute(self, context: Context) -> Done:
        session.pump()
        session.desk.error = None
        try:
            orders = requests.collect(context.scene)
        except wire.WireError as error:
            return fail(self, error)
        material = session.active_material()
        if (
            material is None
            and context.scene.distill.use_at_once
            and materials.can_have_material(context.active_object)
        ):
            material = materials.give_material(context.active_object, orders[0].title)
            session.push_undo(f"Material {material.name}")
        for order in orders:
            session.desk.order(order, material.name if material else "")
        return {"FINISHED"}


class DISTILL_OT_wait(Operator):
    """Wait until every job of this file has ended. For scripts: it holds up the interface"""

    bl_idname = "distill.wait"
    bl_label = "Wait for Results"
    bl_options = {"INTERNAL"}

    timeout: FloatProperty(name="Timeout", description="Seconds to wait at most", default=600.0, min=0.0)

    def execute(self, _context: Context) -> Done:
        before = {r.job for r in session.desk.of_this_file() if r.active}
        if not session.wait(self.timeout):
            self.report({"ERROR"}, f"The jobs have not ended in {self.timeout:g} seconds")
            return {"CANCELLED"}
        for record in session.desk.of_this_file():
            if record.job in before and record.sentence:
                self.report({"ERROR"}, record.sentence)
                return {"CANCELLED"}
        if session.desk.error is not None:
            self.report({"ERROR"}, session.desk.error.sentence)
            return {"CANCELLED"}
        return {"FINISHED"}


class DISTILL_OT_cancel(Operator):
    """Cancel this job"""

    bl_idname = "distill.cancel"
    bl_label = "Cancel"

    job: _JOB

    def execute(self, _context: Context) -> Done:
        session.pump()
        active = [r for r in session.desk.records.values() if r.active and self.job in ("", r.job)]
        if not active:
            self.report({"INFO"}, "No job is at work")
            return {"CANCELLED"}
        for record in active:
            session.desk.cancel(record)
        return {"FINISHED"}


class DISTILL_OT_use_result(Operator):
    """Connect this result to the material. What is connected now can be restored"""

    bl_idname = "distill.use_result"
    bl_label = "Use Result"
    bl_options = {"REGISTER", "UNDO"}

    job: _JOB

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not materials.can_have_material(context.active_object):
            cls.poll_message_set("Select an object that can have a material")
            return False
        return True

    def execute(self, context: Context) -> Done:
        record = _record(self, "succeeded")
        if record is None:
            return {"CANCELLED"}
        images = session.images_of(record.job)
        if not images:
            self.report({"ERROR"}, "The images of this result are not in the file any more; fetch it again")
            return {"CANCELLED"}
        try:
            material = materials.give_material(context.active_object, record.title)
            materials.add_result(material, record.job, record.title, images)
            materials.use(material, record.job)
        except wire.WireError as error:
            return fail(self, error)
        return {"FINISHED"}


class DISTILL_OT_restore_previous(Operator):
    """Connect again what the material showed before the first result was used"""

    bl_idname = "distill.restore_previous"
    bl_label = "Restore Previous"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, _context: Context) -> bool:
        material = session.active_material()
        if material is None or materials.PREVIOUS not in material:
            cls.poll_message_set("The active material shows no result")
            return False
        return True

    def execute(self, _context: Context) -> Done:
        try:
            materials.restore(session.active_material())
        except wire.WireError as error:
            return fail(self, error)
        return {"FINISHED"}


class DISTILL_OT_fetch_result(Operator):
    """Bring in the result of this job: look for it, fetch it again, or run the job again if it failed"""

    bl_idname = "distill.fetch_result"
    bl_label = "Fetch"

    job: _JOB

    def execute(self, _context: Context) -> Done:
        record = _record(self)
        if record is None or record.active:
            return {"CANCELLED"}
        desk = session.desk
        if record.document != desk.document:
            record.document, record.material = desk.document, ""
            session.pump()
        elif record.state == "succeeded":
            desk.follow(record)
        elif record.request:
            desk.again(record)
        else:
            self.report({"ERROR"}, "This job never reached the service; press Distill again")
            return {"CANCELLED"}
        return {"FINISHED"}


class DISTILL_OT_show_result(Operator):
    """Show this result in an Image Editor, repeated so that a seam would be seen"""

    bl_idname = "distill.show_result"
    bl_label = "Show"

    job: _JOB

    def execute(self, context: Context) -> Done:
        record = _record(self, "succeeded")
        image = session.image_of(record.job) if record else None
        if image is None:
            self.report({"ERROR"}, "The image of this result is not in the file any more; fetch it again")
            return {"CANCELLED"}
        area = painting.image_editor(context)
        if area is None:
            self.report({"WARNING"}, "There is no Image Editor to show it in")
            return {"CANCELLED"}
        space = area.spaces.active
        space.image = image
        space.ui_mode = "VIEW"
        space.show_repeat = record.parameters.get("tile", "none") != "none"
        return {"FINISHED"}


class DISTILL_OT_reuse_parameters(Operator):
    """Put the parameters and the seed of this result back into the panel"""

    bl_idname = "distill.reuse_parameters"
    bl_label = "Reuse Parameters"
    bl_options = {"REGISTER", "UNDO"}

    job: _JOB

    def execute(self, context: Context) -> Done:
        record = _record(self)
        if record is None:
            return {"CANCELLED"}
        settings = context.scene.distill
        settings.kind = record.kind
        properties.set_values(properties.parameters_of(settings), properties.kind_of(settings), record.parameters)
        return {"FINISHED"}


class DISTILL_OT_dismiss(Operator):
    """Take this job off the list. Its images stay"""

    bl_idname = "distill.dismiss"
    bl_label = "Dismiss"

    job: _JOB

    def execute(self, _context: Context) -> Done:
        record = _record(self)
        if record is None or record.active:
            return {"CANCELLED"}
        session.desk.dismiss(record)
        return {"FINISHED"}


class DISTILL_OT_dismiss_error(Operator):
    """Take this message away"""

    bl_idname = "distill.dismiss_error"
    bl_label = "Dismiss"
    bl_options = {"INTERNAL"}

    def execute(self, _context: Context) -> Done:
        session.desk.error = None
        return {"FINISHED"}


class DISTILL_OT_output_size(Operator):
    """Set the size of the texture"""

    bl_idname = "distill.output_size"
    bl_label = "Size"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    width: IntProperty(default=512)
    height: IntProperty(default=512)

    def execute(self, context: Context) -> Done:
        parameters = properties.parameters_of(context.scene.distill)
        parameters.width, parameters.height = self.width, self.height
        return {"FINISHED"}


class DISTILL_OT_choose_model(Operator):
    """Use this model"""

    bl_idname = "distill.choose_model"
    bl_label = "Model"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    name: StringProperty(name="Name")

    def execute(self, context: Context) -> Done:
        properties.parameters_of(context.scene.distill).model = self.name
        return {"FINISHED"}


class DISTILL_OT_random_seed(Operator):
    """Another seed: the same settings give another texture"""

    bl_idname = "distill.random_seed"
    bl_label = "Another Seed"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> Done:
        properties.parameters_of(context.scene.distill).seed = random.randrange(1_000_000)
        return {"FINISHED"}


classes = (
    DISTILL_OT_connect,
    DISTILL_OT_preferences,
    DISTILL_OT_run,
    DISTILL_OT_wait,
    DISTILL_OT_cancel,
    DISTILL_OT_use_result,
    DISTILL_OT_restore_previous,
    DISTILL_OT_fetch_result,
    DISTILL_OT_show_result,
    DISTILL_OT_reuse_parameters,
    DISTILL_OT_dismiss,
    DISTILL_OT_dismiss_error,
    DISTILL_OT_output_size,
    DISTILL_OT_choose_model,
    DISTILL_OT_random_seed,
)


def register() -> None:
    for cls in classes:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(classes):
        bpy.utils.unregister_class(cls)
