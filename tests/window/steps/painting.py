"""Steps that paint regions with the mouse."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from blender_addon.scene import image_io, painting, regions
from tests.addon import scenes
from tests.window.interface import Steps, area, operate, redo, report, screenshot, show_tab, stroke, undo, until, within


def colors_in(picture: str) -> set[tuple[int, ...]]:
    """The different colors of a map."""
    pixels = image_io.pixels_of(getattr(bpy.context.scene.distill, f"image_{picture}"), picture)[..., :3]
    return {tuple(int(v) for v in color) for color in np.unique(pixels.reshape(-1, 3), axis=0)}


def maps() -> Any:
    """A swatch, three regions, a region map and a layout; returns the regions' colors."""
    scenes.swatch()
    scenes.two_regions()
    bpy.ops.distill.region_add(name="Mortar")
    bpy.ops.distill.region_map_new(method="COLOR")
    bpy.ops.distill.layout_new()
    bpy.context.scene.distill.use_layout = True
    bpy.ops.ed.undo_push(message="Maps")
    return regions.colors_of(bpy.context.scene)


def paint(picture: str, where: str, region: int) -> Steps:
    """Presses Paint, and waits until the brush is active."""
    bpy.context.scene.distill.region_index = region
    operate("distill.paint", area("VIEW_3D"), picture=picture, where=where)
    tools = bpy.context.tool_settings
    yield from until(lambda: tools.image_paint.brush is not None and tools.image_paint.brush.name == painting.BRUSH)
    yield 0.5


def strokes_have_exact_colors() -> Steps:
    """A stroke in the Image Editor and one on the cube add exactly the colors of their regions, and can be undone."""
    view = area("VIEW_3D")
    yield from show_tab(view)
    with within(view):
        brick, moss, mortar = maps()
    yield from paint("layout", "EDITOR", 1)
    editor = area("IMAGE_EDITOR")
    yield from show_tab(editor)
    with within(editor):
        bpy.ops.image.view_all(fit_view=True)
    yield 0.3
    yield from stroke(editor)
    assert colors_in("layout") == {brick, moss}, colors_in("layout")

    yield from paint("layout", "MODEL", 2)
    yield from stroke(view, 30)
    assert colors_in("layout") == {brick, moss, mortar}, colors_in("layout")
    yield 0.5
    screenshot("strokes")
    yield from undo(view)
    assert colors_in("layout") == {brick, moss}, colors_in("layout")
    yield from redo(view)
    assert colors_in("layout") == {brick, moss, mortar}, colors_in("layout")
    report("colors", 3)


def paint_shows_the_map() -> Steps:
    """Paint on Model shows the canvas on the model; the Image Editor does not repeat the map that is painted."""
    view = area("VIEW_3D")
    with within(view):
        maps()
    yield from paint("layout", "EDITOR", 1)
    editor = area("IMAGE_EDITOR")
    view.spaces.active.shading.type, editor.spaces.active.show_repeat = "MATERIAL", True
    operate("distill.paint", editor, picture="layout", where="MODEL")
    operate("distill.paint", editor, picture="regions", where="EDITOR")
    operate("distill.picture_from_editor", editor, picture="content")
    assert view.spaces.active.shading.type == "SOLID", "the layout is not shown on the model"
    assert not editor.spaces.active.show_repeat
    settings = bpy.context.scene.distill
    assert settings.image_content == settings.image_regions
    operate("distill.region_map_new", view, method="OVER")
    assert editor.spaces.active.image == settings.image_regions != settings.image_content
    yield 0.1
