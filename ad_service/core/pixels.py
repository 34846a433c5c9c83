"""Conversions between 8-bit pixels and floats, and the error between two pictures."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def from_uint8(pixels: npt.NDArray[np.uint8] | Tensor) -> Tensor:
    """A picture (3, h, w) float32 in [0, 1] from pixels (h, w, 3) uint8; the pixels are copied."""
    tensor = pixels if isinstance(pixels, Tensor) else torch.from_numpy(pixels.copy())
    return tensor.permute(2, 0, 1).float() / 255


def to_uint8(picture: Tensor) -> Tensor:
    """Pixels (h, w, 3) uint8 from a picture (3, h, w), clamped to [0, 1] and rounded half to even."""
    return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)


def to_uint16(picture: Tensor) -> Tensor:
    """Pixels (h, w, C) uint16 from a picture (C, h, w), clamped to [0, 1] and rounded half to even."""
    return (picture.clamp(0, 1) * 65535).round().int().to(torch.uint16).permute(1, 2, 0)


def at_least_float32(x: Tensor) -> Tensor:
    """A 16-bit tensor in float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two pictures in [0, 1] of one shape: -10 log10(MSE), at most 120."""
    return -10 * math.log10(max(float((a - b).square().mean()), 1e-12))
