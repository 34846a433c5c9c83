"""Keeps the brush in the color of the active region, by Blender's message bus."""

import bpy
from bpy.app.handlers import persistent

from . import painting, properties, regions

_owner = object()


@persistent
def _subscribe(*_args: object) -> None:
    """Subscribes to the active region and to the colors. Opening a file ends subscriptions."""
    bpy.msgbus.clear_by_owner(_owner)
    for key in ((properties.DistillSettings, "region_index"), (properties.DistillRegion, "color")):
        bpy.msgbus.subscribe_rna(key=key, owner=_owner, args=(), notify=_update_brush)


def _update_brush() -> None:
    settings = bpy.context.scene.distill
    regions.remember_colors(bpy.context.scene)
    if settings.region_index < len(settings.regions):
        painting.set_color(bpy.context, settings.regions[settings.region_index].color)


def start() -> None:
    """Begin to follow the active region. Called when the add-on is enabled."""
    bpy.app.handlers.load_post.append(_subscribe)
    _subscribe()


def stop() -> None:
    """Called when the add-on is disabled."""
    bpy.app.handlers.load_post.remove(_subscribe)
    bpy.msgbus.clear_by_owner(_owner)
