"""Cuts: the cheapest of all choices, and which of them are visible."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from ad_service.core.quilting.cuts import Borders, CutOptions, visible_cuts
from ad_service.core.quilting.source_maps import Swatch
from tests.support.tiny_models import grain


def two_pieces(seed: int) -> list[np.ndarray]:
    """Source maps (3, 4) of pieces of a swatch of 6 x 7 cells."""
    rng = np.random.default_rng(seed)
    corners = rng.choice(4 * 4, 2, replace=False)
    return [(c // 4 + np.arange(3))[:, None] * 7 + c % 4 + np.arange(4) for c in corners]


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_is_the_cheapest_of_all_choices(seed: int) -> None:
    borders = Borders(grain(6, 7), 1.0)
    old, new = two_pieces(seed)
    laid, kept = np.ones((3, 4), np.bool_), np.zeros((3, 4), np.bool_)
    kept[0] = True
    price = np.random.default_rng(seed).normal(0, 1, (3, 4)).astype(np.float32)
    best = min(
        borders.sum(np.where(take, new, old)) + price[take].sum()
        for flags in product((False, True), repeat=8)
        for take in [np.concatenate([~kept[:1], np.array(flags).reshape(2, 4)])]
    )
    take = borders.cut(old, new, laid, kept, price)
    assert not take[kept].any()
    assert borders.sum(np.where(take, new, old)) + price[take].sum() == pytest.approx(best, abs=1e-4)


def test_empty_cells_are_covered_and_kept_cells_stay() -> None:
    borders = Borders(grain(6, 7), 1.0)
    old, new = two_pieces(9)
    laid, kept = np.zeros((3, 4), np.bool_), np.zeros((3, 4), np.bool_)
    laid[:, :3] = True
    kept[:, 0] = True
    take = borders.cut(old, new, laid, kept, np.full((3, 4), 0.1, np.float32))
    assert take[:, 3].all()
    assert not take[:, 0].any()


def test_neighbors_in_the_swatch_cost_nothing_and_rows_do_not_continue_in_the_next() -> None:
    picture = torch.linspace(0, 1, 8).expand(1, 8, 8)  # dark at the left, bright at the right
    borders = Borders(picture, 0.01)
    row = np.array([12, 13, 14])
    assert borders.cost(row, row + 1, 1).tolist() == [0, 0, 0]
    assert borders.cost(row, row + 8, 0).tolist() == [0, 0, 0]
    assert borders.cost(np.array([15]), np.array([16]), 1).item() > 10


def test_only_visible_cuts_and_the_cells_near_them_are_marked() -> None:
    picture = torch.cat([grain(20, 20), torch.full((3, 20, 20), 0.5)], 2)  # grain at the left, one color at the right
    index = torch.arange(20 * 40).view(20, 40)
    whole = index[:, :16]
    plain = torch.cat([index[:, 24:32], index[:, 24:32]], 1)
    rough = torch.cat([index[:, :8], index.roll(-5, 0)[:, 3:11]], 1)
    open_edges = (False, False)
    for source in (whole, plain):
        assert float(visible_cuts(source, Swatch(picture), 0.1, 3, open_edges).max()) == 0
    assert float(visible_cuts(whole, Swatch(picture), 0.1, 3, (True, True)).min(1).values.max()) > 0.5  # it wraps
    near = visible_cuts(rough, Swatch(picture), 0.1, 3, open_edges).mean(0)
    assert float(near[7]) > 0.5 and float(near[8]) > 0.5
    assert float(near[5]) < float(near[7])
    assert float(near[:4].max()) == 0


@pytest.mark.parametrize("tiling", [True, False])
def test_visible_cuts_do_not_depend_on_the_height_of_the_bands(tiling: bool) -> None:
    swatch = Swatch(grain(40, 56))
    rows, columns = torch.arange(45)[:, None], torch.arange(50)[None, :]
    source = (rows * 7 + columns // 9) % 40 * 56 + (columns * 3 + rows // 11) % 56
    whole = visible_cuts(source, swatch, 0.1, 3, (tiling, tiling))
    banded = visible_cuts(source, swatch, 0.1, 3, (tiling, tiling), CutOptions(band_rows=7))
    assert torch.equal(banded, whole)


def test_a_cut_is_fully_visible_from_the_visible_cost_on() -> None:
    swatch, index = Swatch(grain(20, 20)), torch.arange(20 * 20).view(20, 20)
    source = torch.cat([index[:, :8], index[:, 11:19]], 1)
    strengths = [
        float(visible_cuts(source, swatch, 0.1, 3, (False, False), CutOptions(visible_cost=cost)).max())
        for cost in (1e-6, 1e6)
    ]
    assert strengths[0] == 1 and strengths[1] < 0.01
