"""A model as `/v1/models` lists it: installed, being downloaded, or to be had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

MODEL_STATES = ("installed", "unusable", "downloading", "available")
HUB_TOKEN_HEADER = "X-Hub-Token"
"""The header with the artist's own token of the hub, which some models need. It is in no address and no body."""


@dataclass(frozen=True)
class ModelEntry:
    """A model that the service has or can download.

    `name` is the value of the parameter `model`, and `state` one of MODEL_STATES. `bytes` is the size of the download,
    or of the files if it is installed, and `received` how much of it has arrived. `problem` (problem+json) says why
    the last download failed, or why the model is unusable.
    """

    name: str
    title: str
    state: str
    license: str
    purpose: str = ""
    bytes: int = 0
    received: int = 0
    problem: Mapping[str, Any] | None = None

    @property
    def fraction(self) -> float:
        """How much of the download has arrived, in [0, 1]."""
        return min(1.0, self.received / self.bytes) if self.bytes else 0.0

    def document(self) -> dict[str, Any]:
        """The JSON form, which `parse` reads back."""
        return asdict(self)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> ModelEntry:
        """The entry in a JSON object; fields that a newer service adds are ignored."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in document.items() if k in known})
