"""Operators for results: apply and restore, choose and delete in the gallery, make them again."""

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.props import BoolProperty, EnumProperty, IntProperty, StringProperty
from bpy.types import Context, Event, Operator

from ... import wire
from ...scene import image_editors, materials, properties, recall, result_nodes, results, session
from .reports import Done, fail, find_record, job_property


class DISTILL_OT_use_result(Operator):
    """Apply this result to the materials of the selected objects. The original textures can be restored"""

    bl_idname = "distill.use_result"
    bl_label = "Apply"
    bl_options = {"REGISTER", "UNDO"}

    job: job_property()
    slots: EnumProperty(
        name="Slots",
        items=[
            ("ACTIVE", "Active Slot", "The active material slot of each selected object"),
            ("ALL", "All Slots", "Every material slot of each selected object"),
        ],
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not any(materials.can_have_material(thing) for thing in materials.target_objects(context)):
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
        objects = [thing for thing in materials.target_objects(context) if materials.can_have_material(thing)]
        every = self.slots == "ALL"
        if problem := materials.problem_of(objects, every):
            return fail(self, wire.LocalError("invalid-image", problem))
        try:
            targets = materials.ensure_materials(objects, record.title, every)
            results.apply(record.job, images["image"].name, targets, images)
        except wire.WireError as error:
            return fail(self, error)
        context.window_manager.distill_result = record.job
        if note := materials.note_of(objects):
            self.report({"INFO"}, note)
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
            result_nodes.restore(materials.active_material())
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
        if record.state == "succeeded" and results.image_of(record.job) is not None:
            self.report({"INFO"}, tr("“{}” is in this file already").format(record.title))
            return {"CANCELLED"}
        if record.document != current.document:
            record.document, record.material, record.materials = current.document, "", {}
            session.pump()
        elif record.state == "succeeded":
            current.watch(record)
        elif current.can_retry(record):
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
        if not image_editors.show(context, image, record.parameters.get("tile", "none") != "none"):
            self.report({"WARNING"}, "There is no Image Editor to show the result in")
            return {"CANCELLED"}
        return {"FINISHED"}


# ---------------------------------------------------------------------------------------------- the gallery


class DISTILL_OT_select_result(Operator):
    """Show this result large, with what it was made from"""

    bl_idname = "distill.select_result"
    bl_label = "Select Result"
    bl_options = {"INTERNAL"}

    job: job_property()

    @classmethod
    def description(cls, _context: Context, properties: Any) -> str:
        image = results.image_of(properties.job)
        return image.name if image is not None else str(cls.__doc__)

    def execute(self, context: Context) -> Done:
        context.window_manager.distill_result = self.job
        return {"FINISHED"}


class DISTILL_OT_gallery_page(Operator):
    """Show another page of the gallery"""

    bl_idname = "distill.gallery_page"
    bl_label = "Page"
    bl_options = {"INTERNAL"}

    page: IntProperty(name="Page", min=0)

    def execute(self, context: Context) -> Done:
        context.window_manager.distill_page = self.page
        return {"FINISHED"}


class DISTILL_OT_gallery_swatch(Operator):
    """Show the results of one swatch, or of all"""

    bl_idname = "distill.gallery_swatch"
    bl_label = "Filter by Swatch"
    bl_options = {"INTERNAL"}

    name: StringProperty(name="Swatch", options={"SKIP_SAVE"})

    def execute(self, context: Context) -> Done:
        context.window_manager.distill_swatch, context.window_manager.distill_page = self.name, 0
        return {"FINISHED"}


class DISTILL_OT_favorite(Operator):
    """Mark this result as a favorite, or remove the mark. Delete Unused keeps favorites"""

    bl_idname = "distill.favorite"
    bl_label = "Favorite"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    job: job_property()

    def execute(self, _context: Context) -> Done:
        record = find_record(self, "succeeded")
        image = results.image_of(record.job) if record is not None else None
        if image is None:
            return {"CANCELLED"}
        image[results.FAVORITE] = not image.get(results.FAVORITE, False)
        return {"FINISHED"}


class DISTILL_OT_delete_result(Operator):
    """Delete this result: its images, and its nodes in materials that do not show it"""

    bl_idname = "distill.delete_result"
    bl_label = "Delete"
    bl_options = {"REGISTER", "UNDO"}

    job: job_property()
    in_use: BoolProperty(
        name="Also If in Use",
        description="Restore the original texture of materials that show the result. Otherwise the result is kept",
        options={"SKIP_SAVE"},
    )

    def invoke(self, context: Context, event: Event) -> Done:
        record = find_record(self, "succeeded")
        if record is None or record.job not in results.used_jobs():
            return self.execute(context)
        self.job, self.in_use = record.job, True
        names = ", ".join(f"“{material.name}”" for material in results.users_of(record.job))
        shown = tr("The material {} shows it and gets its original texture back").format(names)
        message = shown if names else tr("It is used")
        return context.window_manager.invoke_confirm(
            self, event, title="Delete a Result in Use?", message=message, confirm_text="Delete", icon="WARNING"
        )

    def execute(self, context: Context) -> Done:
        record = find_record(self, "succeeded")
        if record is None:
            return {"CANCELLED"}
        if not self.in_use and record.job in results.used_jobs():
            users = results.users_of(record.job)
            text = tr("“{}” is used; replace it first").format(record.title)
            if users:
                text = tr("“{}” is shown by the material “{}”; restore its original first")
                text = text.format(record.title, users[0].name)
            self.report({"ERROR"}, text)
            return {"CANCELLED"}
        try:
            for material in results.users_of(record.job):
                result_nodes.restore(material)
        except wire.WireError as error:
            return fail(self, error)
        _delete(context, [record.job])
        return {"FINISHED"}


class DISTILL_OT_delete_unused(Operator):
    """Delete every result that nothing in this file uses and that is not a favorite"""

    bl_idname = "distill.delete_unused"
    bl_label = "Delete Unused"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, _context: Context) -> bool:
        if not results.all_results():
            cls.poll_message_set("This file has no results")
            return False
        return True

    def invoke(self, context: Context, event: Event) -> Done:
        jobs = results.unused()
        if not jobs:
            return self.execute(context)
        message = tr("{} ({:.1f} MB) that no material uses").format(_count(jobs), results.memory_of(jobs) / 1e6)
        return context.window_manager.invoke_confirm(
            self, event, title="Delete Unused Results?", message=message, confirm_text="Delete", icon="WARNING"
        )

    def execute(self, context: Context) -> Done:
        jobs = results.unused()
        size = results.memory_of(jobs) / 1e6
        _delete(context, jobs)
        deleted = tr("Deleted {}, {:.1f} MB").format(_count(jobs), size)
        self.report({"INFO"}, deleted if jobs else tr("Every result is used or a favorite"))
        return {"FINISHED"} if jobs else {"CANCELLED"}


