"""Real strokes in the Image Editor and on a cube."""

from __future__ import annotations

from tests.window.launcher import Blender


def test_strokes_have_exactly_the_colors_of_their_regions(blender: Blender) -> None:
    assert blender.run("painting.strokes_have_exact_colors")["colors"] == 3


def test_paint_shows_the_map_that_is_painted(blender: Blender) -> None:
    blender.run("painting.paint_shows_the_map")
