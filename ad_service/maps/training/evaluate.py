"""The figures of estimates against true maps, beside those of simple guesses.

    python -m ad_service.maps.training.evaluate --materials DIR
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.maps.training.materials import Surface, slopes

BLUR = 3.0
"""Standard deviation, in pixels, of the blur before slopes are compared."""


def blur(x: Tensor, sigma: float = BLUR) -> Tensor:
    """Gaussian blur on the torus: (..., h, w)."""
    h, w = x.shape[-2:]
    f2 = torch.fft.fftfreq(h)[:, None] ** 2 + torch.fft.rfftfreq(w)[None] ** 2
    return torch.fft.irfft2(torch.fft.rfft2(x) * torch.exp(-2 * (torch.pi * sigma) ** 2 * f2), s=(h, w))


def torus_gradient(height: Tensor) -> Tensor:
    """Slopes along x (right) and y (up) of a height (1, h, w) on the torus: (2, h, w)."""
    x = height.roll(-1, -1) - height.roll(1, -1)
    y = height.roll(1, -2) - height.roll(-1, -2)
    return torch.cat([x, y]) / 2


def normals(slope: Tensor) -> Tensor:
    """Slopes (2, h, w) -> unit normals (3, h, w)."""
    return F.normalize(torch.cat([-slope, torch.ones_like(slope[:1])]), dim=0)


def angle(a: Tensor, b: Tensor) -> float:
    """Mean angle in degrees between vectors (3, h, w)."""
    a, b = F.normalize(a, dim=0), F.normalize(b, dim=0)
    return float(torch.linalg.vector_norm(a - b, dim=0).div(2).clamp(max=1).asin().mean() * 360 / torch.pi)


def pearson(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of all numbers; 0 if one of them is constant."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    norm = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / norm if norm > 1e-9 else 0.0


@dataclass(frozen=True)
class Figures:
    """Figures of one material; NaN where it lacks the map.

    Attributes:
        slopes: correlation of the normals' slopes, blurred by 3 pixels.
        blurred: angle between the blurred normals, degrees.
        detail: angle between the normals at full detail, degrees.
        roughness: mean absolute difference.
        height: correlation.
    """

    slopes: float
    blurred: float
    detail: float
    roughness: float
    height: float


def figures(surface: Surface, slope: Tensor, height: Tensor, roughness: Tensor) -> Figures:
    """Compare estimates with a material: slope (2, h, w), height (1, h, w), roughness (1, h, w) in [0, 1]."""
    nan = float("nan")
    correlated = blurred = detail = nan
    if surface.normal is not None:
        true = slopes(surface.normal)
        a, b = blur(slope), blur(true)
        correlated = (pearson(a[0], b[0]) + pearson(a[1], b[1])) / 2
        unit = surface.normal.float() / 127.5 - 1
        guess = normals(slope)
        blurred, detail = angle(blur(guess), blur(F.normalize(unit, dim=0))), angle(guess, unit)
    rough = nan if surface.roughness is None else float((roughness - surface.roughness.float() / 255).abs().mean())
    high = nan if surface.height is None else pearson(height, surface.height.float())
    return Figures(correlated, blurred, detail, rough, high)


def mean(rows: list[Figures]) -> Figures:
    """Mean of each figure over the materials that have it."""
    return Figures(*(float(torch.tensor([getattr(r, f.name) for r in rows]).nanmean()) for f in fields(Figures)))
