"""Training data at the network's own resolution, and batches of crops: mirrored, turned, recolored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.materials.estimate_network import CELL, FEATURES, GRID, features
from ad_service.maps.training.materials import Surface, slopes
from ad_service.pocket.training.photographs import relight
from ad_service.pocket.training.rng import chance, integer, uniform

ZOOMS = (1.0, 1.5, 0.75)
"""Pixels of a material per pixel of what the network sees."""
MIN_CELLS = 64
"""Fewest cells of the shorter side."""


@dataclass(frozen=True)
class Sample:
    """A material as the network sees it, in 16 bit.

    Attributes:
        channels: (FEATURES + 4, h, w): features of the picture, slopes along x and y, roughness, height.
        has: (3,) 1 where there are normal, roughness and height; what is missing is zero.
    """

    channels: Tensor
    has: Tensor


@dataclass(frozen=True)
class Batch:
    """Crops: features (B, FEATURES, s, s), slopes (B, 2, s, s), roughness and height (B, 1, s, s), has (B, 3)."""

    features: Tensor
    slopes: Tensor
    roughness: Tensor
    height: Tensor
    has: Tensor


def sample(surface: Surface, zoom: float, relit: bool, g: torch.Generator) -> Sample | None:
    """A material at a size, perhaps lit from the side; None if it is too small for that."""
    size = [round(n / zoom / GRID) * GRID for n in surface.color.shape[1:]]
    if min(size) < MIN_CELLS * CELL:
        return None
    color = surface.color.float() / 255
    slope, channels = torch.zeros(2, *color.shape[1:]), []
    if surface.normal is not None:
        slope = slopes(surface.normal) - torch.tensor(surface.tilt)[:, None, None]
        if relit:
            height = None if surface.height is None else surface.height.float() / 255
            color = relight(color, surface.normal.float() / 127.5 - 1, height, g)
    channels = [
        m.float() / 255 if m is not None else torch.zeros_like(color[:1]) for m in (surface.roughness, surface.height)
    ]
    if list(color.shape[1:]) != size:
        color = F.interpolate(color[None], size, mode="bilinear", antialias=True)[0]
    cells = [n // CELL for n in size]
    maps = F.interpolate(torch.cat([slope, *channels])[None], cells, mode="bilinear", antialias=True)[0]
    has = torch.tensor([m is not None for m in (surface.normal, surface.roughness, surface.height)]).float()
    return Sample(torch.cat([features(color[None], (True, True))[0], maps]).half(), has)


def samples(surface: Surface, zooms: tuple[float, ...], g: torch.Generator) -> list[Sample]:
    """A material at several sizes, and once relit."""
    variants = [(zoom, False) for zoom in zooms] + ([(1.0, True)] if surface.normal is not None else [])
    return [s for zoom, relit in variants if (s := sample(surface, zoom, relit, g)) is not None]


def turn(crop: Tensor, quarters: int, mirrored: bool) -> Tensor:
    """Mirror channels (c, s, s) and turn them by quarters; the first two are slopes along x and y."""
    if mirrored:
        crop = torch.cat([-crop[:1], crop[1:]]).flip(-1)
    for _ in range(quarters):  # counterclockwise: what was right is up
        crop = torch.rot90(crop, 1, (1, 2))
        crop = torch.cat([-crop[1:2], crop[:1], crop[2:]])
    return crop


def cut(found: Sample, side: int, g: torch.Generator) -> Tensor:
    """A random square of a sample, as channels slopes, roughness, height, features."""
    h, w = found.channels.shape[1:]
    y, x = integer(g, 0, h - side + 1), integer(g, 0, w - side + 1)
    crop = found.channels[:, y : y + side, x : x + side].float()
    crop = turn(crop.roll(4, 0), integer(g, 0, 4), chance(g, 0.5))
    crop[4:7] = (
        crop[4:7] * math.exp(uniform(g, -0.2, 0.2)) + uniform(g, -0.15, 0.15) + 0.05 * torch.randn(3, 1, 1, generator=g)
    )
    return crop


def batch(groups: list[list[list[Sample]]], shares: list[float], side: int, count: int, g: torch.Generator) -> Batch:
    """Crops of materials from several groups, each group chosen as often as its share says."""
    crops, known = [], []
    for _ in range(count):
        group = groups[int(torch.multinomial(torch.tensor(shares), 1, generator=g))]
        variants = group[integer(g, 0, len(group))]
        found = variants[integer(g, 0, len(variants))]
        crops.append(cut(found, min(side, *found.channels.shape[1:]), g))
        known.append(found.has)
    side = min(c.shape[-1] for c in crops)
    x = torch.stack([c[:, :side, :side] for c in crops])
    assert x.shape[1] == 4 + FEATURES
    return Batch(x[:, 4:], x[:, :2], x[:, 2:3], x[:, 3:4], torch.stack(known))
