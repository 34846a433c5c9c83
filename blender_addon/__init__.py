"""Texture Distiller in Blender: a swatch and a painted layout go to the service, the texture comes back.

bpy is imported in `register` and `unregister` only, so that `blender_addon.wire` can be imported anywhere.
"""

from typing import Any


def _classes() -> tuple[Any, ...]:
    """The classes to register, in order."""
    from .scene import properties
    from .ui import menus, operators, panels, preferences, split_view

    return (
        *preferences.classes,
        *properties.classes,
        *operators.classes,
        *panels.classes,
        *menus.classes,
        *split_view.classes,
    )


def register() -> None:
    import bpy

    from .scene import active_region, after_undo, map_history, map_overlay, map_watch, properties, session
    from .translations import tables
    from .ui import help, keymaps, menus, split_view

    bpy.app.translations.register(__package__, tables())
    for cls in _classes():
        bpy.utils.register_class(cls)
    properties.add_to_blender()
    active_region.start()
    after_undo.start()
    split_view.start()
    map_history.start()
    map_watch.start()
    map_overlay.start()
    session.start()
    menus.add()
    keymaps.add()
    help.add()


def unregister() -> None:
    import bpy

    from .scene import active_region, after_undo, map_history, map_overlay, map_watch, properties, session
    from .ui import help, keymaps, menus, split_view

    help.remove()
    keymaps.remove()
    menus.remove()
    session.stop()
    map_overlay.stop()
    map_watch.stop()
    split_view.stop()
    after_undo.stop()
    map_history.stop()
    active_region.stop()
    properties.remove_from_blender()
    for cls in reversed(_classes()):
        bpy.utils.unregister_class(cls)
    bpy.app.translations.unregister(__package__)
