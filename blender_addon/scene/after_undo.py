"""What undo changes beside the data: Image Editors that lose their image, and the mode that an imported result ends.

Blender empties an Image Editor when undo replaces the image that it shows by an earlier copy. Undo of a result that was
imported in Texture Paint mode reads the state of the file before it, which can be of Object Mode (4.3).
"""

from __future__ import annotations

import bpy
from bpy.app.handlers import persistent

from . import image_editors, results

_shown: dict[tuple[int, int], str] = {}
"""The names of the images that editors show, by the pointers of their window and area, from before undo to after it."""
_before: dict[str, str] = {}
"""The mode of the active object before undo, by the object's name."""
_jobs: set[str] = set()
"""The jobs whose results were in the file before undo."""


@persistent
def _remember(*_args: object) -> None:
    for memory in (_shown, _before, _jobs):
        memory.clear()
    for window, area in image_editors.opened():
        image = area.spaces.active.image
        if image is not None:
            _shown[window.as_pointer(), area.as_pointer()] = image.name
    thing = bpy.context.view_layer.objects.active if bpy.context.view_layer else None
    if thing is not None:
        _before[thing.name] = thing.mode
    _jobs.update(results.all_results())


@persistent
def _bring_back(*_args: object) -> None:
    for window, area in image_editors.opened():
        name = _shown.get((window.as_pointer(), area.as_pointer()))
        if area.spaces.active.image is None and name in bpy.data.images:
            area.spaces.active.image = bpy.data.images[name]
    thing = bpy.context.view_layer.objects.active if bpy.context.view_layer else None
    was_painting = thing is not None and _before.get(thing.name) == "TEXTURE_PAINT" and thing.mode == "OBJECT"
    if was_painting and set(results.all_results()) < _jobs:
        bpy.app.timers.register(_paint, first_interval=0.0)  # modes cannot be changed while undo is going on


def _paint() -> None:
    thing = bpy.context.view_layer.objects.active if bpy.context.view_layer else None
    if thing is not None and thing.mode == "OBJECT":
        bpy.ops.object.mode_set(mode="TEXTURE_PAINT")


def start() -> None:
    """Begins to watch undo and redo. Called when the add-on is enabled."""
    for handlers in (bpy.app.handlers.undo_pre, bpy.app.handlers.redo_pre):
        handlers.append(_remember)
    for handlers in (bpy.app.handlers.undo_post, bpy.app.handlers.redo_post):
        handlers.append(_bring_back)


def stop() -> None:
    """Called when the add-on is disabled."""
    for handlers in (bpy.app.handlers.undo_pre, bpy.app.handlers.redo_pre):
        handlers.remove(_remember)
    for handlers in (bpy.app.handlers.undo_post, bpy.app.handlers.redo_post):
        handlers.remove(_bring_back)
