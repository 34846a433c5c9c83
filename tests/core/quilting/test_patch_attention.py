"""Patch attention: new texture from noise, whose source map obeys labels, kept cells, periods and the seed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ad_service.core import metrics
from ad_service.core.canvas import Shape
from ad_service.core.labels import LabelError
from ad_service.core.quilting.patch_attention import PatchAttentionOptions, attend_patches
from ad_service.core.quilting.source_maps import Swatch, gather, random_source_map
from tests.support.tiny_models import end, grain, seeded

CELL = 2
OPTIONS = PatchAttentionOptions(passes=(4, 2, 2))
SHAPE = Shape(40, 56, True, True)


pytestmark = pytest.mark.usefixtures("one_thread")


def cells(picture: Tensor, labels: Tensor | None = None, periods: Tensor | None = None) -> Swatch:
    """A picture (3, h, w) with one pixel a cell as a swatch."""
    return Swatch(picture, labels, periods)


def arranged(
    swatch: Swatch,
    shape: Shape = SHAPE,
    layout: Tensor | None = None,
    seed: int = 0,
    options: PatchAttentionOptions = OPTIONS,
    kept: Tensor | None = None,
) -> Tensor:
    picture = swatch.features.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
    return end(attend_patches(swatch, picture, shape, layout, seeded(seed), options, kept))[1]


@pytest.mark.parametrize("size", [(48, 64), (21, 90), (9, 9), (3, 5)])
@pytest.mark.parametrize("shape", [SHAPE, Shape(33, 21, False, True), Shape(16, 130, False, False)])
def test_every_cell_shows_one_of_the_swatch_for_any_sizes(size: tuple[int, int], shape: Shape) -> None:
    source = arranged(cells(grain(*size)), shape)
    assert source.shape == (shape.height, shape.width)
    assert int(source.min()) >= 0 and int(source.max()) < size[0] * size[1]


def test_the_same_seed_gives_the_same_map_and_another_seed_another() -> None:
    swatch = cells(grain(48, 64))
    assert torch.equal(arranged(swatch), arranged(swatch))
    assert not torch.equal(arranged(swatch), arranged(swatch, seed=1))


def test_the_fraction_done_rises_to_one() -> None:
    swatch = cells(grain(48, 64))
    fractions, _ = end(attend_patches(swatch, swatch.features, SHAPE, None, seeded(0), OPTIONS))
    assert fractions == sorted(fractions) and fractions[-1] == 1


def test_patches_come_from_noise_to_the_statistics_of_the_swatch() -> None:
    swatch, shape = grain(96, 96), Shape(96, 96, True, True)
    made = gather(arranged(cells(swatch), shape), swatch)
    noise = gather(random_source_map(cells(swatch), shape, None, seeded(0)), swatch)
    assert metrics.patch_distance(made, swatch) < 0.4 * metrics.patch_distance(noise, swatch)
    assert metrics.patch_distance(made, swatch) < 1.5 * metrics.halves_distance(swatch)


def test_division_by_the_nearest_query_keeps_a_plain_half_from_taking_the_canvas() -> None:
    swatch = torch.cat([torch.full((3, 64, 32), 0.5), grain(64, 32)], 2)
    shape = Shape(64, 64, True, True)

    def plain(completeness: float) -> float:
        source = arranged(cells(swatch), shape, options=PatchAttentionOptions(completeness=completeness))
        return float((source % 64 < 32).float().mean())

    assert plain(0.01) < 0.7
    assert plain(1e6) == 1


def test_a_layout_is_obeyed_in_every_cell() -> None:
    swatch = grain(40, 40)
    regions = (torch.arange(40)[None, :] >= 20).long().expand(40, 40)
    layout = torch.zeros(SHAPE.height, SHAPE.width, dtype=torch.long)
    layout[9:23, 11:40] = 1
    source = arranged(cells(swatch, regions), layout=layout)
    assert torch.equal(regions.flatten()[source], layout)


def test_a_label_that_the_swatch_lacks_is_an_error() -> None:
    layout = torch.full((SHAPE.height, SHAPE.width), 3)
    with pytest.raises(LabelError):
        arranged(cells(grain(40, 40), torch.zeros(40, 40, dtype=torch.long)), layout=layout)


def test_kept_cells_stay_and_the_others_continue_them() -> None:
    swatch = grain(64, 64)
    kept = torch.full((SHAPE.height, SHAPE.width), -1)
    kept[:, :28] = (torch.arange(40)[:, None] + 5) * 64 + torch.arange(28)[None, :] + 9
    source = arranged(cells(swatch), kept=kept)
    assert torch.equal(source[:, :28], kept[:, :28])
    shown = gather(source, swatch)
    step = (shown[:, :, 28] - shown[:, :, 27]).abs().mean()
    other = gather(arranged(cells(swatch), seed=3), swatch)
    assert step < 0.7 * (other[:, :, 28] - shown[:, :, 27]).abs().mean()


def test_a_regular_swatch_stays_in_step_with_the_canvas() -> None:
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(60.0), indexing="ij")
    tiles = ((y % 12 < 2) | (x % 12 < 2)).float().expand(3, 60, 60)
    swatch = cells(tiles * 0.6 + 0.2 * grain(60, 60), periods=torch.tensor([[12.0, 0.0], [0.0, 12.0]]))
    source = arranged(swatch, Shape(48, 72, True, True))
    rows, columns = source // 60 % 12, source % 60 % 12
    ours = torch.stack([rows - torch.arange(48)[:, None], columns - torch.arange(72)[None, :]])
    apart = ((ours + 6) % 12 - 6).abs().float()
    assert float((apart.amax(0) <= 1).float().mean()) > 0.9


def test_a_part_of_the_keys_is_enough() -> None:
    swatch, shape = grain(96, 96), Shape(96, 96, True, True)
    few = gather(arranged(cells(swatch), shape, options=PatchAttentionOptions(max_keys=300)), swatch)
    assert metrics.patch_distance(few, swatch) < 2 * metrics.halves_distance(swatch)
