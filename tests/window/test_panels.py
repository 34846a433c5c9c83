"""Every section of the tab is drawn without an error, in all editors, states, themes, scales and widths."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.live_service import LiveService
from tests.window.launcher import Blender

EDITORS = ("IMAGE_EDITOR", "NODE_EDITOR", "VIEW_3D")


@pytest.mark.parametrize("editor", EDITORS)
def test_every_section_is_drawn_at_every_width_and_scale(
    blender: Blender, start: Callable[..., LiveService], editor: str
) -> None:
    found = blender.run("panels.draw_everywhere", start("brisk").data_dir, kind=editor)
    assert tuple(found["editors"]) == EDITORS, "an editor with the tab is not tested"
