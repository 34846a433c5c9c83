"""Decides which job runs on which worker, when a job is canceled by force, and when it is tried again.

One thread makes all decisions. It acts on the record of jobs and on the events of an executor, which runs the jobs.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ad_service.service.executors import CancelMethod, Event, Executor, JobReported, WorkerLost, WorkerReady
from ad_service.storage.jobs import Jobs
from ad_service.worker import protocol
from blender_addon.wire import WireError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timeouts:
    """When the scheduler gives up.

    A worker whose job does not stop is terminated and then killed this many seconds after the cancel. Waiting jobs fail
    when every worker has ended at its last `max_failed_starts` starts, for at least `failing_seconds`: a driver that is
    updated, or memory that another program has, can be back by then.
    """

    terminate: float = 5.0
    kill: float = 10.0
    max_failed_starts: int = 3
    failing_seconds: float = 60.0


@dataclass(frozen=True)
class RecordChanged:
    """A job was submitted, canceled or changed in another way, or the scheduler stops."""


@dataclass(frozen=True)
class WorkerState:
    """A worker for clients: its id, its device once it is ready, its job, and in words why it is not ready."""

    worker: str
    device: protocol.Ready | None
    job: str | None
    message: str


@dataclass
class SlotState:
    """The scheduler's view of one worker."""

    ready: bool = False
    """Whether the worker can take a job."""
    job: str | None = None
    message: str = "the worker is starting"
    """Why the worker is not ready, in words; empty while it is."""
    backlog: deque[Event] = field(default_factory=deque)
    """Events of the worker that are not recorded yet, oldest first."""
    canceled_at: float | None = None
    """time.monotonic() when the worker was first asked to stop its job."""
    cancel_method: CancelMethod | None = None
    failed_starts: int = 0
    failing_since: float | None = None
    """time.monotonic() of the first of the failed starts in a row."""

    def release(self) -> None:
        """The worker's job has ended."""
        self.job = self.canceled_at = self.cancel_method = None


