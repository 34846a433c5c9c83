"""Jobs from the panel to the service and back, and their errors."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from blender_addon import wire
from blender_addon.link import background, client, events
from blender_addon.link.records import JobRecord
from blender_addon.scene import image_io, materials, properties, requests, results, session
from blender_addon.ui.operators import reports as operator_reports
from blender_addon.ui.panels import elements
from tests.addon import scenes
from tests.addon.conftest import LiveService, command_of, environment, error_of, preferences, pump_until, use_folder
from tests.link.fake_service import fake_service

Start = Callable[..., LiveService]


def test_a_result_image_stores_how_it_was_made(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output(128, 64, seed=7)
    image = scenes.make()
    assert tuple(image.size) == (128, 64)
    assert image.name == "bricks 128 x 64, seed 7"
    assert image.packed_file is not None
    assert image["distill_seed"] == 7
    assert image["distill_seam_x"] == pytest.approx(1.02)
    assert json.loads(image["distill_parameters"])["width"] == 128
    assert wire.JobRequest.parse(json.loads(image["distill_request"])).kind == "synthesize"
    assert scenes.newest().notes == ("A note for the artist.",)
    expected = np.roll(scenes.checks(), -7, 0)
    assert (image_io.pixels_of(image, "result")[:, :64, :3] == expected).all()


def test_unsaved_paint_on_the_swatch_is_used(service: LiveService, blender: Any) -> None:
    image = scenes.swatch()
    scenes.small_output()
    image.pixels.foreach_set(np.full(len(image.pixels), 0.2, np.float32))
    image.update()
    assert (image_io.pixels_of(scenes.make(), "result")[..., :3] == 51).all()


def test_a_job_with_a_layout_sends_both_label_maps(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.two_regions()
    scenes.small_output()
    blender.ops.distill.region_map_new(method="COLOR")
    blender.ops.distill.layout_new()
    blender.ops.distill.fill(picture="layout", region=1, box=(0.0, 0.0, 0.5, 1.0))
    blender.context.scene.distill.use_layout = True
    image = scenes.make()
    assert set(json.loads(image["distill_request"])["inputs"]) == {"swatch", "regions", "layout"}
    pixels = image_io.pixels_of(image, "result")[..., :3].astype(int)
    assert (pixels[:, 2] != pixels[:, 66]).any()


def test_restyle_keeps_the_size_of_the_image(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.content("wall.png", 96)
    image = scenes.make()
    assert tuple(image.size) == (96, 96)
    assert image.name == "wall in bricks 96 x 96, seed 0"
    request = wire.JobRequest.parse(json.loads(image["distill_request"]))
    assert (request.kind, set(request.inputs)) == ("restyle", {"content", "swatch"})
    assert scenes.base_color_node(blender.context.active_object.active_material).image == image


def test_the_size_of_a_restyled_image_is_that_of_the_job(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    settings = blender.context.scene.distill
    settings.kind, settings.image_content = "restyle", blender.data.images.new("wall", 500, 333)
    assert properties.output_size(settings) == (496, 336)
    settings.parameters_restyle.width = 130
    assert properties.output_size(settings) == (128, 336), "the height is automatic"
    settings.parameters_restyle.height = 64
    assert properties.output_size(settings) == tuple(scenes.make().size)


def test_restyle_accepts_a_size_and_the_preview_method(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.content()
    group = blender.context.scene.distill.parameters_restyle
    group.method = "preview"
    blender.ops.distill.output_size(width=128, height=128)
    image = scenes.make()
    assert tuple(image.size) == (128, 128)
    assert json.loads(image["distill_parameters"])["method"] == "preview"
    blender.ops.distill.output_size(width=0, height=0)
    assert tuple(scenes.make().size) == (96, 96)


def test_unsaved_paint_on_the_image_to_restyle_is_used(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    image = scenes.content()
    image.pixels.foreach_set(np.zeros(len(image.pixels), np.float32))
    image.update()
    assert (image_io.pixels_of(scenes.make(), "result")[..., :3] <= 125).all()


def test_the_image_to_restyle_comes_from_the_material_or_a_file(blender: Any, tmp_path: Path) -> None:
    scenes.material_with_image()
    settings = blender.context.scene.distill
    assert blender.ops.distill.picture_from_material(picture="content") == {"FINISHED"}
    assert settings.image_content.name == "old" and settings.image_swatch is None
    path = tmp_path / "wall.png"
    path.write_bytes(image_io.encode_png(scenes.checks()))
    assert blender.ops.distill.picture_from_file(filepath=str(path), picture="content") == {"FINISHED"}
    assert settings.image_content.name == "wall.png" and settings.image_swatch is None


def test_from_material_is_disabled_with_the_reason(blender: Any) -> None:
    take = blender.ops.distill.picture_from_material
    assert "“Material” has no image as its base color" in error_of(take)
    blender.context.active_object.data.materials.clear()
    assert "The active object has no material" in error_of(take)


def test_restyle_is_disabled_without_an_image_to_restyle(blender: Any) -> None:
    scenes.swatch()
    blender.context.scene.distill.kind = "restyle"
    assert not blender.ops.distill.run.poll()
    assert "Choose the image to restyle first" in error_of(blender.ops.distill.run)


def test_reuse_parameters_restores_kind_and_parameters(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.content()
    settings = blender.context.scene.distill
    settings.parameters_restyle.content_weight = 0.5
    scenes.make()
    settings.kind, settings.parameters_restyle.content_weight = "synthesize", 2.0
    blender.ops.distill.reuse_parameters()
    assert settings.kind == "restyle"
    assert settings.parameters_restyle.content_weight == 0.5


def test_reuse_parameters_changes_nothing_if_the_job_is_invalid(blender: Any) -> None:
    settings = blender.context.scene.distill
    settings.parameters_restyle.seed = 1
    session.pump()
    stored = {"wrong": ("restyle", {"seed": 5, "scale": 99.0}), "unknown": ("a_later_kind", {})}
    for job, (kind, parameters) in stored.items():
        record = JobRecord(job, kind, "Old", parameters, session.current().document, state="succeeded")
        session.current().records[job] = record
    assert "scale is 99.0; it must be between 0.01 and 4.0" in error_of(
        blender.ops.distill.reuse_parameters, job="wrong"
    )
    assert "“a_later_kind” is unknown; update the add-on" in error_of(
        blender.ops.distill.reuse_parameters, job="unknown"
    )
    assert (settings.kind, settings.parameters_restyle.seed) == ("synthesize", 1)


def test_variations_have_consecutive_seeds(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output(seed=3)
    blender.context.scene.distill.variations = 3
    scenes.make()
    assert [r.seed for r in session.current().of_this_file()] == [5, 4, 3]
    assert all(results.image_of(r.job) for r in session.current().of_this_file())


def test_a_long_swatch_name_is_shortened_before_the_seed(service: LiveService, blender: Any) -> None:
    scenes.swatch("ж" * 30 + ".png")
    scenes.small_output(seed=wire.MAX_SEED)
    names = [scenes.make().name, scenes.make().name]
    assert names[0].endswith(f"128 x 64, seed {wire.MAX_SEED}")
    assert names[1].endswith(f"128 x 64, seed {wire.MAX_SEED} (2)"), "the same seed again has another title"


def test_a_job_without_a_service_fails_with_a_remedy(blender: Any) -> None:
    preferences().executable = "/opt/ad-service"
    scenes.swatch()
    blender.ops.distill.run()
    sentence = error_of(blender.ops.distill.wait, timeout=20)
    assert "The service is not running (data folder " in sentence
    assert "Press Start" in sentence
    assert session.current().error.code == "service-unreachable"


def test_the_remedy_for_an_unknown_program_is_the_preferences(blender: Any) -> None:
    blender.ops.distill.connect()
    sentence = error_of(blender.ops.distill.wait, timeout=20)
    assert "choose its program in the preferences" in sentence and "Start" not in sentence
    assert [button[0] for button in elements.remedies(session.current().error)] == ["distill.preferences"]
    preferences().executable = "/opt/ad-service"
    assert [button[1] for button in elements.remedies(session.current().error)] == ["Start Service"]


def test_the_remedy_for_a_service_at_an_address_is_to_reconnect(blender: Any) -> None:
    preferences().url = "127.0.0.1:9"
    blender.ops.distill.connect()
    sentence = error_of(blender.ops.distill.wait, timeout=20)
    assert "start it there, or clear the address" in sentence and "Press Start" not in sentence
    assert [button[1] for button in elements.remedies(session.current().error)] == ["Reconnect", "Preferences"]


def test_a_size_out_of_bounds_is_clamped(blender: Any) -> None:
    scenes.small_output(100_000, 1)
    group = blender.context.scene.distill.parameters_synthesize
    assert (group.width, group.height) == (wire.MAX_PICTURE_SIDE, 64)


def test_the_fields_show_the_size_that_is_made(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output(500, 300)
    settings = blender.context.scene.distill
    assert properties.output_size(settings) == (496, 304)
    image = scenes.make()
    group = settings.parameters_synthesize
    assert (group.width, group.height) == (496, 304) == tuple(image.size)


def test_small_numbers_are_shown_with_four_digits(blender: Any) -> None:
    shown = blender.context.scene.distill.parameters_synthesize.bl_rna.properties
    assert (shown["even_light"].precision, shown["scale"].precision, shown["learning_rate"].precision) == (2, 2, 4)


def test_an_automatic_value_is_switched_to_a_value_and_back(blender: Any) -> None:
    settings = blender.context.scene.distill
    group = settings.parameters_synthesize
    parameters = properties.automatic_parameters(settings)
    assert {"scale", "real_width", "strength", "content_weight"} <= set(parameters)
    for parameter in parameters.values():
        blender.ops.distill.toggle_automatic(name=parameter.name)
        value = getattr(group, parameter.name)
        assert parameter.check(parameter.value.nearest(value)) != parameter.automatic
        blender.ops.distill.toggle_automatic(name=parameter.name)
        assert getattr(group, parameter.name) == parameter.automatic


def test_the_automatic_switch_without_a_parameter_is_refused(blender: Any) -> None:
    settings = blender.context.scene.distill
    operator = blender.types.DISTILL_OT_toggle_automatic
    for name in ("", "seed"):
        shown = operator.description(blender.context, SimpleNamespace(name=name))
        assert shown == "Choose the value of this parameter, or reset it to automatic"
        error = error_of(blender.ops.distill.toggle_automatic, name=name)
        assert f"No parameter “{name}” can be automatic; choose one of real_width, scale, strength" in error
    assert settings.parameters_synthesize.seed == 0


def test_a_variation_with_too_large_a_seed_is_refused(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output(seed=wire.MAX_SEED)
    blender.context.scene.distill.variations = 2
    assert "seed" in error_of(blender.ops.distill.run)


def test_run_is_disabled_without_a_swatch(blender: Any) -> None:
    assert not blender.ops.distill.run.poll()
    assert "Choose the swatch first" in error_of(blender.ops.distill.run)


def test_run_is_disabled_with_the_next_step_for_an_incomplete_layout(blender: Any) -> None:
    scenes.swatch()
    blender.context.scene.distill.use_layout = True
    assert "Add two regions first" in error_of(blender.ops.distill.run)
    scenes.two_regions()
    assert "Create the region map first" in error_of(blender.ops.distill.run)
    blender.ops.distill.region_map_new(method="COLOR")
    assert "Create the layout first" in error_of(blender.ops.distill.run)
    blender.ops.distill.layout_new()
    assert blender.ops.distill.run.poll()


def test_a_swatch_that_is_too_small_is_refused_before_the_upload(blender: Any) -> None:
    blender.context.scene.distill.image_swatch = blender.data.images.new("crumb", 40, 31)
    assert "“crumb” is 40 x 31; the smallest side must have at least 32 pixels" in error_of(blender.ops.distill.run)


def test_a_new_layout_clears_the_error_about_the_old_one(blender: Any) -> None:
    scenes.swatch()
    scenes.two_regions()
    blender.context.scene.distill.use_layout = True
    blender.ops.distill.region_map_new(method="COLOR")
    blender.context.scene.distill.image_layout = blender.data.images.new("black", 64, 64)
    assert "do not have the color of a region" in error_of(blender.ops.distill.run)
    assert session.current().error is not None
    blender.ops.distill.layout_new()
    assert session.current().error is None


@pytest.mark.parametrize(("place", "reports"), [("UI", 0), ("WINDOW", 1)])
def test_an_error_is_shown_once(blender: Any, monkeypatch: pytest.MonkeyPatch, place: str, reports: int) -> None:
    """A button of the panel is pressed where the panel shows the error; elsewhere it is also reported."""
    region = SimpleNamespace(type=place)
    monkeypatch.setattr(operator_reports, "bpy", SimpleNamespace(context=SimpleNamespace(region=region)))
    found: list[str] = []
    operator = SimpleNamespace(
        options=SimpleNamespace(is_invoke=True), report=lambda _kind, sentence: found.append(sentence)
    )
    error = wire.WireError("internal", "A defect")
    assert operator_reports.fail(operator, error) == {"CANCELLED"}
    assert session.current().error is error
    assert len(found) == reports


def test_a_failed_job_shows_its_error_and_runs_again(start: Start, blender: Any) -> None:
    live = start("fails")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    assert "does not fit into 1 GB" in error_of(blender.ops.distill.wait, timeout=30)
    assert scenes.newest().code == "out-of-memory"
    live.stop()
    start("quick", live.data_dir)
    blender.ops.distill.fetch_result()
    assert blender.ops.distill.wait(timeout=30) == {"FINISHED"}
    assert results.image_of(scenes.newest().job) is not None


def test_a_crash_of_the_worker_is_reported(start: Start, blender: Any) -> None:
    start("dies")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    error_of(blender.ops.distill.wait, timeout=60)
    assert scenes.newest().code == "worker-crashed"


def test_a_job_fails_if_the_service_stays_unreachable(start: Start, blender: Any) -> None:
    live = start("slow")
    session.current().thread.reconnect_timeout = 2.0
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    pump_until(lambda: scenes.newest().state == "running")
    live.stop(signal.SIGKILL)
    pump_until(lambda: "does not respond" in scenes.newest().message)
    assert "is not running" in error_of(blender.ops.distill.wait, timeout=30)
    assert scenes.newest().code == "service-unreachable"


def test_a_job_continues_after_a_restart_of_the_service(start: Start, blender: Any) -> None:
    live = start("slow")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    pump_until(lambda: scenes.newest().state == "running")
    live.stop(signal.SIGKILL)
    start("quick", live.data_dir)
    assert blender.ops.distill.wait(timeout=60) == {"FINISHED"}
    assert results.image_of(scenes.newest().job) is not None


def test_running_and_waiting_jobs_are_canceled(start: Start, blender: Any) -> None:
    start("slow")
    scenes.swatch()
    scenes.small_output()
    blender.context.scene.distill.variations = 2
    blender.ops.distill.run()
    pump_until(lambda: "running" in [r.state for r in session.current().of_this_file()])
    begin = time.monotonic()
    blender.ops.distill.cancel()
    assert blender.ops.distill.wait(timeout=30) == {"FINISHED"}
    assert time.monotonic() - begin < 10
    assert [r.state for r in session.current().of_this_file()] == ["canceled", "canceled"]
    assert not [i for i in blender.data.images if materials.JOB in i]


def test_a_wrong_token_is_reported_and_can_be_corrected(service: LiveService, blender: Any) -> None:
    preferences().url, preferences().token = json.loads((service.data_dir / "runtime.json").read_text())["url"], "wrong"
    blender.ops.distill.connect()
    error_of(blender.ops.distill.wait, timeout=20)
    assert session.current().error.code == "unauthorized"
    preferences().token = ""
    blender.ops.distill.connect()
    assert blender.ops.distill.wait(timeout=60) == {"FINISHED"}
    assert session.current().status.models == ("pocket",)
    assert session.current().status.device == "Test device, 6 of 8 GB free"


def test_a_stopped_service_is_noticed_without_jobs(start: Start, blender: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "IDLE_SECONDS", 0.2)
    live = start("quick")
    blender.ops.distill.connect()
    pump_until(lambda: session.current().status is not None)
    live.stop()
    pump_until(lambda: session.current().status is None)
    assert session.current().error.code == "service-unreachable"


def test_a_service_of_another_version_is_refused(blender: Any) -> None:
    document = {"service": wire.SERVICE_NAME, "version": "9", "wire": 99}
    with fake_service(lambda *_: (200, "application/json", json.dumps(document).encode())) as url:
        preferences().url = url
        scenes.swatch()
        blender.ops.distill.run()
        error_of(blender.ops.distill.wait, timeout=20)
    assert scenes.newest().code == "version-mismatch"


def use_program(tmp_path: Path, engine: str) -> None:
    """Makes the add-on start services with an engine by itself."""
    program = tmp_path / "ad-service"
    command = command_of(tmp_path / "data", engine)
    lines = [f"#!{sys.executable}", "import os", f"os.chdir({str(Path(__file__).parents[2])!r})"]
    lines.append(f"os.execve({command[0]!r}, {command!r}, {environment()!r})")
    program.write_text("\n".join(lines))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    use_folder(tmp_path / "data")
    preferences().executable, preferences().start_automatically = str(program), True


def kill_service(tmp_path: Path) -> None:
    os.kill(json.loads((tmp_path / "data" / "runtime.json").read_text())["pid"], signal.SIGKILL)


def test_the_service_is_started_automatically(blender: Any, tmp_path: Path) -> None:
    use_program(tmp_path, "quick")
    scenes.swatch()
    scenes.small_output()
    try:
        assert tuple(scenes.make(120).size) == (128, 64)
    finally:
        kill_service(tmp_path)


def test_a_killed_service_is_started_again_and_its_job_continues(blender: Any, tmp_path: Path) -> None:
    use_program(tmp_path, "brisk")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    pump_until(lambda: scenes.newest().state == "running")
    kill_service(tmp_path)
    try:
        assert blender.ops.distill.wait(timeout=60) == {"FINISHED"}
        assert results.image_of(scenes.newest().job) is not None
        assert session.current().error is None
    finally:
        kill_service(tmp_path)


def test_a_job_that_no_service_took_continues_when_one_is_started(start: Start, blender: Any, tmp_path: Path) -> None:
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    error_of(blender.ops.distill.wait, timeout=20)
    assert scenes.newest().code == "service-unreachable" and session.current().can_retry(scenes.newest())
    start("quick", tmp_path / "data")
    blender.ops.distill.connect()
    assert blender.ops.distill.wait(timeout=60) == {"FINISHED"}
    assert results.image_of(scenes.newest().job) is not None


def test_the_status_of_the_service_is_refreshed_while_a_job_runs(
    start: Start, blender: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "STATUS_SECONDS", 0.1)
    start("slow")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    pump_until(lambda: scenes.newest().state == "running")
    session.current().status = None
    pump_until(lambda: session.current().status is not None and session.current().status.ready)
    blender.ops.distill.cancel()


def test_a_finished_job_is_announced(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output(seed=4)
    scenes.make()
    notice = session.current().notice
    assert (notice.text, notice.current) == ("bricks 128 x 64, seed 4 is ready", True)


def test_the_log_of_a_service_that_does_not_start_is_shown(blender: Any, tmp_path: Path) -> None:
    program = tmp_path / "ad-service"
    program.write_text("#!/bin/sh\necho 'torch is not installed'\nexit 3\n")
    program.chmod(0o755)
    preferences().executable = str(program)
    blender.ops.distill.connect()
    assert "torch is not installed" in error_of(blender.ops.distill.wait, timeout=30)


def test_a_job_that_could_not_be_submitted_runs_again(service: LiveService, blender: Any, monkeypatch: Any) -> None:
    scenes.swatch()
    scenes.small_output()

    def refuse(*_args: Any) -> None:
        raise wire.WireError("disk-full", "there is no space left")

    with monkeypatch.context() as patch:
        patch.setattr(client.Client, "upload", refuse)
        blender.ops.distill.run()
        pump_until(lambda: scenes.newest().state == "failed")
    assert blender.ops.distill.fetch_result(job=scenes.newest().job) == {"FINISHED"}
    assert blender.ops.distill.wait(timeout=60.0) == {"FINISHED"}
    assert scenes.newest().state == "succeeded"


def test_an_unexpected_error_does_not_drop_later_events(blender: Any, monkeypatch: Any) -> None:
    session.pump()
    current, seen = session.current(), []

    def on_event(event: Any) -> None:
        seen.append(event)
        if len(seen) == 1:
            raise ZeroDivisionError

    monkeypatch.setattr(current, "on_event", on_event)
    for message in ("first", "second"):
        current.thread._send(events.ServiceStarting(message))
    with pytest.raises(ZeroDivisionError):
        session.pump()
    session.pump()
    assert [event.message for event in seen] == ["first", "second"]


def test_pictures_that_a_closed_file_waited_for_are_ignored(blender: Any) -> None:
    session.pump()
    session.current().on_event(events.BlobsFetched("a job of a closed file", {}))
    assert session.current().error is None


def test_a_job_of_another_program_that_cannot_be_canceled_is_an_error(service: LiveService, blender: Any) -> None:
    session.pump()
    current = session.current()
    blender.ops.distill.connect()
    blender.ops.distill.cancel_foreign(job="00000000-0000-4000-8000-000000000000")
    pump_until(lambda: current.error)
    assert current.error.code == "not-found"
    assert current.status is not None, "the service is still connected"


def test_what_belongs_to_a_job_is_dropped_with_it(service: LiveService, blender: Any, tmp_path: Path) -> None:
    scenes.swatch()
    scenes.small_output()
    scenes.make()
    current = session.current()
    assert not current._running_since and not current._unsent
    current._unsent[scenes.newest().job] = requests.drafts(blender.context.scene)[0]
    scenes.save_and_reload(tmp_path / "file.blend")
    assert current._unsent
    blender.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    assert not current._unsent
