"""Batches of crops: zoomed, mirrored, turned, recolored and relit; the normals turn with them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.maps.training.materials import Surface, slopes
from ad_service.pocket.training.photographs import relight
from ad_service.pocket.training.rng import chance, integer, uniform

ZOOM = (0.6, 2.0)
"""Pixels of a material per pixel of a crop."""


@dataclass(frozen=True)
class Batch:
    """Crops with the truth about them; a map that a material lacks is zero, and so is its weight.

    Attributes:
        color: (B, 3, s, s) in [0, 1].
        slopes: (B, 2, s, s) along x (right) and y (up).
        roughness: (B, 1, s, s) in [0, 1].
        height: (B, 1, s, s), in any unit.
        has: (B, 3) 1 where there are normal, roughness and height.
    """

    color: Tensor
    slopes: Tensor
    roughness: Tensor
    height: Tensor
    has: Tensor


def recolor(color: Tensor, g: torch.Generator) -> Tensor:
    """Change exposure, contrast, white balance and saturation a little, as cameras differ; add their noise."""
    gray = color.mean(0, keepdim=True)
    color = gray + (color - gray) * math.exp(uniform(g, -0.3, 0.3))
    tint = (0.07 * torch.randn(3, 1, 1, generator=g)).exp()
    color = color.clamp(0, 1) ** math.exp(uniform(g, -0.25, 0.25)) * tint * math.exp(uniform(g, -0.2, 0.2))
    if chance(g, 0.4):
        color = color + uniform(g, 0, 0.03) * torch.randn(color.shape, generator=g)
    return color.clamp(0, 1)


def turn(crop: Tensor, quarters: int, mirrored: bool) -> Tensor:
    """Mirror a stack of channels and turn it by quarters. (c, s, s), the first two channels being slopes along x and y."""
    if mirrored:
        crop = torch.cat([-crop[:1], crop[1:]]).flip(-1)
    for _ in range(quarters):  # counterclockwise: what was right is up
        crop = torch.rot90(crop, 1, (1, 2))
        crop = torch.cat([-crop[1:2], crop[:1], crop[2:]])
    return crop


def crop(surface: Surface, size: int, relit: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random square of a material: channels (7, size, size) slopes, color, roughness, height; which are known (3,)."""
    h, w = surface.color.shape[1:]
    zoom = 1.0 if chance(g, 0.3) else math.exp(uniform(g, math.log(ZOOM[0]), math.log(ZOOM[1])))
    side = min(round(size * zoom), h, w)
    y, x = integer(g, 0, h - side + 1), integer(g, 0, w - side + 1)

    def part(m: Tensor | None, channels: int) -> Tensor:
        if m is None:
            return torch.zeros(channels, side, side)
        return m[:, y : y + side, x : x + side].float() / 255

    color = part(surface.color, 3)
    slope = torch.zeros(2, side, side)
    if surface.normal is not None:
        inside = surface.normal[:, y : y + side, x : x + side]
        slope = slopes(inside) - torch.tensor(surface.tilt)[:, None, None]
        if chance(g, relit):
            height = None if surface.height is None else part(surface.height, 1)
            color = relight(color, inside.float() / 127.5 - 1, height, g)
    stack = torch.cat([slope, color, part(surface.roughness, 1), part(surface.height, 1)])
    if side != size:
        stack = F.interpolate(stack[None], size=(size, size), mode="bilinear", antialias=True)[0]
    stack = turn(stack, integer(g, 0, 4), chance(g, 0.5))
    known = torch.tensor([m is not None for m in (surface.normal, surface.roughness, surface.height)]).float()
    return torch.cat([stack[:2], recolor(stack[2:5], g), stack[5:]]), known


def batch(surfaces: list[list[Surface]], shares: list[float], size: int, count: int, relit: float, g: torch.Generator) -> Batch:
    """Crops of materials from several lists, each chosen as often as its share says."""
    crops, known = [], []
    for _ in range(count):
        group = surfaces[int(torch.multinomial(torch.tensor(shares), 1, generator=g))]
        stack, has = crop(group[integer(g, 0, len(group))], size, relit, g)
        crops.append(stack)
        known.append(has)
    x = torch.stack(crops)
    return Batch(x[:, 2:5], x[:, :2], x[:, 5:6], x[:, 6:], torch.stack(known))
