"""Plans of jobs: the pictures are measured by processes of the worker, the time is estimated from finished jobs."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from ad_service.worker import protocol
from blender_addon.wire import JobStatus, Plan, WireError, map_name

MAX_PROCESSES = 2
"""Plans that are made at the same time; others wait."""
PLAN_SECONDS = 50.0
"""Seconds after which a plan's process is ended."""
SIMILAR_AMONG = 200
"""Newest jobs that are looked at for the time."""
LIKE_JOBS = 5
"""Finished jobs, those most alike, from which the time of a job is estimated."""
STEP_FACTORS = {"draft": 0.5, "standard": 1.0, "fine": 2.0}
"""Steps of a preset relative to standard."""
MAP_SHARE = 0.01
"""Time of a map relative to that of the job without: 4 s of four maps at 1024x1024, where pocket takes 100 s."""


class PlanProcess:
    """A process that makes one plan after the other, and remembers pictures. It may end when it has waited long."""

    def __init__(self, command: Sequence[str]) -> None:
        """Starts the process. Raises: OSError."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )

    def answer(self, body: Any) -> Any:
        """What the process answers, parsed; None if it has ended, or was ended after PLAN_SECONDS."""
        assert self._process.stdin is not None and self._process.stdout is not None
        clock = threading.Timer(PLAN_SECONDS, self._process.kill)
        clock.start()
        try:
            self._process.stdin.write(json.dumps(body).encode() + b"\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            return None
        finally:
            clock.cancel()

    def close(self) -> str:
        """Ends the process; returns the last line of its errors."""
        self._process.kill()
        self._process.communicate()
        self._errors.seek(0)
        last_line = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        self._errors.close()
        return last_line


class Planner:
    """Makes plans, a few at a time, in processes that a command starts and that are used again."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._free = threading.Semaphore(MAX_PROCESSES)
        self._idle: list[PlanProcess] = []

    def plan(self, body: Any, jobs: Iterable[JobStatus]) -> Plan:
        """The plan of a job's body; blocks. `jobs` are finished ones, for the time. Raises: WireError."""
        with self._free:
            answer = self._answer(body)
        if "problem" in answer:
            raise WireError.from_problem(answer["problem"])
        plan = Plan.parse(answer["plan"])
        return replace(plan, seconds=estimate_seconds(body, plan, jobs))

    def _answer(self, body: Any) -> Any:
        """The answer of a process that waits, or of a new one. Raises: WireError."""
        began = time.monotonic()
        while self._idle:
            process = self._idle.pop()
            if (answer := process.answer(body)) is not None:
                self._idle.append(process)
                return answer
            process.close()  # it had waited too long, or was stopped by somebody
            _check_time(began)
        try:
            process = PlanProcess(self._command)
        except OSError as error:
            raise WireError("internal", f"the process of the plan cannot be started: {error}") from error
        if (answer := process.answer(body)) is None:
            last_line = process.close()
            _check_time(began)
            raise WireError("internal", f"the process of the plan failed: {last_line}")
        self._idle.append(process)
        return answer

    def stop(self) -> None:
        """Ends the processes that wait."""
        while self._idle:
            self._idle.pop().close()


def _check_time(began: float) -> None:
    """Raises WireError if a process was ended because it took too long."""
    if time.monotonic() - began > PLAN_SECONDS:
        raise WireError("internal", f"the plan was not ready within {PLAN_SECONDS:.0f} seconds")


def estimate_seconds(body: Mapping[str, Any], plan: Plan, jobs: Iterable[JobStatus]) -> float | None:
    """Seconds that a job will take, from finished ones of the same kind and model; None if there are none.

    The time is taken to grow with pixels times steps, and a little with each map: the median over the jobs that are
    most alike in that product.
    Jobs with a given number of steps are compared only with each other: which number a preset has is not known here.
    """
    parameters = body.get("parameters", {})
    has_steps = bool(parameters.get("steps"))
    work = _work(body, plan.width, plan.height)
    found: list[tuple[float, float]] = []
    for job in jobs:
        other = job.request["parameters"]
        same = (
            job.request["kind"] == body.get("kind")
            and bool(other.get("steps")) == has_steps
            and all(
                other.get(name, default) == parameters.get(name, default)
                for name, default in (("model", "pocket"), ("method", "auto"))
            )
        )
        width, height = other.get("width", 0), other.get("height", 0)
        if same and job.result is not None and job.result.seconds > 0 and width and height:
            done = _work(job.request, width, height)
            found.append((abs(math.log(done / work)), job.result.seconds * work / done))
    if not found:
        return None
    return round(median(seconds for _, seconds in sorted(found)[:LIKE_JOBS]), 1)


def with_memory_note(plan: Plan, device: protocol.Ready) -> Plan:
    """The plan, with a note if it needs more memory than is free on a device with separate memory (a GPU)."""
    need, free = plan.memory_bytes, device.memory_free
    if need is None or device.device == "cpu" or not 0 < free < need:
        return plan
    note = (
        f"About {need / 1e9:.1f} GB of memory are needed for full speed, and {free / 1e9:.1f} of the device are free; "
        "the job will use smaller pieces and take longer. Close other programs that use the GPU"
    )
    return replace(plan, notes=(*plan.notes, note))


def _work(job: Mapping[str, Any], width: int, height: int) -> float:
    """Pixels times steps (a given number, or those of the preset relative to standard), and the share of the maps."""
    parameters = job.get("parameters", {})
    steps = parameters.get("steps") or 0
    factor = float(steps) if steps else STEP_FACTORS.get(parameters.get("preset", "standard"), 1.0)
    maps = sum(map_name(name) is not None for name in job.get("inputs", {}))
    return width * height * factor * (1 + MAP_SHARE * maps)
