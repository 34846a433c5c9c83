"""The section Service: whether the service runs, on which device, and what to do if it does not."""

from __future__ import annotations

from typing import Any

from bpy.types import Context

from ...scene import session
from .elements import SERVICE_ERRORS, capitalize, draw_error, in_both_editors


class Service:
    """Connection to the service that computes the textures."""

    bl_label = "Service"
    layout: Any

    def draw_header(self, _context: Context) -> None:
        current = session.current()
        if current.error is not None and current.error.code in SERVICE_ERRORS:
            icon = "ERROR"
        elif current.connecting or current.service_message:
            icon = "SORTTIME"
        else:
            icon = "CHECKMARK" if current.status else "UNLINKED"
        self.layout.label(text="", icon=icon)

    def draw(self, context: Context) -> None:
        current = session.current()
        row = self.layout.row(align=True)
        if current.status is not None:
            row.label(text=capitalize(current.status.device) or "Connected")
            row.operator("distill.connect", text="", icon="FILE_REFRESH")
        elif current.connecting or current.service_message:
            row.label(text=capitalize(current.service_message), icon="SORTTIME")
        else:
            row.operator("distill.connect", icon="PLAY")
        row.operator("distill.preferences", text="", icon="PREFERENCES")
        if current.error is not None and current.error.code in SERVICE_ERRORS:
            draw_error(self.layout, context, current.error)


classes = in_both_editors(Service)
