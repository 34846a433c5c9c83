"""Seams: how a picture continues over its edges and over inner borders, compared with its other borders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_LINES_AT_ONCE = 256
"""Lines whose borders are computed together; limits memory, does not change results."""


@dataclass(frozen=True)
class Edge:
    """One border of a picture compared with the ordinary borders between its neighboring pixels.

    Attributes:
        difference: mean absolute difference over the border, in [0, 1].
        inside: mean of the same over all inside borders.
        low: smallest difference of an inside border.
        high: largest difference of an inside border.
        high99: 99th percentile of the inside borders.
        rank: share of inside borders that differ less.
    """

    difference: float
    inside: float
    low: float
    high: float
    high99: float
    rank: float

    @property
    def ratio(self) -> float:
        """difference / inside: near 1 for an ordinary border; 1 if nothing differs at all."""
        if self.inside == 0:
            return 1.0 if self.difference == 0 else math.inf
        return self.difference / self.inside

    @property
    def in_range(self) -> bool:
        """Whether the difference lies between the smallest inside border and the 99th percentile."""
        return self.low <= self.difference <= self.high99


@dataclass(frozen=True)
class AxisSeam:
    """A border along one axis: between single pixels, and between the bands of pixels at its two sides."""

    single: Edge
    band: Edge

    @property
    def in_range(self) -> bool:
        return self.single.in_range and self.band.in_range


@dataclass(frozen=True)
class Seam:
    """The wrap-around borders. `y`: the bottom row and the top row. `x`: the right column and the left column."""

    y: AxisSeam
    x: AxisSeam


def seam(image: Tensor, band: int = 8) -> Seam:
    """How a picture (3, H, W) continues over its edges, compared with how it continues inside.

    A single border is the mean absolute difference of two neighboring rows or columns; a band border is that of the
    means of the `band` rows or columns at its two sides, which detects a step of tone that grain hides.
    """
    return Seam(*(seam_at(image, [0], axis, band)[0] for axis in (0, 1)))


def seam_at(image: Tensor, positions: Sequence[int], axis: int, band: int = 8) -> list[AxisSeam]:
    """The borders before the given rows (axis 0) or columns (axis 1) of a picture (3, H, W).

    Position 0 is the wrap-around border. Each border is compared with all inside borders that are not among
    `positions`; a band border only with those whose bands do not reach over one of `positions`.

    Raises:
        ValueError: the picture has fewer than 4 pixels along the axis.
    """
    x = image if axis == 1 else image.transpose(1, 2)
    length = x.shape[2]
    if length < 4:
        raise ValueError(f"a seam needs at least 4 pixels along its axis: got {length}")
    band = max(1, min(band, length // 4))
    excluded = {p % length for p in positions} | {0}
    parts = [_borders(part.double(), band) for part in x.split(_LINES_AT_ONCE, 1)]
    singles, bands = torch.stack(parts).sum(0) / (x.shape[0] * x.shape[1])  # each (length,)
    far = [p for p in range(length) if all(min((p - q) % length, (q - p) % length) >= band for q in excluded)]
    near = [p for p in range(length) if p not in excluded]
    return [
        AxisSeam(_edge(singles[p % length], singles[near]), _edge(bands[p % length], bands[far or near]))
        for p in positions
    ]


def plainest_border(image: Tensor, axis: int, band: int = 8) -> int:
    """The row (axis 0) or column (axis 1) of a torus (H, W, 3) uint8 before which the border is closest to the mean.

    Single borders and band borders count equally; see `seam`.
    """
    lines = image.float().mean(2) if axis == 1 else image.float().mean(2).t()
    single = (lines - lines.roll(1, 1)).abs().mean(0)
    padded = F.pad(lines, (band, band), mode="circular")
    means = F.avg_pool1d(padded[None], min(band, lines.shape[1]), 1)[0]
    step = (means[:, band : band + lines.shape[1]] - means[:, : lines.shape[1]]).abs().mean(0)
    off = (single / single.mean().clamp_min(1e-9) - 1).abs() + (step / step.mean().clamp_min(1e-9) - 1).abs()
    return int(off.argmin())


def _borders(x: Tensor, band: int) -> Tensor:
    """Summed differences (2, length) over the border before each column of x (C, h, length): of pixels, of bands."""
    length = x.shape[2]
    single = (x - x.roll(1, 2)).abs().sum((0, 1))
    means = F.avg_pool1d(F.pad(x, (band, band), mode="circular"), band, 1)  # entry p is the mean of p-band .. p-1
    bands = (means[..., band : band + length] - means[..., :length]).abs().sum((0, 1))
    return torch.stack([single, bands])


def _edge(border: Tensor, inside: Tensor) -> Edge:
    return Edge(
        difference=float(border),
        inside=float(inside.mean()),
        low=float(inside.min()),
        high=float(inside.max()),
        high99=float(inside.quantile(0.99)),
        rank=float((inside < border).double().mean()),
    )
