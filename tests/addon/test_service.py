"""The service in the panel: jobs of other programs, models, another computer, bug reports."""

from __future__ import annotations

import getpass
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from blender_addon import wire
from blender_addon.link import client
from blender_addon.link.records import JobRecord
from blender_addon.scene import bug_report, queue, session
from blender_addon.scene import preferences as scene_preferences
from tests.addon import scenes
from tests.addon.conftest import LiveService, error_of, preferences, pump_until
from tests.addon.test_jobs import Start


def other_program(live: LiveService) -> client.Client:
    return client.find(client.ServiceAddress(data_dir=str(live.data_dir)))


def submit_elsewhere(live: LiveService, **parameters: Any) -> str:
    other = other_program(live)
    body = {"kind": "synthesize", "parameters": parameters, "inputs": {"swatch": other.upload(scenes.PNG)}}
    job = str(uuid.uuid4())
    other.submit(job, wire.JobRequest.parse(body))
    return job


def test_a_job_of_another_program_is_listed_and_can_be_canceled(start: Start, blender: Any) -> None:
    live = start("slow")
    job = submit_elsewhere(live, width=256, height=64)
    blender.ops.distill.connect()
    pump_until(lambda: [status.id for status in session.current().foreign_jobs()] == [job])
    (status,) = session.current().foreign_jobs()
    assert queue.describe(status) == "Synthesize 256 x 64"
    blender.ops.distill.cancel_foreign(job=job)
    pump_until(lambda: not session.current().foreign_jobs())
    assert other_program(live).job_status(job).state in ("canceling", "canceled")


def test_a_waiting_job_says_what_it_waits_for(start: Start, blender: Any) -> None:
    live = start("slow")
    foreign = submit_elsewhere(live, width=256, height=64)
    scenes.swatch()
    scenes.small_output()
    blender.context.scene.distill.variations = 2
    blender.ops.distill.run()
    second, first = session.current().of_this_file()
    current = session.current()
    pump_until(lambda: len(current.queue) == 3 and current.queue[0].state == "running")
    titles = {record.job: record.title for record in (first, second)}
    one = queue.waiting_text(first.job, current.queue, titles)
    assert one.startswith("Waiting: 1 job before it, Synthesize 256 x 64 of another program (")
    two = queue.waiting_text(second.job, current.queue, titles)
    assert two.startswith("Waiting: 2 jobs before it, first Synthesize 256 x 64 of another program (")
    assert queue.waiting_text(foreign, current.queue, titles) == ""
    assert [status.id for status in current.foreign_jobs()] == [foreign]


def test_a_job_without_an_estimate_shows_how_long_it_has_run(blender: Any) -> None:
    record = JobRecord("a", "synthesize", "Bricks", {}, "file", state="running", message="Loading the model")
    assert queue.progress_text(record, 1.0) == "Loading the model"
    assert queue.progress_text(record, 34.0) == "Loading the model, 34 s so far"
    record.seconds_left = 8.0
    assert queue.progress_text(record, 34.0) == "Loading the model, 8 s left"


def test_models_are_listed_with_what_can_be_downloaded(service: LiveService, blender: Any) -> None:
    blender.ops.distill.connect()
    pump_until(lambda: session.current().models)
    states = {model.name: model.state for model in session.current().models}
    assert states["pocket"] == "installed" and states["sd15"] == "available"


def test_run_is_disabled_while_the_model_is_not_downloaded(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    blender.context.scene.distill.parameters_synthesize.model = "SD15"
    blender.ops.distill.connect()
    pump_until(lambda: session.current().models)
    assert "“Stable Diffusion 1.5” is not downloaded yet" in error_of(blender.ops.distill.run)


def test_a_model_is_not_downloaded_without_online_access(service: LiveService, blender: Any) -> None:
    if blender.app.online_access:
        pytest.skip("this Blender is online")
    assert "Allow Online Access" in error_of(blender.ops.distill.fetch_model, name="sd15")


def test_a_download_that_is_refused_shows_why(
    service: LiveService, blender: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.current().fetch_model("nothing like a model")
    pump_until(lambda: session.current().error is not None)
    assert "neither one of sd15" in session.current().error.sentence


def test_another_computer_is_refused_with_what_to_do(blender: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    preferences().url = "http://render.example:1"
    blender.ops.distill.connect()
    assert "Allow Online Access" in error_of(blender.ops.distill.wait, timeout=20)
    address = client.ServiceAddress(url="http://render.example:1", online=True)
    monkeypatch.setattr(scene_preferences, "service_address", lambda: address)
    blender.ops.distill.connect()
    assert "Allow Unencrypted" in error_of(blender.ops.distill.wait, timeout=20)


def test_the_token_is_not_stored_in_the_file(service: LiveService, blender: Any, tmp_path: Path) -> None:
    runtime = json.loads((service.data_dir / "runtime.json").read_text())
    preferences().url, preferences().token = runtime["url"], runtime["token"]
    scenes.swatch()
    scenes.small_output()
    scenes.make()
    path = tmp_path / "file.blend"
    blender.ops.wm.save_as_mainfile(filepath=str(path), compress=False)
    assert runtime["token"].encode() not in path.read_bytes()
    assert runtime["token"] not in repr(scene_preferences.service_address())


def test_a_bug_report_has_versions_logs_and_parameters_but_no_secrets(service: LiveService, blender: Any) -> None:
    runtime = json.loads((service.data_dir / "runtime.json").read_text())
    preferences().hub_token = "hf_abcdefghijklmnop"
    with (service.data_dir / "worker.log").open("a") as log:
        log.write(f"token={runtime['token']} in {Path.home()}/pictures/My Wife.png\nhf_abcdefghijklmnop\n")
        log.write(f'  File "{Path.home()}/code/ad_service/worker/engine.py", line 3\n')
    scenes.swatch("secret bricks.png")
    scenes.small_output(seed=77)
    scenes.make()
    assert blender.ops.distill.bug_report() == {"FINISHED"}
    text = blender.data.texts["Texture Distiller Report"].as_string()
    assert blender.app.version_string in text and "- torch: " in text and '"seed": 77' in text
    assert "Test device" in text and "engine.py" in text
    secrets = (runtime["token"], "hf_abcdef", str(Path.home()), "Wife", "secret bricks", str(service.data_dir))
    assert [secret for secret in secrets if secret in text] == []


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("open /home/anna/stone wall.png: failed", "open (path): failed"),
        (r"C:\Users\Anna\Pictures\wall.png is missing", "(path) is missing"),
        ("~/textures/wall.png", "(path)"),
        ("5.2 s/step, 3/4 done", "5.2 s/step, 3/4 done"),
        ("GET /v1/health 200", "GET (path) 200"),
        ("Authorization: Bearer abcdef012345", "Authorization: (removed)"),
        ('File "/opt/x/ad_service/core/canvas.py", line 3', 'File ".../canvas.py", line 3'),
    ],
)
def test_paths_and_secrets_are_removed_from_a_report(text: str, clean: str) -> None:
    assert bug_report.redact(text, [getpass.getuser() * 3]) == clean
