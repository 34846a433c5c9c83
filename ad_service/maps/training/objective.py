"""What the network is trained for: slopes, their strength, height and roughness."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.materials.estimate_network import CELL
from ad_service.maps.training.crops import Batch
from ad_service.maps.training.materials import NEARLY_FLAT, correlation


@dataclass(frozen=True)
class Weights:
    """Weights of the parts of the loss; each part is then between about 0.2 and 1."""

    slopes: float = 1.0
    """1 - correlation of the slopes, blurred by 3 pixels."""
    blurred: float = 3.0
    """Distance of the blurred unit normals (radians, where small)."""
    normals: float = 1.0
    """The same at full detail."""
    height: float = 0.6
    """1 - correlation of the height."""
    roughness: float = 3.0
    """Mean absolute difference."""


def corners(x: Tensor) -> Tensor:
    """Means of 2x2 cells, at their common corners: (B, C, h, w) -> (B, C, h - 1, w - 1). Twice blurs by 3 pixels."""
    return F.avg_pool2d(x, 2, 1)


def corner_slopes(height: Tensor) -> Tensor:
    """Slopes along x (right) and y (up) at the corners of cells: (B, 1, h, w) pixels -> (B, 2, h - 1, w - 1)."""
    x = (height[..., 1:] - height[..., :-1]) / CELL
    y = (height[..., :-1, :] - height[..., 1:, :]) / CELL
    return torch.cat([(x[..., 1:, :] + x[..., :-1, :]) / 2, (y[..., 1:] + y[..., :-1]) / 2], 1)


def unit_normals(slope: Tensor) -> Tensor:
    """(B, 2, h, w) slopes -> (B, 3, h, w) unit normals."""
    return F.normalize(torch.cat([-slope, torch.ones_like(slope[:, :1])], 1), dim=1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean distance of the unit normals of two fields of slopes: (B, 2, h, w) each -> (B,)."""
    return ((unit_normals(a) - unit_normals(b)).square().sum(1) + 1e-4).sqrt().mean((1, 2))


def weighted(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of the values (B,) by weights (B,); 0 if all weights are."""
    return (values * weight).sum() / weight.sum().clamp_min(1)


def loss(height: Tensor, roughness: Tensor, truth: Batch, weights: Weights) -> tuple[Tensor, dict[str, float]]:
    """The loss of estimates, and its parts.

    Args:
        height: (B, 1, s, s) in pixels.
        roughness: (B, 1, s, s) in [0, 1].
    """
    guess, true = corner_slopes(height), corners(truth.slopes)
    blurred_guess, blurred_true = corners(guess), corners(true)
    relief = (blurred_true - blurred_true.mean((2, 3), keepdim=True)).square().mean((1, 2, 3))
    variance = truth.height.var((1, 2, 3))
    has_normal, has_roughness, has_height = truth.has.unbind(1)
    parts = {
        "slopes": weighted(
            1 - correlation(blurred_guess, blurred_true), has_normal * relief / (relief + NEARLY_FLAT**2)
        ),
        "blurred": weighted(distance(blurred_guess, blurred_true), has_normal),
        "normals": weighted(distance(guess, true), has_normal),
        "height": weighted(1 - correlation(height, truth.height), has_height * variance / (variance + 0.01**2)),
        "roughness": weighted((roughness - truth.roughness).abs().mean((1, 2, 3)), has_roughness),
    }
    total = torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum()
    return total, {name: float(value.detach()) for name, value in parts.items()}
