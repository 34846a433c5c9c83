"""The background thread: jobs and plans do not wait for each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from blender_addon import wire
from blender_addon.link import background, client, events
from tests.link.fake_service import as_json, fake_service

PLAN = {"crop": [0, 0, 64, 64], "scale": 1.0, "width": 512, "height": 512, "sentence": "Uses all", "notes": []}
JOB = "5a3e6a8e-9f3c-4a9a-8d8b-000000000001"
JOB_STATUS = {"id": JOB, "request": {}, "attempt": 1, "progress": 0.5, "message": "", "created": 1.0, "updated": 2.0}


class SlowPlans:
    """A service whose plans take until `release` is set."""

    def __init__(self) -> None:
        self.release, self.entered = threading.Event(), threading.Event()
        self.plans = 0

    def respond(self, method: str, path: str) -> tuple[int, str, bytes]:
        if path == "/v1/plan":
            self.plans += 1
            self.entered.set()
            self.release.wait(20)
            return as_json(PLAN)
        if path == "/v1/health":
            return as_json({"service": wire.SERVICE_NAME, "wire": wire.VERSION, "version": "1"})
        if path == "/v1/ready":
            return as_json({"ready": True})
        if path.startswith("/v1/jobs/"):
            state = "canceled" if path.endswith("/cancel") else "running"
            return as_json(JOB_STATUS | {"state": state, "revision": 2 if state == "canceled" else 1})
        if method == "HEAD":
            return as_json({})
        return as_json({"jobs": [], "models": []})


@pytest.fixture
def slow() -> Iterator[tuple[SlowPlans, background.BackgroundThread]]:
    plans = SlowPlans()
    with fake_service(plans.respond) as url:
        thread = background.BackgroundThread()
        thread.connect(client.ServiceAddress(url=url))
        yield plans, thread
        plans.release.set()
        thread.close()


def wait_for(thread: background.BackgroundThread, kind: type, *others: type, seconds: float = 5.0) -> list[Any]:
    """The events up to the first of one type, and then of each of the others."""
    end, wanted, found = time.monotonic() + seconds, [kind, *others], list[Any]()
    while time.monotonic() < end:
        for event in thread.take_events():
            if wanted and isinstance(event, wanted[0]):
                found.append(event)
                del wanted[0]
        if not wanted:
            return found
        time.sleep(0.02)
    raise AssertionError(f"No {wanted[0].__name__} within {seconds:g} s")


def request_plan(thread: background.BackgroundThread, key: str, source: Callable[[], bytes] = lambda: b"png") -> None:
    thread.plan(key, "synthesize", {}, {"swatch": source})


def test_a_slow_plan_blocks_no_poll_no_cancel_and_no_close(slow: tuple[SlowPlans, background.BackgroundThread]) -> None:
    plans, thread = slow
    request_plan(thread, "first")
    assert plans.entered.wait(5)
    thread.watch(JOB, thread._address)
    assert wait_for(thread, events.JobProgressed)[0].status.state == "running"
    thread.cancel(JOB)
    assert wait_for(thread, events.JobEnded)[0].state == "canceled"
    begun = time.monotonic()
    assert thread.close()
    assert time.monotonic() - begun < 2


def test_only_the_newest_of_the_plans_that_wait_is_made(slow: tuple[SlowPlans, background.BackgroundThread]) -> None:
    plans, thread = slow
    request_plan(thread, "first")
    assert plans.entered.wait(5)
    for key in ("second", "third"):
        request_plan(thread, key)
        time.sleep(0.3)
    plans.release.set()
    received = wait_for(thread, events.PlanReceived, events.PlanReceived)
    assert [event.key for event in received] == ["first", "third"]
    assert plans.plans == 2


def test_an_error_of_a_picture_is_the_plans_answer(slow: tuple[SlowPlans, background.BackgroundThread]) -> None:
    _, thread = slow

    def broken() -> bytes:
        raise wire.WireError("invalid-image", "no pixels")

    request_plan(thread, "first", broken)
    error = wait_for(thread, events.PlanReceived)[0].error
    assert error is not None and error.code == "invalid-image"
