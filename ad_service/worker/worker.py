"""The process that uses the device and runs one job at a time: commands on stdin, events on stdout, as JSON lines.

The service starts it and ends it. If the service dies, the pipe closes and this process ends too. What libraries print
goes to stderr, which is worker.log.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from ad_service.core.steps import run as run_steps
from ad_service.storage.blobs import BlobStore
from ad_service.worker import protocol
from ad_service.worker.engine import Engine, Outcome, Step, Steps, prepare_torch
from blender_addon import wire
from blender_addon.wire import JobRequest, WireError

PROGRESS_EVERY = 0.1
PREVIEW_EVERY = 0.5
"""Minimum seconds between two Progress events, and between two previews."""

KEPT_PREVIEWS = 8
"""Newest previews of a job that are kept, for clients that are slow to fetch them; long jobs make thousands."""

IDLE_SECONDS = 600.0
"""Without a job for this long, the worker frees the models, which a render or another program may need room for."""

_PR_SET_PDEATHSIG = 1


class CanceledError(BaseException):
    """The job was canceled. Not an Exception, so that no handler of errors inside of the job takes it for one."""


class Worker:
    """Reads commands from one pipe and writes events to another."""

    def __init__(self, engine: Engine, store: BlobStore, commands: TextIO, events: TextIO) -> None:
        self._engine = engine
        self._store = store
        self._commands = commands
        self._events = events
        self._jobs: queue.Queue[protocol.Run] = queue.Queue()
        self._canceled: set[str] = set()

    def run(self) -> None:
        """Runs jobs until the pipe of commands closes, which ends the process."""
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        self._send(self._engine.ready())
        while True:
            self._run_job(self._next_job())
            self._send(self._engine.ready())

    def _next_job(self) -> protocol.Run:
        """Waits for the next job; after IDLE_SECONDS the engine frees its memory for other programs."""
        try:
            return self._jobs.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            self._engine.release()
            return self._jobs.get()

    def _listen(self) -> None:
        for line in self._commands:
            command = protocol.decode_command(line)
            if isinstance(command, protocol.Run):
                self._jobs.put(command)
            else:
                self._canceled.add(command.job)
        os._exit(0)  # the service is gone, and the main thread may be inside a long operation

    def _send(self, event: protocol.Event) -> None:
        self._events.write(protocol.encode_event(event) + "\n")
        self._events.flush()

    def _run_job(self, command: protocol.Run) -> None:
        """Runs a job and sends exactly one Succeeded, Failed or Canceled at its end."""
        started = time.monotonic()
        try:
            request = JobRequest.parse(command.request)
            outcome = self._run_steps(command.job, self._engine.run(request, self._store.read))
            if "image" not in outcome.pictures:
                raise ValueError(f"the engine returned no image, only {sorted(outcome.pictures)}")
            outputs = {name: self._store.put(data) for name, data in outcome.pictures.items()}
            seconds = round(time.monotonic() - started, 3)
            result = wire.Result(outputs, outcome.metrics, outcome.notes, seconds, outcome.origins)
            self._send(protocol.Succeeded(command.job, result))
        except CanceledError:
            self._send(protocol.Canceled(command.job))
        except WireError as error:
            self._send(protocol.Failed(command.job, error.problem()))
        except Exception as error:
            with suppress(OSError):  # the disk of the log may be full
                traceback.print_exc()
            problem = WireError("internal", f"{type(error).__name__}: {error}").problem()
            self._send(protocol.Failed(command.job, problem))
        finally:
            self._canceled.discard(command.job)

    def _run_steps(self, job: str, steps: Steps) -> Outcome:
        """Runs an engine's steps, sends progress and stores previews. Raises: CanceledError soon after a cancel."""
        clock = Clock()
        previews: deque[str] = deque()

        def check_canceled() -> None:
            if job in self._canceled:
                raise CanceledError

        def on_step(step: Step) -> None:
            if step.preview is not None and clock.preview_is_due():
                with _printed_disk_errors():
                    previews.append(self._store.put(step.preview()))
                clock.preview_was_made()
                if len(previews) > KEPT_PREVIEWS and (oldest := previews.popleft()) not in previews:
                    self._store.remove(oldest)
            if clock.progress_is_due(step):
                newest = previews[-1] if previews else None
                seconds_left = clock.seconds_left(step)
                self._send(protocol.Progress(job, step.fraction, step.message, seconds_left, newest, step.phase))
            check_canceled()

        check_canceled()
        return run_steps(steps, on_step, check_canceled)


@contextmanager
def _printed_disk_errors() -> Iterator[None]:
    """Prints an error of the disk, which ends the block only: a job does not fail because of a preview."""
    try:
        yield
    except (OSError, WireError) as error:
        with suppress(OSError):
            print(f"A preview cannot be stored: {error}", file=sys.stderr, flush=True)


class Clock:
    """When progress and previews of a job are due, and how long the job will take."""

    def __init__(self) -> None:
        self._start: tuple[float, float] | None = None
        self._next_progress = self._next_preview = self._preview_started = 0.0
        self._phase: str | None = None

    def preview_is_due(self) -> bool:
        self._preview_started = time.monotonic()
        return self._preview_started >= self._next_preview

    def preview_was_made(self) -> None:
        """Sets the time of the next preview so that previews take at most a tenth of the time."""
        now = time.monotonic()
        self._next_preview = now + max(PREVIEW_EVERY, 9.0 * (now - self._preview_started))

    def progress_is_due(self, step: Step) -> bool:
        """Whether a step is sent: the first of each phase always is, since the next one may be minutes away."""
        now = time.monotonic()
        if now < self._next_progress and step.phase == self._phase:
            return False
        self._next_progress, self._phase = now + PROGRESS_EVERY, step.phase
        return True

    def seconds_left(self, step: Step) -> float | None:
        """Extrapolated from the first step above 0; None in the first second and the first 2 percent after it."""
        now = time.monotonic()
        if self._start is None and step.fraction > 0.0:
            self._start = now, step.fraction
        if self._start is None:
            return None
        passed, done = now - self._start[0], step.fraction - self._start[1]
        return round(passed * (1.0 - step.fraction) / done, 1) if done > 0.02 and passed > 1.0 else None


def load_engine(spec: str | None, data_dir: Path) -> Engine:
    """The real engine, or the one that MODULE:FUNCTION returns for the data folder."""
    if spec is None:
        prepare_torch()
        from ad_service.worker.runner import Runner  # loads torch

        return Runner(data_dir)
    module, _, function = spec.partition(":")
    engine: Engine = getattr(importlib.import_module(module), function)(data_dir)
    return engine


def die_with_parent() -> None:
    """Makes Linux end this process with the service, even if no thread can run to see the pipe close."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ad_service.worker", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--engine", metavar="MODULE:FUNCTION", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    die_with_parent()
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which then ends this process
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not be mixed with the events
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    Worker(load_engine(options.engine, options.data_dir), BlobStore(options.data_dir / "blobs"), commands, events).run()
