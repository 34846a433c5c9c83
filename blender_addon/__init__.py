"""Texture Distiller in Blender: a swatch and a painted layout go to the service, the texture comes back.

bpy is touched in `register` and `unregister` only, so that `blender_addon.wire` can be imported anywhere.
"""

from types import ModuleType


def _modules() -> tuple[ModuleType, ...]:
    """The modules that register something with Blender, in their order."""
    from .scene import preferences, properties, session
    from .ui.operators import jobs, layout
    from .ui.panels import main

    return preferences, properties, jobs, layout, main, session


def register() -> None:
    for module in _modules():
        module.register()


def unregister() -> None:
    for module in reversed(_modules()):
        module.unregister()
