"""Regular swatches: their periods are found, and fitted to the torus with little change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ad_service.core import lattice


def paving(height: int, width: int, down: float, right: float, shift: float = 0.0) -> Tensor:
    """Grey stones of `down` x `right` pixels with dark joints and a little grain; rows are moved by `shift`."""
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    x = x + shift * (y / down).floor()
    joint = ((y % down) < 3) | ((x % right) < 3)
    grain = 0.05 * torch.randn(3, height, width, generator=torch.Generator().manual_seed(0))
    return (torch.where(joint, 0.1, 0.6) + grain).clamp(0, 1)


@pytest.mark.parametrize(("down", "right"), [(40.0, 40.0), (32.0, 56.0), (41.5, 30.25)])
def test_the_periods_of_a_paving_are_found_to_a_fraction_of_a_pixel(down: float, right: float) -> None:
    vectors = lattice.basis(paving(256, 320, down, right))
    assert vectors is not None
    counts = torch.linalg.solve(torch.diag(torch.tensor([down, right])), vectors.t())
    assert float((counts - counts.round()).abs().max()) < 0.02
    assert abs(float(torch.linalg.det(counts))) == pytest.approx(1, abs=0.05)


def test_noise_has_no_periods() -> None:
    assert lattice.basis(torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(1))) is None


@pytest.mark.parametrize("tiles", [(True, True), (True, False), (False, True)])
def test_the_sides_of_the_torus_become_sums_of_periods(tiles: tuple[bool, bool]) -> None:
    vectors = torch.tensor([[41.5, 0.0], [2.0, 59.6]])
    matrix = lattice.fitting(vectors, 512, 640, tiles)
    assert matrix is not None
    assert float((matrix - torch.eye(2)).abs().max()) <= lattice.MOST
    moved = vectors @ matrix.t()
    for side, tile in ((torch.tensor([512.0, 0.0]), tiles[0]), (torch.tensor([0.0, 640.0]), tiles[1])):
        if tile:
            counts = torch.linalg.solve(moved.t(), side)
            assert float((counts - counts.round()).abs().max()) < 1e-4


def test_a_pattern_too_coarse_for_the_canvas_is_left_alone() -> None:
    assert lattice.fitting(torch.tensor([[90.0, 0.0], [0.0, 90.0]]), 64, 64, (True, True)) is None
    assert lattice.fitting(torch.tensor([[90.0, 0.0], [0.0, 90.0]]), 512, 512, (False, False)) is None


def test_a_warped_paving_has_the_periods_that_were_asked_for() -> None:
    picture = paving(256, 320, 40.0, 40.0)
    matrix = torch.tensor([[1.05, 0.0], [0.0, 0.96]])
    warped = lattice.warp(picture, matrix)
    assert warped.shape == (3, 269, 307)
    vectors = lattice.basis(warped)
    assert vectors is not None
    assert sorted(vectors.abs().amax(0).tolist()) == pytest.approx([38.4, 42.0], abs=0.5)


def test_an_identity_changes_nothing() -> None:
    picture = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(lattice.warp(picture, torch.eye(2)), picture, atol=1e-4)
