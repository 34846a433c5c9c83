"""The add-on's preferences: how to find or start the service."""

import bpy
from bpy.props import BoolProperty, StringProperty
from bpy.types import AddonPreferences, Context

from .. import __package__ as _package
from ..link import client

PACKAGE = str(_package)
"""The add-on's package, `bl_ext.user_default.texture_distiller` if it is installed as an extension."""


class DistillPreferences(AddonPreferences):
    """Where the service is. Empty texts mean the installer's values."""

    bl_idname = PACKAGE

    executable: StringProperty(
        name="Program",
        description="Path of the ad-service program. Empty: as set by the installer",
        subtype="FILE_PATH",
    )
    data_dir: StringProperty(
        name="Data Folder",
        description="The service's data folder. Empty: the default folder",
        subtype="DIR_PATH",
    )
    start_automatically: BoolProperty(
        name="Start Automatically",
        description="Start the service when a texture is requested and the service is not running",
        default=True,
    )
    url: StringProperty(
        name="Address",
        description="Address of a service, such as 127.0.0.1:8765. Empty: the address in the data folder",
    )
    token: StringProperty(name="Token", description="Token of the service at that address", subtype="PASSWORD")

    def draw(self, _context: Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        for name in ("executable", "data_dir", "start_automatically", "url", "token"):
            layout.prop(self, name)
        found = client.executable_of(service_address())
        layout.label(text=f"Program: {found}" if found else "Program not found: run the installer, or choose it above")


def get() -> DistillPreferences | None:
    """The preferences, or None if the package was registered without being enabled as an add-on."""
    addon = bpy.context.preferences.addons.get(PACKAGE)
    return addon.preferences if addon else None


def service_address() -> client.ServiceAddress:
    """The service's address according to the preferences."""
    online = bool(bpy.app.online_access)
    chosen = get()
    if chosen is None:
        return client.ServiceAddress(online=online)
    return client.ServiceAddress(
        data_dir=bpy.path.abspath(chosen.data_dir),
        executable=bpy.path.abspath(chosen.executable),
        url=chosen.url.strip(),
        token=chosen.token.strip(),
        online=online,
    )


def may_start() -> bool:
    """Whether the service may be started without asking."""
    chosen = get()
    return chosen is None or chosen.start_automatically


classes = (DistillPreferences,)
