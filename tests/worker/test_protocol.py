"""JSON lines between the service and its worker: events and commands are read back; other lines are rejected."""

from __future__ import annotations

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


@pytest.mark.parametrize("line", ["", "{}", "[]", "3", '{"event": "exploded"}', "Loading pipeline components..."])
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
