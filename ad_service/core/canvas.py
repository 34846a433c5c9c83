"""The canvas: a latent picture that is a torus along each tiling axis, and the windows of it that a model sees.

Pure geometry without randomness: offsets are passed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """Height and width of a canvas in cells or latents, and along which axes it tiles."""

    height: int
    width: int
    tile_y: bool
    tile_x: bool


@dataclass(frozen=True)
class Window:
    """A rectangle of the canvas; along a tiling axis it can cross the edge, and be longer than the canvas."""

    y: int
    x: int
    height: int
    width: int

    def rows(self, shape: Shape) -> Tensor:
        """Indices (height,) of its rows, wrapped."""
        return (torch.arange(self.height) + self.y) % shape.height

    def columns(self, shape: Shape) -> Tensor:
        """Indices (width,) of its columns, wrapped."""
        return (torch.arange(self.width) + self.x) % shape.width


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is at least `value`."""
    return -(-value // multiple) * multiple


def starts_along(length: int, side: int, tile: bool, offset: int) -> list[int]:
    """First indices of the fewest windows of `side` that cover `length` evenly, moved by `offset`.

    On a torus all windows move by any offset. With real edges the first window starts at 0 and the last one ends at
    `length`; the inner ones move within their overlap, so that their borders are not always at the same place.
    """
    count = math.ceil(length / side)
    if tile:
        return [(round(i * length / count) + offset) % length for i in range(count)]
    if count == 1:
        return [0]
    slack = count * side - length
    if slack == 0 and count > 1 and offset % side:  # exact fit: one more window, so that borders can move
        first = offset % side
        return [0, *range(first, length - side, side), length - side]
    step = (length - side) / (count - 1)
    reach = max(0, int(side - step) // 2)
    move = offset % (2 * reach + 1) - reach if reach else 0
    inner = [min(max(round(i * step) + move, 0), length - side) for i in range(1, count - 1)]
    return [0, *inner, length - side]


def windows(shape: Shape, side: int, offset: tuple[int, int], multiple: int = 8) -> list[Window]:
    """Windows of at most `side` latents that cover the canvas with minimal overlap (arXiv 2407.15507).

    A canvas smaller than `side` gets one window, whose sides are rounded up to `multiple` along tiling axes.
    """
    height = min(side, round_up(shape.height, multiple) if shape.tile_y else shape.height)
    width = min(side, round_up(shape.width, multiple) if shape.tile_x else shape.width)
    ys = starts_along(shape.height, height, shape.tile_y, offset[0])
    xs = starts_along(shape.width, width, shape.tile_x, offset[1])
    return [Window(y, x, height, width) for y in ys for x in xs]


def pad(picture: Tensor, margin: int, tiles: tuple[bool, bool]) -> Tensor:
    """A picture (1, C, H, W) with a margin: wrapped along tiling axes (y, x), edges repeated along the others."""
    H, W = picture.shape[2:]
    rows, columns = around(0, H, margin, H, tiles[0]), around(0, W, margin, W, tiles[1])
    return picture[:, :, rows][..., columns]


def around(start: int, length: int, margin: int, total: int, tile: bool) -> Tensor:
    """Indices start - margin .. start + length + margin of an axis: wrapped if it tiles, otherwise clamped to it."""
    index = torch.arange(start - margin, start + length + margin)
    return index % total if tile else index.clamp(0, total - 1)


def resized(picture: Tensor, height: int, width: int, tiles: tuple[bool, bool]) -> Tensor:
    """A picture (3, h, w) in [0, 1] at another size; along tiling axes (y, x) it tiles as before."""
    for axis, (length, tile) in enumerate(zip((height, width), tiles, strict=True), 1):
        if picture.shape[axis] != length:
            copies = 3 if tile else 1
            size = (picture.shape[1], length * copies) if axis == 2 else (length * copies, picture.shape[2])
            wide = torch.cat([picture] * copies, axis)
            large = F.interpolate(wide[None], size, mode="bicubic", antialias=True, align_corners=False)[0]
            picture = large.narrow(axis, length * (copies // 2), length).clamp(0, 1)
    return picture


def cut_windows(canvas: Tensor, spots: Sequence[Window], shape: Shape) -> Tensor:
    """The windows (B, C, h, w) of a canvas (C, H, W)."""
    return torch.stack([canvas[:, w.rows(shape)][:, :, w.columns(shape)] for w in spots])


def feather(height: int, width: int, margin: int) -> Tensor:
    """Weights (h, w) in (0, 1] that fall towards the border of a window over `margin` cells."""

    def ramp(length: int) -> Tensor:
        distance = torch.minimum(torch.arange(length), torch.arange(length).flip(0)) + 1
        return (distance / (margin + 1)).clamp_max(1)

    return ramp(height)[:, None] * ramp(width)[None, :]


class Accumulator:
    """Averages windows back into a canvas, with weights that fall towards the border of each window."""

    def __init__(self, channels: int, shape: Shape, margin: int = 8) -> None:
        self.shape = shape
        self.margin = margin
        self.total = torch.zeros(channels, shape.height, shape.width)
        self.weight = torch.zeros(shape.height, shape.width)

    def add(self, spots: Sequence[Window], values: Tensor) -> None:
        """Add the values (B, C, h, w) of windows; they are copied from their device at once."""
        for window, value in zip(spots, values.to("cpu", self.total.dtype), strict=True):
            weight = feather(window.height, window.width, self.margin)
            rows, columns = window.rows(self.shape), window.columns(self.shape)
            index = (rows[:, None] * self.shape.width + columns[None, :]).flatten()
            flat = (value * weight).flatten(1)
            self.total.view(self.total.shape[0], -1).index_add_(1, index, flat)
            self.weight.view(-1).index_add_(0, index, weight.flatten())

    def mean(self) -> Tensor:
        """The average (C, H, W); NaN in a cell that no window covered."""
        return self.total / self.weight
