"""The time of a job, from finished ones."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from ad_service.service.planning import Planner, estimate_seconds
from blender_addon.wire import JobStatus, Plan, Result, WireError

PLAN = Plan((0, 0, 512, 512), 1.0, 1024, 1024, "")


def done(seconds: float, kind: str = "synthesize", **parameters: Any) -> JobStatus:
    request = {"kind": kind, "parameters": {"model": "pocket", "width": 512, "height": 512, **parameters}}
    return JobStatus("a", request, "succeeded", 1, 1, 1.0, "", 0.0, 0.0, result=Result({}, seconds=seconds))


def test_the_time_grows_with_pixels_and_steps() -> None:
    body = {"kind": "synthesize", "parameters": {"model": "pocket"}}
    assert estimate_seconds(body, PLAN, [done(20.0)]) == pytest.approx(80.0)
    body["parameters"] = {"model": "pocket", "preset": "draft"}
    assert estimate_seconds(body, PLAN, [done(20.0)]) == pytest.approx(40.0)


def test_a_given_number_of_steps_is_not_compared_with_a_preset() -> None:
    body = {"kind": "synthesize", "parameters": {"steps": 30}}
    assert estimate_seconds(body, PLAN, [done(20.0)]) is None
    assert estimate_seconds(body, PLAN, [done(20.0), done(10.0, steps=15)]) == pytest.approx(80.0)


def test_each_map_takes_a_little_time() -> None:
    body = {"kind": "synthesize", "inputs": {"swatch": "", "map:normal": "", "map:height": ""}}
    seconds = estimate_seconds(body, PLAN, [done(20.0)])
    assert seconds is not None and 80.0 < seconds < 88.0


def test_other_models_kinds_and_unfinished_jobs_say_nothing() -> None:
    body = {"kind": "synthesize", "parameters": {}}
    assert estimate_seconds(body, PLAN, []) is None
    assert estimate_seconds(body, PLAN, [done(20.0, model="sd15"), done(20.0, "restyle"), done(0.0)]) is None


def test_the_jobs_that_are_most_alike_decide() -> None:
    like = [done(100.0, width=1024, height=1024)] * 5
    assert estimate_seconds({"kind": "synthesize"}, PLAN, [done(1.0), *like]) == pytest.approx(100.0)


def test_a_process_that_fails_is_an_error_of_the_service() -> None:
    with pytest.raises(WireError, match="process of the plan") as caught:
        Planner(["/nowhere/to/be/found"]).plan({}, [])
    assert caught.value.code == "internal"
    with pytest.raises(WireError, match="ZeroDivisionError: division by zero"):
        Planner([sys.executable, "-c", "1 / 0"]).plan({}, [])
