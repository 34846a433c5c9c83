"""Autocorrelation by FFT equals the sums over the overlap of a picture with its shifted copy."""

from __future__ import annotations

import pytest
import torch

from ad_service.core.correlation import overlap_correlation


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 0), (0, 3), (1, 4), (3, -2)])
def test_sums_and_energies_are_those_of_the_overlap(down: int, right: int) -> None:
    picture = torch.rand(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sums, energy = overlap_correlation(picture)
    assert sums.shape == energy.shape == (10, 14)
    first = picture[: 5 - down, max(-right, 0) : 7 - max(right, 0)]
    second = picture[down:, max(right, 0) : 7 + min(right, 0)]
    torch.testing.assert_close(sums[down, right], (first * second).sum())
    torch.testing.assert_close(energy[down, right], first.square().sum() * second.square().sum())
