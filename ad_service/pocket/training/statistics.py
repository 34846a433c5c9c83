"""Standardized latents: each texture has mean 0 and variance 1 in every channel.

The amplitude of grain differs by a factor of 20 between materials. A network with group norms that sees only noised
windows does not find it out: its v error was above that of a linear filter that knows the texture's variances.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

FILE = "latents.json"
"""In exported weights: whether the denoiser sees standardized latents."""
FLOOR = 0.05
"""Added to the variance as its square: smoother channels than this are mostly rounding."""


class LatentStatistics(NamedTuple):
    """Mean and standard deviation of a texture's latents in each channel, broadcast to (..., c, h, w)."""

    mean: Tensor
    deviation: Tensor

    def standardize(self, z: Tensor) -> Tensor:
        """Latents of the codec to those that the denoiser sees."""
        return (z - self.mean) / self.deviation

    def restore(self, z: Tensor) -> Tensor:
        """Latents of the denoiser to those that the codec decodes."""
        return z * self.deviation + self.mean


def measure(z: Tensor) -> LatentStatistics:
    """The statistics of a texture's clean latents (..., c, h, w)."""
    variance = z.var((-2, -1), correction=0, keepdim=True)
    return LatentStatistics(z.mean((-2, -1), keepdim=True), (variance + FLOOR**2).sqrt())


def identity() -> LatentStatistics:
    """Statistics that leave latents as they are."""
    return LatentStatistics(torch.zeros(()), torch.ones(()))


def write_flag(weights: Path, standardized: bool) -> None:
    """Write into exported weights whether the denoiser sees standardized latents."""
    (weights / FILE).write_text(json.dumps({"standardized": standardized}) + "\n", encoding="utf-8")


def read_flag(weights: Path) -> bool:
    """True if the denoiser of exported weights sees standardized latents; False for weights without the file."""
    path = weights / FILE
    return path.exists() and bool(json.loads(path.read_text(encoding="utf-8"))["standardized"])
