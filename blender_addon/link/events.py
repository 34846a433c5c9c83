"""What the background thread reports to the main thread. No bpy."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import wire
from . import client


@dataclass(frozen=True)
class ServiceFound:
    """The service responds."""

    status: client.ServiceStatus


@dataclass(frozen=True)
class ServiceStarting:
    """The service is being started or is not ready; the message says which."""

    message: str


@dataclass(frozen=True)
class ServiceLost:
    """The service cannot be used."""

    error: wire.WireError


@dataclass(frozen=True)
class JobSubmitted:
    """The service has accepted the job; `request` is its document, with which it can be submitted again."""

    job: str
    request: Mapping[str, Any]


@dataclass(frozen=True)
class JobProgressed:
    """The state or the progress of an active job changed."""

    job: str
    status: wire.JobStatus


@dataclass(frozen=True)
class JobWaiting:
    """The job makes no progress at the moment; the message says why."""

    job: str
    message: str


@dataclass(frozen=True)
class PreviewReceived:
    """The newest preview of a running job, a PNG file."""

    job: str
    png: bytes


@dataclass(frozen=True)
class JobEnded:
    """The end of a job, with its pictures by name if it succeeded, with an error if it failed."""

    job: str
    state: str
    status: wire.JobStatus | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    error: wire.WireError | None = None


@dataclass(frozen=True)
class BlobsFetched:
    """The blobs that `fetch` asked for, by name: those that the service has; an error if it could not be reached."""

    key: str
    blobs: Mapping[str, bytes]
    error: wire.WireError | None = None


@dataclass(frozen=True)
class PlanReceived:
    """The answer to a request of a plan; `key` is the caller's name of that request."""

    key: Hashable
    plan: wire.Plan | None = None
    error: wire.WireError | None = None


@dataclass(frozen=True)
class QueueChanged:
    """The jobs of all clients that wait or run, in the order they run; an error if one could not be canceled."""

    jobs: tuple[wire.JobStatus, ...]
    error: wire.WireError | None = None


@dataclass(frozen=True)
class ModelsChanged:
    """The models that the service has, downloads or can download; an error if a download could not begin."""

    models: tuple[wire.ModelEntry, ...]
    error: wire.WireError | None = None


Event = (
    ServiceFound
    | ServiceStarting
    | ServiceLost
    | JobSubmitted
    | JobProgressed
    | JobWaiting
    | PreviewReceived
    | JobEnded
    | BlobsFetched
    | PlanReceived
    | QueueChanged
    | ModelsChanged
)
PictureSource = Callable[[], bytes]
"""Returns a picture's bytes. Called on the thread, so that encoding does not block the interface."""
