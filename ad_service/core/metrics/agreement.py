"""Agreement: whether a result has the materials of its layout, and the light and dark of its content."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.metrics.copies import even_grid

_CELLS = 8
"""Cells along each axis of a picture that the classifier can leave out; its blocks are 2 x 2 of them."""


@dataclass(frozen=True)
class AgreementOptions:
    """Sizes of the classifier of `label_agreement`. Chosen for a runtime of seconds; the measure is a share of points.

    Attributes:
        points: points read along a side (geometric mean of both sides).
        windows: sides in pixels of the windows that features are averaged over, smallest first.
        window_part: the largest window is at most this part of the swatch's shorter side, beside the smallest one.
        large: pixels along a side (geometric mean) above which a picture is read in pieces.
        pieces: how many pieces, on an even grid.
        piece: side of a piece in pixels.
        piece_margin: pixels at a piece's border whose windows reach outside of it; they are not read.
        piece_step: pixels between the points of a piece.
        random_features: random Fourier features of the classifier.
        ridge: weight of the ridge per point.
    """

    points: int = 128
    windows: tuple[int, ...] = (3, 7, 15, 31)
    window_part: float = 1 / 16
    large: int = 1024
    pieces: int = 64
    piece: int = 160
    piece_margin: int = 32
    piece_step: int = 6
    random_features: int = 384
    ridge: float = 3e-3


@dataclass(frozen=True)
class Agreement:
    """How well the materials of a picture lie where its layout puts them.

    Attributes:
        agreement: share of points that are read as the layout's label.
        ceiling: the same for the swatch and its regions, each point read by a classifier that was not trained near
            it: how well the materials can be distinguished at all. A result near the ceiling follows its layout.
        recall: the agreement of each label, nan for an unused one.
        recall_ceiling: the recall of the swatch.
    """

    agreement: float
    ceiling: float
    recall: tuple[float, ...]
    recall_ceiling: tuple[float, ...]


def content_correlation(result: Tensor, content: Tensor, cells: int = 32) -> float:
    """Pearson correlation in [-1, 1] of the light and dark of a result (3, H, W) and its content (3, H, W).

    Both luminances are averaged over squares, `cells` along the shorter side, so that the grain of the material does
    not count. 0 if either is flat.
    """
    side = max(1, min(result.shape[1:]) // cells)
    a, b = (F.avg_pool2d(x.double().mean(0)[None], side).flatten() for x in (result, content))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12))


def label_agreement(
    result: Tensor,
    layout: Tensor,
    swatch: Tensor,
    regions: Tensor,
    seed: int = 0,
    options: AgreementOptions = AgreementOptions(),
) -> Agreement:
    """Compare the materials of a result with its layout, by a classifier fitted to the swatch's regions.

    Features are color, contrast and gradients at up to four scales; the classifier is ridge regression on random
    Fourier features of them (Rahimi and Recht 2007), each label weighted equally, solved in closed form. For the
    ceiling the swatch is divided into 4 x 4 blocks; each is read by a fit that leaves out the block and a band of an
    eighth of the picture around it.

    Args:
        result: a picture (3, H, W) in [0, 1].
        layout: its wanted labels (H, W).
        swatch: a picture (3, h, w) in [0, 1].
        regions: its labels (h, w).
        seed: of the random features.
        options: sizes of the classifier.
    """
    count = int(max(layout.max(), regions.max())) + 1
    largest = min(swatch.shape[1:]) * options.window_part
    windows = [side for side in options.windows if side == options.windows[0] or side - 1 <= largest]
    x, y, cell = _points(swatch, regions, windows, options)
    lift = _RandomFeatures(x, options.random_features, torch.Generator().manual_seed(seed))
    fit = _Fit(lift(x), y, cell, count, options.ridge)
    read = fit.read_unseen()
    u, wanted, _ = _points(result, layout, windows, options)
    got = (lift(u) @ fit.weights()).argmax(1)
    return Agreement(
        float((got == wanted).double().mean()),
        float((read == y).double().mean()),
        _recall(got, wanted, count),
        _recall(read, y, count),
    )


def _recall(got: Tensor, wanted: Tensor, count: int) -> tuple[float, ...]:
    return tuple(float((got[wanted == i] == i).double().mean()) for i in range(count))


def _points(
    image: Tensor, labels: Tensor, windows: Sequence[int], options: AgreementOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (n, F), labels (n,) and cells (n,), of 8 x 8, of the grid points of a picture (3, h, w).

    A large picture is read in pieces, at the same scale and within their inner pixels.
    """
    h, w = labels.shape
    large = h * w > options.large**2 and min(h, w) > options.piece
    side_y, side_x, margin = (options.piece, options.piece, options.piece_margin) if large else (h, w, 0)
    step = options.piece_step if large else max(1, round(math.sqrt(h * w) / options.points))
    found = []
    for y, x in even_grid(h - side_y, w - side_x, options.pieces) if large else [(0, 0)]:
        rows = torch.arange(margin + step // 2, side_y - margin, step, device=labels.device)[:, None]
        columns = torch.arange(margin + step // 2, side_x - margin, step, device=labels.device)[None, :]
        features = _features(image[:, y : y + side_y, x : x + side_x], windows)[:, rows, columns]
        cell = (rows + y) * _CELLS // h * _CELLS + (columns + x) * _CELLS // w
        found.append((features.flatten(1).T, labels[rows + y, columns + x].flatten(), cell.flatten()))
    return torch.cat([f for f, _, _ in found]), torch.cat([y for _, y, _ in found]), torch.cat([c for _, _, c in found])


def _features(image: Tensor, windows: Sequence[int]) -> Tensor:
    """Color, its deviation, and gradients of the luminance around each pixel at each scale (9 * scales, H, W)."""
    x = image.float()
    gray = x.mean(0, keepdim=True)
    dy = F.pad(gray[:, 1:] - gray[:, :-1], (0, 0, 0, 1)).abs()
    dx = F.pad(gray[:, :, 1:] - gray[:, :, :-1], (0, 1)).abs()
    fine = torch.cat([x, x.square(), gray, dy, dx])
    out = []
    for side in windows:
        local = fine
        for _ in range(2):
            local = F.avg_pool2d(local[None], (side, 1), 1, (side // 2, 0), count_include_pad=False)[0]
            local = F.avg_pool2d(local[None], (1, side), 1, (0, side // 2), count_include_pad=False)[0]
        mean, square = local[:3], local[3:6]
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        out += [mean, deviation, local[6:7] - gray, local[7:].sqrt()]
    return torch.cat(out)


class _RandomFeatures:
    """Random Fourier features of a Gaussian kernel over standardized features, the features, and a constant."""

    def __init__(self, x: Tensor, count: int, generator: torch.Generator) -> None:
        self.mean, self.std = x.mean(0), x.std(0).clamp_min(1e-6)
        width = math.sqrt(2 * x.shape[1])
        self.vectors = (torch.randn(x.shape[1], count, generator=generator) / width).to(x.device)
        self.phase = (torch.rand(count, generator=generator) * 2 * math.pi).to(x.device)

    def __call__(self, x: Tensor) -> Tensor:
        z = (x - self.mean) / self.std
        return torch.cat([torch.cos(z @ self.vectors + self.phase), 0.1 * z, torch.ones_like(z[:, :1])], 1).double()


class _Fit:
    """Ridge regression of labels y (n,) on features z (n, k), kept as sums over cells so that cells can be left out."""

    def __init__(self, z: Tensor, y: Tensor, cell: Tensor, count: int, ridge: float) -> None:
        self.z, self.y, self.cell = z, y, cell
        hot = F.one_hot(y, count).double()
        totals = hot.sum(0)
        weight = (hot / totals.clamp_min(1)).sum(1, keepdim=True) * len(y) / (totals > 0).sum()
        groups = [(cell == i).nonzero()[:, 0] for i in range(_CELLS**2)]
        self.gram = torch.stack([z[g].T @ (z[g] * weight[g]) for g in groups])  # (cells, k, k)
        self.target = torch.stack([z[g].T @ (weight[g] * hot[g]) for g in groups])  # (cells, k, count)
        self.total = self.gram.sum(0), self.target.sum(0)
        self.ridge = ridge * len(y) * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)

    def weights(self, without: Tensor | None = None) -> Tensor:
        """Weights (k, count) from all cells except those where `without` (cells,) is set."""
        gram, target = self.total
        if without is not None:
            gram, target = gram - self.gram[without].sum(0), target - self.target[without].sum(0)
        solution: Tensor = torch.linalg.solve(gram + self.ridge, target)
        return solution

    def read_unseen(self) -> Tensor:
        """The label (n,) of each point by a fit without its block of 2 x 2 cells and the cells around it."""
        read = torch.empty_like(self.y)
        row, column = torch.arange(_CELLS**2) // _CELLS, torch.arange(_CELLS**2) % _CELLS
        for y in range(0, _CELLS, 2):
            for x in range(0, _CELLS, 2):
                near = (row >= y - 1) & (row <= y + 2) & (column >= x - 1) & (column <= x + 2)
                block = (self.cell // (2 * _CELLS) == y // 2) & (self.cell % _CELLS // 2 == x // 2)
                read[block] = (self.z[block] @ self.weights(near.to(self.z.device))).argmax(1)
        return read
