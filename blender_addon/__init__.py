"""Texture Distiller in Blender: a swatch and a painted layout go to the service, the texture comes back.

bpy is imported in `register` and `unregister` only, so that `blender_addon.wire` can be imported anywhere.
"""

from typing import Any


def _classes() -> tuple[Any, ...]:
    """The classes to register, in order."""
    from .scene import preferences, properties
    from .ui import operators, panels

    return (*preferences.classes, *properties.classes, *operators.classes, *panels.classes)


def register() -> None:
    import bpy

    from .scene import active_region, map_history, map_overlay, map_watch, properties, session

    for cls in _classes():
        bpy.utils.register_class(cls)
    properties.add_to_blender()
    active_region.start()
    map_history.start()
    map_watch.start()
    map_overlay.start()
    session.start()


def unregister() -> None:
    import bpy

    from .scene import active_region, map_history, map_overlay, map_watch, properties, session

    session.stop()
    map_overlay.stop()
    map_watch.stop()
    map_history.stop()
    active_region.stop()
    properties.remove_from_blender()
    for cls in reversed(_classes()):
        bpy.utils.unregister_class(cls)
