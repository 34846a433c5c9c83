"""Maps of a material in a window: the sections about them are drawn, and their buttons are undo steps."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.live_service import LiveService
from tests.window.launcher import Blender


def test_a_whole_material_is_shown_and_its_maps_are_used_as_chosen(
    blender: Blender, start: Callable[..., LiveService]
) -> None:
    blender.run("maps.whole_material", start("quick").data_dir)


def test_a_mask_is_painted_over_the_picture_and_its_part_is_edited(
    blender: Blender, start: Callable[..., LiveService]
) -> None:
    blender.run("maps.mask_is_painted", start("quick").data_dir)
