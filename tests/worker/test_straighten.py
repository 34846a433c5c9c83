"""Straightening: a rectangle drawn in perspective, or through a lens, becomes the rectangle again."""

from __future__ import annotations

import numpy as np
import pytest

from ad_service.worker.straighten import straighten, undistort
from blender_addon.wire import geometry
from blender_addon.wire.geometry import Point, Quad

CORNERS: Quad = ((120.0, 60.0), (520.0, 110.0), (500.0, 400.0), (90.0, 440.0))
SIZE = (640, 480)


def value_at(point: Point) -> float:
    """A smooth pattern in pixels of the straightened picture."""
    return 128 + 60 * np.sin(point[0] / 15) + 50 * np.cos(point[1] / 11)


def inverse(matrix: geometry.Matrix) -> geometry.Matrix:
    return tuple(map(tuple, np.linalg.inv(np.array(matrix))))  # type: ignore[return-value]


@pytest.mark.parametrize("lens", [0.0, -0.15])
def test_a_pattern_seen_from_the_side_becomes_itself(lens: float) -> None:
    straight = geometry.straighten(CORNERS, SIZE, lens)
    back = inverse(straight.matrix)
    photograph = np.zeros((480, 640, 3), np.uint8)
    for y in range(480):
        for x in range(640):
            flat = geometry.undistort((x + 0.5, y + 0.5), lens, SIZE)
            photograph[y, x] = round(value_at(geometry.project(back, flat)))
    out = straighten(photograph, CORNERS, lens)
    assert out.shape[:2] == (straight.height, straight.width)
    expected = np.array([[value_at((x + 0.5, y + 0.5)) for x in range(straight.width)] for y in range(straight.height)])
    inner = np.abs(out[..., 0] - expected)[4:-4, 4:-4]
    assert inner.mean() < 1.0 and np.quantile(inner, 0.999) < 5.0


def test_labels_keep_their_colors() -> None:
    labels = np.zeros((480, 640, 3), np.uint8)
    labels[:, 300:] = (200, 10, 90)
    out = straighten(labels, CORNERS, -0.1, role="labels")
    assert {tuple(color) for color in np.unique(out.reshape(-1, 3), axis=0)} == {(0, 0, 0), (200, 10, 90)}


def test_nothing_outside_of_the_photograph_is_shown() -> None:
    white = np.full((480, 640, 3), 255, np.uint8)
    for lens in (-0.4, 0.0, 0.4):
        assert straighten(white, ((0, 0), (640, 0), (640, 480), (0, 480)), lens).min() == 255
        assert undistort(white, None, lens).min() == 255


def test_the_middle_of_an_undistorted_picture_stays_where_it_was() -> None:
    photograph = np.zeros((480, 640, 3), np.uint8)
    photograph[236:244, 316:324] = 255
    for lens in (-0.3, 0.3):
        out = undistort(photograph, None, lens)
        y, x = np.argwhere(out[..., 0] > 128).mean(0) + 0.5
        assert (x / out.shape[1], y / out.shape[0]) == pytest.approx((0.5, 0.5), abs=0.003)


def test_a_crop_of_an_undistorted_picture_shows_that_part() -> None:
    photograph = np.zeros((480, 640, 3), np.uint8)
    photograph[100:200, 400:500] = 255
    out = undistort(photograph, (400, 100, 100, 100), -0.1)
    assert out.mean() > 240


def test_a_pattern_finer_than_the_result_is_averaged() -> None:
    y, x = np.mgrid[0:480, 0:640]
    fine = (((x + y) % 2) * 255).astype(np.uint8)[..., None].repeat(3, 2)
    steep: Quad = ((10.0, 10.0), (630.0, 200.0), (630.0, 280.0), (10.0, 470.0))
    assert straighten(fine, steep, 0.0)[:, :20].std() < 60
