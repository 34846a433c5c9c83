"""Steps that paint a layout that tiles, and pick and fill regions with keys."""

from __future__ import annotations

import bpy
import numpy as np

from blender_addon.scene import image_io, map_watch, regions
from tests.addon import scenes
from tests.window import interface
from tests.window.interface import Steps, area, drag, operate, region, report, show_tab, until, within
from tests.window.steps.painting import paint


def labels() -> np.ndarray:
    """The labels of the layout."""
    return regions.read_map(bpy.context.scene, "layout").labels


def at(u: float, v: float) -> tuple[int, int]:
    """The window's coordinates of a place of the picture in the Image Editor."""
    shown = region(area("IMAGE_EDITOR"))
    x, y = shown.view2d.view_to_region(u, v, clip=False)
    return shown.x + x, shown.y + y


def strokes_wrap_and_edges_are_watched() -> Steps:
    """The layout is set up in one press, a stroke continues at the opposite edge, and a filled half is noticed."""
    view = area("VIEW_3D")
    interface.open_sections()
    yield from show_tab(view)
    scenes.swatch()
    scenes.small_output(512, 512)
    operate("distill.use_layout", view)
    yield from paint("layout", "EDITOR", 1)
    with within(area("IMAGE_EDITOR")):
        bpy.ops.image.view_all(fit_view=True)
    yield 0.5
    x, y = at(1.0, 0.5)
    yield from drag((x - 50, y), (x - 4, y))
    found = labels()
    assert (found[:, 0] == 1).any() and (found[:, -1] == 1).any(), "the stroke ends at the edge"
    yield from until(lambda: map_watch.facts(bpy.context.scene, bpy.context.scene.distill.image_layout))
    assert map_watch.differing_edges(bpy.context.scene) == []
    operate("distill.fill", view, picture="layout", region=1, box=(0.5, 0.0, 1.0, 1.0))
    yield from until(lambda: map_watch.differing_edges(bpy.context.scene) == ["left and right"])
    yield 0.5
    interface.screenshot("edges")
    layout = bpy.context.scene.distill.image_layout
    assert map_watch.icon(bpy.context.scene, layout), "the panel has no icon of the layout"
    assert layout.preview is None or not layout.preview.is_image_custom, "a thread of Blender may draw this preview"
    operate("distill.meet_edges", view)
    yield from until(lambda: map_watch.differing_edges(bpy.context.scene) == [])
    report("colors", len(np.unique(image_io.pixels_of(bpy.context.scene.distill.image_layout, "layout"))))
