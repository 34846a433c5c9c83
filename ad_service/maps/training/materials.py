"""Materials with maps as training data: photographed ones, a fifth held out, and drawn ones whose height is known."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ad_service.pocket.training.noise import log_uniform
from ad_service.pocket.training.photographs import is_held_out, read_map
from ad_service.pocket.training.textures import SIZE, camera, material

MIN_AGREEMENT = 0.1
"""A normal map whose slopes correlate less than this with the slope of the same material's height is left out.

Of 199 materials one is (roof_slates_02: -0.01; its maps are of different places). Negative values would mean a
flipped green channel; there are none.
"""
NEARLY_FLAT = 0.01
"""Slopes below this (root mean square) are rounding of 8-bit normals: no agreement is asked of them."""


@dataclass(frozen=True)
class Surface:
    """A material: color (3, h, w) and the maps that it has, all uint8 of one size.

    Attributes:
        normal: (3, h, w), OpenGL convention.
        roughness: (1, h, w).
        height: (1, h, w).
        tilt: mean slope (x, y) of the normal map, which no picture shows.
    """

    name: str
    color: Tensor
    normal: Tensor | None = None
    roughness: Tensor | None = None
    height: Tensor | None = None
    tilt: tuple[float, float] = (0.0, 0.0)


def slopes(normal: Tensor) -> Tensor:
    """Slopes of the surface along x (right) and y (up) from a normal map: uint8 (3, h, w) -> (2, h, w), in [-5, 5]."""
    x, y, z = normal.float() / 127.5 - 1
    up: Tensor = z.clamp_min(0.1).clamp_min(0.2 * torch.maximum(x.abs(), y.abs()))
    return torch.stack([-x, -y]) / up


def gradient(height: Tensor) -> Tensor:
    """Slopes along x (right) and y (up) by central differences: (..., 1, h, w) -> (..., 2, h - 2, w - 2)."""
    x = height[..., 1:-1, 2:] - height[..., 1:-1, :-2]
    y = height[..., :-2, 1:-1] - height[..., 2:, 1:-1]
    return torch.cat([x, y], -3) / 2


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation over the last two dimensions, with what lies in the third last pooled."""
    a, b = (t - t.mean((-2, -1), keepdim=True) for t in (a, b))
    norm = ((a * a).sum((-3, -2, -1)) * (b * b).sum((-3, -2, -1))).clamp_min(1e-12).sqrt()
    return (a * b).sum((-3, -2, -1)) / norm


def agrees(normal: Tensor, height: Tensor) -> bool:
    """False if the normals are not those of the height, though there is a relief."""
    true = F.avg_pool2d(slopes(normal)[:, 1:-1, 1:-1], 8)
    if float((true - true.mean((-2, -1), keepdim=True)).square().mean().sqrt()) < NEARLY_FLAT:
        return True
    return float(correlation(F.avg_pool2d(gradient(height.float()), 8), true)) > MIN_AGREEMENT


def read_surface(folder: Path) -> Surface | None:
    """The material of a folder, or None without color.jpg. Maps of another size are left out, as are false normals."""
    color = read_map(folder, "color", "RGB")
    if color is None:
        return None
    color = color.permute(2, 0, 1).contiguous()

    def channel(stem: str, mode: str) -> Tensor | None:
        m = read_map(folder, stem, mode)
        if m is None or m.shape[:2] != color.shape[1:]:
            return None
        return m.reshape(*m.shape[:2], -1).permute(2, 0, 1).contiguous()

    normal, height = channel("normal_gl", "RGB"), channel("height", "L")
    if normal is not None and height is not None and not agrees(normal, height):
        print(f"{folder.name}: its normals and its height disagree; its normals are left out", flush=True)
        normal = None
    x, y = (0.0, 0.0) if normal is None else slopes(normal).mean((1, 2)).tolist()
    return Surface(folder.name, color, normal, channel("roughness", "L"), height, (x, y))


def read_surfaces(folder: Path) -> tuple[list[Surface], list[Surface]]:
    """The materials of a folder for training, and the fifth that pocket's training holds out too.

    Raises:
        ValueError: There is nothing to train on.
    """
    found = [s for path in sorted(folder.iterdir()) if path.is_dir() and (s := read_surface(path)) is not None]
    training = [s for s in found if not is_held_out(s.name)]
    if not training:
        raise ValueError(f"{folder}: no materials to train on ({len(found)} found, all held out)")
    return training, [s for s in found if is_held_out(s.name)]


def draw_surface(seed: int) -> Surface:
    """A drawn material: its picture, most lit from some side, and its height and normal."""
    rng = np.random.default_rng(seed)
    image, height = material(rng)
    picture = camera(rng, image)
    low = np.asarray(Image.fromarray(height).resize((SIZE, SIZE), Image.Resampling.BOX), np.float32)
    relief = torch.from_numpy((low - low.min()) / (np.ptp(low) + 1e-6))[None]
    slope = log_uniform(rng, 1.5, 12) * gradient(F.pad(relief, (1, 1, 1, 1), "replicate"))
    normal = F.normalize(torch.cat([-slope, torch.ones_like(relief)]), dim=0)
    return Surface(
        f"drawn-{seed}",
        torch.from_numpy(picture.copy()).permute(2, 0, 1).contiguous(),
        ((normal + 1) * 127.5).round().byte(),
        height=(relief * 255).round().byte(),
    )


def draw_surfaces(count: int, seed: int, workers: int) -> list[Surface]:
    """Drawn materials, made by several processes; each is a function of the seed and its number."""
    # A forked process would wait forever for the threads that torch had started before.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(draw_surface, (seed * 1_000_003 + i for i in range(count)), chunksize=8))
