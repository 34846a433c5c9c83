"""The time of a job, from finished ones."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from ad_service.service import planning
from ad_service.service.planning import Planner, estimate_seconds, with_memory_note
from ad_service.worker import protocol
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


def test_other_models_kinds_and_unfinished_jobs_say_nothing() -> None:
    body = {"kind": "synthesize", "parameters": {}}
    assert estimate_seconds(body, PLAN, []) is None
    assert estimate_seconds(body, PLAN, [done(20.0, model="sd15"), done(20.0, "restyle"), done(0.0)]) is None


def test_the_jobs_that_are_most_alike_decide() -> None:
    like = [done(100.0, width=1024, height=1024)] * 5
    assert estimate_seconds({"kind": "synthesize"}, PLAN, [done(1.0), *like]) == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("device", "free", "noted"), [("cuda", 5.9e9, True), ("cuda", 8e9, False), ("cpu", 1e9, False)]
)
def test_a_plan_says_when_the_device_has_too_little_memory(device: str, free: float, noted: bool) -> None:
    plan = Plan((0, 0, 8, 8), 1.0, 512, 512, "", memory_bytes=int(7.2e9))
    notes = with_memory_note(plan, protocol.Ready(device, "GPU", int(12e9), int(free))).notes
    assert [note for note in notes if "7.2 GB" in note and "5.9" in note] == list(notes)
    assert bool(notes) is noted


def test_a_process_that_fails_is_an_error_of_the_service() -> None:
    with pytest.raises(WireError, match="process of the plan") as caught:
        Planner(["/nowhere/to/be/found"]).plan({}, [])
    assert caught.value.code == "internal"
    with pytest.raises(WireError, match="ZeroDivisionError: division by zero"):
        Planner([sys.executable, "-c", "1 / 0"]).plan({}, [])


COUNTER = """
import json, sys
for count, line in enumerate(sys.stdin):
    sentence = f"{count} of {json.loads(line)}"
    plan = {"crop": [0, 0, 1, 1], "scale": 1.0, "width": 64, "height": 64, "sentence": sentence}
    print(json.dumps({"plan": plan}), flush=True)
    if count == %d:
        break
"""


def test_plans_are_made_by_one_process_after_the_other() -> None:
    planner = Planner([sys.executable, "-c", COUNTER % -1])
    try:
        assert [planner.plan({"a": n}, []).sentence for n in range(2)] == ["0 of {'a': 0}", "1 of {'a': 1}"]
    finally:
        planner.stop()


def test_a_process_that_has_ended_meanwhile_is_replaced() -> None:
    planner = Planner([sys.executable, "-c", COUNTER % 0])
    try:
        assert [planner.plan({}, []).sentence for _ in range(2)] == ["0 of {}", "0 of {}"]
    finally:
        planner.stop()


def test_a_plan_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PLAN_SECONDS", 0.2)
    with pytest.raises(WireError, match="not ready within"):
        Planner([sys.executable, "-c", "import time; time.sleep(60)"]).plan({}, [])
