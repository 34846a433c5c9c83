"""The scheduler's decisions, with an executor that only records what it is asked to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ad_service.service.executors import CancelMethod, Event, JobReported, WorkerLost, WorkerReady
from ad_service.service.scheduler import Scheduler, Timeouts
from ad_service.storage.jobs import Jobs
from ad_service.worker import protocol
from blender_addon.wire import JobRequest, Result, WireError
from tests.support.processes import wait_until

DEVICE = protocol.Ready("cpu", "a fixture", 2**30, 2**29)
RESULT = Result({"image": "1" * 64})


class FakeExecutor:
    """Workers that do nothing by themselves; a test sends their events with `on_event`."""

    def __init__(self, *workers: str) -> None:
        self._devices: dict[str, protocol.Ready | None] = dict.fromkeys(workers)
        self.submitted: list[tuple[str, str]] = []
        self.canceled: list[tuple[str, str, CancelMethod]] = []
        self.stopped = False

    def start(self, on_event: Callable[[Event], None]) -> None:
        self.on_event = on_event

    def stop(self) -> None:
        self.stopped = True

    def devices(self) -> Mapping[str, protocol.Ready | None]:
        return self._devices

    def submit(self, worker: str, job: str, request: Mapping[str, Any]) -> None:
        self.submitted.append((worker, job))

    def cancel(self, worker: str, job: str, method: CancelMethod) -> None:
        self.canceled.append((worker, job, method))

    def make_ready(self, worker: str) -> None:
        self._devices[worker] = DEVICE
        self.on_event(WorkerReady(worker))

    def lose(self, worker: str, job: str | None, failed_starts: int = 0, received: bool = True) -> None:
        self._devices[worker] = None
        self.on_event(WorkerLost(worker, job, "with exit code 3", "no kernel image", failed_starts, received))

    def report(self, worker: str, report: protocol.JobEvent, *, then_ready: bool = True) -> None:
        self.on_event(JobReported(worker, report))
        if then_ready and not isinstance(report, protocol.Progress):
            self.on_event(WorkerReady(worker))


def submit(jobs: Jobs, *names: str) -> None:
    for name in names:
        jobs.submit(name, JobRequest.parse({"kind": "synthesize", "inputs": {"swatch": "0" * 64}}))


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    record = Jobs(tmp_path / "jobs.sqlite")
    yield record
    record.close()


@contextmanager
def running(jobs: Jobs, *workers: str, timeouts: Timeouts | None = None) -> Iterator[tuple[Scheduler, FakeExecutor]]:
    executor = FakeExecutor(*workers)
    scheduler = Scheduler(jobs, executor, timeouts)
    scheduler.start()
    try:
        yield scheduler, executor
    finally:
        scheduler.stop()
    assert executor.stopped


def test_jobs_are_assigned_oldest_first_to_idle_workers(jobs: Jobs) -> None:
    submit(jobs, "c", "a", "b")
    with running(jobs, "one", "two") as (_, executor):
        executor.make_ready("two")
        wait_until(lambda: executor.submitted == [("two", "c")])
        executor.make_ready("one")
        wait_until(lambda: executor.submitted == [("two", "c"), ("one", "a")])
        assert [(jobs.get(job).state, jobs.get(job).worker) for job in "cab"] == [
            ("running", "two"),
            ("running", "one"),
            ("queued", None),
        ]
        executor.report("one", protocol.Succeeded("a", RESULT))
        wait_until(lambda: executor.submitted[2:] == [("one", "b")])
        assert jobs.get("a").result == RESULT


def test_a_worker_gets_its_next_job_when_it_is_ready_again(jobs: Jobs) -> None:
    submit(jobs, "a", "b")
    with running(jobs, "x") as (_, executor):
        executor.make_ready("x")
        wait_until(lambda: executor.submitted == [("x", "a")])
        executor.report("x", protocol.Succeeded("a", RESULT), then_ready=False)
        wait_until(lambda: jobs.get("a").state == "succeeded")
        submit(jobs, "c")  # wakes the scheduler
        time.sleep(0.2)
        assert executor.submitted == [("x", "a")]
        executor.make_ready("x")
        wait_until(lambda: executor.submitted == [("x", "a"), ("x", "b")])


def test_every_report_ends_or_updates_the_right_job(jobs: Jobs) -> None:
    submit(jobs, "a", "b", "c")
    with running(jobs, "one", "two", "three") as (_, executor):
        for worker in ("one", "two", "three"):
            executor.make_ready(worker)
        wait_until(lambda: len(executor.submitted) == 3)
        assigned = {job: worker for worker, job in executor.submitted}
        executor.report(assigned["a"], protocol.Progress("a", 0.5, "Step 1", 3.0, "2" * 64, "sampling"))
        executor.report(assigned["b"], protocol.Failed("b", WireError("nan-output", "at step 3").problem()))
        executor.report(assigned["c"], protocol.Canceled("c"))
        wait_until(lambda: jobs.get("c").final)
        status = jobs.get("a")
        assert (status.progress, status.message, status.phase, status.preview) == (0.5, "Step 1", "sampling", "2" * 64)
        assert [jobs.get(job).state for job in "abc"] == ["running", "failed", "canceled"]


def test_a_cancel_is_a_flag_then_terminate_then_kill_for_its_own_worker(jobs: Jobs) -> None:
    submit(jobs, "a", "b")
    with running(jobs, "one", "two", timeouts=Timeouts(terminate=0.2, kill=0.5)) as (_, executor):
        executor.make_ready("one")
        wait_until(lambda: len(executor.submitted) == 1)
        executor.make_ready("two")
        wait_until(lambda: len(executor.submitted) == 2)
        jobs.cancel("b")
        wait_until(lambda: len(executor.canceled) == 3)
        assert executor.canceled == [("two", "b", "flag"), ("two", "b", "terminate"), ("two", "b", "kill")]
        executor.lose("two", "b")
        wait_until(lambda: jobs.get("b").state == "canceled")
        assert jobs.get("a").state == "running"


def test_the_next_cancel_of_a_worker_starts_with_the_flag(jobs: Jobs) -> None:
    submit(jobs, "a", "b")
    with running(jobs, "one") as (_, executor):
        executor.make_ready("one")
        for job in ("a", "b"):
            wait_until(lambda job=job: jobs.get(job).state == "running")
            jobs.cancel(job)
            wait_until(lambda job=job: ("one", job, "flag") in executor.canceled)
            executor.report("one", protocol.Canceled(job))
        wait_until(lambda: jobs.get("b").final)
        assert executor.canceled == [("one", "a", "flag"), ("one", "b", "flag")]


def test_the_job_of_a_lost_worker_runs_again_on_another_one(jobs: Jobs) -> None:
    submit(jobs, "a", "b")
    with running(jobs, "one", "two") as (_, executor):
        executor.make_ready("one")
        wait_until(lambda: executor.submitted == [("one", "a")])
        executor.make_ready("two")
        wait_until(lambda: executor.submitted[1:] == [("two", "b")])
        executor.lose("one", "a")
        executor.report("two", protocol.Succeeded("b", RESULT))
        wait_until(lambda: executor.submitted[2:] == [("two", "a")])
        assert (jobs.get("a").attempt, jobs.get("a").worker, jobs.get("b").state) == (2, "two", "succeeded")


def test_the_loss_of_an_earlier_process_does_not_end_the_job_of_the_present_one(jobs: Jobs) -> None:
    submit(jobs, "a")
    with running(jobs, "one") as (_, executor):
        executor.make_ready("one")
        wait_until(lambda: executor.submitted == [("one", "a")])
        executor.lose("one", None)
        executor.make_ready("one")
        executor.report("one", protocol.Succeeded("a", RESULT))
        wait_until(lambda: jobs.get("a").state == "succeeded")
        assert executor.submitted == [("one", "a")] and jobs.get("a").attempt == 1


def test_waiting_jobs_fail_only_when_no_worker_can_be_started(jobs: Jobs) -> None:
    submit(jobs, "a")
    with running(jobs, "one", "two", timeouts=Timeouts(max_failed_starts=2, failing_seconds=0.0)) as (
        scheduler,
        executor,
    ):
        executor.lose("one", None, failed_starts=2)
        executor.lose("two", None, failed_starts=1)
        wait_until(lambda: "two" in scheduler.status_message)
        assert jobs.get("a").state == "queued"
        executor.lose("two", None, failed_starts=2)
        wait_until(lambda: jobs.get("a").final)
        problem = jobs.get("a").problem
        assert problem is not None and problem["type"] == "device-unavailable"
        assert problem["detail"] == "the worker ended with exit code 3 at 2 starts: no kernel image"
        assert problem["data"] == {"worker": "two", "failed_starts": 2}


def test_waiting_jobs_stay_while_a_worker_has_failed_for_a_short_time_only(jobs: Jobs) -> None:
    submit(jobs, "a")
    with running(jobs, "one") as (scheduler, executor):
        for count in range(1, 6):
            executor.lose("one", None, failed_starts=count)
        wait_until(lambda: scheduler._slots["one"].failed_starts == 5)
        assert jobs.get("a").state == "queued"
        executor.make_ready("one")
        wait_until(lambda: executor.submitted == [("one", "a")])


def test_the_device_is_that_of_the_first_ready_worker(jobs: Jobs) -> None:
    with running(jobs, "one", "two") as (scheduler, executor):
        with pytest.raises(WireError, match="is starting") as caught:
            scheduler.device()
        assert caught.value.code == "device-unavailable"
        executor.make_ready("two")
        assert scheduler.device() == DEVICE
        executor.lose("two", None)
        wait_until(lambda: "exit code 3" in scheduler.status_message)
        with pytest.raises(WireError, match="exit code 3"):
            scheduler.device()


def test_a_result_that_a_full_disk_rejects_is_recorded_later(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    succeed, tries = jobs.succeed, []

    def full_once(job: str, result: Result) -> object:
        tries.append(job)
        if len(tries) == 1:
            raise WireError("disk-full", "no space is left")
        return succeed(job, result)

    monkeypatch.setattr(jobs, "succeed", full_once)
    submit(jobs, "a")
    with running(jobs, "one") as (_, executor):
        executor.make_ready("one")
        wait_until(lambda: executor.submitted == [("one", "a")])
        executor.report("one", protocol.Succeeded("a", RESULT))
        wait_until(lambda: jobs.get("a").state == "succeeded")
    assert tries == ["a", "a"]


def test_an_event_that_can_never_be_recorded_fails_its_job_and_no_other(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(job: str, result: Result) -> object:
        raise TypeError("not a result")

    monkeypatch.setattr(jobs, "succeed", fails)
    submit(jobs, "a", "b")
    with running(jobs, "one") as (_, executor):
        executor.make_ready("one")
        wait_until(lambda: executor.submitted == [("one", "a")])
        executor.report("one", protocol.Succeeded("a", RESULT))
        wait_until(lambda: executor.submitted[1:] == [("one", "b")])
        problem = jobs.get("a").problem
        assert problem is not None and (problem["type"], problem["detail"]) == ("internal", "TypeError: not a result")


def test_a_result_that_waits_for_the_disk_blocks_no_other_worker(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(job: str, result: Result) -> object:
        raise WireError("disk-full", "no space is left")

    monkeypatch.setattr(jobs, "succeed", full)
    submit(jobs, "a", "b", "c")
    with running(jobs, "one", "two") as (_, executor):
        executor.make_ready("one")
        wait_until(lambda: executor.submitted == [("one", "a")])
        executor.make_ready("two")
        wait_until(lambda: executor.submitted[1:] == [("two", "b")])
        executor.report("one", protocol.Succeeded("a", RESULT))
        jobs.cancel("b")
        wait_until(lambda: executor.canceled == [("two", "b", "flag")])
        executor.report("two", protocol.Canceled("b"))
        wait_until(lambda: executor.submitted[2:] == [("two", "c")])
        assert [jobs.get(job).state for job in "abc"] == ["running", "canceled", "running"]


def test_events_and_cancels_are_handled_while_no_job_can_be_assigned(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(jobs, "a", "b", "c")
    with running(jobs, "one", "two", "three") as (_, executor):
        for worker, job in (("one", "a"), ("two", "b")):
            executor.make_ready(worker)
            wait_until(lambda worker=worker, job=job: (worker, job) in executor.submitted)

        def full(worker: str) -> object:
            raise WireError("disk-full", "no space is left")

        monkeypatch.setattr(jobs, "claim", full)
        executor.make_ready("three")
        executor.report("one", protocol.Succeeded("a", RESULT))
        wait_until(lambda: jobs.get("a").state == "succeeded")
        jobs.cancel("b")
        wait_until(lambda: executor.canceled == [("two", "b", "flag")])
        executor.report("two", protocol.Canceled("b"))
        wait_until(lambda: jobs.get("b").state == "canceled")


def test_a_job_that_cannot_be_given_to_its_worker_fails(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(jobs, "one") as (_, executor):

        def fails(worker: str, job: str, request: Mapping[str, Any]) -> None:
            raise TypeError("not JSON")

        monkeypatch.setattr(executor, "submit", fails)
        executor.make_ready("one")
        submit(jobs, "a")
        wait_until(lambda: jobs.get("a").state == "failed")


def test_a_job_that_its_worker_never_received_runs_again_without_a_crash(jobs: Jobs) -> None:
    submit(jobs, "a")
    with running(jobs, "one") as (_, executor):
        for count in range(1, 5):
            executor.make_ready("one")
            wait_until(lambda count=count: len(executor.submitted) == count)
            executor.lose("one", "a", received=False)
            wait_until(lambda: jobs.get("a").state == "queued")
        assert jobs.get("a").attempt == 1


def test_no_ready_worker_is_explained_even_before_its_loss_is_recorded(jobs: Jobs) -> None:
    with running(jobs, "one") as (scheduler, executor):
        executor.make_ready("one")
        wait_until(lambda: scheduler.status_message == "")
        executor._devices["one"] = None
        with pytest.raises(WireError, match="the worker has ended"):
            scheduler.device()


def test_the_status_of_a_lost_worker_stays_when_another_is_ready(jobs: Jobs) -> None:
    with running(jobs, "one", "two") as (scheduler, executor):
        executor.lose("one", None)
        wait_until(lambda: "the worker one ended" in scheduler.status_message)
        executor.make_ready("two")
        wait_until(lambda: "is starting" not in scheduler.status_message)
        assert "the worker one ended" in scheduler.status_message


def test_progress_that_cannot_be_recorded_is_dropped(jobs: Jobs) -> None:
    submit(jobs, "a")
    with running(jobs, "one") as (_, executor):
        executor.make_ready("one")
        wait_until(lambda: executor.submitted == [("one", "a")])
        executor.report("one", protocol.Progress("a", 0.5, None))  # type: ignore[arg-type]
        executor.report("one", protocol.Succeeded("a", RESULT))
        wait_until(lambda: jobs.get("a").state == "succeeded")


def test_a_running_job_stays_in_the_record_when_the_scheduler_stops(jobs: Jobs) -> None:
    submit(jobs, "a")
    with running(jobs, "one") as (_, executor):
        executor.make_ready("one")
        wait_until(lambda: executor.submitted == [("one", "a")])
    assert jobs.get("a").state == "running"
