"""The worker process: with any behavior of an engine, each job ends in exactly one way and the next one runs."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from ad_service.service.executors.local import LocalExecutor, RestartDelays
from ad_service.service.scheduler import Scheduler, Timeouts
from ad_service.storage.blobs import BlobStore
from ad_service.storage.jobs import Jobs
from ad_service.storage.settings import Settings
from ad_service.worker import protocol
from ad_service.worker.engine import Step
from ad_service.worker.worker import KEPT_PREVIEWS, Clock, Worker, load_engine
from blender_addon import wire
from blender_addon.wire import JobRequest, WireError
from tests.support import tiny_checkpoints
from tests.support.live_service import ROOT, LiveService
from tests.support.processes import children, is_alive, wait_until

Start = Callable[..., LiveService]


def worker_of(live: LiveService) -> int:
    live.wait_until_ready()
    (worker,) = children(live.process.pid)
    return worker


@contextmanager
def scheduled(folder: Path, engine: str) -> Iterator[Jobs]:
    """A scheduler with short timeouts in this process, with one job, "a"."""
    settings = Settings(folder, engine=f"tests.support.engines:{engine}")
    jobs = Jobs(settings.jobs_file)
    jobs.submit("a", JobRequest.parse({"kind": "synthesize", "inputs": {"swatch": "0" * 64}}))
    executor = LocalExecutor(settings.worker_command, settings.worker_log, delays=RestartDelays(first=0.01))
    scheduler = Scheduler(jobs, executor, Timeouts(terminate=0.2, kill=0.5, failing_seconds=0.0))
    scheduler.start()
    try:
        yield jobs
    finally:
        scheduler.stop()
        jobs.close()


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_job_succeeds_after_its_worker_died_once(start: Start) -> None:
    live = start("dies_once")
    status = live.wait_for_state(live.submit(), *wire.FINAL_STATES)
    assert (status["state"], status["attempt"]) == ("succeeded", 2)


def test_a_job_that_kills_its_worker_twice_fails_and_the_next_one_runs(start: Start) -> None:
    live = start("dies")
    jobs = [live.submit(seed=i) for i in range(2)]
    for job in jobs:
        status = live.wait_for_state(job, *wire.FINAL_STATES)
        assert (status["state"], status["attempt"]) == ("failed", 2)
        assert status["problem"]["type"] == "worker-crashed"
        assert "exit code 3" in status["problem"]["detail"]
        assert status["problem"]["retryable"]
    live.wait_until_ready()


@linux
def test_a_killed_worker_is_started_again_with_its_job(start: Start) -> None:
    live = start("sleeps")
    job = live.submit()
    worker = worker_of(live)
    live.wait(job, lambda status: status["message"] == "Sleeping")
    os.kill(worker, signal.SIGKILL)
    status = live.wait(job, lambda status: status["attempt"] == 2 and status["message"] == "Sleeping")
    assert status["state"] == "running"
    assert worker_of(live) != worker
    live.cancel(job)
    live.wait_for_state(job, "canceled")


def test_a_running_job_ends_soon_after_cancel(start: Start) -> None:
    live = start("sleeps")
    job, next_job = live.submit(seed=1), live.submit(seed=2)
    live.wait(job, lambda status: status["message"] == "Sleeping")
    started = time.monotonic()
    assert live.cancel(job)["state"] == "canceling"
    live.wait_for_state(job, "canceled")
    assert time.monotonic() - started < 2
    live.wait_for_state(next_job, "running")
    assert live.cancel(job)["state"] == "canceled"


@pytest.mark.parametrize(("engine", "signal_that_ends_it"), [("is_deaf", "SIGKILL"), ("is_busy", "SIGTERM")])
def test_a_worker_that_does_not_react_is_ended_when_its_job_is_canceled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, engine: str, signal_that_ends_it: str
) -> None:
    with scheduled(tmp_path, engine) as jobs:
        wait_until(lambda: jobs.get("a").message == "Busy")
        jobs.cancel("a")
        wait_until(lambda: jobs.get("a").final)
        assert jobs.get("a").state == "canceled"
        wait_until(lambda: f"ended by signal {signal_that_ends_it}" in caplog.text)


def test_an_exception_in_the_engine_is_an_internal_error_with_a_traceback_in_the_log(start: Start) -> None:
    live = start("raises")
    status = live.wait_for_state(live.submit(seed=0), *wire.FINAL_STATES)
    assert status["problem"]["type"] == "internal"
    assert "ZeroDivisionError" in status["problem"]["detail"]
    assert "Traceback" in (live.data_dir / "worker.log").read_text()
    assert live.wait_for_state(live.submit(seed=1), *wire.FINAL_STATES)["state"] == "succeeded"


def test_a_traceback_that_cannot_be_written_fails_only_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", FullDisk())
        _, events = run_job(tmp_path, "raises", seed=0)
    assert isinstance(events[-1], protocol.Failed)


@pytest.mark.parametrize("seed", range(3))
def test_a_job_without_an_image_fails(tmp_path: Path, seed: int) -> None:
    _, events = run_job(tmp_path, "lies", seed=seed)
    end = events[-1]
    assert isinstance(end, protocol.Failed) and end.problem["type"] == "internal"


@linux
def test_a_thread_that_never_ends_does_not_block_the_next_job_or_the_exit(start: Start) -> None:
    live = start("leaks")
    for seed in range(2):
        assert live.wait_for_state(live.submit(seed=seed), *wire.FINAL_STATES)["state"] == "succeeded"
    worker = worker_of(live)
    assert live.stop() == 0
    assert not is_alive(worker)


def test_a_wire_error_of_the_engine_is_passed_on_unchanged(start: Start) -> None:
    live = start("refuses")
    status = live.wait_for_state(live.submit(), *wire.FINAL_STATES)
    expected = wire.WireError("invalid-image", "swatch is 3x3 pixels; it must be at least 32x32").problem()
    assert (status["state"], status["problem"]) == ("failed", expected)


def test_what_an_engine_prints_goes_to_the_log(start: Start) -> None:
    live = start("babbles")
    status = live.wait_for_state(live.submit(), *wire.FINAL_STATES)
    assert (status["state"], status["progress"]) == ("succeeded", 1.0)
    assert "Loading pipeline components" in (live.data_dir / "worker.log").read_text()


def test_a_worker_that_never_starts_fails_its_job_with_the_last_line_of_its_log(tmp_path: Path) -> None:
    with scheduled(tmp_path, "never_starts") as jobs:
        wait_until(lambda: jobs.get("a").final)
        problem = jobs.get("a").problem
        assert problem is not None and problem["type"] == "device-unavailable"
        assert "no kernel image" in problem["detail"]


def test_a_service_without_a_worker_is_not_ready(start: Start) -> None:
    response = start("never_starts").get("/v1/ready")
    assert (response.status_code, response.json()["type"]) == (503, "device-unavailable")
    assert response.json()["detail"]


def test_a_killed_service_runs_its_job_again_when_it_starts(start: Start, tmp_path: Path) -> None:
    live = start("sleeps", data_dir=tmp_path / "data")
    running, waiting = live.submit(seed=1), live.submit(seed=2)
    live.wait(running, lambda status: status["message"] == "Sleeping")
    live.stop(signal.SIGKILL)
    (tmp_path / "data" / "runtime.json").unlink()
    again = start("echoes", data_dir=tmp_path / "data")
    assert again.wait_for_state(running, *wire.FINAL_STATES)["attempt"] == 2
    assert again.wait_for_state(waiting, *wire.FINAL_STATES)["attempt"] == 1


@linux
def test_the_worker_ends_when_the_service_is_killed(start: Start) -> None:
    live = start("is_deaf")
    job = live.submit()
    live.wait(job, lambda status: status["message"] == "Busy")
    worker = worker_of(live)
    live.stop(signal.SIGKILL)
    wait_until(lambda: not is_alive(worker))


@linux
def test_the_worker_ends_when_the_service_is_stopped(start: Start) -> None:
    live = start("sleeps")
    worker = worker_of(live)
    live.stop(signal.SIGINT)
    assert not is_alive(worker)


def test_the_worker_ends_when_its_pipe_closes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ad_service.worker",
        "--data-dir",
        str(tmp_path),
        "--engine",
        "tests.support.engines:sleeps",
    ]
    worker = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert worker.stdin and worker.stdout
    assert isinstance(protocol.decode_event(worker.stdout.readline()), protocol.Ready)
    document = {"kind": "synthesize", "inputs": {"swatch": "0" * 64}}
    worker.stdin.write(protocol.encode_command(protocol.Run("a", document)) + "\n")
    worker.stdin.flush()
    assert json.loads(worker.stdout.readline())["message"] == "Sleeping"
    worker.stdin.close()
    assert worker.wait(timeout=5) == 0
    worker.stdout.close()


# ---------------------------------------------------------------------------------------------- the worker alone


def run_job(tmp_path: Path, engine: str, **parameters: object) -> tuple[BlobStore, list[protocol.Event]]:
    """Runs a job in this process; returns the store and the events."""
    store, events = BlobStore(tmp_path / "blobs"), io.StringIO()
    document = {"kind": "synthesize", "parameters": parameters, "inputs": {"swatch": store.put(b"swatch")}}
    worker = Worker(load_engine(f"tests.support.engines:{engine}", tmp_path), store, io.StringIO(), events)
    worker._run_job(protocol.Run("a", document))
    return store, [protocol.decode_event(line) for line in events.getvalue().splitlines()]


def test_progress_carries_the_phase_of_its_step(tmp_path: Path) -> None:
    _, events = run_job(tmp_path, "shows", steps=3)
    assert {event.phase for event in events if isinstance(event, protocol.Progress)} == {"denoise"}


def test_a_job_that_is_canceled_before_its_first_step_is_not_run(tmp_path: Path) -> None:
    events = io.StringIO()
    worker = Worker(load_engine("tests.support.engines:dies", tmp_path), BlobStore(tmp_path), io.StringIO(), events)
    worker._canceled.add("a")
    document = {"kind": "synthesize", "inputs": {"swatch": "0" * 64}}
    worker._run_job(protocol.Run("a", document))
    assert protocol.decode_event(events.getvalue()) == protocol.Canceled("a")
    assert worker._canceled == set()


def test_only_the_newest_previews_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "preview_is_due", lambda self: True)
    monkeypatch.setattr(Clock, "progress_is_due", lambda self, step: True)
    store, events = run_job(tmp_path, "shows", steps=30)
    previews = [event.preview for event in events if isinstance(event, protocol.Progress) and event.preview]
    assert len(set(previews)) == len(previews) == 30
    assert [store.has(sha) for sha in previews] == [False] * (30 - KEPT_PREVIEWS) + [True] * KEPT_PREVIEWS


def test_a_preview_that_cannot_be_stored_does_not_fail_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put = BlobStore.put

    def full(store: BlobStore, data: bytes) -> str:
        if data.startswith(b"preview"):
            raise WireError("disk-full", "no space is left")
        return put(store, data)

    monkeypatch.setattr(BlobStore, "put", full)
    monkeypatch.setattr(Clock, "preview_is_due", lambda self: True)
    _, events = run_job(tmp_path, "shows", steps=3)
    assert isinstance(events[-1], protocol.Succeeded)
    assert "A preview cannot be stored: no space is left" in capsys.readouterr().err


def test_an_idle_worker_frees_its_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ad_service.worker.worker.IDLE_SECONDS", 0.05)
    engine = load_engine("tests.support.engines:echoes", tmp_path)
    worker = Worker(engine, BlobStore(tmp_path / "blobs"), io.StringIO(), io.StringIO())
    worker._jobs.put(protocol.Run("a", {}))
    assert worker._next_job().job == "a" and not (tmp_path / "released").exists()
    waiting = threading.Timer(0.5, worker._jobs.put, (protocol.Run("b", {}),))
    waiting.start()
    assert worker._next_job().job == "b" and (tmp_path / "released").exists()


def test_progress_and_previews_are_limited_in_rate(tmp_path: Path) -> None:
    _, events = run_job(tmp_path, "shows", steps=30)
    progress = [event for event in events if isinstance(event, protocol.Progress)]
    assert 1 <= len(progress) <= 6  # the job takes 0.3 s
    assert len({event.preview for event in progress}) == 1
    assert isinstance(events[-1], protocol.Succeeded)


def test_the_time_left_is_estimated_after_the_first_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock()
    estimates = []
    for at, fraction in ((100.0, 0.0), (130.0, 0.0), (131.0, 0.1), (131.5, 0.11), (133.0, 0.3), (139.0, 0.9)):
        now[0] = at
        estimates.append(clock.seconds_left(Step(fraction, "")))
    assert estimates == [None, None, None, None, 7.0, 1.0]


def test_a_real_engine_makes_a_texture_through_the_service(start: Start, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    tiny_checkpoints.tiny_pocket(data_dir / "models" / "tiny")
    live = start("", data_dir=data_dir)
    swatch = io.BytesIO()
    Image.effect_noise((96, 96), 60).convert("RGB").save(swatch, "PNG")
    parameters = {"model": "tiny", "width": 128, "height": 96, "steps": 3, "detail": "off"}
    jobs = [live.submit(swatch.getvalue(), **parameters) for _ in range(2)]
    results = [live.wait_for_state(job, *wire.FINAL_STATES, seconds=300) for job in jobs]
    assert [status["state"] for status in results] == ["succeeded"] * 2, results
    assert results[0]["result"]["outputs"] == results[1]["result"]["outputs"]
    image = Image.open(io.BytesIO(live.get(f"/v1/blobs/{results[0]['result']['outputs']['image']}").content))
    assert image.size == (128, 96)
