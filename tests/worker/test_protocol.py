"""JSON lines between the service and its worker: events and commands are read back; other lines are rejected."""

from __future__ import annotations

import json
import math

import pytest

from ad_service.worker import protocol
from blender_addon.wire import Result, WireError

SHA = "0" * 64
REQUEST = {"kind": "synthesize", "parameters": {}, "inputs": {"swatch": SHA}}

EVENTS: list[protocol.Event] = [
    protocol.Ready("cuda", "a GPU", 2**34, 2**33),
    protocol.Progress("a", 0.25, "Step 1 of 4", 3.5, SHA, "denoise"),
    protocol.Succeeded("a", Result({"image": SHA}, {"seam_x": 1.25}, ("grün", "two\nlines"), 3.0)),
    protocol.Failed("a", WireError("out-of-memory", "at 16384x16384").problem()),
    protocol.Canceled("a"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_read_back_from_its_line(event: protocol.Event) -> None:
    line = protocol.encode_event(event)
    assert "\n" not in line
    assert protocol.decode_event(line) == event


@pytest.mark.parametrize("command", [protocol.Run("a", REQUEST), protocol.Cancel("a")], ids=lambda c: type(c).__name__)
def test_a_command_is_read_back_from_its_line(command: protocol.Command) -> None:
    line = protocol.encode_command(command)
    assert "\n" not in line
    assert protocol.decode_command(line) == command


@pytest.mark.parametrize(
    "line",
    [
        *("", "{}", "[]", "3", "Loading pipeline components...", "[" * 100_000),
        *('{"event": "exploded"}', '{"event": []}', '{"command": {}}'),
    ],
    ids=lambda line: line[:20],
)
def test_other_lines_are_rejected(line: str) -> None:
    with pytest.raises(ValueError):
        protocol.decode_event(line)
    with pytest.raises(ValueError):
        protocol.decode_command(line)


@pytest.mark.parametrize(
    "line", ['{"event": "succeeded", "job": "a"}', '{"event": "progress"}', '{"event": "canceled"}']
)
def test_an_incomplete_event_is_rejected(line: str) -> None:
    with pytest.raises(ValueError, match="incomplete event"):
        protocol.decode_event(line)


@pytest.mark.parametrize("line", ['{"command": "run", "job": "a"}', '{"command": "cancel"}'])
def test_an_incomplete_command_is_rejected(line: str) -> None:
    with pytest.raises(ValueError, match="incomplete command"):
        protocol.decode_command(line)


def changed(event: protocol.Event, name: str, value: object) -> str:
    return json.dumps({**json.loads(protocol.encode_event(event)), name: value})


@pytest.mark.parametrize(
    ("number", "name", "value"),
    [
        *((0, "device", None), (0, "memory_free", "much"), (0, "memory_free", 1.5), (0, "memory_total", True)),
        *((1, "job", 5), (1, "fraction", "0.5"), (1, "fraction", math.nan), (1, "fraction", math.inf)),
        *((1, "message", None), (1, "preview", 3), (1, "seconds_left", []), (1, "phase", None)),
        *((2, "result", 5), (2, "result", {}), (2, "result", {"outputs": 3}), (2, "result", {"outputs": {"image": 3}})),
        *((2, "result", {"outputs": {}, "metrics": {"a": "b"}}), (2, "result", {"outputs": {}, "notes": 3})),
        *((3, "problem", 5), (3, "problem", None), (4, "job", [])),
    ],
)
def test_an_event_with_a_field_of_a_wrong_type_is_rejected(number: int, name: str, value: object) -> None:
    with pytest.raises(ValueError, match="incomplete event"):
        protocol.decode_event(changed(EVENTS[number], name, value))


@pytest.mark.parametrize("line", ['{"command": "run", "job": "a", "request": 5}', '{"command": "cancel", "job": []}'])
def test_a_command_with_a_field_of_a_wrong_type_is_rejected(line: str) -> None:
    with pytest.raises(ValueError, match="incomplete command"):
        protocol.decode_command(line)


def test_an_event_that_contains_nan_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        protocol.encode_event(protocol.Succeeded("a", Result({"image": SHA}, {"seam_x": math.nan})))
