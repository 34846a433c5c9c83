"""Owns the worker: starts it, hands it one job at a time, writes down what it says, and ends it when it will not end.

One thread does all of this, driven by a queue of messages. A second one only reads the worker's pipe into that queue.
"""

from __future__ import annotations

import logging
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ad_service.storage.jobs import Jobs
from ad_service.worker import protocol
from blender_addon.wire import WireError

logger = logging.getLogger(__name__)

MAX_LOG_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Patience:
    """Seconds: when a worker that does not stop its job is terminated and killed; waits between failed starts."""

    terminate: float = 5.0
    kill: float = 10.0
    restart: float = 1.0
    longest_restart: float = 30.0
    hopeless_starts: int = 3


@dataclass(frozen=True)
class _Line:
    worker: subprocess.Popen[str]
    text: str


@dataclass(frozen=True)
class _Ended:
    worker: subprocess.Popen[str]


class _Wake:
    """Look again: a job was submitted or canceled, or the service stops."""


class Supervisor:
    """Runs the jobs of the record in a worker process until `stop`."""

    def __init__(self, jobs: Jobs, command: Sequence[str], log: Path, patience: Patience | None = None) -> None:
        self._jobs = jobs
        self._command = list(command)
        self._log = log
        self._patience = patience or Patience()
        self._inbox: queue.Queue[_Line | _Ended | _Wake] = queue.Queue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._worker: subprocess.Popen[str] | None = None
        self._running: str | None = None
        self._cancel_sent: float | None = None
        self._last_event: protocol.Succeeded | protocol.Failed | protocol.Canceled | None = None
        self._ended = False
        self._failed_starts = 0
        self._next_start = 0.0
        self.ready: protocol.Ready | None = None
        self.trouble = "the worker is starting"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the worker and waits for that. A job that runs stays `running` in the record and is run again later."""
        self._stopping.set()
        self.wake()
        self._thread.join()

    def wake(self) -> None:
        """Tells the supervisor that the record changed."""
        self._inbox.put(_Wake())

    # ---------------------------------------------------------------------- the thread

    def _run(self) -> None:
        with self._jobs.listener(lambda _: self.wake()):
            while not self._stopping.is_set():
                self._safe_turn()
        self._end_worker()

    def _safe_turn(self) -> None:
        """A turn that fails (a full disk) is tried again: what has to be written down stays noted until it is."""
        try:
            self._turn()
        except Exception:
            logger.exception("the supervisor stumbled")
            self._stopping.wait(1.0)

    def _turn(self) -> None:
        """Does what is due, then takes one message, or none for a moment."""
        if self._last_event is not None:
            self._jobs.finish(self._last_event)
            self._running = self._cancel_sent = self._last_event = None
        if self._worker is not None and self._ended:
            self._worker_ended(self._worker)
        if self._worker is None and time.monotonic() >= self._next_start:
            self._start_worker()
        if self.ready is not None and self._running is None:
            self._give_job()
        self._enforce_cancel()
        try:
            message = self._inbox.get(timeout=0.1 if self._cancel_sent or self._worker is None else 1.0)
        except queue.Empty:
            return
        if isinstance(message, _Line) and message.worker is self._worker:
            self._hear(message.text)
        elif isinstance(message, _Ended) and message.worker is self._worker:
            self._ended = True

    def _start_worker(self) -> None:
        if self._log.exists() and self._log.stat().st_size > MAX_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as log:
            self._worker = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                errors="replace",
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        threading.Thread(target=self._read, args=(self._worker,), name="worker-pipe", daemon=True).start()

    def _read(self, worker: subprocess.Popen[str]) -> None:
        pipe: IO[str] = worker.stdout  # type: ignore[assignment]  # it was opened with a pipe
        try:
            for line in pipe:
                self._inbox.put(_Line(worker, line))
        finally:
            worker.wait()
            self._inbox.put(_Ended(worker))

    def _give_job(self) -> None:
        status = self._jobs.claim()
        if status is not None:
            self._running = status.id
            self._cancel_sent = None
            self._tell(protocol.Run(status.id, status.request))

    def _tell(self, command: protocol.Command) -> None:
        pipe: IO[str] = self._worker.stdin  # type: ignore[union-attr, assignment]  # told only while it lives
        try:
            pipe.write(protocol.encode_command(command) + "\n")
            pipe.flush()
        except OSError:
            logger.warning("the worker does not listen; it has died")  # its end of the pipe follows as _Ended

    def _hear(self, line: str) -> None:
        try:
            event = protocol.decode_event(line)
        except (ValueError, TypeError):
            logger.error("the worker said something that is no event: %.200s", line)
            return
        if isinstance(event, protocol.Ready):
            self.ready, self.trouble, self._failed_starts = event, "", 0
        elif event.job != self._running:
            logger.error("the worker spoke of job %s while it was given %s", event.job, self._running)
        elif isinstance(event, protocol.Progress):
            self._jobs.progress(event)
        else:
            self._last_event = event

    # ---------------------------------------------------------------------- ends, wanted and not

    def _enforce_cancel(self) -> None:
        """The flag first, which the worker sees at its next step; then terminate, then kill."""
        if self._running is None or self._worker is None:
            return
        if self._cancel_sent is None:
            if self._jobs.get(self._running).state == "canceling":
                self._cancel_sent = time.monotonic()
                self._tell(protocol.Cancel(self._running))
            return
        waited = time.monotonic() - self._cancel_sent
        if waited > self._patience.kill:
            self._worker.kill()
        elif waited > self._patience.terminate:
            self._worker.terminate()

    def _worker_ended(self, worker: subprocess.Popen[str]) -> None:
        how = _describe_exit(worker.returncode)
        if self._running is not None:
            self._jobs.crashed(self._running, how)
        was_ready = self.ready is not None
        self._worker = self.ready = self._running = self._cancel_sent = None
        self._ended = False
        self.trouble = f"the worker died {how} and is started again"
        logger.warning("the worker died %s", how)
        if was_ready:
            return
        self._failed_starts += 1
        pause = self._patience.restart * 2.0 ** (self._failed_starts - 1)
        self._next_start = time.monotonic() + min(pause, self._patience.longest_restart)
        if self._failed_starts >= self._patience.hopeless_starts:
            self.trouble = f"the worker died {how} at each of {self._failed_starts} starts: {self._last_words()}"
            self._jobs.fail_waiting(WireError("device-unavailable", self.trouble))

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else f"{self._log} is empty"

    def _end_worker(self) -> None:
        worker = self._worker
        if worker is None:
            return
        worker.terminate()
        try:
            worker.wait(timeout=3.0)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"of signal {signal.Signals(-code).name}"
    except ValueError:
        return f"of signal {-code}"
