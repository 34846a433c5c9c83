"""Quilts: source maps point inside the swatch, follow the layout and the seed, and continue over tiling edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_service.core import metrics
from ad_service.core.canvas import Shape
from ad_service.core.labels import LabelError
from ad_service.core.quilting.cuts import Borders
from ad_service.core.quilting.quilt import QuiltOptions, quilt
from ad_service.core.quilting.sheets import sheet_starts
from ad_service.core.quilting.source_maps import Swatch, gather
from tests.support.tiny_models import end, grain, seeded

OPTIONS = QuiltOptions(block=12, overlap=4, refinements=2)


pytestmark = pytest.mark.usefixtures("one_thread")


def quilted(
    swatch: Swatch, shape: Shape, layout: Tensor | None = None, seed: int = 0, options: QuiltOptions = OPTIONS
) -> Tensor:
    return end(quilt(swatch, shape, layout, seeded(seed), options))[1]


SHAPES = [
    ((40, 56), Shape(24, 100, True, True)),
    ((40, 56), Shape(24, 100, False, True)),
    ((40, 56), Shape(100, 24, True, False)),
    ((40, 56), Shape(30, 30, False, False)),
    ((8, 8), Shape(20, 33, True, True)),
    ((8, 8), Shape(8, 8, True, True)),
    ((9, 31), Shape(5, 40, True, False)),
    ((64, 64), Shape(3, 3, True, True)),
]


@pytest.mark.parametrize(("size", "shape"), SHAPES)
def test_a_quilt_of_any_shape_points_inside_its_swatch(size: tuple[int, int], shape: Shape) -> None:
    source = quilted(Swatch(grain(*size)), shape)
    assert source.shape == (shape.height, shape.width)
    assert source.dtype == torch.long
    assert int(source.min()) >= 0
    assert int(source.max()) < size[0] * size[1]


@pytest.mark.parametrize(("size", "shape"), SHAPES)
def test_a_quilt_of_any_shape_follows_its_layout(size: tuple[int, int], shape: Shape) -> None:
    h, w = size
    regions = (torch.arange(w)[None, :] > w // 3).long() + 2 * (torch.arange(h)[:, None] > h // 2).long()
    layout = (torch.arange(shape.height)[:, None] // 5 + torch.arange(shape.width)[None, :] // 7) % 4
    source = quilted(Swatch(grain(h, w), regions), shape, layout)
    assert torch.equal(regions.flatten()[source], layout)


def test_a_label_of_one_cell_fills_its_whole_region() -> None:
    regions = torch.zeros(16, 16, dtype=torch.long)
    regions[5, 9] = 1
    layout = torch.zeros(20, 20, dtype=torch.long)
    layout[4:12, 6:] = 1
    source = quilted(Swatch(grain(16, 16), regions), Shape(20, 20, True, True), layout)
    assert (source[layout == 1] == 5 * 16 + 9).all()
    assert (source[layout == 0] != 5 * 16 + 9).all()


def test_labels_of_the_swatch_are_ignored_without_a_layout() -> None:
    regions = (torch.arange(40)[:, None] > 20).long().expand(40, 56)
    shape = Shape(24, 30, True, True)
    assert torch.equal(quilted(Swatch(grain(40, 56), regions), shape), quilted(Swatch(grain(40, 56)), shape))


def test_a_layout_label_missing_from_the_swatch_is_named_in_the_error() -> None:
    swatch = Swatch(grain(16, 16), torch.zeros(16, 16, dtype=torch.long))
    with pytest.raises(LabelError, match="label 1, which no pixel of the swatch"):
        quilted(swatch, Shape(16, 16, True, True), torch.eye(16, dtype=torch.long))


def test_a_quilt_depends_on_its_seed_only() -> None:
    swatch, shape = Swatch(grain(40, 56)), Shape(24, 50, True, True)
    assert torch.equal(quilted(swatch, shape, seed=3), quilted(swatch, shape, seed=3))
    assert not torch.equal(quilted(swatch, shape, seed=3), quilted(swatch, shape, seed=4))


def test_a_quilt_yields_increasing_fractions() -> None:
    swatch, shape = Swatch(grain(40, 56)), Shape(50, 50, True, True)
    fractions, _ = end(quilt(swatch, shape, None, seeded(), OPTIONS))
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert len(fractions) > 3


def test_the_edges_of_a_tiling_quilt_are_as_different_as_its_other_borders() -> None:
    picture = grain(48, 64)
    ratios = []
    for seed in range(6):
        made = metrics.seam(gather(quilted(Swatch(picture), Shape(56, 88, True, True), seed=seed), picture))
        ratios += [made.y.single.ratio, made.x.single.ratio]
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)
    assert max(ratios) < 1.7


def test_only_the_axis_that_tiles_continues_over_its_edge() -> None:
    picture = grain(48, 64)
    ratios = [
        metrics.seam(gather(quilted(Swatch(picture), Shape(60, 88, False, True), seed=seed), picture))
        for seed in range(3)
    ]
    assert max(r.x.single.ratio for r in ratios) < 1.5
    assert min(r.y.single.ratio for r in ratios) > 2


def test_most_neighbors_in_a_quilt_are_neighbors_in_the_swatch() -> None:
    source = quilted(Swatch(grain(48, 64)), Shape(64, 64, True, True))
    together = (source[:, 1:] == source[:, :-1] + 1).float().mean()
    assert float(together) > 0.8


def test_a_swatch_of_one_color_gives_a_quilt() -> None:
    source = quilted(Swatch(torch.full((3, 20, 20), 0.5)), Shape(24, 24, True, True))
    assert int(source.max()) < 400


def test_refinement_lowers_the_border_cost() -> None:
    swatch, shape = Swatch(grain(48, 64)), Shape(64, 64, True, True)
    borders = Borders(swatch.features, 0.1)

    def cost(refinements: float) -> float:
        options = replace(OPTIONS, refinements=refinements)
        _, source = end(quilt(swatch, shape, None, seeded(), options))
        return borders.sum(np.pad(source.numpy(), (0, 1), "wrap"))

    assert cost(8) < 0.8 * cost(0.01)


def test_refinement_reaches_every_area_of_a_canvas() -> None:
    swatch, shape = Swatch(grain(40, 40)), Shape(40, 300, True, True)
    borders = Borders(swatch.features, 0.1)
    totals = []
    for refinements in (0.01, 6.0):
        _, source = end(quilt(swatch, shape, None, seeded(), replace(OPTIONS, refinements=refinements)))
        shown = np.pad(source.numpy(), (0, 1), "wrap")
        totals.append([borders.sum(shown[:, x : x + 101]) for x in (0, 100, 200)])
    for before, after in zip(*totals, strict=True):
        assert after < 0.9 * before


@pytest.mark.parametrize("length", [20, 256, 257, 500, 1000])
def test_every_piece_lies_entirely_in_a_sheet(length: int) -> None:
    sheet, largest = OPTIONS.sheet, OPTIONS.largest_piece
    starts = sheet_starts(length, sheet, largest)
    assert starts[0] == 0 and starts[-1] == max(0, length - sheet)
    size = min(largest, length)
    assert all(any(s <= at and at + size <= s + sheet for s in starts) for at in range(length - size + 1))


@pytest.mark.parametrize("labeled", [False, True])
def test_a_large_swatch_is_searched_in_sheets(labeled: bool) -> None:
    swatch, shape, layout = Swatch(grain(60, 90)), Shape(50, 50, True, True), None
    if labeled:
        swatch = replace(swatch, labels=(torch.arange(90) > 70).long().expand(60, 90).contiguous())
        layout = (torch.arange(50) > 25).long().expand(50, 50).contiguous()
    whole = quilted(swatch, shape, layout)
    parts = quilted(swatch, shape, layout, options=replace(OPTIONS, sheet=48, largest_piece=18))
    borders = Borders(swatch.features, OPTIONS.contrast_floor)
    assert borders.sum(parts.numpy()) < 2 * borders.sum(whole.numpy()), "a third of the places, not much worse"
    assert len(parts.unique()) > 0.8 * len(whole.unique()), "all sheets are used"
    if layout is not None and swatch.labels is not None:
        assert torch.equal(swatch.labels.flatten()[parts], layout)


def test_torch_keeps_its_threads_between_the_steps_of_a_quilt() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        work = quilt(Swatch(grain(40, 56)), Shape(24, 50, True, True), None, seeded(), OPTIONS)
        for _ in work:
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
