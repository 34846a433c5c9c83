"""Runs steps inside Blender and reports how they ended. launcher.py passes this file to Blender as its script."""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import addon_utils
import bpy

from tests.window import interface


def drive(steps: Iterator[float]) -> Any:
    """A timer that runs the steps and then ends Blender."""

    def tick() -> float | None:
        try:
            return next(steps)
        except StopIteration:
            _leave("passed", True)
        except BaseException:
            _leave("failed", traceback.format_exc())
        return None

    return tick


def _leave(name: str, value: Any) -> None:
    try:
        addon_utils.disable("blender_addon")
    except BaseException:
        name, value = "failed", traceback.format_exc()
    interface.report(name, value)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a timer cannot set Blender's exit status


def main() -> None:
    request = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    faulthandler.dump_traceback_later(request["seconds"], exit=True)
    interface.folder = Path(request["folder"])
    view = bpy.context.preferences.view
    view.show_splash, view.show_developer_ui = False, False
    bpy.context.preferences.use_preferences_save = False
    addon_utils.enable("blender_addon", default_set=True)
    chosen = bpy.context.preferences.addons["blender_addon"].preferences
    chosen.data_dir, chosen.start_automatically = request["data_dir"], False
    module, name = request["steps"].rsplit(".", 1)
    steps = getattr(importlib.import_module(f"tests.window.steps.{module}"), name)
    interface.report("version", bpy.app.version_string)
    interface.report("started", time.time())
    bpy.app.timers.register(drive(steps(**request["arguments"])), first_interval=1.0, persistent=True)


main()
