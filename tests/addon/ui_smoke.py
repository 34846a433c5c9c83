# ruff: noqa: E402 - the paths come first
"""Tests that need a window: panels are drawn, a stroke has exactly the color of its region, undo. Run by hand:

blender --factory-startup --enable-event-simulate --python-exit-code 1 --python tests/addon/ui_smoke.py
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (0, 2)]

import addon_utils
import bpy
import numpy as np

from blender_addon.scene import image_io, painting, regions
from tests.addon import scenes


def window() -> Any:
    return bpy.context.window_manager.windows[0]


def area(kind: str) -> Any:
    return next(a for a in window().screen.areas if a.type == kind)


def within(place: Any) -> Any:
    region = next(r for r in place.regions if r.type == "WINDOW")
    return bpy.context.temp_override(window=window(), area=place, region=region)


def show_tab(place: Any) -> Iterator[float]:
    place.spaces.active.show_region_ui = True
    yield 1.0
    next(r for r in place.regions if r.type == "UI").active_panel_category = "Distill"
    yield 1.0


def stroke(x: int, y: int, length: int) -> Iterator[float]:
    """A stroke of the left mouse button from (x, y) to the right."""
    window().event_simulate("MOUSEMOVE", "NOTHING", x=x, y=y)
    yield 0.2
    window().event_simulate("LEFTMOUSE", "PRESS", x=x, y=y)
    for step in range(1, 11):
        yield 0.05
        window().event_simulate("MOUSEMOVE", "NOTHING", x=x + length * step // 10, y=y)
    yield 0.2
    window().event_simulate("LEFTMOUSE", "RELEASE", x=x + length, y=y)
    yield 1.0


def colors_in_layout() -> set[tuple[int, ...]]:
    pixels = image_io.pixels_of(bpy.context.scene.distill.image_layout, "layout")[..., :3]
    return {tuple(int(v) for v in color) for color in np.unique(pixels.reshape(-1, 3), axis=0)}


def steps() -> Iterator[float]:
    view = area("VIEW_3D")
    yield from show_tab(view)
    scenes.swatch()
    scenes.two_regions()
    bpy.ops.distill.region_add(name="Mortar")
    with within(view):
        bpy.ops.distill.region_map_new(method="COLOR")
        bpy.ops.distill.layout_new()
        bpy.context.scene.distill.use_layout = True
        bpy.context.scene.distill.region_index = 1
        bpy.ops.distill.paint(picture="layout", where="EDITOR")
    yield 3.0
    brick, moss, mortar = regions.colors_of(bpy.context.scene)
    editor = area("IMAGE_EDITOR")
    yield from show_tab(editor)
    with within(editor):
        bpy.ops.image.view_all(fit_view=True)
    yield 1.0
    yield from stroke(editor.x + 60, editor.y + editor.height // 2, 60)
    assert bpy.context.tool_settings.image_paint.brush.name == painting.BRUSH
    assert colors_in_layout() == {brick, moss}, colors_in_layout()

    bpy.context.scene.distill.region_index = 2
    with within(view):
        bpy.ops.distill.paint(picture="layout", where="MODEL")
    yield 2.0
    yield from stroke(view.x + view.width // 2 - 20, view.y + view.height // 2, 30)
    assert colors_in_layout() == {brick, moss, mortar}, colors_in_layout()
    with within(view):
        bpy.ops.ed.undo()
    yield 1.0
    assert colors_in_layout() == {brick, moss}, colors_in_layout()

    view.spaces.active.shading.type, editor.spaces.active.show_repeat = "MATERIAL", True
    with within(editor):
        bpy.ops.distill.paint(picture="layout", where="MODEL")
        bpy.ops.distill.paint(picture="regions", where="EDITOR")
        bpy.ops.distill.picture_from_editor(picture="content")
    assert view.spaces.active.shading.type == "SOLID", "the layout is not seen on the model"
    assert not editor.spaces.active.show_repeat
    settings = bpy.context.scene.distill
    assert settings.image_content == settings.image_regions
    with within(view):
        bpy.ops.distill.region_map_new(method="OVER")
    assert editor.spaces.active.image == settings.image_regions != settings.image_content


def drive(script: Iterator[float]) -> Any:
    def tick() -> float | None:
        try:
            return next(script)
        except StopIteration:
            print("passed", flush=True)
            _leave(0)
        except BaseException:
            traceback.print_exc()
            _leave(1)
        return None

    return tick


def _leave(status: int) -> None:
    addon_utils.disable("blender_addon")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a timer cannot set Blender's exit status


bpy.context.preferences.view.show_splash = False
addon_utils.enable("blender_addon", default_set=True)
bpy.app.timers.register(drive(steps()), first_interval=4.0)
