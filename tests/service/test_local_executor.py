"""Worker processes on this machine: two slots, each with its own process, job and log."""

from __future__ import annotations

import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ad_service.service.executors import Event, JobReported, WorkerLost, WorkerReady
from ad_service.service.executors.local import LocalExecutor, RestartDelays, describe_exit
from ad_service.service.scheduler import Scheduler
from ad_service.storage.jobs import Jobs
from ad_service.storage.settings import Settings
from ad_service.worker import protocol
from blender_addon.wire import JobRequest
from tests.support.live_service import LiveService
from tests.support.processes import is_alive, wait_until


@dataclass
class TwoSlots:
    """A scheduler with two worker processes in this process."""

    jobs: Jobs
    executor: LocalExecutor

    def submit(self, *names: str) -> None:
        for name in names:
            self.jobs.submit(name, JobRequest.parse({"kind": "synthesize", "inputs": {"swatch": "0" * 64}}))

    def process(self, job: str) -> int:
        """The id of the process that runs a job."""
        process = self.executor._slots[str(self.jobs.get(job).worker)]._process
        assert process is not None
        return process.pid

    def sleeps(self, *names: str) -> bool:
        return all(self.jobs.get(name).message == "Sleeping" for name in names)


@pytest.fixture
def two_slots(tmp_path: Path) -> Iterator[TwoSlots]:
    settings = Settings(tmp_path, engine="tests.support.engines:sleeps", gpus=(None, None))
    jobs = Jobs(settings.jobs_file)
    executor = LocalExecutor(settings.worker_command, settings.worker_log, settings.gpus, RestartDelays(first=0.01))
    scheduler = Scheduler(jobs, executor)
    scheduler.start()
    try:
        yield TwoSlots(jobs, executor)
    finally:
        scheduler.stop()
        jobs.close()


def test_two_jobs_run_at_the_same_time_on_two_workers(two_slots: TwoSlots, tmp_path: Path) -> None:
    two_slots.submit("a", "b", "c")
    wait_until(lambda: two_slots.sleeps("a", "b"))
    assert {two_slots.jobs.get(job).worker for job in "ab"} == {"local-1", "local-2"}
    assert two_slots.process("a") != two_slots.process("b")
    assert two_slots.jobs.get("c").state == "queued"
    assert (tmp_path / "worker.log").exists() and (tmp_path / "worker-2.log").exists()


def test_killing_one_worker_leaves_the_job_of_the_other(two_slots: TwoSlots) -> None:
    two_slots.submit("a", "b")
    wait_until(lambda: two_slots.sleeps("a", "b"))
    killed, other = two_slots.process("a"), two_slots.process("b")
    os.kill(killed, signal.SIGTERM)
    wait_until(lambda: two_slots.jobs.get("a").attempt == 2 and two_slots.sleeps("a"))
    assert two_slots.process("a") not in (killed, other)
    assert (two_slots.jobs.get("b").attempt, two_slots.process("b")) == (1, other)


def test_a_cancel_ends_the_right_job_and_keeps_both_workers(two_slots: TwoSlots) -> None:
    two_slots.submit("a", "b", "c")
    wait_until(lambda: two_slots.sleeps("a", "b"))
    processes = {two_slots.process("a"), two_slots.process("b")}
    freed = two_slots.jobs.get("b").worker
    two_slots.jobs.cancel("b")
    wait_until(lambda: two_slots.jobs.get("b").final and two_slots.sleeps("c"))
    assert [two_slots.jobs.get(job).state for job in "abc"] == ["running", "canceled", "running"]
    assert two_slots.jobs.get("c").worker == freed
    assert {two_slots.process("a"), two_slots.process("c")} == processes


def test_stopping_ends_all_processes_and_keeps_their_jobs(two_slots: TwoSlots) -> None:
    two_slots.submit("a", "b")
    wait_until(lambda: two_slots.sleeps("a", "b"))
    processes = [two_slots.process(job) for job in "ab"]
    two_slots.executor.stop()
    wait_until(lambda: not any(is_alive(process) for process in processes))
    assert [two_slots.jobs.get(job).state for job in "ab"] == ["running", "running"]


# ---------------------------------------------------------------------------------------------- without a scheduler


@contextmanager
def started(tmp_path: Path, engine: str) -> Iterator[tuple[LocalExecutor, queue.Queue[Event]]]:
    """An executor with one slot, and its events."""
    settings = Settings(tmp_path, engine=f"tests.support.engines:{engine}")
    executor = LocalExecutor(settings.worker_command, settings.worker_log, delays=RestartDelays(first=0.01))
    events: queue.Queue[Event] = queue.Queue()
    executor.start(events.put)
    try:
        yield executor, events
    finally:
        executor.stop()


def test_a_job_for_a_worker_that_has_ended_is_reported_lost(tmp_path: Path) -> None:
    with started(tmp_path, "never_starts") as (executor, events):
        executor.submit("local-1", "a", {})
        lost = events.get(timeout=10)
        assert isinstance(lost, WorkerLost) and (lost.worker, lost.job, lost.received) == ("local-1", "a", False)
        assert executor.devices() == {"local-1": None}


def test_failed_starts_are_counted_with_the_last_line_of_the_log(tmp_path: Path) -> None:
    with started(tmp_path, "never_starts") as (_, events):
        losses = [events.get(timeout=20) for _ in range(2)]
    assert all(isinstance(lost, WorkerLost) and "no kernel image" in lost.last_line for lost in losses)
    assert [lost.failed_starts for lost in losses if isinstance(lost, WorkerLost)] == [1, 2]


