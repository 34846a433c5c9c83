"""The add-on's preferences: how to find or start the service."""

import bpy
from bpy.props import BoolProperty, StringProperty

from .. import __package__ as _package
from ..link import client

PACKAGE = str(_package)
"""The add-on's package, `bl_ext.user_default.texture_distiller` if it is installed as an extension."""


class PreferenceValues:
    """Where the service is. Empty texts mean the installer's values. `ui/preferences.py` registers and draws them."""

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
        name="Start When Needed",
        description="Start the service when a swatch is chosen or a texture is requested, "
        "and again if it stops while it works",
        default=True,
    )
    url: StringProperty(
        name="Address",
        description="Address of a service on another computer, such as https://render.example:8765. "
        "Empty: the service on this computer",
    )
    token: StringProperty(
        name="Token", description="Token of the service at that address. It is sent nowhere else", subtype="PASSWORD"
    )
    allow_plain: BoolProperty(
        name="Allow Unencrypted",
        description="Use another computer without https. Others in the network can read the token and the pictures",
        default=False,
    )
    hub_token: StringProperty(
        name="Hub Token",
        description="Your token of the Hugging Face Hub. Only models that ask for a login need it",
        subtype="PASSWORD",
    )


def get() -> PreferenceValues | None:
    """The preferences, or None if the package was registered without being enabled as an add-on."""
    addon = bpy.context.preferences.addons.get(PACKAGE)
    return addon.preferences if addon else None


def service_address() -> client.ServiceAddress:
    """The service's address according to the preferences."""
    online = bool(bpy.app.online_access)
    chosen = get()
    if chosen is None:
        return client.ServiceAddress(online=online, restart=True)
    return client.ServiceAddress(
        data_dir=bpy.path.abspath(chosen.data_dir),
        executable=bpy.path.abspath(chosen.executable),
        url=chosen.url.strip(),
        token=chosen.token.strip(),
        online=online,
        plain=chosen.allow_plain,
        restart=chosen.start_automatically,
    )


def hub_token() -> str:
    """The artist's token of the hub, or an empty text."""
    chosen = get()
    return chosen.hub_token.strip() if chosen else ""


def may_start() -> bool:
    """Whether the service may be started without asking."""
    chosen = get()
    return chosen is None or chosen.start_automatically
