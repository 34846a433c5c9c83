"""Holes are filled with pieces that match what lies around them, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ad_service.core.quilting.fill import UNUSABLE, FillOptions, Hole, fill
from ad_service.core.steps import run

OPTIONS = FillOptions(block=24, refinements=2.0)


def tiles_of_bricks(height: int = 96, width: int = 96) -> npt.NDArray[np.float32]:
    """A wall (3, height, width) that repeats after 16 rows and 24 columns."""
    y, x = np.mgrid[:height, :width]
    joint = (y % 8 < 2) | ((x + 12 * (y // 8 % 2)) % 24 < 2)
    return np.stack([np.where(joint, 0.9, 0.3 + 0.02 * (x % 24) / 24)] * 3).astype(np.float32)


def hole_of(picture: npt.NDArray[np.float32], **changes: Any) -> Hole:
    height, width = picture.shape[1:]
    y, x = np.mgrid[:height, :width]
    mask = (y - height // 2) ** 2 + (x - width // 2) ** 2 < 14**2
    hole = Hole(
        torch.from_numpy(np.where(mask, 0, picture)),
        np.where(mask, UNUSABLE, 1),
        np.arange(height * width).reshape(height, width),
        mask,
        mask,
        np.ones_like(y),
        (False, False),
    )
    return replace(hole, **changes)


def filled(hole: Hole, seed: int = 0) -> npt.NDArray[np.int64]:
    return run(fill(hole, torch.Generator().manual_seed(seed), OPTIONS))[0]


def test_a_hole_in_a_regular_wall_is_filled_with_the_same_wall() -> None:
    wall = tiles_of_bricks()
    source = filled(hole_of(wall))
    shown = wall.reshape(3, -1)[:, source]
    assert float(np.abs(shown - wall).mean()) < 0.001


def test_only_the_hole_changes_and_only_usable_pixels_are_shown_in_it() -> None:
    hole = hole_of(np.random.default_rng(0).random((3, 96, 96)).astype(np.float32))
    source = filled(hole)
    assert np.array_equal(source[~hole.free], hole.start[~hole.free])
    assert (hole.labels.ravel()[source[hole.free]] == 1).all()


def test_each_pixel_of_a_hole_gets_its_label() -> None:
    picture = np.random.default_rng(0).random((3, 96, 96)).astype(np.float32)
    hole = hole_of(picture)
    x = np.arange(96)[None, :].repeat(96, 0)
    hole = replace(hole, labels=np.where(hole.free, UNUSABLE, np.where(x < 30, 2, 1)), wanted=np.where(x < 48, 2, 1))
    source = filled(hole)
    assert (hole.labels.ravel()[source] == hole.wanted)[hole.free].all()


def test_what_may_be_replaced_changes_only_where_that_hides_a_seam() -> None:
    wall = tiles_of_bricks()
    free = np.zeros((96, 96), np.bool_)
    free[:, 20:76] = True
    plain = hole_of(wall, features=torch.from_numpy(wall), empty=np.zeros_like(free), free=free)
    plain = replace(plain, labels=np.ones((96, 96), np.int64))
    assert np.array_equal(filled(plain), plain.start)  # no seam, no change
    start = plain.start.copy()
    start[:, 48:] = plain.start.reshape(96, 96)[:, (np.arange(48, 96) + 5) % 96]  # the right half is out of step
    changed = filled(replace(plain, start=start)) != start
    assert 0 < changed[:, 20:76].mean() < 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_fills_alike(seed: int) -> None:
    hole = hole_of(np.random.default_rng(0).random((3, 96, 96)).astype(np.float32))
    assert np.array_equal(filled(hole, seed), filled(hole, seed))
