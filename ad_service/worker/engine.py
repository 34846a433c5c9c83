"""The interface of an engine, which a worker runs: a job's request in, steps, and the outcome. No torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ad_service.worker import protocol
from blender_addon import wire

Read = Callable[[str], bytes]
"""The bytes of a picture by its sha256; raises WireError `blob-missing`."""


Phase = Literal[
    "",
    "read",
    "fit",
    "load",
    "prepare",
    "encode",
    "start",
    "denoise",
    "fit-decoder",
    "decode",
    "sharpen",
    "maps",
    "measure",
    "write",
]
"""The stage of a job; empty if the engine does not say. `read`, `fit`, `load` and `write` are the worker's, the others
those of the core (core.pipeline.request.Phase)."""


@dataclass(frozen=True)
class Step:
    """How far a job is: `fraction` in [0, 1], the `phase` of its recipe, and the same as a `message` in words.

    `preview` returns a small encoded picture of the present state; it is called only when a preview is due.
    """

    fraction: float
    message: str
    preview: Callable[[], bytes] | None = None
    phase: Phase = ""


@dataclass(frozen=True)
class Outcome:
    """A job's result: encoded pictures by name (always `image`), metrics by name, and notes for the artist.

    `origins` says for each map where it comes from, see `wire.Origin`.
    """

    pictures: Mapping[str, bytes]
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    origins: Mapping[str, wire.Origin] = field(default_factory=dict)


Steps = Generator[Step, None, Outcome]


def prepare_torch() -> None:
    """Sets environment variables that torch and its libraries read. Call it before torch is imported.

    OMP_WAIT_POLICY: idle compute threads sleep instead of spinning, since other programs (Blender, a render) use the
    same cores. PYTORCH_ENABLE_MPS_FALLBACK: operations that Apple's GPUs lack run on the CPU. CUBLAS_WORKSPACE_CONFIG:
    the workspace that torch requires for deterministic results of cuBLAS.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"


class Engine(Protocol):
    """Runs jobs on one device. Errors of the closed list are raised as WireError; any other exception is a defect."""

    def ready(self) -> protocol.Ready:
        """The device, after a tensor operation on it. Raises: WireError `device-unavailable`."""

    def run(self, request: wire.JobRequest, read: Read) -> Steps:
        """The steps of a job, which return its outcome. `read` returns the bytes of an input."""
        ...

    def release(self) -> None:
        """Frees what is kept for a next job, such as loaded models."""
