"""Steps that undo and redo changes of a layout that is painted on the model and shown in an Image Editor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np

from blender_addon.scene import image_io
from tests.window.interface import Steps, area, operate, redo, report, screenshot, stroke, undo, within
from tests.window.steps.painting import colors_in, maps, paint


def layout() -> Any:
    return bpy.context.scene.distill.image_layout


def pixels() -> np.ndarray:
    return image_io.pixels_of(layout(), "layout")[..., :3]


def check_shown(when: str) -> None:
    """The layout is the canvas of Texture Paint and the image in the Image Editor, and there is no copy of it."""
    canvas, shown = bpy.context.tool_settings.image_paint.canvas, area("IMAGE_EDITOR").spaces.active.image
    assert bpy.context.active_object.mode == "TEXTURE_PAINT", f"{when}: {bpy.context.active_object.mode}"
    assert canvas == layout(), f"{when}: the canvas is {canvas}"
    assert shown == layout(), f"{when}: the Image Editor shows {shown}"
    assert layout().name == "Layout", f"{when}: the layout is called {layout().name}"


def soften() -> None:
    """Makes the brush soft, as an artist may do by accident."""
    brush = bpy.context.tool_settings.image_paint.brush
    name = "curve_distance_falloff_preset" if hasattr(brush, "curve_distance_falloff_preset") else "curve_preset"
    setattr(brush, name, "SMOOTH")


def clean_up_between_strokes() -> Steps:
    """A soft stroke, Clean Up, Paint, a stroke; each is undone, and then done again; one more stroke."""
    view = area("VIEW_3D")
    with within(view):
        brick, moss, mortar = maps()
    yield from paint("layout", "EDITOR", 1)
    yield from paint("layout", "MODEL", 1)
    soften()
    states = [pixels()]
    yield from stroke(view, 30)
    states.append(pixels())
    assert len(np.unique(states[-1].reshape(-1, 3), axis=0)) > 2, "the stroke is not soft"
    operate("distill.clean", view, picture="layout")
    yield 0.5
    check_shown("after Clean Up")
    states.append(pixels())
    assert colors_in("layout") == {brick, moss}
    yield from paint("layout", "MODEL", 2)
    states.append(pixels())
    yield from stroke(view, 30, up=-20)
    states.append(pixels())
    assert mortar in colors_in("layout")
    for number in reversed(range(len(states) - 1)):
        yield from undo(view)
        screenshot(f"undo{number}")
        assert (pixels() == states[number]).all(), f"undo to state {number} gave other pixels"
        check_shown(f"undo to state {number}")
    for number in range(1, len(states)):
        yield from redo(view)
        screenshot(f"redo{number}")
        assert (pixels() == states[number]).all(), f"redo to state {number} gave other pixels"
        check_shown(f"redo to state {number}")
    yield from stroke(view, 30, up=20)
    assert (pixels() != states[-1]).any(), "the stroke after undo and redo went into another image"
    assert [i.name for i in bpy.data.images if "before" in i.name] == []
    report("images", sorted(image.name for image in bpy.data.images))


def save_between_strokes() -> Steps:
    """A soft stroke, saving, another stroke; both are undone, and then done again."""
    view = area("VIEW_3D")
    with within(view):
        maps()
    yield from paint("layout", "EDITOR", 1)
    yield from paint("layout", "MODEL", 1)
    soften()
    states = [pixels()]
    yield from stroke(view, 30)
    states.append(pixels())
    assert layout().is_dirty
    bpy.ops.wm.save_as_mainfile(filepath=str(Path(bpy.app.tempdir) / "strokes.blend"), copy=True)
    assert not layout().is_dirty, "saving has packed it"
    assert (pixels() == states[-1]).all(), "saving has changed it"
    yield 0.5
    yield from stroke(view, 30, up=-20)
    states.append(pixels())
    for number in (1, 0):
        yield from undo(view)
        assert (pixels() == states[number]).all(), f"undo to state {number} gave other pixels"
        check_shown(f"undo to state {number}")
    for number in (1, 2):
        yield from redo(view)
        assert (pixels() == states[number]).all(), f"redo to state {number} gave other pixels"