def _delete(context: Context, jobs: list[str]) -> None:
    current = session.current()
    for job in jobs:
        if (record := current.records.get(job)) is not None:
            current.remove(record)
    results.delete(jobs)
    manager = context.window_manager
    if manager.distill_compare in jobs:
        manager.distill_compare, manager.distill_split_on = "", False


def _count(jobs: list[str]) -> str:
    return tr("1 result") if len(jobs) == 1 else tr("{} results").format(len(jobs))


# ---------------------------------------------------------------------------------------------- making again


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


class DISTILL_OT_again_exactly(Operator):
    """Set the panel as it was for this result, with its swatch, layout and parameters, to make the same pixels"""

    bl_idname = "distill.again_exactly"
    bl_label = "Again Exactly"
    bl_options = {"REGISTER", "UNDO"}

    job: job_property()

    def execute(self, context: Context) -> Done:
        record = find_record(self)
        if record is None:
            return {"CANCELLED"}
        try:
            done = session.current().recall(context.scene, record)
        except wire.WireError as error:
            return fail(self, error)
        self.report({"INFO"}, "The panel is as it was" if done else "Loading pictures that changed since")
        return {"FINISHED"}


class DISTILL_OT_more_like_this(Operator):
    """Make more results with the swatch, the layout and the parameters of this one, and other seeds"""

    bl_idname = "distill.more_like_this"
    bl_label = "More Like This"

    job: job_property()
    count: IntProperty(name="Count", description="Number of textures to make", default=3, min=1, max=32)

    def execute(self, _context: Context) -> Done:
        record = find_record(self, "succeeded")
        if record is None:
            return {"CANCELLED"}
        if not record.request:
            self.report({"ERROR"}, tr("“{}” does not say which pictures it was made from").format(record.title))
            return {"CANCELLED"}
        current = session.current()
        inputs = record.request.get("inputs")
        alike = [r.seed for r in current.of_this_file() if r.request.get("inputs") == inputs]
        sources = recall.unchanged_sources(record)
        first = max([record.seed, *alike]) + 1
        for seed in range(first, first + self.count):
            current.vary(record, sources, seed % (wire.MAX_SEED + 1))
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


