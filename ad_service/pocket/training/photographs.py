"""Photographed materials as training data: which are held out, and crops at random scales, angles and lighting.

A folder of photographs has one subfolder per material (color.jpg, and normal_gl.jpg and height.jpg where there are
any), or pictures side by side; PNG and WebP are read too.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ad_service.pocket.training.rng import chance, uniform

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
VALIDATION_FRACTION = 5
"""One material of this number is held out for validation."""
MIN_SIDE = 256
"""Pictures with a shorter side than this are rejected."""
GAMMA = 2.2
SCALES = (0.75, 2.5)
"""Source pixels per pixel of a crop."""


@dataclass(frozen=True)
class Material:
    """A photographed material: color (h, w, 3), and the maps that it has, all uint8.

    normal (h, w, 3), OpenGL convention: green points up; height (h, w).
    """

    name: str
    color: Tensor
    normal: Tensor | None = None
    height: Tensor | None = None


def is_held_out(name: str) -> bool:
    """True for the fifth of the materials that is kept for validation; depends on the name alone."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % VALIDATION_FRACTION == 0


def read_picture(path: Path, mode: str) -> Tensor:
    """uint8 (h, w, 3), or (h, w) with mode L. PNG heights of 16 bit lose their lower 8."""
    with Image.open(path) as image:
        if mode == "L" and image.mode.startswith("I"):
            return torch.from_numpy((np.asarray(image, np.int32) >> 8).clip(0, 255).astype(np.uint8))
        return torch.from_numpy(np.asarray(image.convert(mode)).copy())


def read_map(folder: Path, stem: str, mode: str) -> Tensor | None:
    """A map of a material's folder by its name, or None if there is none."""
    for suffix in SUFFIXES:
        if (path := folder / f"{stem}{suffix}").exists():
            return read_picture(path, mode)
    return None


def read_material(path: Path) -> Material | None:
    """The material of a subfolder or of a picture; None if there is none. Maps of another size are left out.

    Raises:
        ValueError: The picture is too small.
    """
    if path.is_dir():
        color = read_map(path, "color", "RGB")
        if color is None:
            return None
        normal, height = read_map(path, "normal_gl", "RGB"), read_map(path, "height", "L")
        normal, height = (m if m is not None and m.shape[:2] == color.shape[:2] else None for m in (normal, height))
        material = Material(path.name, color, normal, height)
    elif path.suffix.lower() in SUFFIXES:
        material = Material(path.stem, read_picture(path, "RGB"))
    else:
        return None
    if min(material.color.shape[:2]) < MIN_SIDE:
        raise ValueError(f"{path}: its shorter side has fewer than {MIN_SIDE} pixels")
    return material


def read_materials(folder: Path) -> tuple[list[Material], list[Material]]:
    """The materials of a folder for training, and those held out, in the order of their names.

    Raises:
        ValueError: There is nothing to train on.
    """
    found = [m for path in sorted(folder.iterdir()) if (m := read_material(path)) is not None]
    training = [m for m in found if not is_held_out(m.name)]
    held_out = [m for m in found if is_held_out(m.name)]
    if not training:
        raise ValueError(f"{folder}: no photographs to train on ({len(found)} found, {len(held_out)} held out)")
    return training, held_out


def relight(color: Tensor, normal: Tensor | None, height: Tensor | None, g: torch.Generator) -> Tensor:
    """Shade a picture by a random lamp, relative to the same light on a flat surface.

    A flat normal map, (0, 0, 1) everywhere, and a constant height leave it unchanged.

    Args:
        color: (3, h, w) in [0, 1], sRGB.
        normal: (3, h, w), components in [-1, 1], OpenGL convention.
        height: (1, h, w) in [0, 1]; hollows become darker.
    """
    gain = torch.ones_like(color[:1])
    if normal is not None:
        azimuth, elevation = uniform(g, 0, 2 * math.pi), uniform(g, 0.5, 1.2)
        ambient, relief = uniform(g, 0.2, 0.6), uniform(g, 0.5, 1.5)
        x, y, z = F.normalize(normal * normal.new_tensor([relief, relief, 1])[:, None, None], dim=0)
        flat = math.cos(elevation) * (math.cos(azimuth) * x + math.sin(azimuth) * y) + math.sin(elevation) * z
        gain = ambient + (1 - ambient) * (flat.clamp_min(0) / math.sin(elevation))[None]
    if height is not None:
        strength, radius = uniform(g, 0, 1.5), int(uniform(g, 3, 12))
        around = F.avg_pool2d(height[None], 2 * radius + 1, 1, radius, count_include_pad=False)[0]
        gain = gain * (1 + strength * (height - around)).clamp(0.3, 1.3)
    return (color * gain.clamp_min(1e-4) ** (1 / GAMMA)).clamp(0, 1)


def crop_material(material: Material, size: int, g: torch.Generator) -> Tensor:
    """A random square of a material at a random scale, often relit and sometimes turned by any angle.

    Returns:
        (3, size, size) in [-1, 1].
    """
    h, w = material.color.shape[:2]
    turned = chance(g, 0.3) and min(h, w) > 1.45 * size
    need = math.ceil(size * math.sqrt(2)) if turned else size
    scale = 1.0 if chance(g, 0.35) else math.exp(uniform(g, math.log(SCALES[0]), math.log(SCALES[1])))
    side = min(round(need * scale), h, w)
    y, x = (int(uniform(g) * (n - side + 1)) for n in (h, w))

    def part(m: Tensor) -> Tensor:
        return m[y : y + side, x : x + side].reshape(side, side, -1).permute(2, 0, 1).float() / 255

    color = part(material.color)
    if material.normal is not None and chance(g, 0.7):
        height = None if material.height is None else part(material.height)
        color = relight(color, 2 * part(material.normal) - 1, height, g)
    image = color[None] * 2 - 1
    if side != need:
        image = F.interpolate(image, size=(need, need), mode="bilinear", antialias=True)
    return (turn(image, size, uniform(g, 0, 2 * math.pi)) if turned else image)[0]


def turn(image: Tensor, size: int, angle: float) -> Tensor:
    """The middle of an image (1, c, h, h), turned: (1, c, size, size)."""
    c, s = math.cos(angle), math.sin(angle)
    matrix = torch.tensor([[[c, -s, 0], [s, c, 0]]]) * (size / image.shape[-1])
    grid = F.affine_grid(matrix, [1, image.shape[1], size, size], align_corners=False)
    return F.grid_sample(image, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(-1, 1)
