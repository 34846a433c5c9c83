"""A training run of a few steps, and materials that are drawn for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ad_service.pocket.training.settings import Settings

TINY = Settings(
    textures=3,
    channels=6,
    codec_widths=(16, 24, 32),
    codec_batch=2,
    codec_crop=64,
    unet_widths=(16, 32, 32),
    unet_textures=2,
    unet_each=2,
    unet_crop=16,
)
TRAINING = ("bark", "slate", "wool")
HELD_OUT = ("gravel", "oak")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_materials(folder: Path, side: int = 272) -> Path:
    """A folder of materials with and without maps, and two plain pictures."""
    rng = np.random.default_rng(0)
    for name in (*TRAINING[:2], HELD_OUT[0]):
        save(folder / name / "color.jpg", rng.integers(0, 256, (side, side, 3)))
        save(folder / name / "normal_gl.jpg", rng.integers(100, 156, (side, side, 3)))
        save(folder / name / "height.png", rng.integers(0, 256, (side, side)))
    for name in (TRAINING[2], HELD_OUT[1]):
        save(folder / f"{name}.png", rng.integers(0, 256, (side, side + 32, 3)))
    (folder / "README.md").write_text("not a picture")
    return folder
