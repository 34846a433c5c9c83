"""The process that owns the device: runs jobs one at a time. JSON lines come in on stdin and go out on stdout.

Started by the supervisor and ended by it; when that one dies, the pipe closes and this process ends too. Anything
else that prints goes to stderr, which is worker.log.
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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from ad_service.storage.blobs import Store
from ad_service.worker import protocol
from ad_service.worker.engine import Engine, Outcome, Step, Steps, prepare_torch
from blender_addon import wire
from blender_addon.wire import JobRequest, WireError

PROGRESS_EVERY = 0.1
PREVIEW_EVERY = 0.5
"""Seconds between two Progress events, and between two previews, at the least."""

KEPT_PREVIEWS = 8
"""The newest previews of a job stay, for clients that are slow to fetch them; long jobs make thousands."""

_PR_SET_PDEATHSIG = 1


class CanceledError(Exception):
    """The job was canceled and its engine has let go of it."""


class Worker:
    """Takes commands from one pipe and says events on another."""

    def __init__(self, engine: Engine, store: Store, commands: TextIO, events: TextIO) -> None:
        self._engine = engine
        self._store = store
        self._commands = commands
        self._events = events
        self._jobs: queue.Queue[protocol.Run] = queue.Queue()
        self._canceled: set[str] = set()

    def run(self) -> None:
        """Runs jobs for ever; the process ends when the commands' pipe closes."""
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        self._say(self._engine.ready())
        while True:
            self._run_job(self._jobs.get())
            self._say(self._engine.ready())

    def _listen(self) -> None:
        for line in self._commands:
            command = protocol.decode_command(line)
            if isinstance(command, protocol.Run):
                self._jobs.put(command)
            else:
                self._canceled.add(command.job)
        os._exit(0)  # the supervisor is gone, and the main thread may be deep inside the network

    def _say(self, event: protocol.Event) -> None:
        self._events.write(protocol.encode_event(event) + "\n")
        self._events.flush()

    def _run_job(self, command: protocol.Run) -> None:
        """One job, which ends in exactly one Succeeded, Failed or Canceled."""
        began = time.monotonic()
        try:
            request = JobRequest.parse(command.request)
            outcome = self._follow(command.job, self._engine.run(request, self._store.read))
            if "image" not in outcome.pictures:
                raise ValueError(f"the engine gave no image, only {sorted(outcome.pictures)}")
            outputs = {name: self._store.put(data) for name, data in outcome.pictures.items()}
            seconds = round(time.monotonic() - began, 3)
            self._say(protocol.Succeeded(command.job, wire.Result(outputs, outcome.metrics, outcome.notes, seconds)))
        except CanceledError:
            self._say(protocol.Canceled(command.job))
        except WireError as error:
            self._say(protocol.Failed(command.job, error.problem()))
        except Exception as error:
            with suppress(OSError):  # the disk of the log may be full
                traceback.print_exc()
            problem = WireError("internal", f"{type(error).__name__}: {error}").problem()
            self._say(protocol.Failed(command.job, problem))

    def _follow(self, job: str, steps: Steps) -> Outcome:
        """Goes through the steps and tells of them; raises CanceledError if the job was canceled between two."""
        clock = Clock()
        preview: str | None = None
        shown: deque[str] = deque()
        while job not in self._canceled:
            try:
                step = next(steps)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            if step.preview is not None and clock.preview_is_due():
                preview = self._store.put(step.preview())
                clock.preview_was_made()
                shown.append(preview)
                if len(shown) > KEPT_PREVIEWS and (oldest := shown.popleft()) not in shown:
                    self._store.remove(oldest)
            if clock.progress_is_due():
                self._say(protocol.Progress(job, step.fraction, step.message, clock.seconds_left(step), preview))
        steps.close()
        raise CanceledError


class Clock:
    """When to speak of a job, and how long it will still take."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        self._next_progress = self._next_preview = self._asked_preview = 0.0

    def preview_is_due(self) -> bool:
        self._asked_preview = time.monotonic()
        return self._asked_preview >= self._next_preview

    def preview_was_made(self) -> None:
        """Previews that are slow to make come less often: they may take a tenth of the time."""
        now = time.monotonic()
        self._next_preview = now + max(PREVIEW_EVERY, 9.0 * (now - self._asked_preview))

    def progress_is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next_progress:
            return False
        self._next_progress = now + PROGRESS_EVERY
        return True

    def seconds_left(self, step: Step) -> float | None:
        """By the rule of three from the first step that got anywhere, once there is something to go by."""
        now = time.monotonic()
        if self._began is None and step.fraction > 0.0:
            self._began = now, step.fraction
        if self._began is None:
            return None
        passed, done = now - self._began[0], step.fraction - self._began[1]
        return round(passed * (1.0 - step.fraction) / done, 1) if done > 0.02 and passed > 1.0 else None


def load_engine(spec: str | None, data_dir: Path) -> Engine:
    """The real engine, or the one that MODULE:FUNCTION makes from the data folder."""
    if spec is None:
        prepare_torch()
        from ad_service.worker.runner import Runner  # torch comes with it

        return Runner(data_dir)
    module, _, function = spec.partition(":")
    engine: Engine = getattr(importlib.import_module(module), function)(data_dir)
    return engine


def die_with_parent() -> None:
    """On Linux the kernel ends us with the supervisor, even when no thread of ours gets to see the pipe close."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ad_service.worker", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--engine", metavar="MODULE:FUNCTION", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    die_with_parent()
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which then ends us
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not speak among the events
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    Worker(load_engine(options.engine, options.data_dir), Store(options.data_dir / "blobs"), commands, events).run()
