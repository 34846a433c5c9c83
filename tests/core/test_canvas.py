"""The canvas: windows cover it, wrap along tiling axes, end at real edges, and average back to it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ad_service.core.canvas import (
    Accumulator,
    Shape,
    Window,
    cut_windows,
    feather,
    resized,
    round_up,
    starts_along,
    windows,
)

SHAPES = st.builds(Shape, st.integers(1, 150), st.integers(1, 150), st.booleans(), st.booleans())


pytestmark = pytest.mark.usefixtures("one_thread")


def coverage(shape: Shape, spots: list[Window]) -> torch.Tensor:
    """How many windows cover each cell."""
    count = torch.zeros(shape.height, shape.width, dtype=torch.long)
    for spot in spots:
        count[spot.rows(shape)[:, None], spot.columns(shape)[None, :]] += 1
    return count


@pytest.mark.parametrize(
    ("length", "side", "tile", "offset", "expected"),
    [
        (128, 64, True, 0, [0, 64]),
        (128, 64, True, 100, [100, 36]),
        (100, 64, True, 0, [0, 50]),
        (64, 64, True, 17, [17]),
        (64, 64, False, 17, [0]),
        (128, 64, False, 0, [0, 64]),
        (128, 64, False, 20, [0, 20, 64]),
        (100, 64, False, 5, [0, 36]),
        (160, 64, False, 8, [0, 48, 96]),
    ],
)
def test_windows_start_where_expected(length: int, side: int, tile: bool, offset: int, expected: list[int]) -> None:
    assert starts_along(length, side, tile, offset) == expected


def test_inner_windows_of_an_axis_with_edges_move_with_the_offset() -> None:
    assert len({starts_along(160, 64, False, offset)[1] for offset in range(64)}) > 8


def test_a_tiling_canvas_takes_the_fewest_windows() -> None:
    assert len(windows(Shape(256, 256, True, True), 64, (13, 50))) == 16


def test_windows_of_a_long_canvas_that_tiles_along_one_axis() -> None:
    shape = Shape(24, 100, False, True)
    assert windows(shape, 64, (0, 10)) == [Window(0, 10, 24, 64), Window(0, 60, 24, 64)]


def test_a_window_wraps_around_the_edge() -> None:
    canvas = torch.arange(12).view(1, 3, 4)
    seen = cut_windows(canvas, [Window(2, 3, 2, 2)], Shape(3, 4, True, True))
    assert seen.tolist() == [[[[11, 8], [3, 0]]]]


def test_a_small_tiling_canvas_has_one_window_with_sides_rounded_up() -> None:
    shape = Shape(12, 20, True, True)
    (spot,) = windows(shape, 64, (3, 5))
    assert (spot.height, spot.width) == (16, 24)
    assert spot.rows(shape).tolist() == [(i + 3) % 12 for i in range(16)]


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, side=st.sampled_from([8, 16, 64]), dy=st.integers(0, 200), dx=st.integers(0, 200))
def test_windows_cover_every_cell(shape: Shape, side: int, dy: int, dx: int) -> None:
    spots = windows(shape, side, (dy, dx))
    assert int(coverage(shape, spots).min()) >= 1
    assert len({(w.height, w.width) for w in spots}) == 1


@settings(deadline=None, max_examples=40)
@given(eighths=st.integers(1, 20), side=st.sampled_from([8, 16, 64]), offset=st.integers(0, 200))
def test_windows_of_an_axis_with_edges_end_at_them(eighths: int, side: int, offset: int) -> None:
    shape = Shape(8 * eighths, 40, False, True)
    spots = windows(shape, side, (offset, offset))
    assert min(w.y for w in spots) == 0
    assert max(w.y + w.height for w in spots) == shape.height


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, side=st.sampled_from([8, 24, 64]), dy=st.integers(0, 99), dx=st.integers(0, 99))
def test_averaged_windows_give_the_canvas_back(shape: Shape, side: int, dy: int, dx: int) -> None:
    canvas = torch.randn(3, shape.height, shape.width, generator=torch.Generator().manual_seed(dy))
    total = Accumulator(3, shape)
    spots = windows(shape, side, (dy, dx))
    total.add(spots, cut_windows(canvas, spots, shape))
    torch.testing.assert_close(total.mean(), canvas)


def test_overlapping_windows_are_weighted_by_the_distance_from_their_border() -> None:
    shape = Shape(1, 5, False, False)
    total = Accumulator(1, shape, margin=2)
    total.add([Window(0, 0, 1, 3)], torch.zeros(1, 1, 1, 3))
    total.add([Window(0, 2, 1, 3)], torch.ones(1, 1, 1, 3))
    torch.testing.assert_close(total.mean(), torch.tensor([[[0.0, 0.0, 0.5, 1.0, 1.0]]]))


def test_weights_fall_towards_the_border() -> None:
    weight = feather(7, 9, 2)
    torch.testing.assert_close(weight[:, 4], torch.tensor([1.0, 2.0, 3.0, 3.0, 3.0, 2.0, 1.0]) / 3)
    torch.testing.assert_close(weight[0, 0], torch.tensor(1 / 9))


@pytest.mark.parametrize(("value", "multiple", "expected"), [(1, 8, 8), (8, 8, 8), (9, 8, 16), (0, 8, 0)])
def test_round_up(value: int, multiple: int, expected: int) -> None:
    assert round_up(value, multiple) == expected


# ---------------------------------------------------------------------------------------------- pictures resized


@pytest.mark.parametrize("tiles", [(True, True), (False, True), (False, False)])
def test_a_resized_picture_still_tiles(tiles: tuple[bool, bool]) -> None:
    picture = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))
    small = resized(picture, 15, 36, tiles)
    assert small.shape == (3, 15, 36)
    assert float(small.min()) >= 0 and float(small.max()) <= 1
    moved = resized(picture.roll((4, 2), (1, 2)), 15, 36, tiles).roll((-3, -3), (1, 2))
    same = [torch.allclose(a, b, atol=1e-5) for a, b in ((small, moved), (small[:, 4:8, 4:28], moved[:, 4:8, 4:28]))]
    assert same == [tiles == (True, True), True]


def test_a_picture_of_the_right_size_is_returned_unchanged() -> None:
    picture = torch.rand(3, 8, 16)
    assert resized(picture, 8, 16, (True, True)) is picture
