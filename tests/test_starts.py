"""Starts: source maps stay inside the swatch, obey the layout, are seeded, and continue over tiling edges."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core import metrics
from ad_service.core.canvas import Shape
from ad_service.core.labels import LabelError
from ad_service.core.quilt import Borders, QuiltOptions, quilt, visible_cuts
from ad_service.core.starts import Swatch, fill, paint, show

OPTIONS = QuiltOptions(block=12, overlap=4, mends=2)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads of a quilt's small operations wait for each other where other processes keep the cores busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def grain(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    """A texture (C, h, w) in [0, 1] of blobs a few cells wide."""
    noise = torch.randn(channels, height + 8, width + 8, generator=torch.Generator().manual_seed(seed))
    for _ in range(2):
        noise = F.avg_pool2d(noise[None], 5, 1)[0]
    return ((noise - noise.mean()) / noise.std() / 6 + 0.5).clamp(0, 1)


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
        made = metrics.seam(show(last(Swatch(picture), Shape(56, 88, True, True), seed=seed), picture))
        ratios += [made.y.single.ratio, made.x.single.ratio]
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)
    assert max(ratios) < 1.7


def test_only_the_axis_that_tiles_continues_over_its_edge() -> None:
    picture = grain(48, 64)
    ratios = [
        metrics.seam(show(last(Swatch(picture), Shape(60, 88, False, True), seed=seed), picture)) for seed in range(3)
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


def test_random_cells_have_the_label_of_the_layout() -> None:
    regions = (torch.arange(30)[None, :] // 10).expand(20, 30)
    layout = torch.randint(3, (17, 41), generator=torch.Generator().manual_seed(1))
    swatch = Swatch(grain(20, 30), regions)
    source = fill(swatch, Shape(17, 41, True, True), layout, torch.Generator().manual_seed(0))
    assert torch.equal(regions.flatten()[source], layout)
    again = fill(swatch, Shape(17, 41, True, True), layout, torch.Generator().manual_seed(0))
    assert torch.equal(source, again)


def test_a_label_that_the_swatch_lacks_is_named() -> None:
    swatch = Swatch(grain(16, 16), torch.zeros(16, 16, dtype=torch.long))
    layout = torch.eye(16, dtype=torch.long)
    with pytest.raises(LabelError, match="label 1, which no pixel of the swatch"):
        fill(swatch, Shape(16, 16, True, True), layout, torch.Generator())
    with pytest.raises(LabelError, match="label 1, which no pixel of the swatch"):
        last(swatch, Shape(16, 16, True, True), layout)


def test_random_cells_without_a_layout_come_from_all_over_the_swatch() -> None:
    source = fill(Swatch(grain(6, 5)), Shape(40, 40, True, True), None, torch.Generator().manual_seed(0))
    assert sorted(set(source.flatten().tolist())) == list(range(30))


def test_a_source_map_shows_the_cells_that_it_names() -> None:
    picture = torch.arange(6.0).view(1, 2, 3)
    assert show(torch.tensor([[5, 0], [1, 3]]), picture).tolist() == [[[5, 0], [1, 3]]]


@pytest.mark.parametrize("cell", [1, 2, 4, 8])
def test_the_source_map_of_the_swatch_itself_paints_the_swatch(cell: int) -> None:
    picture = grain(6 * cell, 9 * cell)
    source = torch.arange(54).view(6, 9)
    torch.testing.assert_close(paint(source, picture, cell, (False, False)), picture)


def test_a_rolled_source_map_paints_the_swatch_rolled_away_from_its_old_edges() -> None:
    picture = grain(48, 72)
    source = torch.arange(54).view(6, 9).roll((2, 3), (0, 1))
    painted = paint(source, picture, 8, (True, True))
    inner = torch.ones(48, 72, dtype=torch.bool)
    inner[12:20] = False  # half a cell around the swatch's edges, which now lie at row 16 and column 24
    inner[:, 20:28] = False
    torch.testing.assert_close(painted[:, inner], picture.roll((16, 24), (1, 2))[:, inner])


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


def test_what_is_bare_is_covered_and_what_is_kept_stays() -> None:
    borders = Borders(grain(6, 7), 1.0)
    old, new = two_pieces(9)
    laid, kept = np.zeros((3, 4), np.bool_), np.zeros((3, 4), np.bool_)
    laid[:, :3] = True
    kept[:, 0] = True
    take = borders.cut(old, new, laid, kept, np.full((3, 4), 0.1, np.float32))
    assert take[:, 3].all()
    assert not take[:, 0].any()


def test_neighbours_of_the_swatch_cost_nothing_and_its_rows_do_not_run_on() -> None:
    picture = torch.linspace(0, 1, 8).expand(1, 8, 8)  # dark at the left, bright at the right
    borders = Borders(picture, 0.01)
    row = np.array([12, 13, 14])
    assert borders.cost(row, row + 1, 1).tolist() == [0, 0, 0]
    assert borders.cost(row, row + 8, 0).tolist() == [0, 0, 0]
    assert borders.cost(np.array([15]), np.array([16]), 1).item() > 10


def test_only_cuts_that_show_are_seen_and_what_lies_near_them() -> None:
    picture = torch.cat([grain(20, 20), torch.full((3, 20, 20), 0.5)], 2)  # grain at the left, one colour at the right
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
def test_cuts_are_seen_alike_in_bands_of_any_height(tiling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    swatch = Swatch(grain(40, 56))
    source = last(swatch, Shape(45, 50, tiling, tiling))
    whole = visible_cuts(source, swatch, 0.1, 3, (tiling, tiling))
    monkeypatch.setattr("ad_service.core.quilt.REGION", 7)
    assert torch.equal(visible_cuts(source, swatch, 0.1, 3, (tiling, tiling)), whole)


def test_mending_makes_borders_better() -> None:
    swatch, shape = Swatch(grain(48, 64)), Shape(64, 64, True, True)
    borders = Borders(swatch.features, 0.1)

    def cost(mends: float) -> float:
        options = replace(OPTIONS, mends=mends)
        _, source = finish(quilt(swatch, shape, None, torch.Generator().manual_seed(0), options))
        return borders.sum(np.pad(source.numpy(), (0, 1), "wrap"))

    assert cost(8) < 0.8 * cost(0.01)


def test_a_canvas_of_many_areas_is_mended_everywhere() -> None:
    swatch, shape = Swatch(grain(40, 40)), Shape(40, 300, True, True)
    borders = Borders(swatch.features, 0.1)
    totals = []
    for mends in (0.01, 6.0):
        _, source = finish(quilt(swatch, shape, None, torch.Generator().manual_seed(0), replace(OPTIONS, mends=mends)))
        shown = np.pad(source.numpy(), (0, 1), "wrap")
        totals.append([borders.sum(shown[:, x : x + 101]) for x in (0, 100, 200)])
    for before, after in zip(*totals, strict=True):
        assert after < 0.9 * before
