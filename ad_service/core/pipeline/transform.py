"""The channels of a material, and the transform that a swatch goes through: the same for every channel and label map.

A picture is resampled, a label map keeps its labels, and the vectors of a normal map turn with the surface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core import labels
from ad_service.core.quilting import periodicity

ChannelKind = Literal["color", "data", "height", "normal"]
Kind = Literal["color", "data", "height", "normal", "labels"]
"""Colors, data and heights (C, h, w) in [0, 1]; OpenGL normals (3, h, w) as (n + 1) / 2; labels (h, w) int64."""


@dataclass(frozen=True)
class Channel:
    """One channel of a material: pixels (C, h, w) in [0, 1]; a normal map has three channels, see `Kind`.

    `bits` (8 or 16) are those of its pixels in the result.
    """

    pixels: Tensor
    kind: ChannelKind = "data"
    bits: int = 8

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or (self.kind == "normal" and len(self.pixels) != 3):
            raise ValueError(
                f"a channel of kind {self.kind} has the shape {tuple(self.pixels.shape)}, expected (C, h, w)"
            )


class Operation(Protocol):
    """One part of a transform."""

    def apply(self, pixels: Tensor, kind: Kind) -> Tensor: ...


@dataclass(frozen=True)
class Scale:
    """To height x width pixels. Slopes of normals stay: heights grow with the surface."""

    height: int
    width: int

    def apply(self, pixels: Tensor, kind: Kind) -> Tensor:
        """The pixels at the new size, bicubic and antialiased; labels by `labels.condense`."""
        size = self.height, self.width
        if pixels.shape[-2:] == size:
            return pixels
        if kind == "labels":
            return labels.condense(pixels, *size)
        out = F.interpolate(pixels[None], size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
        return renormalize(out) if kind == "normal" else out


@dataclass(frozen=True)
class Warp:
    """A matrix (2, 2) on (down, right), see `periodicity.warp`. Slopes of normals are divided by it, heights stay."""

    matrix: Tensor

    def apply(self, pixels: Tensor, kind: Kind) -> Tensor:
        """The warped pixels, as large as their sides become."""
        if kind == "labels":
            return periodicity.warp(pixels[None].float(), self.matrix, "nearest")[0].long()
        out = periodicity.warp(pixels, self.matrix).clamp(0, 1)
        return _turn_normals(out, self.matrix) if kind == "normal" else out


@dataclass(frozen=True)
class Crop:
    """The rectangle height x width at (top, left)."""

    top: int
    left: int
    height: int
    width: int

    def apply(self, pixels: Tensor, kind: Kind) -> Tensor:
        """The pixels of the rectangle."""
        return pixels[..., self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Transform:
    """Operations applied one after the other."""

    operations: tuple[Operation, ...] = ()

    def then(self, operation: Operation) -> Transform:
        """The transform followed by one more operation."""
        return Transform((*self.operations, operation))

    def apply(self, pixels: Tensor, kind: Kind) -> Tensor:
        """The pixels after all operations."""
        for operation in self.operations:
            pixels = operation.apply(pixels, kind)
        return pixels


def renormalize(normals: Tensor) -> Tensor:
    """Normals (3, h, w) as (n + 1) / 2, at unit length."""
    return F.normalize(normals * 2 - 1, dim=0) / 2 + 0.5


def _turn_normals(normals: Tensor, matrix: Tensor) -> Tensor:
    """Normals (3, h, w) as (n + 1) / 2 after their surface was warped by a matrix on (down, right).

    For p' = M p and an unchanged height, the gradient becomes M^-T g, with g = (n_y / n_z, -n_x / n_z) since y is up.
    """
    x, y, z = normals * 2 - 1
    z = z.clamp_min(1e-3)
    down, right = torch.einsum("ij,jhw->ihw", torch.linalg.inv(matrix).t(), torch.stack([y / z, -x / z]))
    return F.normalize(torch.stack([-right, down, torch.ones_like(z)]), dim=0) / 2 + 0.5
