"""Fit: about a dozen parts in the result, never enlarged, a small swatch as it is, a good part of a large one."""

from __future__ import annotations

import numpy as np
import pytest

from ad_service.core.pictures.fit import FitOptions, fit
from tests.support.photographs import stones, tiles


@pytest.mark.parametrize("tile", [330, 500])
def test_a_large_photograph_is_scaled_until_about_a_dozen_tiles_fit(tile: int) -> None:
    found = fit(tiles(1500, 2000, tile), 512, 512)
    assert 8 <= found.parts <= 20
    assert (512 / (tile * found.scale)) ** 2 == pytest.approx(found.parts, rel=0.3)


@pytest.mark.parametrize("tile", [300, 450, 520])
def test_whole_periods_of_a_regular_photograph_lie_along_the_result(tile: int) -> None:
    periods = 512 / (tile * fit(tiles(3000, 4000, tile), 512, 512).scale)
    assert periods == pytest.approx(round(periods), abs=0.2)


def test_a_larger_result_shows_the_parts_larger() -> None:
    photograph = tiles(1500, 2000, 500)
    assert fit(photograph, 1024, 1024).scale == pytest.approx(2 * fit(photograph, 512, 512).scale, rel=0.05)


@pytest.mark.parametrize("part", [16, 60, 120])
def test_a_small_swatch_stays_as_it_is(part: int) -> None:
    found = fit(stones(400, 512, part), 512, 512)
    assert (found.left, found.top, found.width, found.height, found.scale) == (0, 0, 512, 400, 1.0)


def test_a_small_swatch_of_few_regular_tiles_is_scaled_down() -> None:
    found = fit(tiles(1000, 1000, 250), 256, 256, options=FitOptions(small=100.0, budget=100.0))
    assert found.scale < 0.5 and found.parts > 3


def test_fine_parts_are_never_enlarged_and_a_part_of_the_photograph_is_used() -> None:
    found = fit(tiles(1500, 2000, 24), 512, 512)
    assert found.scale == 1.0
    assert found.width * found.height <= 3.1 * 512 * 512
    assert 0 <= found.left <= 2000 - found.width and 0 <= found.top <= 1500 - found.height


def test_the_part_is_evenly_lit_and_typical() -> None:
    photograph = tiles(1500, 2000, 24).astype(float)
    photograph[:, :1000] *= np.linspace(0.1, 1.0, 1000)[None, :, None]
    found = fit(photograph.astype(np.uint8), 512, 512)
    assert found.left >= 800


def test_the_part_has_all_regions() -> None:
    regions = np.zeros((150, 200), np.int64)
    regions[100:, 150:] = 1
    found = fit(tiles(1500, 2000, 24), 512, 512, regions)
    assert found.left + found.width > 1500 and found.top + found.height > 1000


def test_regions_that_no_part_shows_together_keep_the_whole_photograph() -> None:
    regions = np.zeros((150, 200), np.int64)
    regions[:10, :10], regions[-10:, -10:] = 1, 2
    found = fit(tiles(1500, 2000, 24), 512, 512, regions)
    assert (found.left, found.top, found.width, found.height) == (0, 0, 2000, 1500)
