"""Plans of jobs: the pictures are measured by a process of the worker, the time is estimated from finished jobs."""

from __future__ import annotations

import json
import math
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

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


class Planner:
    """Makes plans, a few at a time, in processes that a command starts."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._free = threading.Semaphore(MAX_PROCESSES)

    def plan(self, body: Any, jobs: Iterable[JobStatus]) -> Plan:
        """The plan of a job's body; blocks. `jobs` are finished ones, for the time. Raises: WireError."""
        with self._free:
            try:
                done = subprocess.run(
                    self._command,
                    input=json.dumps(body).encode(),
                    capture_output=True,
                    timeout=PLAN_SECONDS,
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
            except subprocess.TimeoutExpired as error:
                raise WireError("internal", f"the plan was not ready within {PLAN_SECONDS:.0f} seconds") from error
            except OSError as error:
                raise WireError("internal", f"the process of the plan cannot be started: {error}") from error
        try:
            answer = json.loads(done.stdout)
        except ValueError as error:
            last_line = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise WireError("internal", f"the process of the plan failed: {last_line or done.returncode}") from error
        if "problem" in answer:
            raise WireError.from_problem(answer["problem"])
        plan = Plan.parse(answer["plan"])
        return replace(plan, seconds=estimate_seconds(body, plan, jobs))


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


def _work(job: Mapping[str, Any], width: int, height: int) -> float:
    """Pixels times steps (a given number, or those of the preset relative to standard), and the share of the maps."""
    parameters = job.get("parameters", {})
    steps = parameters.get("steps") or 0
    factor = float(steps) if steps else STEP_FACTORS.get(parameters.get("preset", "standard"), 1.0)
    maps = sum(map_name(name) is not None for name in job.get("inputs", {}))
    return width * height * factor * (1 + MAP_SHARE * maps)