class Scheduler:
    """Runs the queued jobs of the record on an executor's workers, oldest first, between `start` and `stop`."""

    def __init__(self, jobs: Jobs, executor: Executor, timeouts: Timeouts | None = None) -> None:
        self._jobs = jobs
        self._executor = executor
        self._timeouts = timeouts or Timeouts()
        self._slots = {worker: SlotState() for worker in executor.devices()}
        self._events: queue.Queue[Event | RecordChanged] = queue.Queue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        self._executor.start(self._events.put)
        self._thread.start()

    def stop(self) -> None:
        """Stops the workers. A running job stays `running` in the record, and `Jobs.recover` queues it again."""
        self._stopping.set()
        self._events.put(RecordChanged())
        self._thread.join()
        self._executor.stop()

    @property
    def status_message(self) -> str:
        """Why workers are not ready, in words; empty while all are."""
        return "; ".join(dict.fromkeys(slot.message for slot in self._slots.values() if slot.message))

    def device(self) -> protocol.Ready:
        """The device of the first ready worker.

        Raises: WireError `device-unavailable` if no worker is ready.
        """
        for device in self._executor.devices().values():
            if device is not None:
                return device
        raise WireError("device-unavailable", self.status_message or "the worker has ended and is started again")

    def workers(self) -> list[WorkerState]:
        """All workers, in the order of their ids."""
        return [
            WorkerState(worker, device, self._slots[worker].job, "" if device else self._slots[worker].message)
            for worker, device in self._executor.devices().items()
        ]

    # ---------------------------------------------------------------------- the thread

    def _run(self) -> None:
        with self._jobs.listener(lambda _: self._events.put(RecordChanged())):
            while not self._stopping.is_set():
                self._turn()

    def _turn(self) -> None:
        """Records the events of each worker, enforces cancels, assigns jobs, and waits for the next event.

        An error, for example because the disk is full, concerns one step for one worker; the next turn tries it again.
        """
        for step in (self._record_backlog, self._enforce_cancel, self._assign_job):
            for worker, slot in self._slots.items():
                with self._logged(worker):
                    step(worker, slot)
        canceling = any(slot.canceled_at is not None for slot in self._slots.values())
        with suppress(queue.Empty):
            event = self._events.get(timeout=0.1 if canceling else 1.0)
            if not isinstance(event, RecordChanged):
                self._slots[event.worker].backlog.append(event)

    @contextmanager
    def _logged(self, worker: str) -> Iterator[None]:
        """Logs an error inside the block, which ends the block only."""
        try:
            yield
        except Exception:
            logger.exception("Unexpected error in the scheduler for %s", worker)

    def _record_backlog(self, worker: str, slot: SlotState) -> None:
        """Records the events of a worker. One that cannot be recorded now is kept; one that never can fails its job."""
        while slot.backlog:
            try:
                self._record(slot, slot.backlog[0])
            except Exception as error:
                if _can_pass(error):
                    raise
                logger.exception("An event of %s cannot be recorded", worker)
                self._fail(slot, error)
            slot.backlog.popleft()

    def _fail(self, slot: SlotState, error: Exception) -> None:
        """Fails the job of a worker because of an unexpected error in the scheduler."""
        if slot.job is None:
            return
        try:
            self._jobs.fail(slot.job, WireError("internal", f"{type(error).__name__}: {error}").problem())
        except Exception as second:
            if _can_pass(second):
                raise
            logger.exception("Job %s cannot be failed", slot.job)
        slot.release()

    def _record(self, slot: SlotState, event: Event) -> None:
        """Records what an executor reports of a worker."""
        if isinstance(event, WorkerReady):
            slot.ready, slot.failed_starts, slot.failing_since, slot.message = True, 0, None, ""
        elif isinstance(event, JobReported):
            self._on_report(slot, event.report)
        else:
            self._on_loss(slot, event)

    def _on_report(self, slot: SlotState, report: protocol.JobEvent) -> None:
        if isinstance(report, protocol.Progress):
            self._record_progress(report)
            return
        if isinstance(report, protocol.Succeeded):
            self._jobs.succeed(report.job, report.result)
        elif isinstance(report, protocol.Failed):
            self._jobs.fail(report.job, report.problem)
        else:
            self._jobs.confirm_cancel(report.job)
        slot.release()

    def _record_progress(self, report: protocol.Progress) -> None:
        """Drops what cannot be written: the job goes on, and a later report replaces this one."""
        try:
            self._jobs.progress(
                report.job,
                report.fraction,
                report.message,
                phase=report.phase,
                seconds_left=report.seconds_left,
                preview=report.preview,
            )
        except Exception:
            logger.exception("The progress of job %s cannot be recorded", report.job)

    def _on_loss(self, slot: SlotState, event: WorkerLost) -> None:
        """Queues the job again or fails it; fails all waiting jobs when no worker can be started."""
        slot.ready, slot.failed_starts = False, event.failed_starts
        if slot.failed_starts and slot.failing_since is None:
            slot.failing_since = time.monotonic()
        slot.message = f"the worker {event.worker} ended {event.reason} and is started again"
        if event.job is not None:
            if event.received:
                self._jobs.crash(event.job, event.reason)
            else:
                self._jobs.unclaim(event.job)
            slot.release()
        failed_starts = min(slot.failed_starts for slot in self._slots.values())
        now = time.monotonic()
        failing = min(now - (one.failing_since or now) for one in self._slots.values())
        if failed_starts >= self._timeouts.max_failed_starts and failing >= self._timeouts.failing_seconds:
            slot.message = f"the worker ended {event.reason} at {failed_starts} starts: {event.last_line}"
            self._jobs.fail_waiting(
                WireError("device-unavailable", slot.message, worker=event.worker, failed_starts=failed_starts)
            )

    def _assign_job(self, worker: str, slot: SlotState) -> None:
        if not slot.ready or slot.job is not None:
            return
        status = self._jobs.claim(worker)
        if status is None:
            return
        slot.job = status.id
        try:
            self._executor.submit(worker, status.id, status.request)
        except Exception as error:
            logger.exception("Job %s cannot be given to %s", status.id, worker)
            self._fail(slot, error)
        else:
            slot.ready = False  # until the worker says so again, which can be later than the end of this job

    def _enforce_cancel(self, worker: str, slot: SlotState) -> None:
        """First the flag, which the worker checks at its next step; then terminate, then kill."""
        if slot.job is None:
            return
        if slot.canceled_at is None:
            if self._jobs.get(slot.job).state != "canceling":
                return
            slot.canceled_at = time.monotonic()
        waited = time.monotonic() - slot.canceled_at
        method: CancelMethod = "flag"
        if waited > self._timeouts.terminate:
            method = "kill" if waited > self._timeouts.kill else "terminate"
        if method != slot.cancel_method:
            slot.cancel_method = method
            self._executor.cancel(worker, slot.job, method)


def _can_pass(error: Exception) -> bool:
    """Whether the record may accept a change later: its disk is full, or another program holds its file."""
    return isinstance(error, sqlite3.OperationalError) or (isinstance(error, WireError) and error.code == "disk-full")
