"""Pixels: conversions between uint8 and floats are inverse, and PSNR is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ad_service.core.pixels import from_uint8, psnr, to_uint8


def test_all_values_survive_the_way_to_floats_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).view(16, 16, 3)
    picture = from_uint8(pixels)
    assert picture.shape == (3, 16, 16) and picture.dtype == torch.float32
    assert float(picture.min()) == 0 and float(picture.max()) == 1
    assert torch.equal(to_uint8(picture), pixels)


def test_a_read_only_array_is_copied() -> None:
    pixels = np.full((2, 4, 3), 51, np.uint8)
    pixels.setflags(write=False)
    picture = from_uint8(pixels)
    picture += 1
    assert picture.shape == (3, 2, 4)
    assert pixels.max() == 51


def test_values_are_clamped_and_rounded_half_to_even() -> None:
    values = torch.tensor([-0.5, 0.5 / 255, 1.5 / 255, 2.5 / 255, 2.0]).expand(3, 1, 5)
    assert to_uint8(values)[0, :, 0].tolist() == [0, 0, 2, 2, 255]


def test_the_psnr_of_a_known_error() -> None:
    picture = torch.full((3, 8, 8), 0.5)
    assert psnr(picture, picture + 0.1) == pytest.approx(20, abs=1e-4)
    assert psnr(picture, picture) == pytest.approx(120)
