"""Runs jobs in worker processes on this machine, which receive commands and send events as JSON lines through pipes.

Each slot has a thread that starts the process, reads its events, and starts it again when it ends.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ad_service.service.executors import CancelMethod, Event, JobReported, WorkerLost, WorkerReady
from ad_service.worker import protocol
from ad_service.worker.protocol import Ready
from blender_addon.wire import WireError

logger = logging.getLogger(__name__)

MAX_LOG_BYTES = 4 * 1024 * 1024
STOP_SECONDS = 3.0
"""A worker that has not ended this long after SIGTERM is killed."""
START_SECONDS = 300.0
"""A worker that is not ready this long after its start is killed; torch takes a minute from a slow disk."""


@dataclass(frozen=True)
class RestartDelays:
    """Seconds between failed starts: `first`, doubled after each further one, at most `longest`."""

    first: float = 1.0
    longest: float = 30.0


class LocalExecutor:
    """An Executor with worker processes, named local-1, local-2 and so on.

    Args:
        command: starts a worker process.
        log: receives what the first worker prints; another worker's number is added to the name.
        gpus: for each worker the GPU that it sees, by its number or UUID; None is the machine's choice.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        gpus: Sequence[str | None] = (None,),
        delays: RestartDelays | None = None,
    ) -> None:
        logs = [log, *(log.with_stem(f"{log.stem}-{number}") for number in range(2, len(gpus) + 1))]
        self._slots = {
            f"local-{number}": Slot(f"local-{number}", command, file, delays or RestartDelays(), gpu)
            for number, (file, gpu) in enumerate(zip(logs, gpus, strict=True), 1)
        }

    def start(self, on_event: Callable[[Event], None]) -> None:
        for slot in self._slots.values():
            slot.start(on_event)

    def stop(self) -> None:
        for slot in self._slots.values():
            slot.request_stop()
        for slot in self._slots.values():
            slot.wait()

    def devices(self) -> Mapping[str, Ready | None]:
        return {worker: slot.device for worker, slot in self._slots.items()}

    def submit(self, worker: str, job: str, request: Mapping[str, Any]) -> None:
        self._slots[worker].submit(job, request)

    def cancel(self, worker: str, job: str, method: CancelMethod) -> None:
        self._slots[worker].cancel(job, method)


