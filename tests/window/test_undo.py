"""Undo and redo of a layout that is painted, cleaned up and painted again."""

from __future__ import annotations

from tests.window.launcher import Blender


def test_undo_and_redo_around_clean_up_keep_the_layout_on_the_model_and_in_the_editor(blender: Blender) -> None:
    blender.run("undo.clean_up_between_strokes")


def test_undo_and_redo_of_strokes_around_saving_are_exact(blender: Blender) -> None:
    blender.run("undo.save_between_strokes")
