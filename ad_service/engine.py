"""What a worker runs: an engine takes a job's request and yields steps until it returns the outcome. No torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from blender_addon import wire

Read = Callable[[str], bytes]
"""The bytes of a picture by its sha256; raises WireError `blob-missing`."""


@dataclass(frozen=True)
class Step:
    """A job is at `fraction` in [0, 1]. `preview` makes a small picture, encoded, when somebody wants to see it."""

    fraction: float
    message: str
    preview: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a job left: encoded pictures by name (always `image`), figures, and notes for the artist."""

    pictures: Mapping[str, bytes]
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Steps = Generator[Step, None, Outcome]


def share_cores() -> None:
    """Let idle compute threads sleep instead of spin. To be called before torch is loaded.

    Where other programs use the cores as well (Blender, a render), spinning threads take time from those they wait for.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Engine(Protocol):
    """Runs jobs on one device. Errors of the closed list in wire.py are raised as WireError; others are defects."""

    def ready(self) -> wire.Ready:
        """The device, after a real operation on it."""

    def run(self, request: wire.JobRequest, read: Read) -> Steps: ...