class Slot:
    """One worker process at a time, and the thread that keeps it running."""

    def __init__(
        self, worker: str, command: Sequence[str], log: Path, delays: RestartDelays, gpu: str | None = None
    ) -> None:
        self.device: Ready | None = None
        self._worker = worker
        self._command = list(command)
        self._log = log
        self._delays = delays
        self._environment = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        self._lock = threading.Lock()
        """Held while an event is sent, so that events have the order in which the state changed."""
        self._process: subprocess.Popen[str] | None = None
        self._job: str | None = None
        self._received = False
        """Whether the process has received `_job`."""
        self._failed_starts = 0
        self._too_slow = False
        """Whether the process was killed because it was not ready after START_SECONDS."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=worker, daemon=True)

    def start(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._thread.start()

    def request_stop(self) -> None:
        with self._lock:
            self._stopping.set()
            if self._process is not None:
                self._process.terminate()

    def wait(self) -> None:
        """Waits until the process has ended; kills it after STOP_SECONDS."""
        self._thread.join(STOP_SECONDS)
        with self._lock:
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def submit(self, job: str, request: Mapping[str, Any]) -> None:
        with self._lock:
            self._job, self._received = job, False
            if self.device is None:
                self._report_loss("before it received the job")
            else:
                self._received = self._send(protocol.Run(job, request))

    def cancel(self, job: str, method: CancelMethod) -> None:
        with self._lock:
            if self._process is None or self._job != job:
                return
            if method == "flag":
                self._send(protocol.Cancel(job))
            elif method == "terminate":
                self._process.terminate()
            else:
                self._process.kill()

    def _send(self, command: protocol.Command) -> bool:
        """Whether the process has received the command; if not, it has ended, which the thread notices."""
        assert self._process and self._process.stdin
        try:
            self._process.stdin.write(protocol.encode_command(command) + "\n")
            self._process.stdin.flush()
        except OSError:
            logger.warning("%s no longer reads commands", self._worker)
            return False
        return True

    # ---------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                code = self._run_process()
                ended = (
                    f"since it was not ready after {START_SECONDS:g} seconds" if self._too_slow else describe_exit(code)
                )
            except Exception as error:  # starting it can fail, for example because the disk of the log is full
                logger.exception("%s is ended because of an error", self._worker)
                ended = f"because of an error in the service ({type(error).__name__}: {error})"
            self._end_process(ended)
            if self._failed_starts:
                self._stopping.wait(min(self._delays.first * 2.0 ** (self._failed_starts - 1), self._delays.longest))

    def _run_process(self) -> int:
        """Starts a process and passes its events on until it ends; returns its exit code."""
        process = self._start_process()
        self._too_slow = False
        with self._lock:
            self._process = process
            if self._stopping.is_set():
                process.terminate()
        watchdog = threading.Timer(START_SECONDS, self._kill_if_not_ready, (process,))
        watchdog.daemon = True
        watchdog.start()
        try:
            assert process.stdout
            for line in process.stdout:
                self._read_event(line)
            return process.wait()
        finally:
            watchdog.cancel()

    def _kill_if_not_ready(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            if self._process is process and self.device is None:
                self._too_slow = True
                process.kill()

    def _end_process(self, reason: str) -> None:
        """Ends the process if it still runs, and reports its loss."""
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        with self._lock:
            for pipe in (process.stdin, process.stdout) if process is not None else ():
                assert pipe
                with suppress(OSError):  # commands that it did not read
                    pipe.close()
            self._failed_starts = self._failed_starts + 1 if self.device is None else 0
            self._process = self.device = None
            if not self._stopping.is_set():
                self._report_loss(reason)

    def _rotate_log(self) -> None:
        """Moves the contents of a large log to the file of the previous ones; the process goes on writing at its end.

        A file that is open elsewhere cannot be shortened on Windows, and is tried again later.
        """
        with suppress(OSError):
            if self._log.stat().st_size > MAX_LOG_BYTES:
                shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
                os.truncate(self._log, 0)

    def _start_process(self) -> subprocess.Popen[str]:
        self._rotate_log()
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=os.environ | self._environment,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )

    def _read_event(self, line: str) -> None:
        try:
            event = protocol.decode_event(line)
        except ValueError:
            logger.error("%s sent a line that is not an event: %.200s", self._worker, line)
            return
        with self._lock:
            if isinstance(event, Ready):
                self._rotate_log()
                if self._job is not None:
                    error = WireError("internal", f"{self._worker} ended the job without a report that can be read")
                    self._on_event(JobReported(self._worker, protocol.Failed(self._job, error.problem())))
                self.device, self._job = event, None
                self._on_event(WorkerReady(self._worker))
            elif event.job != self._job:
                logger.error("%s sent an event of job %s while it runs %s", self._worker, event.job, self._job)
            else:
                if not isinstance(event, protocol.Progress):
                    self._job = None
                self._on_event(JobReported(self._worker, event))

    def _report_loss(self, reason: str) -> None:
        logger.warning("%s ended %s", self._worker, reason)
        self._on_event(
            WorkerLost(self._worker, self._job, reason, self._last_line(), self._failed_starts, self._received)
        )
        self._job = None

    def _last_line(self) -> str:
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError as error:
            return f"{self._log} cannot be read: {error.strerror}"
        return lines[-1].strip() if lines else f"{self._log} is empty"


def describe_exit(code: int) -> str:
    """A process's exit code in words: "with exit code 3" or "by signal SIGKILL"."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by signal {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
