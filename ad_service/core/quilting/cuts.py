"""Cuts: what it costs that pieces of a swatch meet on a canvas, where they meet best, and where one sees it.

A canvas is a source map of cells: for each of its cells the cell of the swatch that it shows; see `starts`.
"""

from __future__ import annotations

from collections.abc import Iterator
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

BAND = 128
"""Rows of cells whose borders are looked at together."""

VISIBLE = 0.5
"""The price from which on a cut is plainly seen."""

NEVER = 1e9
"""The price of what must not be; all borders of a piece together cost far less."""

RIGHT = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 0]])
DOWN = RIGHT.T


class Borders:
    """What it costs that one cell of a swatch (C, h, w) stands beside another, and the cheapest cuts."""

    def __init__(self, features: Tensor, contrast_floor: float) -> None:  # see QuiltOptions
        _, h, w = features.shape
        self.flat: Floats = features.flatten(1).t().contiguous().numpy()  # (h w, C)
        index = np.arange(h * w).reshape(h, w)
        edge = {axis: np.pad(index, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], "edge") for axis in (0, 1)}
        self.next: dict[int, Ints] = {0: edge[0][2:].ravel(), 1: edge[1][:, 2:].ravel()}
        self.before: dict[int, Ints] = {0: edge[0][:-2].ravel(), 1: edge[1][:, :-2].ravel()}
        least = contrast_floor / 2 * float(features.var((1, 2)).sum()) + 1e-9  # no contrast in a flat swatch
        self.contrast: dict[int, Floats] = {
            axis: np.square(self.flat[self.next[axis]] - self.flat).sum(1) + least for axis in (0, 1)
        }

    def cost(self, a: Ints, b: Ints, axis: int) -> Floats:
        """Cells b below (axis 0) or right of (axis 1) cells a: 0 where b follows a in the swatch.

        Else the squared difference of what should follow a to b, and of a to what should come before b, over the
        swatch's own contrast at both places (Kwatra et al. 2003, equation 4): in plain places a cut shows more.
        """
        after_a, before_b = self.next[axis][a], self.before[axis][b]
        apart = np.square(self.flat[after_a] - self.flat[b]).sum(-1)
        apart += np.square(self.flat[a] - self.flat[before_b]).sum(-1)
        cost: Floats = apart / (self.contrast[axis][a] + self.contrast[axis][before_b])
        return cost

    def of_cells(self, shown: Ints) -> Floats:
        """What each cell of a source map (h, w) costs with those of its four neighbours that are in it."""
        total = np.zeros(shown.shape, np.float32)
        for axis, (first, second) in _both():
            cost = self.cost(shown[first], shown[second], axis)
            total[first] += cost
            total[second] += cost
        return total

    def sum(self, shown: Ints) -> float:
        """The cost of all borders inside a source map (h, w)."""
        return float(sum(self.cost(shown[first], shown[second], i).sum() for i, (first, second) in _both()))

    def cut(self, old: Ints, new: Ints, laid: Mask, kept: Mask, price: Floats) -> Mask:
        """Which cells of a piece `new` (n, n) to take over `old`, so that the borders inside cost least together.

        What is not `laid` is taken and has no borders yet; what is `kept` is not taken; a cell taken costs `price`.
        A minimum cut: with x = 1 for a cell that is taken, pairs cost E(x_a, x_b) with E(1, 1) = 0, and E(0, 0) is
        lowered to E(0, 1) + E(1, 0) where it is greater (Kolmogorov and Zabih 2004).
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
        take_price[~laid] = -NEVER
        take_price[kept] = NEVER
        graph.add_grid_tedges(nodes, take_price.clip(0), (-take_price).clip(0))
        graph.maxflow()
        take: Mask = graph.get_grid_segments(nodes)
        return take


Slices: TypeAlias = tuple[slice, slice]


def _pairs(axis: int) -> tuple[Slices, Slices]:
    """Where the upper (left) and where the lower (right) cells of all pairs of neighbours are."""
    whole, first, second = slice(None), slice(None, -1), slice(1, None)
    return ((first, whole), (second, whole)) if axis == 0 else ((whole, first), (whole, second))


def _both() -> Iterator[tuple[int, tuple[Slices, Slices]]]:
    return enumerate((_pairs(0), _pairs(1)))


def visible_cuts(source: Tensor, swatch: Swatch, contrast_floor: float, reach: int, tiles: tuple[bool, bool]) -> Tensor:
    """How near each cell of a source map (H, W) is to a cut that shows: 1 at one, falling to 0 at `reach` cells.

    A cut of cost VISIBLE or more shows, a better one in part: where it runs unseen, nothing needs a change.
    """
    H, W = source.shape
    borders = Borders(swatch.features, contrast_floor)
    edge_y, edge_x = (int(tile) for tile in tiles)  # a torus is seen with one cell more at each side
    framed = source[torch.arange(-edge_y, H + edge_y) % H][:, torch.arange(-edge_x, W + edge_x) % W].numpy()
    cost = torch.empty(H, W)
    for y in range(0, H, BAND):
        first = max(y + edge_y - 1, 0)
        band = borders.of_cells(framed[first : y + BAND + edge_y + 1])[y + edge_y - first :, edge_x : edge_x + W]
        cost[y : y + BAND] = torch.from_numpy(band[: min(BAND, H - y)])
    near = (cost / VISIBLE).clamp(max=1)[None, None]
    for _ in range(reach):
        near = torch.maximum(near, F.max_pool2d(pad(near, 1, tiles), 3, 1) - 1 / reach)
    return near[0, 0].clamp(min=0)
