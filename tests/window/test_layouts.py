"""A layout that is set up in one press and painted where the texture tiles."""

from __future__ import annotations

from tests.window.launcher import Blender


def test_strokes_wrap_and_edges_that_differ_are_noticed(blender: Blender) -> None:
    blender.run("layouts.strokes_wrap_and_edges_are_watched")
