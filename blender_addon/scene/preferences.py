"""The add-on's preferences: where the service and its program are."""

import bpy
from bpy.props import BoolProperty, StringProperty
from bpy.types import AddonPreferences, Context, UILayout

from .. import __package__ as PACKAGE
from ..link import client


class DistillPreferences(AddonPreferences):
    bl_idname = PACKAGE

    executable: StringProperty(
        name="Program",
        description="Path of the ad-service program. Empty: where the installer put it",
        subtype="FILE_PATH",
    )
    data_dir: StringProperty(
        name="Data Folder",
        description="The service's data folder. Empty: the usual one",
        subtype="DIR_PATH",
    )
    start_automatically: BoolProperty(
        name="Start When Needed",
        description="Start the service when a texture is asked for and no service is there",
        default=True,
    )
    url: StringProperty(
        name="Address",
        description="Address of a service elsewhere, such as 127.0.0.1:8765. Empty: as the data folder says",
    )
    token: StringProperty(name="Token", description="Token of the service at that address", subtype="PASSWORD")

    def draw(self, _context: Context) -> None:
        layout: UILayout = self.layout
        layout.use_property_split = True
        for name in ("executable", "data_dir", "start_automatically", "url", "token"):
            layout.prop(self, name)
        found = client.executable_of(place())
        layout.label(
            text=f"Program: {found}" if found else "No program is known: run the installer, or choose it above"
        )


def get() -> DistillPreferences | None:
    """The preferences, or None when the package runs without having been enabled as an add-on."""
    addon = bpy.context.preferences.addons.get(PACKAGE)
    return addon.preferences if addon else None


def place() -> client.Place:
    """Where the service is looked for, as the preferences say now."""
    online = bool(bpy.app.online_access)
    chosen = get()
    if chosen is None:
        return client.Place(online=online)
    return client.Place(
        data_dir=bpy.path.abspath(chosen.data_dir),
        executable=bpy.path.abspath(chosen.executable),
        url=chosen.url.strip(),
        token=chosen.token.strip(),
        online=online,
    )


def may_start() -> bool:
    """Whether the service may be started without being asked for."""
    chosen = get()
    return chosen is None or chosen.start_automatically


classes = (DistillPreferences,)


def register() -> None:
    for cls in classes:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(classes):
        bpy.utils.unregister_class(cls)
