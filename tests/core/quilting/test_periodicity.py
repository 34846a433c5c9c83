"""Regular swatches: their periods are found, and fitted to a torus with little change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ad_service.core.quilting import periodicity
from tests.support.tiny_models import grain


def paving(height: int, width: int, down: float, right: float, shift: float = 0.0) -> Tensor:
    """Gray stones of `down` x `right` pixels with dark joints and a little grain; rows are moved by `shift`."""
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    x = x + shift * (y / down).floor()
    joint = ((y % down) < 3) | ((x % right) < 3)
    grain = 0.05 * torch.randn(3, height, width, generator=torch.Generator().manual_seed(0))
    return (torch.where(joint, 0.1, 0.6) + grain).clamp(0, 1)


@pytest.mark.parametrize(
    ("down", "right", "shift"), [(40.0, 40.0, 0.0), (32.0, 56.0, 0.0), (41.5, 30.25, 0.0), (32.0, 56.0, 28.0)]
)
def test_the_periods_of_a_paving_are_found_to_a_fraction_of_a_pixel(down: float, right: float, shift: float) -> None:
    vectors = periodicity.find_periods(paving(256, 320, down, right, shift))
    assert vectors is not None
    counts = torch.linalg.solve(torch.tensor([[down, 0.0], [-shift, right]]), vectors.t())
    assert float((counts - counts.round()).abs().max()) < 0.02
    assert abs(float(torch.linalg.det(counts))) == pytest.approx(1, abs=0.05)


def courses(height: int, width: int, down: float, lean: float = 0.0) -> Tensor:
    """Courses `down` pixels high, of unequal bricks, that sink by `lean` pixels for each pixel to the right."""
    generator = torch.Generator().manual_seed(4)
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    y = y - lean * x + 10 * down
    ends = torch.rand(64, 24, generator=generator).mul(60).add(40).cumsum(1) - 100
    row = (y / down).long()
    nearest = (ends[row] - x[..., None]).abs().amin(-1)
    joint = ((y % down) < 4) | (nearest < 2)
    tone = torch.rand(64, 25, generator=generator)[row, (ends[row] < x[..., None]).sum(-1)]
    grain = 0.05 * torch.randn(3, height, width, generator=generator)
    return (torch.where(joint, 0.85, 0.3 + 0.2 * tone) + grain).clamp(0, 1)


@pytest.mark.parametrize(("down", "lean"), [(40.0, 0.0), (31.5, 0.0), (36.0, 0.06)])
def test_courses_of_unlike_bricks_have_one_period(down: float, lean: float) -> None:
    vectors = periodicity.find_periods(courses(256, 320, down, lean))
    assert vectors is not None
    assert vectors.shape == (1, 2)
    wave = torch.tensor([1.0, -lean]) / down
    assert float((vectors[0] @ wave).abs()) == pytest.approx(1, abs=0.02)
    assert float(vectors[0, 1] / vectors[0, 0]) == pytest.approx(-lean, abs=0.01)


def test_upright_planks_have_one_period_too() -> None:
    vectors = periodicity.find_periods(courses(320, 256, 36.0).transpose(1, 2))
    assert vectors is not None
    assert vectors.abs().tolist()[0] == pytest.approx([0, 36], abs=0.6)


def test_two_courses_are_too_few_for_a_period() -> None:
    assert periodicity.find_periods(courses(200, 320, 90.0)) is None


@pytest.mark.parametrize("tiles", [(True, True), (True, False), (False, True)])
def test_an_integer_number_of_rows_lies_along_each_side_of_the_torus(tiles: tuple[bool, bool]) -> None:
    period = torch.tensor([[41.5, 2.0]])
    found = periodicity.fit_periods(period, 512, 640, tiles)
    assert found is not None
    matrix, moved = found
    assert float((matrix - torch.eye(2)).abs().max()) <= periodicity.PeriodicityOptions().max_change
    wave = moved[0] / moved[0].square().sum()
    for side, tile in ((torch.tensor([512.0, 0.0]), tiles[0]), (torch.tensor([0.0, 640.0]), tiles[1])):
        rows = float(side @ wave)
        assert not tile or abs(rows - round(rows)) < 1e-4
    along = torch.tensor([-2.0, 41.5])  # a line along the rows stays one, and a period across them one period
    assert float((matrix @ along) @ wave) == pytest.approx(0, abs=1e-4)
    assert float((matrix @ period[0]) @ wave) == pytest.approx(1, abs=1e-4)


def test_noise_has_no_periods() -> None:
    assert periodicity.find_periods(torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(1))) is None


@pytest.mark.parametrize("side", [64, 96, 128])
def test_blobs_of_a_small_picture_are_not_taken_for_rows(side: int) -> None:
    assert [seed for seed in range(6) if periodicity.find_periods(grain(side, side, seed=seed)) is not None] == []


def test_a_picture_of_one_color_has_no_periods() -> None:
    assert periodicity.find_periods(torch.full((3, 64, 64), 0.5)) is None


@pytest.mark.parametrize("tiles", [(True, True), (True, False), (False, True)])
def test_the_sides_of_the_torus_become_sums_of_periods(tiles: tuple[bool, bool]) -> None:
    vectors = torch.tensor([[41.5, 0.0], [2.0, 59.6]])
    found = periodicity.fit_periods(vectors, 512, 640, tiles)
    assert found is not None
    matrix, moved = found
    assert float((matrix - torch.eye(2)).abs().max()) <= periodicity.PeriodicityOptions().max_change
    assert torch.allclose(moved, vectors @ matrix.t())
    for side, tile in ((torch.tensor([512.0, 0.0]), tiles[0]), (torch.tensor([0.0, 640.0]), tiles[1])):
        if tile:
            counts = torch.linalg.solve(moved.t(), side)
            assert float((counts - counts.round()).abs().max()) < 1e-4


def test_a_pattern_too_coarse_for_the_canvas_is_not_fitted() -> None:
    assert periodicity.fit_periods(torch.tensor([[90.0, 0.0], [0.0, 90.0]]), 64, 64, (True, True)) is None
    assert periodicity.fit_periods(torch.tensor([[90.0, 0.0]]), 40, 64, (True, True)) is None


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_is_stretched_if_nothing_tiles(count: int) -> None:
    periods = torch.tensor([[90.0, 0.0], [0.0, 90.0]])[:count]
    found = periodicity.fit_periods(periods, 512, 512, (False, False))
    assert found is not None
    assert torch.equal(found[0], torch.eye(2))
    assert torch.equal(found[1], periods)


def test_a_warped_paving_has_the_periods_of_the_matrix() -> None:
    picture = paving(256, 320, 40.0, 40.0)
    matrix = torch.tensor([[1.05, 0.0], [0.0, 0.96]])
    warped = periodicity.warp(picture, matrix)
    assert warped.shape == (3, 269, 307)
    vectors = periodicity.find_periods(warped)
    assert vectors is not None
    assert sorted(vectors.abs().amax(0).tolist()) == pytest.approx([38.4, 42.0], abs=0.5)


def test_an_identity_changes_nothing() -> None:
    picture = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(periodicity.warp(picture, torch.eye(2)), picture, atol=1e-4)


def test_the_options_decide_what_counts_as_a_period_and_how_far_it_is_stretched() -> None:
    options = periodicity.PeriodicityOptions(peak_correlation=1.0, row_correlation=1.0, max_change=0.0)
    assert periodicity.find_periods(paving(256, 320, 40.0, 40.0), options) is None
    assert periodicity.fit_periods(torch.tensor([[41.5, 0.0]]), 512, 512, (True, True), options) is None


@pytest.mark.parametrize("size", [(32, 16384), (16384, 32), (8, 16384), (16384, 8)])
def test_a_strip_that_shrinking_leaves_no_room_has_no_periods(size: tuple[int, int]) -> None:
    assert periodicity.find_periods(grain(*size)) is None
