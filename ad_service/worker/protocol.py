"""JSON lines between the service and its worker process: commands one way, events the other. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from blender_addon.wire import Result
from blender_addon.wire.jobs import result_of


@dataclass(frozen=True)
class Run:
    """Service to worker: run this job (`request` is a JobRequest.document())."""

    job: str
    request: Mapping[str, Any]


@dataclass(frozen=True)
class Cancel:
    """Service to worker: stop this job at its next step."""

    job: str


Command = Run | Cancel

_COMMANDS: dict[str, type[Any]] = {cls.__name__.lower(): cls for cls in (Run, Cancel)}


def encode_command(command: Command) -> str:
    """One JSON line, without the newline."""
    return json.dumps({"command": type(command).__name__.lower(), **asdict(command)})


def decode_command(line: str) -> Command:
    """The command of a JSON line; raises ValueError for anything else."""
    document = json.loads(line)
    cls = _COMMANDS.get(document.pop("command", None)) if isinstance(document, dict) else None
    try:
        if cls is not None:
            command: Command = cls(**document)
            return command
    except TypeError as error:
        raise ValueError(f"incomplete command: {line[:200]!r}") from error
    raise ValueError(f"not a command: {line[:200]!r}")


@dataclass(frozen=True)
class Ready:
    """The worker has completed a tensor operation on its device; memory in bytes."""

    device: str
    device_name: str
    memory_total: int
    memory_free: int


@dataclass(frozen=True)
class Progress:
    """A running job: fraction in [0, 1], message, estimated seconds left, sha256 of the newest preview, phase."""

    job: str
    fraction: float
    message: str
    seconds_left: float | None = None
    preview: str | None = None
    phase: str = ""


@dataclass(frozen=True)
class Succeeded:
    job: str
    result: Result


@dataclass(frozen=True)
class Failed:
    job: str
    problem: Mapping[str, Any]


@dataclass(frozen=True)
class Canceled:
    job: str


JobEvent = Progress | Succeeded | Failed | Canceled
Event = Ready | JobEvent
"""What a worker sends, one JSON line each. A job's events end with exactly one Succeeded, Failed or Canceled."""

_EVENTS: dict[str, type[Any]] = {cls.__name__.lower(): cls for cls in (Ready, Progress, Succeeded, Failed, Canceled)}


def encode_event(event: Event) -> str:
    """One JSON line, without the newline."""
    return json.dumps({"event": type(event).__name__.lower(), **asdict(event)})


def decode_event(line: str) -> Event:
    """The event of a JSON line; raises ValueError for anything else."""
    document = json.loads(line)
    cls = _EVENTS.get(document.pop("event", None)) if isinstance(document, dict) else None
    if cls is None:
        raise ValueError(f"not an event: {line[:200]!r}")
    known = {f.name for f in fields(cls)}
    try:
        if cls is Succeeded:
            document["result"] = result_of(document["result"])
        event: Event = cls(**{k: v for k, v in document.items() if k in known})
    except (KeyError, TypeError) as error:
        raise ValueError(f"incomplete event: {line[:200]!r}") from error
    return event
