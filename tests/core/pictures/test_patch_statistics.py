"""Polish: a blurred picture becomes like its swatch again, in its parts, without a seam, at any size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core import metrics
from ad_service.core.pictures.patch_statistics import Passes, match_patch_statistics
from tests.support.tiny_models import seeded, texture

NOTHING = (None, None)
QUICK = Passes(half=2, full=2, directions=3)


def as_bytes(picture: Tensor) -> Tensor:
    return (picture * 255).round().byte().permute(1, 2, 0).contiguous()


def as_floats(image: Tensor) -> Tensor:
    return image.permute(2, 0, 1).float() / 255


def polished(
    picture: Tensor,
    swatch: Tensor,
    tiles: tuple[bool, bool] = (True, True),
    maps: tuple[Tensor | None, Tensor | None] = NOTHING,
    passes: Passes | None = None,
    seed: int = 0,
) -> Tensor:
    """The picture (3, H, W) after its last pass."""
    image = as_bytes(picture)
    fractions = list(match_patch_statistics(image, swatch, tiles, maps, seeded(seed), passes))
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    return as_floats(image)


def blurred(picture: Tensor, side: int = 5) -> Tensor:
    return F.avg_pool2d(F.pad(picture[None], (side // 2,) * 4, "circular"), side, 1)[0]


def test_a_blurred_picture_comes_nearer_to_its_swatch() -> None:
    swatch, dull = texture(96, 128, seed=1), blurred(texture(112, 88, tiling=True))
    done = polished(dull, swatch)
    assert metrics.patch_distance(done, swatch) < 0.5 * metrics.patch_distance(as_floats(as_bytes(dull)), swatch)
    assert metrics.sharpness(dull) < 0.5 * metrics.sharpness(swatch)
    assert 0.8 * metrics.sharpness(swatch) < metrics.sharpness(done) < 1.2 * metrics.sharpness(swatch)


def test_colours_that_are_off_are_put_right() -> None:
    swatch, pale = texture(96, 96, seed=1), 0.5 + 0.4 * texture(96, 96, tiling=True)
    done = polished(pale, swatch)
    torch.testing.assert_close(done.mean((1, 2)), swatch.mean((1, 2)), atol=0.02, rtol=0)
    torch.testing.assert_close(done.std((1, 2)), swatch.std((1, 2)), atol=0.02, rtol=0)


def test_a_picture_of_its_own_swatch_hardly_changes() -> None:
    swatch = texture(72, 96, tiling=True)
    done = polished(swatch, swatch)
    assert float((done - swatch).abs().mean()) < 0.1 * float(swatch.std())
    assert metrics.patch_distance(done, swatch) < 0.01


def test_the_drawing_of_the_picture_stays_and_is_not_that_of_the_swatch() -> None:
    picture = texture(96, 96, tiling=True)
    done = polished(blurred(picture, 3), texture(96, 96, seed=1))
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
    flat = torch.where(layout == 0, 0.2, 0.8).expand(3, 80, 96)  # one colour each, a little off
    done = polished(flat, swatch, (False, False), (layout, regions))
    for label in (0, 1):
        inside = F.max_pool2d((layout != label).float()[None], 17, 1, 8)[0] == 0  # away from the border
        there = F.max_pool2d((regions != label).float()[None], 17, 1, 8)[0] == 0
        mine, theirs = done[:, inside], swatch[:, there]
        torch.testing.assert_close(mine.mean(1), theirs.mean(1), atol=0.03, rtol=0)


def test_a_label_of_few_pixels_is_left_alone() -> None:
    swatch, regions = two_materials(96, 96, 0)
    few = torch.zeros(96, 96, dtype=torch.long)
    few[40:44, 40:44] = 1
    done = polished(swatch, swatch, (False, False), (few, regions), QUICK)
    assert bool(torch.isfinite(done).all())


@pytest.mark.parametrize("tiles", [(True, True), (True, False), (False, True), (False, False)])
def test_a_torus_has_no_seam_where_it_tiles(tiles: tuple[bool, bool]) -> None:
    dull = blurred(texture(72, 88, tiling=True))
    done = polished(dull, texture(96, 96, seed=1), tiles)
    edges = metrics.seam(done)
    for axis, tile in zip((edges.y, edges.x), tiles, strict=True):
        if tile:
            assert axis.single.ratio < 1.3
            assert axis.band.ratio < 1.8


def test_a_rolled_torus_gives_the_rolled_result_but_for_the_draw() -> None:
    dull, swatch = blurred(texture(64, 64, tiling=True)), texture(64, 64, seed=1)
    done, rolled = polished(dull, swatch), polished(dull.roll((20, 33), (1, 2)), swatch)
    assert float((rolled - done.roll((20, 33), (1, 2))).abs().mean()) < 0.1 * float(done.std())


def test_a_picture_of_a_part_of_its_swatch_is_bent_less_to_the_rest() -> None:
    dark, bright = 0.2 * texture(96, 48, seed=1), 0.8 + 0.2 * texture(96, 48, seed=2)
    swatch, picture = torch.cat([dark, bright], 2), 0.8 + 0.2 * texture(64, 64, seed=3)
    places = torch.stack([torch.arange(96), torch.full((96,), 70)], 1)
    means = []
    for shown in (None, places):
        image = as_bytes(picture)
        list(match_patch_statistics(image, swatch, (True, True), NOTHING, seeded(0), shown=shown))
        means.append(float(as_floats(image).mean()))
    assert means[0] < 0.65
    assert means[1] == pytest.approx(float(picture.mean()), abs=0.05), "nothing dark is forced upon it"


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    dull, swatch = blurred(texture(75, 90, tiling=True)), texture(64, 64, seed=1)
    whole = polished(dull, swatch, (True, False), NOTHING, QUICK)
    monkeypatch.setattr("ad_service.core.pictures.patch_statistics.BAND", 32)
    tiled = polished(dull, swatch, (True, False), NOTHING, QUICK)
    assert float((tiled - whole).abs().max()) <= 1 / 255 + 1e-6


@pytest.mark.parametrize("tiles", [(True, True), (False, False)])
@pytest.mark.parametrize("size", [(64, 64), (57, 113), (56, 8), (7, 7), (8, 200)])
def test_any_size_is_polished(size: tuple[int, int], tiles: tuple[bool, bool]) -> None:
    h, w = size
    layout = (torch.arange(w)[None, :] > w // 2).long().expand(h, w)
    regions = (torch.arange(45)[:, None] > 20).long().expand(45, 61)
    for maps in (NOTHING, (layout, regions)):
        done = polished(texture(h, w), texture(45, 61, seed=1), tiles, maps, QUICK)
        assert done.shape == (3, h, w)


def test_a_swatch_of_one_colour_gives_that_colour() -> None:
    done = polished(texture(64, 64, tiling=True), torch.full((3, 64, 64), 0.25))
    assert float((done - 0.25).abs().mean()) < 0.03


def test_a_picture_of_one_colour_takes_the_swatchs_colour() -> None:
    swatch = texture(64, 64)
    for seed in range(3):
        done = polished(torch.full((3, 64, 64), 0.9), swatch, seed=seed)
        torch.testing.assert_close(done.mean((1, 2)), swatch.mean((1, 2)), atol=0.05, rtol=0)


def test_the_last_pass_follows_its_seed_alone() -> None:
    dull, swatch = blurred(texture(64, 64, tiling=True)), texture(64, 64, seed=1)
    one, again, other = (polished(dull, swatch, passes=QUICK, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_more_passes_come_nearer() -> None:
    dull, swatch = blurred(texture(80, 80, tiling=True)), texture(96, 96, seed=1)
    few, many = (polished(dull, swatch, passes=replace(QUICK, half=k, full=k)) for k in (1, 6))
    assert metrics.patch_distance(many, swatch) < metrics.patch_distance(few, swatch)
