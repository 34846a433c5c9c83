"""What the operators of regions and layout have in common: the choice of a map, and changes to maps."""

from collections.abc import Callable
from typing import Any

import bpy
from bpy.props import EnumProperty
from bpy.types import Context, Operator

from ... import wire
from ...scene import painting, properties, regions, session, windows
from .reports import Done, fail


def map_property(default: str) -> Any:
    """An operator's choice between the region map and the layout."""
    items = [(name, regions.TITLES[name].title(), properties.PICTURES[name].help) for name in properties.LABEL_MAPS]
    return EnumProperty(name="Map", items=items, default=default, options={"SKIP_SAVE"})


def has_regions(cls: type[Operator], context: Context, count: int = 1) -> bool:
    """Whether there are `count` regions; sets the poll message otherwise."""
    if len(context.scene.distill.regions) < count:
        cls.poll_message_set("Add a region first" if count == 1 else "Add two regions first")
        return False
    return True


def change(operator: Operator, function: Callable[..., object], *arguments: object) -> Done:
    """Call a function that changes regions or maps, as one undo step, and update the editors that show these.

    An error about maps that the panel shows is cleared.
    """
    settings = bpy.context.scene.distill
    before = [getattr(settings, f"image_{name}") for name in properties.LABEL_MAPS]
    try:
        with windows.busy_cursor(bpy.context):
            function(*arguments)
    except wire.WireError as error:
        return fail(operator, error)
    for name, old in zip(properties.LABEL_MAPS, before, strict=True):
        new = getattr(settings, f"image_{name}")
        if old is not None and new != old:
            painting.replace_canvas(bpy.context, old, new)
    regions.remember_colors(bpy.context.scene)
    windows.push_undo(operator.bl_label)
    shown = session.current().error
    if shown is not None and shown.code in ("invalid-labels", "invalid-image"):
        session.current().error = None
    return {"FINISHED"}
