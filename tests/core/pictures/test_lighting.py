"""Lighting: the broad light and shade of a photograph is taken out, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ad_service.core.pictures.lighting import LightingOptions, flatten_lighting


def grain(height: int = 96, width: int = 128) -> Tensor:
    """Gray of 0.2 to 0.5, different at each pixel."""
    return 0.2 + 0.3 * torch.rand(3, height, width, generator=torch.Generator().manual_seed(3))


def halves(picture: Tensor, axis: int) -> float:
    """How much brighter the second half is than the first."""
    first, second = picture.chunk(2, axis)
    return float(second.mean() / first.mean())


LAMP = torch.linspace(0.6, 1.5, 128)[None, None, :] * torch.linspace(1.1, 0.9, 96)[None, :, None]


def test_a_swatch_lit_from_one_side_is_lit_evenly() -> None:
    lit = grain() * LAMP
    even = flatten_lighting(lit, 1.0)
    assert halves(lit, 2) > 1.4
    assert halves(even, 2) == pytest.approx(1, abs=0.02)
    assert halves(even, 1) == pytest.approx(1, abs=0.02)
    assert float(even.mean()) == pytest.approx(float(lit.mean()), rel=0.01)
    away = even / even.mean() - grain() / grain().mean()
    assert float(away.abs().mean()) < 0.02, "the grain itself is changed"


def test_an_amount_of_one_half_removes_half_of_the_lighting() -> None:
    lit = grain() * LAMP
    assert halves(flatten_lighting(lit, 0.5), 2) == pytest.approx(halves(lit, 2) ** 0.5, abs=0.02)


def test_a_dark_region_stays_dark() -> None:
    regions = (torch.arange(128) >= 64).long().expand(96, 128)
    picture = grain() * torch.where(regions == 1, 0.4, 1.0)
    kept = flatten_lighting(picture * LAMP, 1.0, regions)
    assert halves(kept, 2) == pytest.approx(0.4, abs=0.03)
    assert halves(flatten_lighting(picture, 1.0), 2) > 0.6


def test_an_evenly_lit_picture_hardly_changes() -> None:
    assert float((flatten_lighting(grain(), 1.0) - grain()).abs().max()) < 0.02


def test_black_stays_black() -> None:
    assert float(flatten_lighting(torch.zeros(3, 16, 16), 1.0).abs().max()) == 0


def test_a_polynomial_of_degree_one_leaves_curved_lighting() -> None:
    curved = grain() * (1.2 - torch.linspace(-1, 1, 128)[None, None, :] ** 2)
    middle = [
        float(flat[:, :, 48:80].mean() / flat.mean())
        for flat in (flatten_lighting(curved, 1.0, options=LightingOptions(degree=d)) for d in (1, 3))
    ]
    assert middle[0] > 1.3
    assert abs(middle[1] - 1) < 0.1
