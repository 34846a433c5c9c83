"""Crops that pocket is trained on: of drawn textures and of photographed materials, alike recolored and softened."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.pocket.training.photographs import Material, crop_material
from ad_service.pocket.training.rng import chance, integer, uniform
from ad_service.pocket.training.settings import Run


def as_images(pixels: Tensor) -> Tensor:
    """uint8 (n, h, w, 3) -> (n, 3, h, w) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def load_textures(run: Run) -> Tensor:
    """The drawn textures, uint8 (n, side, side, 3), read from the file as needed."""
    return torch.from_numpy(np.load(run.textures_file, mmap_mode="c"))


@dataclass(frozen=True)
class Source:
    """Where crops come from: drawn textures (n, side, side, 3) uint8, and photographed materials."""

    textures: Tensor
    materials: list[Material] = field(default_factory=list)
    photograph_share: float = 2 / 3

    def crop(self, size: int, g: torch.Generator, softened: float = 0.0) -> Tensor:
        """A crop of a random texture or material, (1, 3, size, size) in [-1, 1].

        Args:
            softened: Share of drawn textures that are blurred a little, as photographs are.
        """
        if self.materials and chance(g, self.photograph_share):
            material = self.materials[integer(g, 0, len(self.materials))]
            image = recolor(mirror(crop_material(material, size, g)[None], g), g)
            return soften(image, g) if chance(g, 0.15) else image
        image = crop_textures(self.textures, g, 1, size)
        return soften(image, g) if chance(g, softened) else image


def crop_textures(textures: Tensor, g: torch.Generator, count: int, size: int) -> Tensor:
    """`count` crops of one random texture, turned, mirrored, scaled and recolored alike: (count, 3, size, size)."""
    texture = textures[integer(g, 0, len(textures))]
    side = size if chance(g, 0.6) else round(size * (1 + min(1.2, len(texture) / size - 1) * uniform(g)))
    corners = [[integer(g, 0, len(texture) - side + 1) for _ in range(2)] for _ in range(count)]
    images = as_images(torch.stack([texture[y : y + side, x : x + side] for y, x in corners]))
    if side != size:
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    return recolor(mirror(images, g), g)


def mirror(images: Tensor, g: torch.Generator) -> Tensor:
    """One of the eight symmetries of a square, for all of (n, c, h, h)."""
    images = images.flip(-1) if chance(g, 0.5) else images
    images = images.flip(-2) if chance(g, 0.5) else images
    return images.transpose(-1, -2) if chance(g, 0.5) else images


def recolor(images: Tensor, g: torch.Generator) -> Tensor:
    """Permute and scale the channels of (n, 3, h, w) in [-1, 1], each in about half of the calls."""
    if chance(g, 0.4):
        images = images[:, torch.randperm(3, generator=g)]
    if chance(g, 0.5):
        gain = 1 + 0.25 * (2 * torch.rand(3, 1, 1, generator=g) - 1)
        images = ((images + 1) * gain - 1).clamp(-1, 1)
    return images


def soften(images: Tensor, g: torch.Generator) -> Tensor:
    """Blur (n, 3, h, w) a little."""
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return images.lerp(blurred, 0.2 + 0.8 * uniform(g))
