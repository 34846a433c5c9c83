"""Every section of the tab is drawn without an error, in all editors, states, themes, scales and widths."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.live_service import LiveService
from tests.window.launcher import Blender


def test_every_section_is_drawn_at_every_width_and_scale(blender: Blender, start: Callable[..., LiveService]) -> None:
    editors = blender.run("panels.draw_everywhere", start("brisk").data_dir)["editors"]
    assert {"VIEW_3D", "IMAGE_EDITOR"} <= set(editors)
