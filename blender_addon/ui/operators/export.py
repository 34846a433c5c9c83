"""The operator that writes a whole result for other programs."""

from pathlib import Path

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty
from bpy.types import Context, Event, Operator

from ... import wire
from ...scene import export, results, windows
from .reports import Done, fail, find_record, job_property


class DISTILL_OT_export_set(Operator):
    """Write all maps of this result into one folder, with the names that other programs recognize"""

    bl_idname = "distill.export_set"
    bl_label = "Export Material"

    job: job_property()
    directory: StringProperty(subtype="DIR_PATH")
    filter_folder: BoolProperty(default=True, options={"HIDDEN"})
    normals: EnumProperty(
        name="Normal Map",
        items=[
            ("OPENGL", "OpenGL", "Green is up, as in Blender, Unity and glTF"),
            ("DIRECTX", "DirectX", "Green is down, as in Unreal"),
        ],
    )
    gltf: BoolProperty(
        name="Pack for glTF",
        description="Ambient occlusion, roughness and metallic in one file, and the opacity in the base color",
    )

    def invoke(self, context: Context, _event: Event) -> Done:
        if not self.directory:
            self.directory = bpy.path.abspath("//") or str(Path.home())
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Context) -> Done:
        record = find_record(self, "succeeded")
        if record is None:
            return {"CANCELLED"}
        image = results.image_of(record.job)
        title = image.name if image is not None else record.title
        options = export.ExportOptions(self.normals, self.gltf)
        try:
            with windows.busy_cursor(context):
                paths = export.export_set(record.job, Path(self.directory), title, options)
        except wire.WireError as error:
            return fail(self, error)
        self.report({"INFO"}, f"Exported {len(paths)} files to {paths[0].parent}")
        return {"FINISHED"}


classes = (DISTILL_OT_export_set,)
