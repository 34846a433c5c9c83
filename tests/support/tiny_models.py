"""Small models and pictures that the tests of the algorithm share."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Generator
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service import pocket
from ad_service.core.backbone.conditioning import Conditioning
from ad_service.core.backbone.loading import load
from ad_service.core.backbone.model import Model
from tests.support import tiny_checkpoints

FAMILIES = ("pocket", "sd15", "sd2", "sdxl")
"""One tiny model of random weights for each."""

OWN = pocket.WEIGHTS
SHIPPED = "shipped" if (OWN / "unet" / "config.json").exists() else "pocket"
"""The pocket model with its real weights, where they are there."""

S = TypeVar("S")
T = TypeVar("T")


@functools.cache
def backbone(name: str) -> Model:
    """A model of FAMILIES, or SHIPPED, in float32 on the CPU; nobody may change it."""
    if name == "shipped":
        return load(OWN, "pocket", device="cpu", precision="fp32")
    with tempfile.TemporaryDirectory() as folder:
        saved = tiny_checkpoints.save_folder(tiny_checkpoints.tiny(name), Path(folder))
        return load(saved, name, device="cpu", precision="fp32", name=name)


def with_predict(model: Model, predict: Callable[[Model, Tensor, int], Tensor]) -> Model:
    """The same model with another `predict(model, z, t)`."""

    class Changed(Model):
        def predict(self, z: Tensor, t: int, conditioning: Conditioning) -> Tensor:
            return predict(model, z, t)

    return Changed(**{f.name: getattr(model, f.name) for f in fields(model)})


def predict(model: Model, z: Tensor, t: int) -> Tensor:
    """The model's prediction for the empty prompt."""
    return model.predict(z, t, model.unconditional)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def texture(height: int, width: int, seed: int = 0, *, tiling: bool = False) -> Tensor:
    """A picture (3, h, w) in [0, 1] of colored blobs a few pixels wide, with some fine grain."""
    picture = noise(1, 3, height, width, seed=seed)
    blobs = picture
    for _ in range(2):
        blobs = F.avg_pool2d(F.pad(blobs, (2,) * 4, "circular" if tiling else "reflect"), 5, 1)
    return (0.5 + 0.2 * blobs / blobs.std() + 0.03 * picture).clamp(0, 1)[0]


def end(job: Generator[S, None, T]) -> tuple[list[S], T]:
    """All that a generator yields, and what it returns."""
    returned: list[T] = []

    def through() -> Generator[S, None, None]:
        returned.append((yield from job))

    return list(through()), returned[0]


def grain(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    """A texture (C, h, w) in [0, 1] of blobs a few cells wide."""
    noise = torch.randn(channels, height + 8, width + 8, generator=torch.Generator().manual_seed(seed))
    for _ in range(2):
        noise = F.avg_pool2d(noise[None], 5, 1)[0]
    return ((noise - noise.mean()) / noise.std() / 6 + 0.5).clamp(0, 1)
