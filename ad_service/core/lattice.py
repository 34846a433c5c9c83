"""Regular swatches on a torus: stretch the swatch a little, so that whole periods of its pattern fit the canvas.

A pattern that repeats by two vectors (a lattice) closes on a torus only if the torus' own two sides are sums of them.
A paving of 59.6 pixels a stone on 512 pixels leaves 0.6 of a stone over, which no cut can hide.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

CLEAR = 0.15
"""Correlation that a lag must reach to be taken as a period."""

MOST = 0.12
"""Greatest change of a length, or shear, that a swatch is given."""


def correlation(picture: Tensor) -> Tensor:
    """Autocorrelation in [-1, 1] of a picture (3, h, w) with its broad shading removed, for lags (down, right).

    Shape (h2 + 1, 2 * w2 + 1) with h2, w2 half the picture: lags 0 .. h2 down and -w2 .. w2 right.
    """
    h, w = picture.shape[1:]
    grey = picture.mean(0)[None, None]
    kernel = (min(h, w) // 8) * 2 + 1
    grey = grey - F.avg_pool2d(F.pad(grey, (kernel // 2,) * 4, "reflect"), kernel, 1)
    grey = grey[0, 0] / grey.std().clamp_min(1e-6)

    def correlate(a: Tensor, b: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(a, s=(2 * h, 2 * w)).conj() * torch.fft.rfft2(b, s=(2 * h, 2 * w))
        full = torch.fft.irfft2(spectrum, s=(2 * h, 2 * w))
        return torch.cat([full[: h // 2 + 1, -(w // 2) :], full[: h // 2 + 1, : w // 2 + 1]], 1)

    one = torch.ones_like(grey)
    return correlate(grey, grey) / (correlate(grey**2, one) * correlate(one, grey**2)).clamp_min(1e-6).sqrt()


def basis(picture: Tensor, nearest: int = 12) -> Tensor | None:
    """The two shortest clear periods (2, 2) as rows (down, right) in pixels, or None for a swatch without any.

    Each is measured at its furthest clear multiple, so that it is known to a fraction of a pixel.
    """
    map_ = correlation(picture)
    middle = map_.shape[1] // 2
    peak = (map_ == F.max_pool2d(map_[None, None], 2 * (nearest // 2) + 1, 1, nearest // 2)[0, 0]) & (map_ > CLEAR)
    lags = (peak.nonzero() - torch.tensor([0, middle])).float()
    lags = lags[lags.norm(dim=1) >= nearest]
    lags = lags[lags.norm(dim=1).argsort()]
    if len(lags) == 0:
        return None
    strong = max(float(map_[int(y), int(x) + middle]) for y, x in lags.tolist())
    kept = [v for v in lags if map_[int(v[0]), int(v[1]) + middle] > 0.6 * strong]
    first = kept[0]
    for second in kept[1:]:
        sine = (first[0] * second[1] - first[1] * second[0]) / (first.norm() * second.norm())
        if abs(float(sine)) > 0.4:
            return torch.stack([_refine(map_, first), _refine(map_, second)])
    return None


def _refine(map_: Tensor, lag: Tensor) -> Tensor:
    """A period from the furthest of its multiples that is still a clear peak near where it should be."""
    height, middle = map_.shape[0], map_.shape[1] // 2
    out = lag
    for n in range(2, 64):
        y, x = (out * n).round().long().tolist()
        if not (3 <= y < height - 3 or abs(y) < 3) or abs(x) > middle - 4:
            break
        top, left = max(y - 3, 0), x + middle - 3
        near = map_[top : y + 4, left : left + 7]
        spot = int(near.argmax())
        if near.flatten()[spot] < CLEAR / 2:
            break
        out = torch.tensor([top + spot // near.shape[1], left + spot % near.shape[1] - middle]).float() / n
    return out


def fitting(vectors: Tensor, height: int, width: int, tiles: tuple[bool, bool]) -> Tensor | None:
    """The matrix (2, 2) near the identity that takes sums of the periods to the sides of the torus, or None.

    Acts on (down, right) columns. Only sides that tile ask for anything.
    """
    sides = [torch.tensor(side) for side, tile in (((height, 0.0), tiles[0]), ((0.0, width), tiles[1])) if tile]
    reached = []
    for side in sides:
        counts = torch.linalg.solve(vectors.t(), side).round()
        around = [counts + torch.tensor([i, j]) for i, j in product((-1.0, 0.0, 1.0), repeat=2)]
        sums = [n @ vectors for n in around]
        reached.append(min(sums, key=lambda v: float((v - side).norm())))
    if not reached:
        return None
    if len(reached) == 1:  # stretch along the side and shear towards it, leave the other axis
        axis = 0 if tiles[0] else 1
        matrix = torch.eye(2)
        other = 1 - axis
        if abs(float(reached[0][axis])) < 1:
            return None
        matrix[axis, axis] = sides[0][axis] / reached[0][axis]
        matrix[other, axis] = -reached[0][other] / reached[0][axis]
    else:
        have = torch.stack(reached, 1)
        if abs(float(torch.linalg.det(have))) < 1:
            return None
        matrix = torch.stack(sides, 1) @ torch.linalg.inv(have)
    return matrix if float((matrix - torch.eye(2)).abs().max()) <= MOST else None


def warp(picture: Tensor, matrix: Tensor, mode: str = "bicubic") -> Tensor:
    """A picture (C, h, w) moved by a matrix on (down, right), as large as its sides become, cut to what is known.

    `mode` is grid_sample's; what a deep cut would still leave unknown is reflected.
    """
    h, w = picture.shape[1:]
    H, W = round(h * float(matrix[0, 0])), round(w * float(matrix[1, 1]))
    rows, columns = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    centre = torch.tensor([H / 2, W / 2])[:, None]
    from_ = torch.linalg.inv(matrix) @ (torch.stack([rows.flatten(), columns.flatten()]) - centre)
    y, x = from_[0].view(H, W) / (h / 2), from_[1].view(H, W) / (w / 2)
    known = (y.abs() <= 1) & (x.abs() <= 1)
    top, left = 0, 0
    while top < H // 8 and not bool(known[top : H - top, left : W - left].all()):
        top, left = top + 1, left + 1
    out = F.grid_sample(picture[None], torch.stack([x, y], -1)[None], mode, "reflection", align_corners=False)[0]
    return out[:, top : H - top, left : W - left]
