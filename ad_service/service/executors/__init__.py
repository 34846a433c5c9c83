"""What runs jobs for the scheduler: one or more workers, each of which runs one job at a time.

local  worker processes on this machine
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ad_service.worker.protocol import JobEvent, Ready


@dataclass(frozen=True)
class WorkerReady:
    """A worker can take a job: after its start, and again after each job."""

    worker: str


@dataclass(frozen=True)
class JobReported:
    """A worker's report on its job. The last one of a job is Succeeded, Failed or Canceled."""

    worker: str
    report: JobEvent


@dataclass(frozen=True)
class WorkerLost:
    """A worker ended, and the executor starts it again.

    `job` is the job that ended with it, and `received` whether the worker had received that job. `reason` is how it
    ended, such as "with exit code 3"; `last_line` is the last line of its log. `failed_starts` counts the starts in a
    row that ended before the worker was ready.
    """

    worker: str
    job: str | None
    reason: str
    last_line: str
    failed_starts: int
    received: bool = True


Event = WorkerReady | JobReported | WorkerLost

CancelMethod = Literal["flag", "terminate", "kill"]
"""How a job is stopped: at its next step, or by ending its worker, which may clean up (terminate) or may not (kill)."""


class Executor(Protocol):
    """Runs jobs on workers that have fixed ids. Apart from `start` and `stop`, no method waits for a worker."""

    def start(self, on_event: Callable[[Event], None]) -> None:
        """Starts the workers. `on_event` is called from any thread and must not call the executor."""

    def stop(self) -> None:
        """Ends the workers and waits for that; no events follow."""

    def devices(self) -> Mapping[str, Ready | None]:
        """Every worker's id with its device, which is None while the worker is not ready."""

    def submit(self, worker: str, job: str, request: Mapping[str, Any]) -> None:
        """Gives a job to an idle worker. If the worker has ended, a WorkerLost with the job follows."""

    def cancel(self, worker: str, job: str, method: CancelMethod) -> None:
        """Stops a job unless the worker has ended it. Its last report, or a WorkerLost with the job, follows."""
