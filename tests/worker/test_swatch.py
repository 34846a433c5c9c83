"""The swatch as a job uses it: crop, corners, lens, transparency, fit, and the sentence that says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ad_service.worker.image_files import Decoded
from ad_service.worker.swatch import PreparedSwatch, count_parts, prepare_swatch
from blender_addon.wire import WireError
from tests.support.photographs import tiles


def prepared(pixels: Any, regions: Any = None, opaque: Any = None, **parameters: Any) -> PreparedSwatch:
    values = {"crop": "", "corners": "", "lens": 0.0, "real_width": 0.0, "scale": 0.0, **parameters}
    return prepare_swatch(Decoded(pixels, (), opaque), values, (512, 512), regions)


def refused(*arguments: Any, **parameters: Any) -> WireError:
    with pytest.raises(WireError) as caught:
        prepared(*arguments, **parameters)
    return caught.value


def test_an_explicit_scale_keeps_every_pixel_for_the_core() -> None:
    pixels = tiles(1500, 2000, 400)
    swatch = prepared(pixels, scale=0.5)
    assert swatch.pixels is pixels and (swatch.scale, swatch.remaining_scale) == (0.5, 0.5)
    assert swatch.used == (0, 0, 2000, 1500)
    assert swatch.sentence == "Uses all of 2000 x 1500, halved" and not swatch.is_fitted


def test_a_fitted_photograph_is_scaled_before_the_core_gets_it() -> None:
    swatch = prepared(tiles(1500, 2000, 400))
    assert swatch.remaining_scale == 1.0 and swatch.scale < 0.6 and swatch.is_fitted
    assert swatch.pixels.shape[0] * swatch.pixels.shape[1] < 1.6 * 512 * 512
    assert swatch.pixels.shape[1] == pytest.approx(swatch.used[2] * swatch.scale, abs=1)
    assert swatch.sentence.startswith("Uses") and "2000 x 1500, at" in swatch.sentence


def test_the_real_width_is_that_of_the_crop() -> None:
    swatch = prepared(tiles(1500, 2000, 60), crop="100,200,1000,800", real_width=2.0, scale=0.5)
    assert swatch.used == (100, 200, 1000, 800) and swatch.pixels.shape == (800, 1000, 3)
    assert swatch.pixels_per_meter == pytest.approx(250)
    assert swatch.sentence == "Shows 2.0 m at 250 px/m; uses 1000 x 800 of 2000 x 1500, halved"


def test_a_crop_or_a_corner_outside_of_the_swatch_is_refused_with_both_sizes() -> None:
    error = refused(tiles(300, 400, 60), crop="100,0,301,100")
    assert error.code == "invalid-parameter" and "401 x 100" in error.detail and "400 x 300" in error.detail
    error = refused(tiles(300, 400, 60), corners="0,0 401,0 400,300 0,300")
    assert error.data == {"parameter": "corners"} and "401,0" in error.detail


def test_a_rectangle_that_is_too_small_is_refused() -> None:
    assert refused(tiles(300, 400, 60), corners="0,0 20,0 20,20 0,20").code == "invalid-image"


def test_regions_go_through_the_same_geometry_as_the_swatch() -> None:
    pixels, regions = tiles(300, 400, 60), np.zeros((300, 400, 3), np.uint8)
    pixels[:, 200:] = regions[:, 200:] = (250, 0, 0)
    for parameters in (
        {"crop": "150,50,200,200"},
        {"corners": "100,20 300,60 310,250 90,280", "lens": -0.1},
        {"lens": 0.2},
    ):
        swatch = prepared(pixels, regions, scale=1.0, **parameters)
        assert swatch.regions is not None and swatch.regions.shape == swatch.pixels.shape
        red = swatch.pixels[..., 0].astype(int) - swatch.pixels[..., 1] > 120
        assert (red != (swatch.regions[..., 0] > 0)).mean() < 0.01


def test_a_straightened_swatch_says_so() -> None:
    swatch = prepared(tiles(300, 400, 60), corners="100,20 300,60 310,250 90,280", scale=1.0)
    assert swatch.used == (0, 0, *swatch.picture) and "of straightened" in swatch.sentence


def test_a_transparent_rim_is_not_used() -> None:
    pixels, opaque = tiles(300, 400, 60), np.zeros((300, 400), bool)
    opaque[50:250, 100:350] = True
    pixels[~opaque] = (255, 0, 255)
    swatch = prepared(pixels, opaque=opaque, scale=1.0)
    _, _, width, height = swatch.used
    assert width * height > 0.95 * 200 * 250
    assert (swatch.pixels != (255, 0, 255)).any(2).all()
    (note,) = swatch.notes
    assert "58% of the swatch is transparent" in note


def test_transparent_holes_are_filled_from_the_opaque_part() -> None:
    pixels, opaque = tiles(300, 400, 60), np.ones((300, 400), bool)
    opaque[::100, :] = opaque[:, ::100] = False
    opaque[100:110], opaque[200:210], opaque[:, 100:110], opaque[:, 200:210], opaque[:, 300:310] = (False,) * 5
    pixels[~opaque] = (255, 0, 255)
    swatch = prepared(pixels, opaque=opaque, scale=1.0)
    assert swatch.pixels.shape == (300, 400, 3)
    assert (swatch.pixels != (255, 0, 255)).any(2).all()
    assert "filled" in swatch.notes[0]


def test_a_swatch_without_opaque_pixels_is_refused() -> None:
    error = refused(tiles(300, 400, 60), opaque=np.zeros((300, 400), bool))
    assert error.code == "invalid-image" and "100%" in error.detail


def test_parts_are_counted_for_an_explicit_scale_too() -> None:
    swatch = prepared(tiles(1500, 2000, 400), scale=1.0)
    assert count_parts(swatch, (512, 512)) == pytest.approx((512 / 400) ** 2, rel=0.2)
