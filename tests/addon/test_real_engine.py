"""The real engine behind the panel: pocket makes a small texture. Slow: run with `-m slow`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from blender_addon.scene import image_io
from tests.addon import scenes
from tests.addon.conftest import LiveService


@pytest.mark.slow
def test_pocket_keeps_the_colors_of_the_swatch(start: Callable[..., LiveService], blender: Any) -> None:
    start("")
    scenes.swatch()
    scenes.small_output(128, 128, preset="draft")
    image = scenes.make(1200.0)
    pixels = image_io.pixels_of(image, "result")[..., :3].reshape(-1, 3).astype(float)
    wanted = scenes.checks().reshape(-1, 3).astype(float)
    assert abs(pixels.mean(0) - wanted.mean(0)).max() < 25
    assert {"distill_seam_x", "distill_seam_y"} <= set(image.keys())