# ---------------------------------------------------------------------------------------------- comparing


class DISTILL_OT_compare(Operator):
    """Compare the active result with this one, or end the comparison"""

    bl_idname = "distill.compare"
    bl_label = "Compare"
    bl_options = {"INTERNAL"}

    job: StringProperty(name="Job", description="Id of the job. Empty: end the comparison", options={"SKIP_SAVE"})

    def execute(self, context: Context) -> Done:
        manager = context.window_manager
        manager.distill_compare = self.job
        if not self.job:
            manager.distill_split_on = False
        _redraw_image_editors()
        return {"FINISHED"}


class DISTILL_OT_compare_switch(Operator):
    """Switch the materials of the selected objects between the two results"""

    bl_idname = "distill.compare_switch"
    bl_label = "Switch on Model"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        manager = context.window_manager
        if not manager.distill_compare or not manager.distill_result:
            cls.poll_message_set("Choose a result to compare with first")
            return False
        return True

    def execute(self, context: Context) -> Done:
        a, b = context.window_manager.distill_result, context.window_manager.distill_compare
        job = b if result_nodes.in_use(materials.active_material(), a) else a
        done = bpy.ops.distill.use_result(job=job)
        context.window_manager.distill_result = a
        return set(done)


class DISTILL_OT_compare_split(Operator):
    """Show both results in an Image Editor, one on each side of a line that can be dragged"""

    bl_idname = "distill.compare_split"
    bl_label = "Split View"

    @classmethod
    def poll(cls, context: Context) -> bool:
        if results.image_of(context.window_manager.distill_compare) is None:
            cls.poll_message_set("Choose a result to compare with first")
            return False
        return True

    def execute(self, context: Context) -> Done:
        manager = context.window_manager
        if manager.distill_split_on:
            manager.distill_split_on = False
        else:
            image = results.image_of(manager.distill_result)
            if image is None or not image_editors.show(context, image, False):
                self.report({"WARNING"}, "There is no Image Editor to show the results in")
                return {"CANCELLED"}
            manager.distill_split_on = True
        _redraw_image_editors()
        return {"FINISHED"}


def _redraw_image_editors() -> None:
    for _, area in image_editors.opened():
        area.tag_redraw()


classes = (
    DISTILL_OT_use_result,
    DISTILL_OT_restore_previous,
    DISTILL_OT_fetch_result,
    DISTILL_OT_show_result,
    DISTILL_OT_select_result,
    DISTILL_OT_gallery_page,
    DISTILL_OT_gallery_swatch,
    DISTILL_OT_favorite,
    DISTILL_OT_delete_result,
    DISTILL_OT_delete_unused,
    DISTILL_OT_reuse_parameters,
    DISTILL_OT_again_exactly,
    DISTILL_OT_more_like_this,
    DISTILL_OT_explain_metric,
    DISTILL_OT_compare,
    DISTILL_OT_compare_switch,
    DISTILL_OT_compare_split,
)
