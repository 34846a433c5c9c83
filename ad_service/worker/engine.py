"""What a worker runs: an engine takes a job's request and yields steps until it returns the outcome. No torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ad_service.worker import protocol
from blender_addon import wire

Read = Callable[[str], bytes]
"""The bytes of a picture by its sha256; raises WireError `blob-missing`."""


@dataclass(frozen=True)
class Step:
    """A step of a job at `fraction` in [0, 1]; `phase` names the stage for programs, `message` for people.

    `preview` makes a small encoded picture when it is called.
    """

    fraction: float
    message: str
    preview: Callable[[], bytes] | None = None
    phase: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a job left: encoded pictures by name (always `image`), figures, and notes for the artist."""

    pictures: Mapping[str, bytes]
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Steps = Generator[Step, None, Outcome]


def prepare_torch() -> None:
    """Set what torch and its libraries read from the environment. To be called before torch is loaded.

    Idle compute threads sleep instead of spin: where other programs use the cores as well (Blender, a render), spinning
    threads take time from those they wait for. What Apple's GPUs cannot do is done on the CPU instead of failing.
    cuBLAS gets the workspace with which it gives the same result each time, without which torch refuses to promise it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"


class Engine(Protocol):
    """Runs jobs on one device. Errors of the closed list in wire.py are raised as WireError; others are defects."""

    def ready(self) -> protocol.Ready:
        """The device, after a real operation on it."""

    def run(self, request: wire.JobRequest, read: Read) -> Steps: ...
