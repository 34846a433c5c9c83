"""Operators for the connection to the service."""

import bpy
from bpy.types import Context, Operator

from ...scene import preferences, session
from .reports import Done


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


class DISTILL_OT_dismiss_error(Operator):
    """Hide this message"""

    bl_idname = "distill.dismiss_error"
    bl_label = "Dismiss"
    bl_options = {"INTERNAL"}

    def execute(self, _context: Context) -> Done:
        session.current().error = None
        return {"FINISHED"}


classes = (DISTILL_OT_connect, DISTILL_OT_preferences, DISTILL_OT_dismiss_error)
