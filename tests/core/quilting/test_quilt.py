"""Quilts: source maps stay inside the swatch, obey the layout, are seeded, and continue over tiling edges."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_service.core import metrics
from ad_service.core.canvas import Shape
from ad_service.core.labels import LabelError
from ad_service.core.quilting.cuts import Borders
from ad_service.core.quilting.quilt import LARGEST, SHEET, QuiltOptions, _tops, quilt
from ad_service.core.quilting.source_maps import Swatch, gather
from tests.support.tiny_models import grain

OPTIONS = QuiltOptions(block=12, overlap=4, refinements=2)


pytestmark = pytest.mark.usefixtures("one_thread")


def last(swatch: Swatch, shape: Shape, layout: Tensor | None = None, seed: int = 0) -> Tensor:
    return finish(quilt(swatch, shape, layout, torch.Generator().manual_seed(seed), OPTIONS))[1]


def finish(work: Generator[float, None, Tensor]) -> tuple[list[float], Tensor]:
    """The fractions that a quilt yields, and its source map."""
    made: list[Tensor] = []

    def through() -> Iterator[float]:
        made.append((yield from work))

    return list(through()), made[0]


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
    source = last(Swatch(grain(*size)), shape)
    assert source.shape == (shape.height, shape.width)
    assert source.dtype == torch.long
    assert int(source.min()) >= 0
    assert int(source.max()) < size[0] * size[1]


@pytest.mark.parametrize(("size", "shape"), SHAPES)
def test_a_quilt_of_any_shape_obeys_its_layout(size: tuple[int, int], shape: Shape) -> None:
    h, w = size
    regions = (torch.arange(w)[None, :] > w // 3).long() + 2 * (torch.arange(h)[:, None] > h // 2).long()
    layout = (torch.arange(shape.height)[:, None] // 5 + torch.arange(shape.width)[None, :] // 7) % 4
    source = last(Swatch(grain(h, w), regions), shape, layout)
    assert torch.equal(regions.flatten()[source], layout)


def test_a_label_of_one_cell_fills_its_whole_region() -> None:
    regions = torch.zeros(16, 16, dtype=torch.long)
    regions[5, 9] = 1
    layout = torch.zeros(20, 20, dtype=torch.long)
    layout[4:12, 6:] = 1
    source = last(Swatch(grain(16, 16), regions), Shape(20, 20, True, True), layout)
    assert (source[layout == 1] == 5 * 16 + 9).all()
    assert (source[layout == 0] != 5 * 16 + 9).all()


def test_labels_of_the_swatch_mean_nothing_without_a_layout() -> None:
    regions = (torch.arange(40)[:, None] > 20).long().expand(40, 56)
    shape = Shape(24, 30, True, True)
    assert torch.equal(last(Swatch(grain(40, 56), regions), shape), last(Swatch(grain(40, 56)), shape))


def test_a_label_that_the_swatch_lacks_is_named() -> None:
    swatch = Swatch(grain(16, 16), torch.zeros(16, 16, dtype=torch.long))
    with pytest.raises(LabelError, match="label 1, which no pixel of the swatch"):
        last(swatch, Shape(16, 16, True, True), torch.eye(16, dtype=torch.long))


def test_a_quilt_follows_its_seed_alone() -> None:
    swatch, shape = Swatch(grain(40, 56)), Shape(24, 50, True, True)
    assert torch.equal(last(swatch, shape, seed=3), last(swatch, shape, seed=3))
    assert not torch.equal(last(swatch, shape, seed=3), last(swatch, shape, seed=4))


def test_a_quilt_tells_how_far_it_is() -> None:
    swatch, shape = Swatch(grain(40, 56)), Shape(50, 50, True, True)
    fractions, _ = finish(quilt(swatch, shape, None, torch.Generator().manual_seed(0), OPTIONS))
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert len(fractions) > 3


def test_the_edges_of_a_tiling_quilt_are_like_its_other_borders() -> None:
    picture = grain(48, 64)
    ratios = []
    for seed in range(6):
        made = metrics.seam(gather(last(Swatch(picture), Shape(56, 88, True, True), seed=seed), picture))
        ratios += [made.y.single.ratio, made.x.single.ratio]
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)
    assert max(ratios) < 1.7


def test_only_the_axis_that_tiles_continues_over_its_edge() -> None:
    picture = grain(48, 64)
    ratios = [
        metrics.seam(gather(last(Swatch(picture), Shape(60, 88, False, True), seed=seed), picture)) for seed in range(3)
    ]
    assert max(r.x.single.ratio for r in ratios) < 1.5
    assert min(r.y.single.ratio for r in ratios) > 2


def test_a_quilt_keeps_pieces_of_the_swatch_whole() -> None:
    source = last(Swatch(grain(48, 64)), Shape(64, 64, True, True))
    together = (source[:, 1:] == source[:, :-1] + 1).float().mean()
    assert float(together) > 0.8


def test_a_quilt_of_a_swatch_of_one_colour_does_not_mind() -> None:
    source = last(Swatch(torch.full((3, 20, 20), 0.5)), Shape(24, 24, True, True))
    assert int(source.max()) < 400


def test_mending_makes_borders_better() -> None:
    swatch, shape = Swatch(grain(48, 64)), Shape(64, 64, True, True)
    borders = Borders(swatch.features, 0.1)

    def cost(mends: float) -> float:
        options = replace(OPTIONS, refinements=mends)
        _, source = finish(quilt(swatch, shape, None, torch.Generator().manual_seed(0), options))
        return borders.sum(np.pad(source.numpy(), (0, 1), "wrap"))

    assert cost(8) < 0.8 * cost(0.01)


def test_a_canvas_of_many_areas_is_mended_everywhere() -> None:
    swatch, shape = Swatch(grain(40, 40)), Shape(40, 300, True, True)
    borders = Borders(swatch.features, 0.1)
    totals = []
    for mends in (0.01, 6.0):
        _, source = finish(
            quilt(swatch, shape, None, torch.Generator().manual_seed(0), replace(OPTIONS, refinements=mends))
        )
        shown = np.pad(source.numpy(), (0, 1), "wrap")
        totals.append([borders.sum(shown[:, x : x + 101]) for x in (0, 100, 200)])
    for before, after in zip(*totals, strict=True):
        assert after < 0.9 * before


@pytest.mark.parametrize("length", [20, 256, 257, 500, 1000])
def test_every_piece_lies_whole_in_a_sheet(length: int) -> None:
    tops = _tops(length)
    assert tops[0] == 0 and tops[-1] == max(0, length - SHEET)
    size = min(LARGEST, length)
    assert all(any(top <= at and at + size <= top + SHEET for top in tops) for at in range(length - size + 1))


@pytest.mark.parametrize("labelled", [False, True])
def test_a_large_swatch_is_searched_in_sheets(labelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    swatch, shape, layout = Swatch(grain(60, 90)), Shape(50, 50, True, True), None
    if labelled:
        swatch = replace(swatch, labels=(torch.arange(90) > 70).long().expand(60, 90).contiguous())
        layout = (torch.arange(50) > 25).long().expand(50, 50).contiguous()
    whole = last(swatch, shape, layout)
    monkeypatch.setattr("ad_service.core.quilting.quilt.SHEET", 48)
    monkeypatch.setattr("ad_service.core.quilting.quilt.LARGEST", 18)
    parts = last(swatch, shape, layout)
    borders = Borders(swatch.features, OPTIONS.plain)
    assert borders.sum(parts.numpy()) < 2 * borders.sum(whole.numpy()), "a third of the places, not much worse"
    assert len(parts.unique()) > 0.8 * len(whole.unique()), "all sheets are used"
    if layout is not None and swatch.labels is not None:
        assert torch.equal(swatch.labels.flatten()[parts], layout)
