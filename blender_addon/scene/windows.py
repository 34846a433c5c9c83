"""Blender's windows: redraws of the sidebars, the busy cursor, undo steps, and whether an operator of theirs runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import bpy
from bpy.types import Context

BLOCKING_OPERATORS = (
    "PAINT_OT_",
    "SCULPT_OT_",
    "TRANSFORM_OT_",
    "GPENCIL_OT_",
    "GREASE_PENCIL_OT_",
    "MESH_OT_",
    "UV_OT_",
)
"""Modal operators during which no result is imported, since their undo step is still open."""


def push_undo(message: str) -> None:
    """Ends an undo step of all datablocks. Without it, what a timer created would vanish with the artist's next undo.

    Without an area and an active object, since Blender would else store strokes only while the artist paints.
    """
    windows = bpy.context.window_manager.windows
    if not len(windows):
        bpy.ops.ed.undo_push(message=message)
        return
    with bpy.context.temp_override(window=bpy.context.window or windows[0], area=None, region=None, active_object=None):
        bpy.ops.ed.undo_push(message=message)


def redraw() -> None:
    """Redraw the sidebars that have the panel, and the status bars. Blender redraws the rest when its data changes."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"VIEW_3D", "IMAGE_EDITOR", "NODE_EDITOR"}:
                for region in area.regions:
                    if region.type == "UI":
                        region.tag_redraw()
        if not window.modal_operators:  # a running operator may show another text there
            window.workspace.status_text_set(None)  # Python has no other way to redraw the status bar


def redraw_soon() -> None:
    """Redraw the sidebars in half a second, for what Blender prepares in the background."""
    if not bpy.app.timers.is_registered(redraw):
        bpy.app.timers.register(redraw, first_interval=0.5)


def is_modal_operator_running() -> bool:
    """Whether a stroke, a transform or the like is going on in a window."""
    return any(
        operator.bl_idname.startswith(BLOCKING_OPERATORS)
        for window in bpy.context.window_manager.windows
        for operator in window.modal_operators
    )


@contextmanager
def busy_cursor(context: Context) -> Iterator[None]:
    """Shows the pointer of a busy program inside the block, for work that Blender does on its main thread only."""
    window = context.window
    if window is not None:
        window.cursor_modal_set("WAIT")
    try:
        yield
    finally:
        if window is not None:
            window.cursor_modal_restore()
