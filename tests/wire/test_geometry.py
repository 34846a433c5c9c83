"""Points of a photograph: the lens, the shape of a rectangle seen from the side, and the map that straightens it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from blender_addon.wire import geometry
from blender_addon.wire.geometry import Quad

SIZE = (4000.0, 3000.0)


def seen(ratio: float, yaw: float, pitch: float, focal: float = 0.6, distance: float = 2.0) -> Quad:
    """The corners of a rectangle of this width over height in a photograph; angles in degrees, focal in diagonals."""
    a, b = math.radians(yaw), math.radians(pitch)
    points = []
    for x, y in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)):
        x, y, z = x * math.sqrt(ratio), y / math.sqrt(ratio), 0.0
        x, z = x * math.cos(a) + z * math.sin(a), z * math.cos(a) - x * math.sin(a)
        y, z = y * math.cos(b) - z * math.sin(b), y * math.sin(b) + z * math.cos(b)
        scale = focal * 5000 / (z + distance)
        points.append((2000 + x * scale, 1500 + y * scale))
    return tuple(points)  # type: ignore[return-value]


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.5])
@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (35, 20), (-50, -15), (40, 0), (0, -30)])
def test_the_ratio_of_a_rectangle_is_found_from_its_perspective(ratio: float, yaw: float, pitch: float) -> None:
    assert geometry.aspect_ratio(seen(ratio, yaw, pitch), SIZE) == pytest.approx(ratio, rel=1e-6)


def test_another_focal_length_is_found_where_both_pairs_of_sides_converge() -> None:
    assert geometry.aspect_ratio(seen(2.0, 35, 25, focal=1.4, distance=4.0), SIZE) == pytest.approx(2.0, rel=1e-6)


def test_without_perspective_the_ratio_is_that_of_the_sides() -> None:
    leaning: Quad = ((100, 100), (1300, 100), (1300, 700), (100, 700))
    assert geometry.aspect_ratio(leaning, SIZE) == pytest.approx(2.0)


def test_the_straightened_picture_has_the_corners_of_the_rectangle() -> None:
    corners = seen(1.6, 30, 15)
    straight = geometry.straighten(corners, SIZE, lens=-0.1)
    ends = ((0, 0), (straight.width, 0), (straight.width, straight.height), (0, straight.height))
    for end, corner in zip(ends, corners, strict=True):
        assert geometry.to_photograph(end, straight, SIZE, lens=-0.1) == pytest.approx(corner, abs=1e-6)


def test_the_straightened_picture_keeps_the_longer_sides_and_is_no_larger_than_the_photograph() -> None:
    flat = geometry.straighten(((100, 100), (1300, 100), (1300, 700), (100, 700)), SIZE)
    assert (flat.width, flat.height) == (1200, 600)
    steep = geometry.straighten(seen(3.0, 70, 5, distance=3.0), SIZE)
    assert steep.width * steep.height <= 1.001 * SIZE[0] * SIZE[1]


@pytest.mark.parametrize("lens", [-0.5, -0.1, 0.0, 0.2, 0.5])
def test_the_lens_can_be_inverted_in_the_whole_picture(lens: float) -> None:
    for point in ((0.0, 0.0), (4000.0, 0.0), (2000.0, 1500.0), (3900.0, 2800.0)):
        there = geometry.undistort(point, lens, SIZE)
        assert geometry.distort(there, lens, SIZE) == pytest.approx(point, abs=1e-6)


def test_a_negative_lens_moves_the_rim_outward() -> None:
    assert (
        geometry.undistort((4000.0, 1500.0), -0.2, SIZE)[0] > 4000 > geometry.undistort((4000.0, 1500.0), 0.2, SIZE)[0]
    )


@pytest.mark.parametrize("lens", [-0.4, -0.1, 0.1, 0.4])
def test_the_undistorted_frame_lies_in_the_picture_and_touches_its_rim(lens: float) -> None:
    left, top, width, height = geometry.undistorted_frame(lens, SIZE)
    rim = [(left + width * i / 20, top + height * j / 20) for i in range(21) for j in (0, 20)]
    rim += [(left + width * i, top + height * j / 20) for i in (0, 1) for j in range(21)]
    xs, ys = zip(*(geometry.distort(point, lens, SIZE) for point in rim), strict=True)
    assert min(xs) >= -1e-6 and max(xs) <= 4000 + 1e-6 and min(ys) >= -1e-6 and max(ys) <= 3000 + 1e-6
    assert min(xs) == pytest.approx(0, abs=1e-6) and min(ys) == pytest.approx(0, abs=1e-6)


def test_the_grid_runs_along_the_sides_and_is_straight_without_a_lens() -> None:
    corners = seen(1.5, 30, 10)
    lines = geometry.grid(corners, SIZE, cells=3, points=4)
    assert len(lines) == 8 and all(len(line) == 5 for line in lines)
    assert (lines[0][0], lines[0][-1]) == (pytest.approx(corners[0]), pytest.approx(corners[1]))
    assert (lines[7][0], lines[7][-1]) == (pytest.approx(corners[1]), pytest.approx(corners[2]))
    for line in lines:
        (ax, ay), (bx, by) = line[0], line[-1]
        assert all(abs((x - ax) * (by - ay) - (y - ay) * (bx - ax)) < 1e-3 for x, y in line)


def test_the_grid_of_a_distorting_lens_is_curved() -> None:
    corners: Quad = ((100, 100), (3900, 100), (3900, 2900), (100, 2900))
    top = geometry.grid(corners, SIZE, lens=-0.2, points=2)[0]
    assert top[1][1] < 90, "a straight line bulges outward, over the line between the two corners"
    assert all(a[0] < b[0] for a, b in pairwise(top))


def test_corners_in_another_order_are_refused() -> None:
    a, b, c, d = seen(1.0, 20, 10)
    for wrong in ((b, a, c, d), (a, c, b, d), (d, c, b, a)):
        with pytest.raises(ValueError, match="top left, top right"):
            geometry.straighten(wrong, SIZE)


def test_texts_of_parameters_survive() -> None:
    assert geometry.parse_crop(geometry.format_crop(10.4, 20, 300, 400)) == (10, 20, 300, 400)
    corners = seen(1.0, 20, 10)
    again = geometry.parse_corners(geometry.format_corners(corners))
    assert all(p == pytest.approx(q, abs=0.006) for p, q in zip(again, corners, strict=True))


@pytest.mark.parametrize(
    ("size", "same"), [((400, 300), True), ((406, 300), True), ((410, 300), False), ((300, 400), False)]
)
def test_sizes_have_the_same_shape_up_to_rounding(size: tuple[int, int], same: bool) -> None:
    assert geometry.has_same_shape(size, (800, 600)) is same
    assert geometry.has_same_shape((800, 600), size) is same
