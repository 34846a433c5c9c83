"""Drawn photographs of materials: tiles with joints, stones, and a wall seen from the side. numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np

Pixels = np.ndarray[Any, Any]


def tiles(height: int, width: int, tile: int, seed: int = 0) -> Pixels:
    """A floor (height, width, 3) uint8 of square tiles of slightly different gray, with dark joints and fine grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    shade = rng.uniform(140, 170, (height // tile + 1, width // tile + 1))[y // tile, x // tile]
    joint = np.minimum(y % tile, x % tile) < max(1, tile // 8)
    gray = np.where(joint, 40.0, shade) + rng.normal(0, 5, (height, width))
    return gray.clip(0, 255).astype(np.uint8)[..., None].repeat(3, 2)


def stones(height: int, width: int, stone: int, seed: int = 0) -> Pixels:
    """A floor (height, width, 3) uint8 of irregular stones of about `stone` pixels, with dark joints."""
    rng = np.random.default_rng(seed)
    cells = np.stack(np.mgrid[0 : height + stone : stone, 0 : width + stone : stone], -1).reshape(-1, 2)
    points = cells + rng.uniform(-0.4, 0.4, cells.shape) * stone
    shade = rng.uniform(90, 200, len(points))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    nearest = np.full((height, width), 1e12)
    second, owner = nearest.copy(), np.zeros((height, width), int)
    for i, (py, px) in enumerate(points):
        d = (y - py) ** 2 + (x - px) ** 2
        closer = d < nearest
        second = np.where(closer, nearest, np.minimum(second, d))
        owner[closer] = i
        nearest = np.where(closer, d, nearest)
    joint = np.sqrt(second) - np.sqrt(nearest) < stone / 8
    gray = np.where(joint, 30.0, shade[owner]) + rng.normal(0, 5, (height, width))
    return gray.clip(0, 255).astype(np.uint8)[..., None].repeat(3, 2)
