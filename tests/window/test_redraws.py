"""What is drawn again while a job runs: the sidebars only."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.live_service import LiveService
from tests.window.launcher import Blender


def test_a_running_job_redraws_the_sidebars_only(blender: Blender, start: Callable[..., LiveService]) -> None:
    found = blender.run("redraws.while_a_job_runs", start("brisk").data_dir)
    assert found["running"]["VIEW_3D UI"] > found["idle"]["VIEW_3D UI"]
    for editor in ("VIEW_3D", "IMAGE_EDITOR"):
        assert found["running"][f"{editor} WINDOW"] <= found["idle"][f"{editor} WINDOW"], found
