"""Seam costs between swatch pieces, minimum-cut seams, and which seams are visible.

A canvas is a source map of cells: for each of its cells the cell of the swatch that it shows; see `source_maps`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import maxflow
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.canvas import pad
from ad_service.core.quilting.source_maps import Swatch

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]

FORBIDDEN_PRICE = 1e9
"""Price of what a cut must not do; all borders of a piece together cost far less."""

RIGHT = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 0]])
DOWN = RIGHT.T


@dataclass(frozen=True)
class CutOptions:
    """How visible cuts are found.

    Attributes:
        visible_cost: cost from which a cut is fully visible. Set by eye; the mean border cost of quilts of five
            photographs of 512 pixels is 0.08.
        band_rows: rows of cells whose borders are computed together; limits memory, does not change results.
    """

    visible_cost: float = 0.5
    band_rows: int = 128


class Borders:
    """The cost of one cell of a swatch's features (C, h, w) beside another, and the cheapest cuts.

    `contrast_floor` is that of `QuiltOptions`. Source maps are arrays of flat indices into the h * w cells.
    """

    def __init__(self, features: Tensor, contrast_floor: float) -> None:
        _, h, w = features.shape
        self.flat: Floats = features.flatten(1).t().contiguous().numpy()  # (h w, C)
        index = np.arange(h * w).reshape(h, w)
        edge = {axis: np.pad(index, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], "edge") for axis in (0, 1)}
        self.next: dict[int, Ints] = {0: edge[0][2:].ravel(), 1: edge[1][:, 2:].ravel()}
        self.before: dict[int, Ints] = {0: edge[0][:-2].ravel(), 1: edge[1][:, :-2].ravel()}
        floor = contrast_floor / 2 * float(features.var((1, 2)).sum()) + 1e-9  # a flat swatch has no contrast
        self.contrast: dict[int, Floats] = {
            axis: np.square(self.flat[self.next[axis]] - self.flat).sum(1) + floor for axis in (0, 1)
        }

    def cost(self, a: Ints, b: Ints, axis: int) -> Floats:
        """The cost of cells b below (axis 0) or right of (axis 1) cells a: 0 if b follows a in the swatch.

        Otherwise the squared difference of a's successor and b, and of a and b's predecessor, over the swatch's own
        contrast at both places (Kwatra et al. 2003, equation 4): a cut is more visible in plain places.
        """
        after_a, before_b = self.next[axis][a], self.before[axis][b]
        apart = np.square(self.flat[after_a] - self.flat[b]).sum(-1)
        apart += np.square(self.flat[a] - self.flat[before_b]).sum(-1)
        cost: Floats = apart / (self.contrast[axis][a] + self.contrast[axis][before_b])
        return cost

    def of_cells(self, source: Ints) -> Floats:
        """The cost (h, w) of each cell of a source map (h, w) with those of its four neighbors that are in it."""
        total = np.zeros(source.shape, np.float32)
        for axis, (first, second) in _both():
            cost = self.cost(source[first], source[second], axis)
            total[first] += cost
            total[second] += cost
        return total

    def sum(self, source: Ints) -> float:
        """The cost of all borders inside a source map (h, w)."""
        return float(sum(self.cost(source[first], source[second], i).sum() for i, (first, second) in _both()))

    def cut(self, old: Ints, new: Ints, laid: Mask, kept: Mask, price: Floats) -> Mask:
        """Which cells of a piece to take over the old ones, so that the borders inside cost least in total.

        A minimum cut: with x = 1 for a cell that is taken, pairs cost E(x_a, x_b) with E(1, 1) = 0, and E(0, 0) is
        lowered to E(0, 1) + E(1, 0) if it is greater (Kolmogorov and Zabih 2004).

        Args:
            old: source map (n, n) of the canvas.
            new: source map (n, n) of the piece.
            laid: where the canvas has cells; all others are taken and have no borders yet.
            kept: cells that must not be taken.
            price: of each cell that is taken.
        """
        take_price = price.astype(np.float64)
        graph = maxflow.GraphFloat(old.size, 2 * old.size)
        nodes = graph.add_grid_nodes(old.shape)
        for axis, (first, second) in _both():
            both_old = self.cost(old[first], old[second], axis) * (laid[first] & laid[second])
            second_new = self.cost(old[first], new[second], axis) * laid[first]
            first_new = self.cost(new[first], old[second], axis) * laid[second]
            both_old = np.minimum(both_old, first_new + second_new)
            take_price[first] += first_new - both_old
            take_price[second] -= first_new
            weights = np.zeros(old.shape)
            weights[first] = first_new + second_new - both_old
            graph.add_grid_edges(nodes, weights, DOWN if axis == 0 else RIGHT)
        take_price[~laid] = -FORBIDDEN_PRICE
        take_price[kept] = FORBIDDEN_PRICE
        graph.add_grid_tedges(nodes, take_price.clip(0), (-take_price).clip(0))
        graph.maxflow()
        take: Mask = graph.get_grid_segments(nodes)
        return take


Slices: TypeAlias = tuple[slice, slice]


def _pairs(axis: int) -> tuple[Slices, Slices]:
    """The slices of the upper (left) and of the lower (right) cells of all pairs of neighbors."""
    every, first, second = slice(None), slice(None, -1), slice(1, None)
    return ((first, every), (second, every)) if axis == 0 else ((every, first), (every, second))


def _both() -> Iterator[tuple[int, tuple[Slices, Slices]]]:
    return enumerate((_pairs(0), _pairs(1)))


def visible_cuts(
    source: Tensor,
    swatch: Swatch,
    contrast_floor: float,
    reach: int,
    tiles: tuple[bool, bool],
    options: CutOptions = CutOptions(),
) -> Tensor:
    """How near each cell of a source map (H, W) is to a visible cut: (H, W), 1 at one, falling to 0 at `reach` cells.

    A cut that costs `options.visible_cost` or more is visible, a cheaper one proportionally less.
    """
    H, W = source.shape
    borders = Borders(swatch.features, contrast_floor)
    edge_y, edge_x = (int(tile) for tile in tiles)  # a torus gets one more cell at each side
    framed = source[torch.arange(-edge_y, H + edge_y) % H][:, torch.arange(-edge_x, W + edge_x) % W].numpy()
    cost = torch.empty(H, W)
    for y in range(0, H, options.band_rows):
        first = max(y + edge_y - 1, 0)
        rows = framed[first : y + options.band_rows + edge_y + 1]
        band = borders.of_cells(rows)[y + edge_y - first :, edge_x : edge_x + W]
        cost[y : y + options.band_rows] = torch.from_numpy(band[: min(options.band_rows, H - y)])
    near = (cost / options.visible_cost).clamp(max=1)[None, None]
    for _ in range(reach):
        near = torch.maximum(near, F.max_pool2d(pad(near, 1, tiles), 3, 1) - 1 / reach)
    return near[0, 0].clamp(min=0)
