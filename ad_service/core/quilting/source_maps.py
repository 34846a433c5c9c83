"""Source maps: for each cell of a canvas the cell of the swatch that it shows.

A source map (H, W) int64 holds flat indices y * w + x into the swatch's h x w cells. Random ones are made here, ones of
whole pieces of the swatch in `quilt`. `paint` makes the picture of one; pictures painted through the same map (colors,
other channels of the material) fit together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.canvas import Shape
from ad_service.core.labels import check, used
from ad_service.core.steps import checkpoint

_ROWS_AT_ONCE = 64
"""Rows of cells that are painted together; limits memory, does not change results."""


@dataclass(frozen=True)
class Swatch:
    """The swatch in cells, as quilts see it.

    Attributes:
        features: (C, h, w), compared where pieces meet; see `patch_features`.
        labels: (h, w), or None for a swatch of one material.
        periods: (1 or 2, 2), rows (down, right) in cells, of a regular swatch that closes on the torus.
    """

    features: Tensor
    labels: Tensor | None = None
    periods: Tensor | None = None


def random_source_map(swatch: Swatch, shape: Shape, layout: Tensor | None, generator: torch.Generator) -> Tensor:
    """A source map (H, W) of random cells, each with the label that the layout (H, W) has there.

    Raises LabelError for a label of the layout that no cell of the swatch has.
    """
    if layout is None or swatch.labels is None:
        cells = swatch.features.shape[1] * swatch.features.shape[2]
        return torch.randint(cells, (shape.height, shape.width), generator=generator)
    check(layout, swatch.labels)
    out = torch.zeros(shape.height, shape.width, dtype=torch.long)
    flat = swatch.labels.flatten()
    for label in used(layout):
        where = layout == label
        pool = (flat == label).nonzero()[:, 0]
        out[where] = pool[torch.randint(len(pool), (int(where.sum()),), generator=generator)]
    return out


def patch_features(picture: Tensor, cell: int, components: int = 12) -> Tensor:
    """The leading principal components (components, h, w) of the blocks of a picture (C, h * cell, w * cell)."""
    blocks = F.pixel_unshuffle(picture[None], cell)[0]
    flat = blocks.flatten(1).t()
    flat = flat - flat.mean(0)
    basis = torch.linalg.eigh(flat.t() @ flat)[1].flip(1)[:, :components]
    return (flat @ basis).t().reshape(-1, *blocks.shape[1:])


def paint(source: Tensor, picture: Tensor, cell: int, tiles: tuple[bool, bool]) -> Tensor:
    """The picture (C, H * cell, W * cell) of a source map (H, W) of cell x cell pixels of a picture (C, h, w).

    The four cells whose middles surround a pixel are blended, so that a cut runs smoothly over the corners of cells;
    cells that are neighbors in the swatch give its own pixels exactly. `tiles` says whether y and x tile.
    """
    columns = picture.shape[2] // cell
    return paint_places(torch.stack([source // columns, source % columns]) * cell, picture, cell, tiles)


def paint_places(places: Tensor, picture: Tensor, cell: int, tiles: tuple[bool, bool]) -> Tensor:
    """As `paint`, from the pixel (2, H, W), row and column, of the picture at the upper left corner of each cell."""
    H, W = places.shape[1:]
    out = torch.empty(picture.shape[0], H * cell, W * cell)
    for top in range(0, H, _ROWS_AT_ONCE):
        checkpoint()
        rows = torch.arange(top, min(top + _ROWS_AT_ONCE, H))
        out[:, top * cell : top * cell + len(rows) * cell] = _paint_rows(rows, places, picture, cell, tiles)
    return out


def _paint_rows(rows: Tensor, places: Tensor, picture: Tensor, cell: int, tiles: tuple[bool, bool]) -> Tensor:
    """The pixels of some rows of cells: (C, len(rows) * cell, W * cell)."""
    H, W = places.shape[1:]
    offset = torch.arange(cell)
    low = (offset < cell / 2).long()  # the upper left of the four cells is the one before, for the first half
    share = ((offset + 0.5) / cell + 0.5) % 1.0  # weight of the lower right one, along one axis
    out = torch.zeros(picture.shape[0], len(rows) * cell, W * cell)
    total = torch.zeros(out.shape[1:])
    for down in (0, 1):
        for right in (0, 1):
            near_rows, dy = _neighbors(rows, H, cell, down - low, tiles[0])
            near_columns, dx = _neighbors(torch.arange(W), W, cell, right - low, tiles[1])
            place = places[:, near_rows[:, None], near_columns[None, :]]
            y = (place[0] + dy[:, None]).clamp(0, picture.shape[1] - 1)
            x = (place[1] + dx[None, :]).clamp(0, picture.shape[2] - 1)
            wy, wx = (share if side else 1 - share for side in (down, right))
            weight = (wy.repeat(len(rows))[:, None] * wx.repeat(W)[None, :]) ** 2
            out += picture[:, y, x] * weight
            total += weight
    return out / total


def _neighbors(cells: Tensor, length: int, cell: int, step: Tensor, tile: bool) -> tuple[Tensor, Tensor]:
    """For each pixel of cells along an axis: the cell `step` (cell,) further, and the pixel's offset from its start."""
    index = cells.repeat_interleave(cell) + step.repeat(len(cells))
    inside = index % length if tile else index.clamp(0, length - 1)
    pixel = torch.arange(cell).repeat(len(cells)) - cell * step.repeat(len(cells))
    return inside, pixel + cell * (index - inside) * (not tile)


def gather(source: Tensor, picture: Tensor) -> Tensor:
    """The values (C, H, W) that a source map (H, W) shows of a picture with one value per cell (C, h, w)."""
    return picture.flatten(1)[:, source.flatten()].view(picture.shape[0], *source.shape)
