"""The parts of a swatch by color and texture."""

from __future__ import annotations

import numpy as np
import pytest

from ad_service.core.pictures.parts import lab, parts
from ad_service.core.pixels import from_uint8


def halves(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A picture (200, 300, 3) of `left` with `right` in its right third."""
    picture = np.broadcast_to(left, (200, 300, 3)).astype(np.uint8)
    picture[:, 200:] = np.broadcast_to(right, (200, 300, 3))[:, 200:]
    return picture


def checks(contrast: float) -> np.ndarray:
    """Checks (200, 300, 1) of two pixels around 128."""
    y, x = np.mgrid[0:200, 0:300] // 2
    return (128 + contrast * ((x + y) % 2 * 2 - 1))[..., None]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.array([150, 60, 50]), np.array([60, 140, 50])),
        (checks(5), checks(60)),
        (128 + 60 * np.sin(np.arange(300)[:, None] / 2), (128 + 60 * np.sin(np.arange(200)[:, None, None] / 2))),
    ],
    ids=["color", "contrast", "orientation"],
)
def test_parts_that_differ_are_found_and_the_largest_is_first(left: np.ndarray, right: np.ndarray) -> None:
    found = parts(halves(left, right), 2)
    assert float((found[:, :190] == 0).float().mean()) > 0.9
    assert float((found[:, 245:] == 1).float().mean()) > 0.9


def test_parts_of_noisy_areas_have_no_specks() -> None:
    colors = np.array([[140, 70, 60], [90, 110, 70]])
    rng = np.random.default_rng(1)
    picture = halves(*(color + rng.normal(0, 30, (200, 300, 3)) for color in colors)).clip(0, 255)
    found = parts(picture.astype(np.uint8), 2)
    assert len(np.unique(found[:, :185])) == len(np.unique(found[:, 215:])) == 1


def test_the_same_swatch_gives_the_same_parts_at_its_own_size() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (700, 900, 3)).astype(np.uint8)
    picture[:, 400:] //= 3
    found = parts(picture, 3)
    assert found.shape == (700, 900)
    assert (found == parts(picture, 3)).all()
    sizes = np.bincount(found.flatten().numpy(), minlength=3)
    assert list(sizes) == sorted(sizes, reverse=True)


def test_a_plain_picture_is_one_part() -> None:
    assert (parts(np.full((64, 48, 3), 90, np.uint8), 4) == 0).all()


def test_lab_of_known_colors() -> None:
    pixels = np.array([[[255, 255, 255], [255, 0, 0], [0, 0, 0]]], np.uint8)
    found = lab(from_uint8(pixels))[:, 0].T.numpy()
    assert found == pytest.approx(np.array([[100, 0, 0], [53.24, 80.09, 67.2], [0, 0, 0]]), abs=0.1)