def test_a_ready_worker_names_its_device(tmp_path: Path) -> None:
    with started(tmp_path, "echoes") as (executor, events):
        assert events.get(timeout=20) == WorkerReady("local-1")
        device = executor.devices()["local-1"]
        assert device is not None and device.device_name == "a fixture"
    assert events.empty(), "a worker that is stopped is not lost"


def test_starts_that_fail_are_counted_and_reported(tmp_path: Path) -> None:
    executor = LocalExecutor((str(tmp_path / "missing"),), tmp_path / "worker.log", delays=RestartDelays(first=0.01))
    events: queue.Queue[Event] = queue.Queue()
    executor.start(events.put)
    try:
        losses = [events.get(timeout=10) for _ in range(3)]
    finally:
        executor.stop()
    assert [lost.failed_starts for lost in losses if isinstance(lost, WorkerLost)] == [1, 2, 3]
    assert all(isinstance(lost, WorkerLost) and "FileNotFoundError" in lost.reason for lost in losses)


def test_an_odd_line_is_ignored_and_an_error_starts_the_process_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
import sys
print('{"event": []}')
print("[" * 100_000)
print('{"event": "ready", "device": "cpu", "device_name": "a", "memory_total": 1, "memory_free": 1}', flush=True)
sys.stdin.readline()
print('{"event": "succeeded", "job": "a", "result": 5}')
print('{"event": "ready", "device": "cpu", "device_name": "b", "memory_total": 1, "memory_free": 1}', flush=True)
sys.stdin.readline()
print("defect", flush=True)
sys.stdin.readline()
"""
    decode = protocol.decode_event

    def with_defect(line: str) -> protocol.Event:
        if line == "defect\n":
            raise ZeroDivisionError
        return decode(line)

    monkeypatch.setattr(protocol, "decode_event", with_defect)
    command = (sys.executable, "-c", script)
    executor = LocalExecutor(command, tmp_path / "worker.log", delays=RestartDelays(first=0.01))
    events: queue.Queue[Event] = queue.Queue()
    executor.start(events.put)
    try:
        assert events.get(timeout=10) == WorkerReady("local-1")
        executor.submit("local-1", "a", {})
        report = events.get(timeout=10)
        assert isinstance(report, JobReported) and isinstance(report.report, protocol.Failed)
        assert report.report.job == "a" and "without a report" in report.report.problem["detail"]
        assert events.get(timeout=10) == WorkerReady("local-1")
        executor.submit("local-1", "b", {})
        lost = events.get(timeout=10)
        assert isinstance(lost, WorkerLost) and (lost.job, lost.received) == ("b", True)
        assert "ZeroDivisionError" in lost.reason
        assert events.get(timeout=10) == WorkerReady("local-1"), "a new process"
    finally:
        executor.stop()


def test_a_log_above_its_limit_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ad_service.service.executors.local.MAX_LOG_BYTES", 10)
    (tmp_path / "worker.log").write_text("a long line of an earlier run")
    with started(tmp_path, "echoes") as (_, events):
        events.get(timeout=20)
    assert (tmp_path / "worker.log.1").read_text() == "a long line of an earlier run"


def test_a_log_is_rotated_while_its_worker_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ad_service.service.executors.local.MAX_LOG_BYTES", 1000)
    ready = '{"event": "ready", "device": "cpu", "device_name": "a", "memory_total": 1, "memory_free": 1}'
    script = f"""
import sys
for i in range(3):
    print(str(i) * 2000, file=sys.stderr, flush=True)
    print('{ready}', flush=True)
    sys.stdin.readline()
"""
    executor = LocalExecutor((sys.executable, "-c", script), tmp_path / "worker.log")
    events: queue.Queue[Event] = queue.Queue()
    executor.start(events.put)
    try:
        for i in range(3):
            event = events.get(timeout=20)
            assert (event if i == 0 else events.get(timeout=20)) == WorkerReady("local-1")
            assert (tmp_path / "worker.log.1").read_text() == str(i) * 2000 + "\n"
            assert (tmp_path / "worker.log").stat().st_size == 0
            executor.submit("local-1", "a", {})
    finally:
        executor.stop()


def test_a_worker_that_never_gets_ready_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ad_service.service.executors.local.START_SECONDS", 0.3)
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    executor = LocalExecutor(command, tmp_path / "worker.log", delays=RestartDelays(first=0.01))
    events: queue.Queue[Event] = queue.Queue()
    executor.start(events.put)
    try:
        lost = events.get(timeout=10)
    finally:
        executor.stop()
    assert isinstance(lost, WorkerLost)
    assert (lost.reason, lost.failed_starts) == ("since it was not ready after 0.3 seconds", 1)


def test_exits_are_described_in_words() -> None:
    assert describe_exit(3) == "with exit code 3"
    assert describe_exit(-9) == "by signal SIGKILL"
    assert describe_exit(-999) == "by signal 999"


def test_each_worker_sees_its_own_gpu_and_runs_a_job(start: Callable[..., LiveService]) -> None:
    live = start("names_its_gpu", "--gpus", "1,GPU-0-a")
    jobs = [live.submit(seed=i) for i in range(3)]
    running = [live.wait_for_state(job, "running") for job in jobs[:2]]
    assert {status["worker"] for status in running} == {"local-1", "local-2"}
    workers = live.get("/v1/workers").json()["workers"]
    assert [one["device"]["device_name"] for one in workers] == ["1", "GPU-0-a"]
    assert {one["job"] for one in workers} == set(jobs[:2])
    assert live.status(jobs[2])["state"] == "queued"
    live.cancel(jobs[1])
    assert live.wait_for_state(jobs[2], "running")["worker"] == live.status(jobs[1])["worker"]
    live.stop()
