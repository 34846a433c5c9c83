"""Decides which job runs on which worker, when a job is canceled by force, and when it is tried again.

One thread makes all decisions. It acts on the record of jobs and on the events of an executor, which runs the jobs.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass

from ad_service.service.executors import CancelMethod, Event, Executor, JobReported, WorkerLost, WorkerReady
from ad_service.storage.jobs import Jobs
from ad_service.worker import protocol
from blender_addon.wire import WireError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timeouts:
    """When the scheduler gives up.

    A worker whose job does not stop is terminated and then killed this many seconds after the cancel. Waiting jobs fail
    when every worker has ended at its last `max_failed_starts` starts.
    """

    terminate: float = 5.0
    kill: float = 10.0
    max_failed_starts: int = 3


@dataclass(frozen=True)
class RecordChanged:
    """A job was submitted, canceled or changed in another way, or the scheduler stops."""


@dataclass
class SlotState:
    """The scheduler's view of one worker."""

    ready: bool = False
    job: str | None = None
    canceled_at: float | None = None
    """time.monotonic() when the worker was first asked to stop its job."""
    cancel_method: CancelMethod | None = None
    failed_starts: int = 0

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
        self._event: Event | RecordChanged | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self.status_message = "the worker is starting"
        """Why no worker is ready, in words; empty while all are well."""

    def start(self) -> None:
        self._executor.start(self._events.put)
        self._thread.start()

    def stop(self) -> None:
        """Stops the workers. A running job stays `running` in the record, and `Jobs.recover` queues it again."""
        self._stopping.set()
        self._events.put(RecordChanged())
        self._thread.join()
        self._executor.stop()

    def device(self) -> protocol.Ready:
        """The device of the first ready worker.

        Raises: WireError `device-unavailable` if no worker is ready.
        """
        for device in self._executor.devices().values():
            if device is not None:
                return device
        raise WireError("device-unavailable", self.status_message)

    # ---------------------------------------------------------------------- the thread

    def _run(self) -> None:
        with self._jobs.listener(lambda _: self._events.put(RecordChanged())):
            while not self._stopping.is_set():
                self._try_turn()

    def _try_turn(self) -> None:
        """A turn; an event whose handling fails, for example because the disk is full, is handled again in the next."""
        try:
            self._turn()
        except Exception:
            logger.exception("Unexpected error in the scheduler")
            self._stopping.wait(1.0)

    def _turn(self) -> None:
        """Enforces cancels, assigns jobs, and handles one event."""
        if self._event is None:
            self._enforce_cancels()
            self._assign_jobs()
            canceling = any(slot.canceled_at is not None for slot in self._slots.values())
            try:
                self._event = self._events.get(timeout=0.1 if canceling else 1.0)
            except queue.Empty:
                return
        self.on_event(self._event)
        self._event = None

    def on_event(self, event: Event | RecordChanged) -> None:
        """Records what an executor reports."""
        if isinstance(event, RecordChanged):
            return
        slot = self._slots[event.worker]
        if isinstance(event, WorkerReady):
            slot.ready, slot.failed_starts, self.status_message = True, 0, ""
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
        self.status_message = f"the worker {event.worker} ended {event.reason} and is started again"
        if event.job is not None:
            self._jobs.crash(event.job, event.reason)
            slot.release()
        failed_starts = min(slot.failed_starts for slot in self._slots.values())
        if failed_starts >= self._timeouts.max_failed_starts:
            self.status_message = f"the worker ended {event.reason} at {failed_starts} starts: {event.last_line}"
            self._jobs.fail_waiting(
                WireError("device-unavailable", self.status_message, worker=event.worker, failed_starts=failed_starts)
            )

    def _assign_jobs(self) -> None:
        for worker, slot in self._slots.items():
            if slot.ready and slot.job is None:
                status = self._jobs.claim(worker)
                if status is None:
                    return
                slot.job = status.id
                self._executor.submit(worker, status.id, status.request)

    def _enforce_cancels(self) -> None:
        """First the flag, which the worker checks at its next step; then terminate, then kill."""
        for worker, slot in self._slots.items():
            if slot.job is None:
                continue
            if slot.canceled_at is None:
                if self._jobs.get(slot.job).state != "canceling":
                    continue
                slot.canceled_at = time.monotonic()
            waited = time.monotonic() - slot.canceled_at
            method: CancelMethod = "flag"
            if waited > self._timeouts.terminate:
                method = "kill" if waited > self._timeouts.kill else "terminate"
            if method != slot.cancel_method:
                slot.cancel_method = method
                self._executor.cancel(worker, slot.job, method)
