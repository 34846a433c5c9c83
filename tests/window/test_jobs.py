"""Jobs from a window: run, cancel, finish, undo; a stroke, a killed service and a closed file in between."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.live_service import LiveService
from tests.window.launcher import Blender

Start = Callable[..., LiveService]


def test_a_job_is_canceled_and_the_next_one_reaches_the_material(blender: Blender, start: Start) -> None:
    found = blender.run("jobs.run_cancel_and_finish", start("steady").data_dir)
    assert found["states"] == ["succeeded", "canceled"]


def test_a_result_is_one_undo_step(blender: Blender, start: Start) -> None:
    blender.run("jobs.undo_and_redo_of_a_result", start("quick").data_dir)


def test_a_result_that_arrives_during_a_stroke_waits_for_its_end(blender: Blender, start: Start) -> None:
    blender.run("jobs.result_during_a_stroke", start("quick").data_dir)


def test_a_job_survives_the_end_of_the_service(blender: Blender, start: Start) -> None:
    service = start("steady")
    run = blender.start("jobs.submit_and_wait_for_a_killed_service", service.data_dir)
    try:
        run.wait_for("running")
        service.stop(signal.SIGKILL)
        run.wait_for("lost")
        start("steady")
        run.finish()
    finally:
        run.stop()


def test_jobs_arrive_after_their_file_is_closed_and_opened(blender: Blender, start: Start, tmp_path: Path) -> None:
    service, file = start("brisk"), tmp_path / "painted.blend"
    saved = blender.run("jobs.submit_paint_save_and_quit", service.data_dir, path=file)
    found = blender.run("jobs.open_and_wait", service.data_dir, path=file)
    assert found["seeds"] == [0, 1]
    assert found["colors"] == saved["colors"]


def test_the_real_engine_makes_a_texture(blender: Blender, start: Start) -> None:
    assert blender.run("jobs.run_the_real_engine", start("").data_dir)["size"] == [128, 128]
