"""The tools for the swatch, with the mouse in the Image Editor."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.live_service import LiveService
from tests.window.launcher import Blender


def test_the_swatch_is_cropped_and_straightened_with_the_mouse(blender: Blender) -> None:
    assert blender.run("swatch.parts_of_the_swatch")["parts"]


def test_the_light_is_compared_at_the_pointer(blender: Blender, start: Callable[..., LiveService]) -> None:
    live = start("quick")
    assert blender.run("swatch.compare_the_light", data_dir=live.data_dir)["compared"]
