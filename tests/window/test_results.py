"""Results in a window: the gallery, undo in Texture Paint, two results in one Image Editor, projections."""

from __future__ import annotations

from tests.window.launcher import Blender

MAX_DRAW_MS = 2.0
"""Longest time that the section Results may take to draw, as the median of a dozen."""


def test_undo_of_a_result_stays_in_texture_paint_and_keeps_the_image_editor(blender: Blender) -> None:
    blender.run("results.undo_in_texture_paint")


def test_undo_of_a_result_stays_in_texture_paint_when_the_mode_is_no_undo_step(blender: Blender) -> None:
    blender.run("results.undo_after_a_mode_without_undo_step")


def test_the_line_between_two_results_follows_the_mouse(blender: Blender) -> None:
    blender.run("results.split_view_is_dragged")


def test_both_sides_of_that_line_are_drawn_alike(blender: Blender) -> None:
    blender.run("results.split_view_looks_like_the_editor")


def test_a_gallery_of_two_hundred_results_is_drawn_at_once(blender: Blender) -> None:
    assert blender.run("results.gallery_of_two_hundred")["draw_ms"] < MAX_DRAW_MS


def test_a_model_without_a_uv_map_is_textured(blender: Blender) -> None:
    blender.run("results.projections_on_a_model")
