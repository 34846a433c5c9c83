"""Operators for the connection to the service, its models, and reports of defects."""

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.props import StringProperty
from bpy.types import Context, Event, Operator

from ...scene import bug_report, preferences, session
from ...wire.errors import LocalError
from .. import help
from .reports import Done, fail


class DISTILL_OT_connect(Operator):
    """Connect to the service that computes the textures, and start it if it is not running"""

    bl_idname = "distill.connect"
    bl_label = "Start Service"

    def execute(self, _context: Context) -> Done:
        session.pump()
        session.current().connect()
        return {"FINISHED"}


class DISTILL_OT_preferences(Operator):
    """Open the preferences of the add-on, to choose where the service is"""

    bl_idname = "distill.preferences"
    bl_label = "Preferences"

    def execute(self, _context: Context) -> Done:
        bpy.ops.preferences.addon_show(module=preferences.PACKAGE)
        return {"FINISHED"}


class DISTILL_OT_fetch_model(Operator):
    """Download this model to the service's data folder"""

    bl_idname = "distill.fetch_model"
    bl_label = "Download"
    bl_options = {"INTERNAL"}

    name: StringProperty(name="Name", description="Name of a known model, or OWNER/NAME on the Hugging Face Hub")

    @classmethod
    def description(cls, _context: Context, properties: Any) -> str:
        model = next((m for m in session.current().models if m.name == properties.name), None)
        if model is None:
            return tr("Download this model to the service's data folder")
        return tr("Download {}, {:.1f} GB, license {}").format(model.title, model.bytes / 1e9, model.license)

    def invoke(self, context: Context, event: Event) -> Done:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, _context: Context) -> Done:
        if not bpy.app.online_access and not preferences.service_address().url:
            problem = "The download of a model uses the Internet; allow that in Blender's preferences"
            return fail(self, LocalError("forbidden", f"{problem} (System, Allow Online Access)"))
        session.current().fetch_model(self.name)
        return {"FINISHED"}


class DISTILL_OT_cancel_model(Operator):
    """Stop this download, or hide its error. What has arrived is kept, so that it can be continued"""

    bl_idname = "distill.cancel_model"
    bl_label = "Stop Download"
    bl_options = {"INTERNAL"}

    name: StringProperty(name="Name")

    def execute(self, _context: Context) -> Done:
        session.current().cancel_model(self.name)
        return {"FINISHED"}


class DISTILL_OT_manual(Operator):
    """Open the manual of the add-on in a web browser. It is a file on this computer"""

    bl_idname = "distill.manual"
    bl_label = "Manual"

    def execute(self, _context: Context) -> Done:
        bpy.ops.wm.url_open(url=help.address())
        return {"FINISHED"}


class DISTILL_OT_bug_report(Operator):
    """Collect versions, the last lines of the logs and the last parameters, as a text block and on the clipboard. It has no pictures, names of files or tokens"""  # noqa: E501 - Blender shows it as one paragraph

    bl_idname = "distill.bug_report"
    bl_label = "Collect a Bug Report"

    def execute(self, context: Context) -> Done:
        session.pump()
        text = bug_report.collect(session.current())
        context.window_manager.clipboard = text
        block = bpy.data.texts.new("Texture Distiller Report")
        block.write(text)
        self.report({"INFO"}, tr("The report is on the clipboard and in the text block “{}”").format(block.name))
        return {"FINISHED"}


class DISTILL_OT_dismiss_error(Operator):
    """Hide this message"""

    bl_idname = "distill.dismiss_error"
    bl_label = "Dismiss"
    bl_options = {"INTERNAL"}

    def execute(self, _context: Context) -> Done:
        session.current().error = None
        return {"FINISHED"}


classes = (
    DISTILL_OT_connect,
    DISTILL_OT_preferences,
    DISTILL_OT_fetch_model,
    DISTILL_OT_cancel_model,
    DISTILL_OT_manual,
    DISTILL_OT_bug_report,
    DISTILL_OT_dismiss_error,
)
