"""Steps that crop, straighten and compare the swatch with the mouse in the Image Editor."""

from __future__ import annotations

import bpy
import numpy as np

from blender_addon.scene import comparison, image_io, properties, session, swatch
from blender_addon.ui.operators import image_tool
from tests.window.interface import (
    Steps,
    area,
    drag,
    operate,
    press,
    region,
    report,
    screenshot,
    show_tab,
    undo,
    until,
    window,
    within,
)


def at(u: float, v: float) -> tuple[int, int]:
    """The window's coordinates of a place in the Image Editor's picture, from its top left corner, in 0 to 1."""
    shown = region(area("IMAGE_EDITOR"))
    x, y = shown.view2d.view_to_region(u, 1.0 - v, clip=False)
    return shown.x + int(x), shown.y + int(y)


def start(tool: str) -> Steps:
    """Presses the tool's button in the sidebar of the 3D View."""
    with within(area("VIEW_3D"), "UI"):
        getattr(bpy.ops.distill, tool)("INVOKE_DEFAULT")
    yield from until(lambda: image_tool.is_running(bpy.context))
    yield 2.0  # until the picture is fitted into the editor


def values() -> dict[str, object]:
    return swatch.frame_of(bpy.context.scene.distill)


def parts_of_the_swatch() -> Steps:
    """A crop is drawn, corrected, undone; corners are dragged with a curved lens; another file ends a tool."""
    view = area("VIEW_3D")
    yield from show_tab(view)
    screenshot("first")
    operate("distill.example", view)
    yield from start("crop_swatch")
    editor = area("IMAGE_EDITOR")
    yield from drag(at(0.25, 0.25), at(0.75, 0.75))
    screenshot("crop")
    yield from drag(at(0.75, 0.75), at(0.5, 0.625))
    zoom = editor.spaces.active.zoom[0]
    yield from press("WHEELUPMOUSE", at(0.5, 0.5))
    assert editor.spaces.active.zoom[0] > zoom, "the view cannot be zoomed while the tool runs"
    yield from press("RET", at(0.4, 0.4))
    left, top, width, height = (int(n) for n in str(values()["crop"]).split(","))
    assert np.abs(np.array([left, top, width, height]) - [112, 112, 112, 168]).max() <= 3, values()
    assert not image_tool.is_running(bpy.context)
    yield from undo(editor)
    assert values()["crop"] == ""

    yield from start("crop_swatch")
    yield from drag(at(0.3, 0.3), at(0.6, 0.6))
    yield from press("ESC", at(0.5, 0.5))
    assert values()["crop"] == "", "Escape stores nothing"

    yield from start("straighten_swatch")
    yield from drag(at(0.15, 0.15), at(0.3, 0.25))
    properties.parameters_of(bpy.context.scene.distill).lens = 0.3
    yield from drag(at(0.85, 0.15), at(0.7, 0.3))
    screenshot("straighten")
    yield from drag(at(0.7, 0.3), at(0.2, 0.9))
    screenshot("straighten_wrong")
    yield from press("RET", at(0.5, 0.5))
    assert image_tool.is_running(bpy.context), "crossed corners are not stored"
    yield from drag(at(0.2, 0.9), at(0.7, 0.3))
    yield from press("RET", at(0.5, 0.5))
    points = [[float(n) for n in point.split(",")] for point in str(values()["corners"]).split()]
    assert np.abs(np.array(points[:2]) - np.array([[0.3, 0.25], [0.7, 0.3]]) * 448).max() <= 4, points
    screenshot("straightened")

    yield from start("crop_swatch")
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 1.0
    assert not image_tool.is_running(bpy.context)
    report("parts")


def compare_the_light() -> Steps:
    """The two pictures meet at the pointer; the slider is followed; Escape shows the swatch again."""
    view = area("VIEW_3D")
    yield from show_tab(view)
    operate("distill.example", view)
    settings = bpy.context.scene.distill
    settings.parameters_synthesize.even_light = 1.0
    bpy.ops.distill.connect()
    yield from until(lambda: session.current().status is not None)
    yield from start("compare_swatch")
    editor = area("IMAGE_EDITOR")
    yield from until(lambda: editor.spaces.active.image == comparison.image("after") is not None)
    yield 0.5
    window().event_simulate("MOUSEMOVE", "NOTHING", x=at(0.4, 0.5)[0], y=at(0.4, 0.5)[1])
    yield 0.5
    screenshot("compare")
    bright = image_io.pixels_of(comparison.image("before"), "picture")[..., :3].mean()
    settings.parameters_synthesize.even_light = 0.0
    yield from until(lambda: image_io.pixels_of(comparison.image("after"), "picture")[..., :3].mean() == bright)
    yield from press("ESC", at(0.4, 0.5))
    assert editor.spaces.active.image == settings.image_swatch
    assert comparison.image("after") is None
    report("compared")
