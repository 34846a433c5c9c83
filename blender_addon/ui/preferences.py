"""The add-on's preferences: the service, another computer, shortcuts, and help."""

import bpy
import rna_keymap_ui
from bpy.app.translations import pgettext_iface as tr
from bpy.types import AddonPreferences, Context, UILayout

from ..link import client
from ..scene import preferences
from . import keymaps


class DistillPreferences(preferences.PreferenceValues, AddonPreferences):
    """Where the service is, and what the add-on may do."""

    bl_idname = preferences.PACKAGE

    def draw(self, context: Context) -> None:
        draw_preferences(self.layout, self, context)


def draw_preferences(layout: UILayout, values: preferences.PreferenceValues, context: Context) -> None:
    """The service here and elsewhere, the shortcuts, and help."""
    layout.use_property_split = True
    here, away, keys, help = (layout.box().column() for _ in range(4))
    here.label(text="Service on This Computer")
    for name in ("executable", "data_dir", "start_automatically", "hub_token"):
        here.prop(values, name)
    found = client.executable_of(preferences.service_address())
    if found:
        here.label(text=tr("Program: {}").format(found), translate=False)
    else:
        here.label(text="Program not found: run the installer, or choose it above", icon="ERROR")
    away.label(text="Service on Another Computer")
    away.prop(values, "url")
    part = away.column()
    part.active = bool(values.url)
    for name in ("token", "allow_plain"):
        part.prop(values, name)
    if values.url and not client.is_loopback(values.url if "://" in values.url else f"http://{values.url}"):
        _draw_online_access(away, context)
    keys.use_property_split = False
    _draw_keymap(keys, context)
    help.label(text="Help")
    row = help.row()
    row.operator("distill.manual", icon="HELP")
    row.operator("distill.bug_report", icon="COPYDOWN")


def _draw_online_access(column: UILayout, context: Context) -> None:
    """Blender's own switch, if it forbids the use of another computer."""
    if not bpy.app.online_access:
        column.label(text="Another computer needs Blender's permission:", icon="INFO")
        column.prop(context.preferences.system, "use_online_access")


def _draw_keymap(column: UILayout, context: Context) -> None:
    """The add-on's shortcuts, which the artist can turn on and change."""
    column.label(text="Shortcuts (off until you tick them)")
    config = context.window_manager.keyconfigs.user
    for keymap, item in keymaps.user_items(context):
        column.context_pointer_set("keymap", keymap)
        rna_keymap_ui.draw_kmi([], config, keymap, item, column, 0)


classes = (DistillPreferences,)
