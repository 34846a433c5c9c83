"""The border of an area in a picture, compared with the same border laid at other places of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_PLACES = 12
"""Other places at which the same border is laid."""

_MOST_PAIRS = 20_000
"""Pairs of pixels over the border that are compared; more do not change the third digit."""


@dataclass(frozen=True)
class AreaBorder:
    """How much a picture differs over the border of an area, relative to the same border laid elsewhere.

    Near 1 for a border that does not show. `single` compares neighboring pixels, `band` the means of eight pixels at
    both sides, which detects a step of tone that grain hides.
    """

    single: float
    band: float


def area_border(picture: Tensor, area: Tensor, tiles: tuple[bool, bool], band: int = 8) -> AreaBorder:
    """The border of an area (H, W) of a picture (3, H, W). 1 for an area without a border.

    The other places are random but always the same. Beyond an edge of the picture that does not tile, its last pixel
    is repeated.
    """
    generator = torch.Generator().manual_seed(0)
    found = []  # (pixel y, x, step y, step x) of the pixels before the border, looking into the other side
    for axis, tile in enumerate(tiles):
        differs = area != area.roll(-1, axis)
        if not tile:
            differs.select(axis, -1).zero_()
        y, x = differs.nonzero(as_tuple=True)
        step = torch.tensor([[1, 0], [0, 1]][axis]).expand(len(y), 2)
        found.append(torch.cat([torch.stack([y, x], 1), step], 1))
    pairs = torch.cat(found)
    if not len(pairs):
        return AreaBorder(1.0, 1.0)
    pairs = pairs[torch.randperm(len(pairs), generator=generator)[:_MOST_PAIRS]]
    size = torch.tensor(area.shape)
    here = _differences(picture, pairs, tiles, band)
    shifts = (torch.rand(_PLACES, 2, generator=generator) * size).long()
    elsewhere = []
    for shift in shifts:
        moved = pairs.clone()
        moved[:, :2] = (moved[:, :2] + shift) % size
        elsewhere.append(_differences(picture, moved, tiles, band))
    ordinary = torch.stack(elsewhere).mean(0).clamp_min(1e-6)
    single, band_ratio = (here / ordinary).tolist()
    return AreaBorder(single, band_ratio)


def _differences(picture: Tensor, pairs: Tensor, tiles: tuple[bool, bool], band: int) -> Tensor:
    """The mean absolute differences (2,) over pairs (n, 4): of single pixels, and of bands."""
    place, step = pairs[:, None, :2], pairs[:, None, 2:]
    counts = torch.arange(band)[None, :, None]

    def values(at: Tensor) -> Tensor:  # (3, n, band)
        axes = [
            at[..., i] % n if tile else at[..., i].clamp(0, n - 1)
            for i, (n, tile) in enumerate(zip(picture.shape[1:], tiles, strict=True))
        ]
        return picture[:, axes[0], axes[1]]

    before, after = values(place - counts * step), values(place + (1 + counts) * step)
    single = (before[..., 0] - after[..., 0]).abs().mean()
    return torch.stack([single, (before.mean(2) - after.mean(2)).abs().mean()])
