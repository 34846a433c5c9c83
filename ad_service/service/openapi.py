"""Schemas of responses and bodies for /openapi.json, made from the contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from ad_service.service.scheduler import WorkerState
from ad_service.service.security import OPEN_PATHS
from blender_addon import wire
from blender_addon.wire import JobKind, JobStatus, KindDocument, ModelEntry

LONGEST_WAIT = 60.0
"""Seconds, the limit of one long poll."""


@dataclass(frozen=True)
class Health:
    service: str
    version: str
    wire: int


@dataclass(frozen=True)
class Model:
    """An installed model; `name` is the value of the parameter `model`, `kinds` are the job kinds that it can do."""

    name: str
    title: str
    family: str
    licence: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    max_blob_bytes: int = wire.MAX_BLOB_BYTES
    max_body_bytes: int = wire.MAX_BODY_BYTES
    max_picture_pixels: int = wire.MAX_PICTURE_PIXELS
    max_picture_side: int = wire.MAX_PICTURE_SIDE
    max_queue: int = wire.MAX_QUEUE
    longest_wait: float = LONGEST_WAIT
    picture_formats: tuple[str, ...] = wire.PICTURE_FORMATS


@dataclass(frozen=True)
class Capabilities:
    version: str
    wire: int
    models: tuple[Model, ...]
    kinds: tuple[KindDocument, ...]
    limits: Limits
    packages: dict[str, str]
    """Versions of the packages that results and defects depend on."""


@dataclass(frozen=True)
class JobList:
    """Jobs, the newest first; `next` is the value of `before` for the jobs before them, or None."""

    jobs: tuple[JobStatus, ...]
    next: str | None = None


@dataclass(frozen=True)
class ModelList:
    models: tuple[ModelEntry, ...]


@dataclass(frozen=True)
class WorkerList:
    workers: tuple[WorkerState, ...]


@dataclass(frozen=True)
class PageKey:
    """What the page sends in the header X-Page-Key beside its cookie, and who it acts for; empty is the owner."""

    key: str
    artist: str


SESSION_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["key"],
                    "properties": {"key": {"type": "string", "description": "a one-time key, or an artist's token"}},
                }
            }
        },
    }
}


def _job_schema(kind: JobKind, *, any_size: bool = False) -> dict[str, Any]:
    """The body of a job; with `any_size` its sides need not be multiples."""
    sha = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    maps = {f"^{wire.map_input(wire.MAP_NAME.pattern)}$": sha} if kind.maps_over else {}
    return {
        "title": kind.name,
        "description": kind.help,
        "type": "object",
        "required": ["kind", "inputs"],
        "properties": {
            "wire": {"const": wire.VERSION},
            "kind": {"const": kind.name},
            "parameters": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    p.name: {"type": "number", "description": p.help}
                    if any_size and p.name in ("width", "height")
                    else p.schema()
                    for p in kind.parameters
                },
            },
            "inputs": {
                "type": "object",
                "additionalProperties": False,
                "required": [p.name for p in kind.pictures if p.required],
                "properties": {p.name: {**sha, "description": p.help} for p in kind.pictures},
                **({"patternProperties": maps} if maps else {}),
            },
        },
    }


_PROBLEM_SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"enum": list(wire.ERRORS)},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "remedy": {"type": "string"},
        "retryable": {"type": "boolean"},
        "data": {"type": "object"},
    },
}
PROBLEM_RESPONSE: dict[str, Any] = {
    "description": "RFC 9457 problem",
    "content": {"application/problem+json": {"schema": _PROBLEM_SCHEMA}},
}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
BLOB_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "the bytes", "content": _BYTES},
    206: {"description": "a range of the bytes", "content": _BYTES},
    304: {"description": "the client has the bytes"},
}
BYTES_BODY = {
    "requestBody": {
        "required": True,
        "content": _BYTES,
    }
}
JOB_BODY, PLAN_BODY = (
    {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": [_job_schema(kind, any_size=any_size) for kind in wire.KINDS.values()]}
                }
            },
        }
    }
    for any_size in (False, True)
)


def with_token(app: FastAPI) -> None:
    """Declares the token in the application's schema; security.py enforces it for all routes but OPEN_PATHS."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        document["components"].setdefault("securitySchemes", {})["token"] = {"type": "http", "scheme": "bearer"}
        document["security"] = [{"token": []}]
        for path in OPEN_PATHS:
            for operation in document["paths"][path].values():
                operation["security"] = []
        return document

    app.openapi = openapi  # type: ignore[method-assign]
