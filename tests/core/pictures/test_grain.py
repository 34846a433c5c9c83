"""The size of a material's parts: regular, irregular, fine under coarse, and without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ad_service.core.pictures.grain import measure_grain
from tests.support.photographs import stones, tiles


@pytest.mark.parametrize(("side", "tile"), [(512, 64), (1536, 200), (2000, 500)])
def test_the_parts_of_a_tiled_floor_are_its_tiles(side: int, tile: int) -> None:
    grain = measure_grain(tiles(side, side, tile))
    assert grain.kind == "lattice" and grain.part == pytest.approx(tile, rel=0.1)


@pytest.mark.parametrize("stone", [40, 90])
def test_the_parts_of_irregular_stones_are_about_as_large_as_the_stones(stone: int) -> None:
    part = measure_grain(stones(480, 640, stone)).part
    assert 0.6 * stone < part < 2.2 * stone


def test_parts_grow_with_the_picture() -> None:
    small = stones(300, 400, 60)
    part, larger = measure_grain(small).part, measure_grain(small.repeat(5, 0).repeat(5, 1)).part
    assert larger / part == pytest.approx(5, rel=0.25)


def test_a_soft_picture_has_no_fine_detail() -> None:
    sharp = stones(300, 400, 60)
    soft = np.asarray(Image.fromarray(sharp).resize((3200, 2400), Image.Resampling.BICUBIC))
    assert measure_grain(sharp).detail < 6 < 12 < measure_grain(soft).detail


def test_a_flat_picture_is_one_part() -> None:
    assert measure_grain(np.full((100, 140, 3), 80, np.uint8)).part == 100


def test_measuring_needs_no_torch() -> None:
    code = "import sys, ad_service.core.pictures.fit; assert not {'torch', 'PIL'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
