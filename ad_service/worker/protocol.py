"""JSON lines between the service and its worker process: commands one way, events the other. Standard library only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

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
    command: Command = _decode(line, "command", _COMMANDS)
    return command


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
    """One JSON line, without the newline; raises ValueError for NaN and infinity."""
    return json.dumps({"event": type(event).__name__.lower(), **asdict(event)}, allow_nan=False)


def decode_event(line: str) -> Event:
    """The event of a JSON line; raises ValueError for anything else."""
    event: Event = _decode(line, "event", _EVENTS)
    return event


def _decode(line: str, key: str, classes: Mapping[str, type[Any]]) -> Any:
    """The instance of a class in a JSON line, whose `key` names the class. Unknown fields are ignored.

    Raises: ValueError.
    """
    try:
        document = json.loads(line)
    except RecursionError as error:
        raise ValueError(f"JSON that is nested too deeply: {line[:200]!r}") from error
    name = document.get(key) if isinstance(document, dict) else None
    cls = classes.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"no known {key}: {line[:200]!r}")
    try:
        values = {field.name: document[field.name] for field in fields(cls) if field.name in document}
        if "result" in values:
            values["result"] = _result(values["result"])
        decoded = cls(**values)
        _check_types(decoded)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"incomplete {key} ({error}): {line[:200]!r}") from error
    return decoded


def _result(document: Any) -> Result:
    """Raises: KeyError, TypeError or ValueError for anything else than a result."""
    if not isinstance(document, Mapping):
        raise ValueError(f"result is {document!r:.100}; it must be an object")
    if not isinstance(document.get("notes", ()), (list, tuple)):
        raise ValueError(f"notes is {document['notes']!r:.100}; it must be a list")
    result = result_of(document)
    _check_types(result)
    for name, values, expected in (
        ("outputs", result.outputs.values(), str),
        ("metrics", result.metrics.values(), (int, float)),
        ("notes", result.notes, str),
        ("origins", result.origins.values(), str),
    ):
        for value in values:
            if not isinstance(value, expected):
                raise ValueError(f"{name} contains {value!r:.100}")
    return result


_ACCEPTED: Mapping[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    str | None: (str, type(None)),
    float | None: (int, float, type(None)),
}
"""The types in JSON of a field's type; every other field is an object, a Result or a tuple, which are checked too."""


def _check_types(decoded: Any) -> None:
    """Raises ValueError for a field of another type than declared, and for NaN and infinity."""
    for name, declared in get_type_hints(type(decoded)).items():
        value = getattr(decoded, name)
        accepted = _ACCEPTED.get(declared, (Mapping, Result, tuple))
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r:.100}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
