"""The lines between the service and its worker: events and commands survive their pipe, anything else is refused."""

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
def test_events_survive_their_pipe_in_one_line(event: protocol.Event) -> None:
    line = protocol.encode_event(event)
    assert "\n" not in line
    assert protocol.decode_event(line) == event


@pytest.mark.parametrize("command", [protocol.Run("a", REQUEST), protocol.Cancel("a")], ids=lambda c: type(c).__name__)
def test_commands_survive_their_pipe_in_one_line(command: protocol.Command) -> None:
    line = protocol.encode_command(command)
    assert "\n" not in line
    assert protocol.decode_command(line) == command


@pytest.mark.parametrize("line", ["", "{}", "[]", "3", '{"event": "exploded"}', "Loading pipeline components..."])
def test_anything_else_on_the_pipe_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        protocol.decode_event(line)
    with pytest.raises(ValueError):
        protocol.decode_command(line)
