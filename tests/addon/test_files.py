"""Jobs and results with undo, save, open, and a disabled add-on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_addon.scene import image_io, results, session
from tests.addon import scenes
from tests.addon.conftest import LiveService, error_of, pump_until, use_folder
from tests.link.test_records import JOURNAL_0_1_0

Start = Callable[..., LiveService]


def test_jobs_of_a_file_of_version_0_1_0_are_listed_and_reused(blender: Any) -> None:
    blender.context.scene.distill.journal = JOURNAL_0_1_0
    session.current().load_journal()
    done = next(r for r in session.current().of_this_file() if r.state == "succeeded")
    assert {r.state for r in session.current().of_this_file()} == {"succeeded", "queued"}, "the other is looked for"
    blender.ops.distill.reuse_parameters(job=done.job)
    group = blender.context.scene.distill.parameters_synthesize
    assert (group.seed, group.method, group.tile) == (7, "optimize", "xy")


def test_importing_a_result_is_one_undo_step(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output()
    blender.ops.ed.undo_push(message="set up")
    name = scenes.make().name
    blender.ops.mesh.primitive_cube_add()
    blender.ops.ed.undo_push(message="cube")
    blender.ops.ed.undo()
    assert name in blender.data.images
    blender.ops.ed.undo()
    assert name not in blender.data.images
    assert scenes.newest().state == "succeeded"
    assert blender.ops.distill.fetch_result() == {"FINISHED"}
    assert blender.ops.distill.wait(timeout=30) == {"FINISHED"}
    assert results.image_of(scenes.newest().job) is not None


def test_undo_while_a_job_runs_does_not_lose_the_job(start: Start, blender: Any) -> None:
    start("brisk")
    blender.ops.ed.undo_push(message="nothing")
    scenes.swatch()
    scenes.small_output()
    blender.ops.ed.undo_push(message="set up")
    blender.ops.distill.run()
    blender.ops.mesh.primitive_cube_add()
    blender.ops.ed.undo_push(message="cube")
    blender.ops.ed.undo()
    blender.ops.ed.undo()
    assert blender.ops.distill.wait(timeout=30) == {"FINISHED"}
    assert results.image_of(scenes.newest().job) is not None


def test_results_and_jobs_are_saved_in_the_file(service: LiveService, blender: Any, tmp_path: Path) -> None:
    scenes.material_with_image()
    scenes.swatch()
    scenes.small_output()
    before = image_io.pixels_of(scenes.make(), "result")
    scenes.save_and_reload(tmp_path / "a.blend")
    record = scenes.newest()
    image = results.image_of(record.job)
    assert (image_io.pixels_of(image, "result") == before).all()
    assert scenes.base_color_node(blender.context.active_object.active_material).image == image
    assert record.metrics == {"seam_x": pytest.approx(1.02)}
    blender.ops.distill.restore_previous()
    assert scenes.base_color_node(blender.context.active_object.active_material).image.name == "old"
    blender.ops.distill.reuse_parameters()


def test_an_unused_result_is_saved_in_the_file(service: LiveService, blender: Any, tmp_path: Path) -> None:
    blender.ops.object.delete()
    scenes.swatch()
    scenes.small_output()
    name = scenes.make().name
    scenes.save_and_reload(tmp_path / "a.blend")
    assert blender.data.images[name].packed_file is not None


def test_a_painted_layout_is_saved_in_the_file(blender: Any, tmp_path: Path) -> None:
    scenes.two_regions()
    blender.ops.distill.layout_new()
    layout = blender.context.scene.distill.image_layout
    layout.pixels.foreach_set(np.full(len(layout.pixels), 0.2, np.float32))
    layout.update()
    scenes.save_and_reload(tmp_path / "a.blend")
    assert (image_io.pixels_of(blender.context.scene.distill.image_layout, "layout")[..., :3] == 51).all()


def test_the_result_of_a_job_that_ended_while_blender_was_closed_is_downloaded(
    start: Start, blender: Any, tmp_path: Path
) -> None:
    live = start("brisk")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    job = scenes.newest().job
    pump_until(lambda: scenes.newest().state == "running")
    blender.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    session.stop()  # as if Blender were closed
    session.start()
    use_folder(live.data_dir)
    time.sleep(1.0)
    blender.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    assert blender.ops.distill.wait(timeout=30) == {"FINISHED"}
    assert results.image_of(job) is not None


def test_a_job_of_another_file_is_imported_on_request(start: Start, blender: Any) -> None:
    start("brisk")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    job = scenes.newest().job
    session.pump()
    blender.ops.wm.read_homefile(use_factory_startup=True)
    assert session.current().of_this_file() == []
    assert [r.job for r in session.current().of_other_files()] == [job]
    pump_until(lambda: job in session.current().downloaded)
    assert results.image_of(job) is None
    blender.ops.distill.fetch_result(job=job)
    assert results.image_of(job) is not None
    assert [r.job for r in session.current().of_this_file()] == [job]


def test_cancel_without_a_job_keeps_the_jobs_of_other_files(start: Start, blender: Any) -> None:
    start("slow")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    other = scenes.newest()
    session.pump()
    blender.ops.wm.read_homefile(use_factory_startup=True)
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    assert blender.ops.distill.cancel() == {"FINISHED"}
    assert blender.ops.distill.wait(timeout=30) == {"FINISHED"}
    assert scenes.newest().state == "canceled"
    assert other.state in ("queued", "running")
    assert blender.ops.distill.cancel(job=other.job) == {"FINISHED"}
    pump_until(lambda: other.state == "canceled")


def test_a_result_is_imported_when_its_file_is_opened_again(start: Start, blender: Any, tmp_path: Path) -> None:
    start("brisk")
    scenes.swatch()
    scenes.small_output()
    blender.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    blender.ops.distill.run()
    job = scenes.newest().job
    blender.ops.wm.read_homefile(use_factory_startup=True)
    pump_until(lambda: job in session.current().downloaded)
    blender.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    session.pump()
    assert results.image_of(job) is not None


def test_the_error_of_a_failed_job_is_saved_in_the_file(blender: Any, tmp_path: Path) -> None:
    scenes.swatch()
    blender.ops.distill.run()
    error_of(blender.ops.distill.wait, timeout=20)
    sentence = scenes.newest().sentence
    scenes.save_and_reload(tmp_path / "a.blend")
    assert scenes.newest().sentence == sentence and "choose its program" in sentence


def test_the_addon_is_disabled_and_enabled_while_a_job_runs(start: Start, blender: Any) -> None:
    import addon_utils

    start("slow")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    pump_until(lambda: scenes.newest().state == "running")
    begin = time.monotonic()
    addon_utils.disable("blender_addon", default_set=False)
    assert time.monotonic() - begin < 5
    addon_utils.enable("blender_addon", default_set=False)
    session.pump()
    assert scenes.newest().active, "the journal in the scene knows the job"
    blender.ops.distill.cancel()
    blender.ops.distill.wait(timeout=30)
