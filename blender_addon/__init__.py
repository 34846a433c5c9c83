"""Texture Distiller in Blender: a swatch and a painted layout go to the service, the texture comes back.

bpy is touched in `register` and `unregister` only, so that `blender_addon.wire` can be imported anywhere.
"""


def register() -> None:
    from . import operators, operators_layout, panels, preferences, properties, running

    for module in (preferences, properties, operators, operators_layout, panels, running):
        module.register()


def unregister() -> None:
    from . import operators, operators_layout, panels, preferences, properties, running

    for module in (running, panels, operators_layout, operators, properties, preferences):
        module.unregister()
