"""Maps estimated from a picture: they agree with each other, tile as it does, and keep what is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ad_service.core.materials.estimate import (
    EstimateOptions,
    estimate,
    integrate,
    load_network,
    normal_of,
    resample,
    slope,
    slope_of,
    without_shade,
    working_size,
)
from ad_service.core.materials.estimate_network import MapsNetwork
from ad_service.maps import WEIGHTS

TORUS = (True, True)


@pytest.fixture(scope="module")
def network() -> MapsNetwork:
    return load_network(WEIGHTS)


def waves(height: int, width: int, tiles: tuple[bool, bool] = TORUS) -> Tensor:
    """A smooth height (1, height, width) in pixels that tiles."""
    rough = torch.rand(1, height // 8, width // 8, generator=torch.Generator().manual_seed(1))
    return 20 * resample(rough, height, width, TORUS)


def picture(height: int, width: int) -> Tensor:
    return (0.2 + 0.6 * waves(height, width) / 20).clamp(0, 1).expand(3, -1, -1) * torch.tensor([1, 0.8, 0.6])[
        :, None, None
    ]


@pytest.mark.parametrize("tiles", [TORUS, (False, True), (False, False)])
def test_the_normal_is_the_slope_of_the_height(network: MapsNetwork, tiles: tuple[bool, bool]) -> None:
    maps = estimate(network, picture(128, 160), tiles)
    torch.testing.assert_close(maps.normal, normal_of(slope(maps.height * maps.depth, tiles)), atol=1e-4, rtol=0)


def test_the_strength_multiplies_the_slopes(network: MapsNetwork) -> None:
    once, twice = (slope_of(estimate(network, picture(128, 128), TORUS, s).normal) for s in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once, atol=1e-4, rtol=1e-3)


def test_maps_of_a_shifted_tiling_picture_are_shifted_maps(network: MapsNetwork) -> None:
    color = picture(128, 160)
    maps, shifted = estimate(network, color, TORUS), estimate(network, color.roll((64, 96), (1, 2)), TORUS)
    for name in ("normal", "roughness", "height"):
        moved = getattr(maps, name).roll((64, 96), (1, 2))
        torch.testing.assert_close(getattr(shifted, name), moved, atol=1e-4, rtol=0)


def test_the_same_picture_gives_the_same_maps(network: MapsNetwork) -> None:
    first, second = (estimate(network, picture(96, 128)) for _ in range(2))
    assert torch.equal(first.normal, second.normal)
    assert torch.equal(first.roughness, second.roughness)


@pytest.mark.parametrize("size", [(8, 8), (33, 200), (130, 131)])
def test_maps_are_as_large_as_the_picture_and_in_range(network: MapsNetwork, size: tuple[int, int]) -> None:
    color = torch.rand(3, *size, generator=torch.Generator().manual_seed(2))
    maps = estimate(network, color)
    for m in (maps.albedo, maps.normal, maps.roughness, maps.height):
        assert m.shape[1:] == size
        assert 0 <= float(m.min()) <= float(m.max()) <= 1


def test_a_picture_of_one_color_is_flat(network: MapsNetwork) -> None:
    maps = estimate(network, torch.full((3, 64, 64), 0.5), TORUS)
    torch.testing.assert_close(
        maps.normal, torch.tensor([0.5, 0.5, 1.0])[:, None, None].expand(3, 64, 64), atol=0.01, rtol=0
    )
    assert float(maps.height.max() - maps.height.min()) < 0.5


def test_given_maps_are_kept_and_the_height_follows_a_given_normal(network: MapsNetwork) -> None:
    relief = waves(64, 96)
    normal = normal_of(slope(relief, TORUS))
    rough = torch.full((1, 64, 96), 0.25)
    maps = estimate(network, picture(64, 96), TORUS, given={"normal": normal, "roughness": rough})
    assert maps.normal is normal
    assert maps.roughness is rough
    assert float(torch.corrcoef(torch.stack([maps.height.flatten(), relief.flatten()]))[0, 1]) > 0.99


def test_the_normal_follows_a_given_height(network: MapsNetwork) -> None:
    relief = waves(64, 96)
    maps = estimate(network, picture(64, 96), TORUS, given={"height": relief / 40})
    guess, true = slope_of(maps.normal), slope(relief, TORUS)
    assert float(torch.corrcoef(torch.stack([guess.flatten(), true.flatten()]))[0, 1]) > 0.99


@pytest.mark.parametrize(("tiles", "error"), [(TORUS, 1e-4), ((False, True), 0.5), ((False, False), 0.5)])
def test_integrating_slopes_gives_the_height_back(tiles: tuple[bool, bool], error: float) -> None:
    relief = waves(64, 96)
    found = integrate(slope(relief, tiles), tiles)
    assert float((found - (relief - relief.mean())).abs().mean()) < error


def test_the_shade_of_a_lamp_is_removed_and_colors_are_not() -> None:
    slopes = 0.1 * slope(waves(128, 128), TORUS)
    color = picture(128, 128).roll(37, 1)  # colors that have nothing to do with the relief
    shaded = (color.pow(2.2) * (1 + 3 * slopes[:1]).clamp_min(0.05)).pow(1 / 2.2).clamp(0, 1)
    before, after = ((p - color).abs().mean() for p in (shaded, without_shade(shaded, slopes)))
    assert after < 0.6 * before
    unlit = without_shade(color, slopes)
    assert float((unlit - color).abs().mean()) < 0.005


def test_large_pictures_are_reduced_for_the_network() -> None:
    assert working_size(8192, 8192, EstimateOptions()) == (1024, 1024)
    assert working_size(8192, 2048, EstimateOptions()) == (2048, 512)
    assert working_size(16, 16, EstimateOptions()) == (128, 128)
