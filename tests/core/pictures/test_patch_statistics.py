"""Patch statistics: a blurred picture gets those of its swatch, label by label, without seams, at any size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core import metrics
from ad_service.core.pictures.patch_statistics import PatchStatisticsOptions, match_patch_statistics
from ad_service.core.pixels import from_uint8, to_uint8
from tests.support.tiny_models import seeded, texture

NO_MAPS = (None, None)
DEFAULT_OPTIONS = PatchStatisticsOptions()
QUICK = PatchStatisticsOptions(half_iterations=2, full_iterations=2, directions=3)


def matched(
    picture: Tensor,
    swatch: Tensor,
    tiles: tuple[bool, bool] = (True, True),
    maps: tuple[Tensor | None, Tensor | None] = NO_MAPS,
    options: PatchStatisticsOptions = DEFAULT_OPTIONS,
    seed: int = 0,
) -> Tensor:
    """The picture (3, H, W) with the patch statistics of the swatch."""
    image = to_uint8(picture).contiguous()
    fractions = list(match_patch_statistics(image, swatch, tiles, maps, seeded(seed), options))
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    return from_uint8(image)


def blurred(picture: Tensor, side: int = 5) -> Tensor:
    return F.avg_pool2d(F.pad(picture[None], (side // 2,) * 4, "circular"), side, 1)[0]


def test_a_blurred_picture_gets_nearer_to_its_swatch() -> None:
    swatch, dull = texture(96, 128, seed=1), blurred(texture(112, 88, tiling=True))
    done = matched(dull, swatch)
    assert metrics.patch_distance(done, swatch) < 0.5 * metrics.patch_distance(from_uint8(to_uint8(dull)), swatch)
    assert metrics.sharpness(dull) < 0.5 * metrics.sharpness(swatch)
    assert 0.8 * metrics.sharpness(swatch) < metrics.sharpness(done) < 1.2 * metrics.sharpness(swatch)


def test_wrong_colors_are_corrected() -> None:
    swatch, pale = texture(96, 96, seed=1), 0.5 + 0.4 * texture(96, 96, tiling=True)
    done = matched(pale, swatch)
    torch.testing.assert_close(done.mean((1, 2)), swatch.mean((1, 2)), atol=0.02, rtol=0)
    torch.testing.assert_close(done.std((1, 2)), swatch.std((1, 2)), atol=0.02, rtol=0)


def test_a_picture_of_its_own_swatch_hardly_changes() -> None:
    swatch = texture(72, 96, tiling=True)
    done = matched(swatch, swatch)
    assert float((done - swatch).abs().mean()) < 0.1 * float(swatch.std())
    assert metrics.patch_distance(done, swatch) < 0.01


def test_the_structure_of_the_picture_is_kept() -> None:
    picture = texture(96, 96, tiling=True)
    done = matched(blurred(picture, 3), texture(96, 96, seed=1))
    both = torch.stack([done.flatten(), picture.flatten(), texture(96, 96, seed=1).flatten()])
    likeness = torch.corrcoef(both)[0]
    assert float(likeness[1]) > 0.8
    assert float(likeness[2]) < 0.2


def two_materials(height: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """A fine dark noise above and a bright, coarser one below, and their labels."""
    dark, bright = 0.1 + 0.1 * texture(height, width, seed), 0.7 + 0.3 * blurred(texture(height, width, seed + 1))
    labels = (torch.arange(height)[:, None] >= height // 2).long().expand(height, width)
    return torch.where(labels == 0, dark, bright), labels


def test_each_material_is_matched_to_its_own_part_of_the_swatch() -> None:
    swatch, regions = two_materials(96, 80, 0)
    _, layout = two_materials(80, 96, 2)
    layout = layout.flip(0).contiguous()  # bright above
    flat = torch.where(layout == 0, 0.2, 0.8).expand(3, 80, 96)  # one color each, a little off
    done = matched(flat, swatch, (False, False), (layout, regions))
    for label in (0, 1):
        inside = F.max_pool2d((layout != label).float()[None], 17, 1, 8)[0] == 0  # away from the border
        there = F.max_pool2d((regions != label).float()[None], 17, 1, 8)[0] == 0
        mine, theirs = done[:, inside], swatch[:, there]
        torch.testing.assert_close(mine.mean(1), theirs.mean(1), atol=0.03, rtol=0)


def test_a_label_of_few_pixels_gives_finite_values() -> None:
    swatch, regions = two_materials(96, 96, 0)
    few = torch.zeros(96, 96, dtype=torch.long)
    few[40:44, 40:44] = 1
    done = matched(swatch, swatch, (False, False), (few, regions), QUICK)
    assert bool(torch.isfinite(done).all())


@pytest.mark.parametrize("tiles", [(True, True), (True, False), (False, True), (False, False)])
def test_a_torus_has_no_seam_along_tiling_axes(tiles: tuple[bool, bool]) -> None:
    dull = blurred(texture(72, 88, tiling=True))
    done = matched(dull, texture(96, 96, seed=1), tiles)
    edges = metrics.seam(done)
    for axis, tile in zip((edges.y, edges.x), tiles, strict=True):
        if tile:
            assert axis.single.ratio < 1.3
            assert axis.band.ratio < 1.8


def test_a_rolled_torus_gives_nearly_the_rolled_result() -> None:
    dull, swatch = blurred(texture(64, 64, tiling=True)), texture(64, 64, seed=1)
    done, rolled = matched(dull, swatch), matched(dull.roll((20, 33), (1, 2)), swatch)
    assert float((rolled - done.roll((20, 33), (1, 2))).abs().mean()) < 0.1 * float(done.std())


def test_a_picture_of_one_material_is_not_moved_towards_the_others() -> None:
    dark, bright = 0.2 * texture(96, 48, seed=1), 0.8 + 0.2 * texture(96, 48, seed=2)
    swatch, picture = torch.cat([dark, bright], 2), 0.8 + 0.2 * texture(64, 64, seed=3)
    places = torch.stack([torch.arange(96), torch.full((96,), 70)], 1)
    means = []
    for shown in (None, places):
        image = to_uint8(picture).contiguous()
        list(match_patch_statistics(image, swatch, (True, True), NO_MAPS, seeded(0), shown=shown))
        means.append(float(from_uint8(image).mean()))
    assert means[0] < 0.65
    assert means[1] == pytest.approx(float(picture.mean()), abs=0.05), "it gets no dark pixels"


def test_the_result_does_not_depend_on_the_height_of_the_bands() -> None:
    dull, swatch = blurred(texture(75, 90, tiling=True)), texture(64, 64, seed=1)
    whole = matched(dull, swatch, (True, False), NO_MAPS, QUICK)
    tiled = matched(dull, swatch, (True, False), NO_MAPS, replace(QUICK, band_rows=32))
    assert float((tiled - whole).abs().max()) <= 1 / 255 + 1e-6


@pytest.mark.parametrize("tiles", [(True, True), (False, False)])
@pytest.mark.parametrize("size", [(64, 64), (57, 113), (56, 8), (7, 7), (8, 200)])
def test_pictures_of_any_size_keep_their_shape(size: tuple[int, int], tiles: tuple[bool, bool]) -> None:
    h, w = size
    layout = (torch.arange(w)[None, :] > w // 2).long().expand(h, w)
    regions = (torch.arange(45)[:, None] > 20).long().expand(45, 61)
    for maps in (NO_MAPS, (layout, regions)):
        done = matched(texture(h, w), texture(45, 61, seed=1), tiles, maps, QUICK)
        assert done.shape == (3, h, w)


def test_a_swatch_of_one_color_gives_that_color() -> None:
    done = matched(texture(64, 64, tiling=True), torch.full((3, 64, 64), 0.25))
    assert float((done - 0.25).abs().mean()) < 0.03


def test_a_picture_of_one_color_gets_the_mean_color_of_the_swatch() -> None:
    swatch = texture(64, 64)
    for seed in range(3):
        done = matched(torch.full((3, 64, 64), 0.9), swatch, seed=seed)
        torch.testing.assert_close(done.mean((1, 2)), swatch.mean((1, 2)), atol=0.05, rtol=0)


def test_the_result_depends_on_its_seed_only() -> None:
    dull, swatch = blurred(texture(64, 64, tiling=True)), texture(64, 64, seed=1)
    one, same, other = (matched(dull, swatch, options=QUICK, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_more_iterations_get_nearer() -> None:
    dull, swatch = blurred(texture(80, 80, tiling=True)), texture(96, 96, seed=1)
    few, many = (matched(dull, swatch, options=replace(QUICK, half_iterations=k, full_iterations=k)) for k in (1, 6))
    assert metrics.patch_distance(many, swatch) < metrics.patch_distance(few, swatch)
