"""Steps of tone between pieces are closed; steps of structure stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ad_service.core.pictures.gradients import close_steps


def closed(step: float) -> tuple[Tensor, Tensor]:
    """A gray picture with a rectangle that is brighter by `step`, and the same with its border closed."""
    h, w = 96, 128
    picture = torch.full((1, h, w), 0.4)
    free = torch.zeros(h, w, dtype=torch.bool)
    free[20:80, 30:] = True
    picture[:, free] += step
    none = torch.zeros(1, h, w)
    cuts = free != free.roll(-1, 0), free != free.roll(-1, 1)
    all_count = torch.ones_like(free), torch.ones_like(free)
    return picture, close_steps(picture, (none, none), cuts, free, all_count, (False, False))


@pytest.mark.parametrize("step", [0.03, -0.03])
def test_a_step_of_tone_is_closed_within_the_area(step: float) -> None:
    before, after = closed(step)
    assert float((after - 0.4).abs().max()) < 0.1 * abs(step)
    assert torch.equal(after[:, :20], before[:, :20])


def test_a_step_as_large_as_a_structure_is_not_smeared_over_the_area() -> None:
    """A wide dark joint that does not continue must not darken what it meets."""
    h, w = 96, 128
    picture = torch.full((1, h, w), 0.6)
    picture[:, 40:56, :30] = 0.1
    free = torch.zeros(h, w, dtype=torch.bool)
    free[:, 30:] = True
    none = torch.zeros(1, h, w)
    cuts = torch.zeros_like(free), free != free.roll(-1, 1)
    after = close_steps(picture, (none, none), cuts, free, (torch.ones_like(free),) * 2, (False, False))
    assert float((after - picture).abs()[:, :, 34:].max()) < 0.1


def test_differences_that_do_not_count_do_not_pull() -> None:
    picture = torch.full((1, 64, 64), 0.5)
    picture[:, :, 40:] = 0.45
    free = torch.zeros(64, 64, dtype=torch.bool)
    free[:, 20:40] = True
    counted = torch.ones_like(free)
    counted[:, 39] = False
    none = torch.zeros(1, 64, 64)
    cuts = torch.zeros_like(free), torch.ones_like(free)
    after = close_steps(picture, (none, none), cuts, free, (torch.ones_like(free), counted), (False, False))
    assert torch.allclose(after, picture, atol=1e-4)
