"""Keeps the brush in the color of the active region, by Blender's message bus."""

import bpy
from bpy.app.handlers import persistent

from .. import wire
from . import map_watch, painting, properties, regions

_owner = object()
_recent: list[int] = [0, 0]
"""The regions that were active before the last change and after it."""


@persistent
def _subscribe(*_args: object) -> None:
    """Subscribes to the active region and to the colors. Opening a file ends subscriptions."""
    bpy.msgbus.clear_by_owner(_owner)
    for key in ((properties.DistillSettings, "region_index"), (properties.DistillRegion, "color")):
        bpy.msgbus.subscribe_rna(key=key, owner=_owner, args=(), notify=_update_brush)
    for kind, group in properties.GROUPS.items():
        if any(parameter.name == "tile" for parameter in wire.KINDS[kind].parameters):
            bpy.msgbus.subscribe_rna(key=(group, "tile"), owner=_owner, args=(), notify=_update_wrapping)


def _update_brush() -> None:
    settings = bpy.context.scene.distill
    regions.remember_colors(bpy.context.scene)
    map_watch.forget()
    _remember(settings.region_index)
    if settings.region_index < len(settings.regions):
        painting.set_color(bpy.context, settings.regions[settings.region_index].color)


def _update_wrapping() -> None:
    painting.wrap_strokes(bpy.context)


def _remember(index: int) -> None:
    if index != _recent[1]:
        _recent[:] = [_recent[1], index]


def choose(scene: bpy.types.Scene, index: int) -> None:
    """Makes a region the active one, and the brush's color."""
    _remember(scene.distill.region_index)
    scene.distill.region_index = index
    _update_brush()


def swap(scene: bpy.types.Scene) -> None:
    """Makes the region active that was active before this one."""
    _remember(scene.distill.region_index)
    count = len(scene.distill.regions)
    before = _recent[0] if _recent[0] < count and _recent[0] != _recent[1] else (_recent[1] + 1) % count
    choose(scene, before)


def start() -> None:
    """Begin to follow the active region. Called when the add-on is enabled."""
    bpy.app.handlers.load_post.append(_subscribe)
    _subscribe()


def stop() -> None:
    """Called when the add-on is disabled."""
    bpy.app.handlers.load_post.remove(_subscribe)
    bpy.msgbus.clear_by_owner(_owner)
