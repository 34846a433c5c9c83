"""Metrics: exact on constructed pictures, and ordered as by eye."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ad_service.core.metrics import (
    CopyOptions,
    content_correlation,
    copy_share,
    halves_distance,
    label_agreement,
    patch_distance,
    plainest_border,
    repetition,
    seam,
    seam_at,
    sharpness,
)
from ad_service.core.pixels import to_uint8

pytestmark = pytest.mark.usefixtures("one_thread")


def grain(height: int, width: int, seed: int = 0, width_of_blobs: int = 5) -> Tensor:
    """A texture (3, h, w) in [0, 1] that tiles."""
    noise = torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))
    half = width_of_blobs // 2
    for _ in range(2):
        noise = F.avg_pool2d(F.pad(noise[None], (half,) * 4, mode="circular"), width_of_blobs, 1)[0]
    return ((noise - noise.mean()) / noise.std() / 6 + 0.5).clamp(0, 1)


def columns(values: list[float], height: int = 6) -> Tensor:
    """A gray picture whose columns have these values."""
    return torch.tensor(values).expand(3, height, len(values))


def blurred(image: Tensor, side: int = 5) -> Tensor:
    return F.avg_pool2d(F.pad(image[None], (side // 2,) * 4, mode="circular"), side, 1)[0]


# Patches of several maps


def test_the_patch_distance_of_maps_together_grows_when_they_are_out_of_register() -> None:
    color = grain(128, 128)
    material = torch.cat([color, color.mean(0, keepdim=True)])
    moved = torch.cat([color, color.mean(0, keepdim=True).roll(20, 1)])
    assert patch_distance(material, material) == 0
    assert patch_distance(moved, material) > 0.004
    assert halves_distance(material, max_patches=1 << 12) < 0.02


# Seams


def test_a_ramp_has_a_seam_at_its_wrap_around_border() -> None:
    edge = seam(columns([i / 16 for i in range(17)])).x.single
    assert edge.difference == pytest.approx(1.0)
    assert edge.inside == pytest.approx(1 / 16)
    assert (edge.low, edge.high) == (pytest.approx(1 / 16), pytest.approx(1 / 16))
    assert edge.ratio == pytest.approx(16)
    assert edge.rank == 1
    assert not edge.in_range


def test_a_triangle_wave_has_no_seam() -> None:
    values = [min(i, 16 - i) / 8 for i in range(16)]
    x = seam(columns(values)).x
    assert x.single.ratio == pytest.approx(1)
    assert x.in_range


def test_a_flat_picture_has_no_seam() -> None:
    found = seam(torch.full((3, 20, 30), 0.3))
    assert found.x.single.ratio == found.y.band.ratio == 1
    assert found.x.in_range
    assert found.y.in_range


def test_a_seam_in_a_flat_picture_has_an_infinite_ratio() -> None:
    picture = torch.zeros(3, 20, 20)
    picture[:, :, 10:] = 1
    inner, wrap = seam_at(picture, [10, 0], 1)
    assert inner.single.difference == wrap.single.difference == 1
    assert inner.single.inside == 0
    assert inner.single.ratio == math.inf
    assert not inner.in_range


def test_bands_at_a_step_differ_by_its_height() -> None:
    picture = columns([0.2] * 16 + [0.7] * 16)
    x = seam(picture).x
    assert x.band.difference == pytest.approx(0.5)
    (middle,) = seam_at(picture, [16], 1)
    assert middle.band.difference == pytest.approx(0.5)
    (quarter,) = seam_at(picture, [12], 1)
    assert quarter.band.difference == pytest.approx(0.25)
    assert quarter.single.difference == pytest.approx(0, abs=1e-7)


def test_bands_detect_a_step_of_tone_that_grain_hides() -> None:
    noise = 0.2 * torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))
    x = seam(0.5 + noise + torch.linspace(-0.05, 0.05, 128)).x
    assert x.single.in_range
    assert x.band.rank == 1
    assert not x.band.in_range


def test_seams_are_measured_by_axis() -> None:
    picture = grain(64, 96)
    cut = picture[:, :50]
    found = seam(cut)
    assert found.x.in_range
    assert found.y.single.ratio > 2
    assert seam(cut.transpose(1, 2)).y == found.x


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 63), st.integers(0, 47))
def test_a_rolled_torus_has_the_same_seam(dy: int, dx: int) -> None:
    picture = grain(64, 48)
    moved = seam(picture.roll((dy, dx), (1, 2)))
    assert moved.x.single.difference == pytest.approx(seam_at(picture, [-dx], 1)[0].single.difference)
    assert moved.y.band.difference == pytest.approx(seam_at(picture, [-dy], 0)[0].band.difference)
    assert moved.x.single.ratio < 1.5


def test_an_inner_seam_is_found_at_its_position() -> None:
    picture = torch.cat([grain(60, 40, 1), grain(60, 50, 2)], 2)
    at, beside = seam_at(picture, [40, 20], 1)
    assert at.single.ratio > 2
    assert not at.in_range
    assert beside.in_range


def test_bands_are_narrower_in_a_small_picture() -> None:
    assert seam(grain(9, 12)).x.in_range


def test_a_torus_rolled_to_its_plainest_border_has_an_ordinary_seam() -> None:
    picture = grain(96, 128, 3)
    picture[:, :, 40] = 0.9  # a joint, where no cut should go
    pixels = to_uint8(picture)
    y, x = plainest_border(pixels, 0), plainest_border(pixels, 1)
    assert x not in (40, 41)
    found = seam(picture.roll((-y, -x), (1, 2)))
    for edge in (found.x.single, found.x.band, found.y.single, found.y.band):
        assert edge.ratio == pytest.approx(1, abs=0.15)


def test_a_seam_of_too_few_pixels_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 4 pixels along its axis: got 3"):
        seam(torch.zeros(3, 3, 20))


# Patch statistics


@pytest.mark.parametrize("shape", [(64, 64), (40, 100), (17, 19)])
def test_a_picture_has_distance_zero_from_itself(shape: tuple[int, int]) -> None:
    picture = grain(*shape)
    assert patch_distance(picture, picture) == 0


def test_the_distance_of_a_brighter_picture_is_in_units_of_pixel_value() -> None:
    picture = 0.2 + 0.5 * grain(96, 96)
    distance = patch_distance(picture, picture + 0.1, projections=512)
    assert distance == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.1)
    assert patch_distance(picture, picture + 0.2, projections=512) == pytest.approx(2 * distance, rel=1e-3)


def test_the_distance_is_symmetric_and_follows_its_seed() -> None:
    a, b = grain(64, 64, 1), grain(50, 80, 2, 9)
    assert patch_distance(a, b) == patch_distance(b, a)
    assert patch_distance(a, b, seed=1) == patch_distance(a, b, seed=1)
    assert patch_distance(a, b, seed=1) != patch_distance(a, b, seed=2)


def test_distances_are_ordered_as_by_eye() -> None:
    picture = grain(192, 192, 0)
    rolled = patch_distance(picture, picture.roll((30, 50), (1, 2)))
    another = patch_distance(picture, grain(192, 192, 1))
    soft = patch_distance(picture, blurred(picture))
    coarser = patch_distance(picture, grain(192, 192, 0, 11))
    scattered = picture.flatten(1)[:, torch.randperm(192**2, generator=torch.Generator().manual_seed(0))]
    assert rolled < another < soft
    assert another < coarser / 2
    assert another < patch_distance(picture, scattered.view_as(picture)) / 2


def test_pictures_of_different_sizes_can_be_compared() -> None:
    small, large = grain(64, 64), grain(64, 64).repeat(1, 2, 3)
    assert patch_distance(small, large) < 0.5 * patch_distance(small, blurred(small))


def test_a_limit_of_patches_hardly_changes_the_distance() -> None:
    a, b = grain(128, 128), grain(128, 128, 1, 9)
    assert patch_distance(a, b, max_patches=2000) == pytest.approx(patch_distance(a, b), rel=0.1)
    assert patch_distance(a, a, max_patches=2000) == 0


def test_halves_of_a_uniform_texture_differ_less_than_those_of_a_changing_one() -> None:
    even = grain(128, 96, 0, 3)
    changing = even * torch.linspace(0.3, 1, 96)
    assert halves_distance(even) < 0.3 * halves_distance(changing)
    assert halves_distance(even.repeat(1, 2, 2)) == 0


def test_sharpness_falls_with_blur() -> None:
    picture = grain(96, 96, 0, 3)
    assert sharpness(torch.full((3, 9, 9), 0.4)) == pytest.approx(0, abs=1e-6)
    assert sharpness(blurred(picture, 3)) < 0.6 * sharpness(picture)
    assert sharpness(0.5 * picture) == pytest.approx(0.5 * sharpness(picture), rel=1e-5)


def test_sharpness_of_a_checkerboard() -> None:
    board = ((torch.arange(8)[:, None] + torch.arange(8)[None, :]) % 2).float().expand(3, 8, 8)
    assert sharpness(board) == pytest.approx(0.5)  # the blur makes it a flat gray


# Content


def test_content_correlation_ignores_contrast_and_grain() -> None:
    content = F.interpolate(grain(16, 24)[None], scale_factor=8)[0]
    assert content_correlation(content, content) == pytest.approx(1)
    assert content_correlation(1 - content, content) == pytest.approx(-1)
    assert content_correlation(0.2 * content + 0.5, content) == pytest.approx(1)
    fine = torch.rand(3, 128, 192, generator=torch.Generator().manual_seed(1))
    assert content_correlation(content / 2 + fine / 2, content) > 0.7
    assert abs(content_correlation(fine, content)) < 0.2
    assert content_correlation(torch.full_like(content, 0.5), content) == 0


# Labels


def two_materials(layout: Tensor, seed: int) -> Tensor:
    """Fine blue grain where the layout is 1, coarse red grain elsewhere; their mean luminance is the same."""
    fine, coarse = (grain(*layout.shape, seed + i, side) for i, side in ((0, 3), (1, 9)))
    fine = fine * torch.tensor([0.9, 1.0, 1.1])[:, None, None]
    return torch.where(layout.bool(), fine, coarse).clamp(0, 1)


def half_and_half(height: int, width: int) -> Tensor:
    return (torch.arange(width)[None, :] > width // 2).long().expand(height, width)


def disc(height: int, width: int) -> Tensor:
    y, x = torch.arange(height)[:, None] - height / 2, torch.arange(width)[None, :] - width / 2
    return (y**2 + x**2 < (min(height, width) / 3) ** 2).long()


def test_materials_in_their_place_agree_with_the_layout() -> None:
    regions, layout = half_and_half(128, 96), disc(120, 160)
    found = label_agreement(two_materials(layout, 5), layout, two_materials(regions, 0), regions)
    assert found.ceiling > 0.93
    assert found.agreement > found.ceiling - 0.08
    assert len(found.recall) == 2
    assert min(found.recall) > 0.8


def test_a_large_result_is_read_in_pieces() -> None:
    regions, layout = half_and_half(128, 96), disc(1200, 900)
    tile = two_materials(half_and_half(100, 100), 7)
    fine, coarse = tile[:, :, 60:90].repeat(1, 12, 30), tile[:, :, 10:40].repeat(1, 12, 30)
    result = torch.where(layout.bool(), fine, coarse)
    swatch = two_materials(regions, 0)
    assert label_agreement(result, layout, swatch, regions).agreement > 0.85
    assert label_agreement(result, 1 - layout, swatch, regions).agreement < 0.15


def test_materials_in_the_wrong_place_do_not_agree() -> None:
    regions, layout = half_and_half(128, 96), disc(120, 160)
    swatch = two_materials(regions, 0)
    wrong = label_agreement(two_materials(1 - layout, 5), layout, swatch, regions)
    assert wrong.agreement < 0.1
    one = label_agreement(two_materials(torch.zeros_like(layout), 5), layout, swatch, regions)
    assert one.recall[0] > 0.9
    assert one.recall[1] < 0.1


def test_agreement_is_deterministic() -> None:
    regions = half_and_half(64, 64)
    swatch = two_materials(regions, 0)
    assert label_agreement(swatch, regions, swatch, regions) == label_agreement(swatch, regions, swatch, regions)


def test_an_unused_label_has_no_recall() -> None:
    regions = half_and_half(64, 64)
    swatch = two_materials(regions, 0)
    found = label_agreement(swatch, torch.zeros(64, 64, dtype=torch.long), swatch, regions)
    assert math.isnan(found.recall[1])
    assert found.agreement == pytest.approx(found.recall[0])


def test_the_ceiling_of_regions_of_one_material_is_chance() -> None:
    regions = half_and_half(96, 96)
    swatch = grain(96, 96)
    assert 0.3 < label_agreement(swatch, regions, swatch, regions).ceiling < 0.7


# Copies and repetition


def test_a_piece_of_the_swatch_is_a_copy() -> None:
    swatch = grain(128, 128)
    assert copy_share(swatch[:, 20:100, 13:111], swatch) == 1


def test_another_texture_of_the_same_kind_is_no_copy() -> None:
    assert copy_share(grain(128, 128, 1), grain(128, 128)) == 0


def test_a_copy_survives_noise_and_another_brightness() -> None:
    swatch = grain(128, 128)
    noise = 0.02 * torch.randn(swatch.shape, generator=torch.Generator().manual_seed(0))
    assert copy_share(0.9 * swatch + 0.05 + noise, swatch) == 1


def test_half_a_copy_counts_about_half() -> None:
    swatch = grain(128, 128)
    result = grain(128, 128, 1)
    result[:, :64] = swatch[:, 30:94]
    assert copy_share(result, swatch) == pytest.approx(0.33, abs=0.08)  # of the pieces of 32, a third is all inside


def test_the_options_decide_what_is_a_copy() -> None:
    swatch = grain(128, 128)
    noisy = swatch[:, 20:100, 30:110] + 0.1 * torch.randn(3, 80, 80, generator=torch.Generator().manual_seed(2))
    assert copy_share(noisy, swatch) < copy_share(noisy, swatch, CopyOptions(min_correlation=0.5)) == 1


def test_a_flat_color_is_not_a_copy() -> None:
    assert copy_share(torch.full((3, 80, 80), 0.5), grain(128, 128)) == 0


def test_pictures_smaller_than_a_piece_have_no_copies() -> None:
    assert copy_share(grain(20, 80), grain(128, 128)) == 0


def test_a_repeated_picture_repeats_at_its_period() -> None:
    picture = grain(40, 60).repeat(1, 3, 3)
    found = repetition(picture)
    assert found.peak == pytest.approx(1, abs=0.02)
    down, right = found.lag
    assert down % 40 == 0
    assert right % 60 == 0
    assert (down, right) != (0, 0)


def test_a_random_texture_repeats_little() -> None:
    found = repetition(grain(160, 160))
    assert found.peak < 0.4
    assert math.hypot(*found.lag) >= 8


def test_a_trend_is_not_a_repetition() -> None:
    picture = grain(128, 128)
    slope = torch.linspace(0, 3, 128)[None, None, :] + torch.linspace(-1, 1, 128)[None, :, None] ** 2
    assert repetition(picture + slope).peak == pytest.approx(repetition(picture).peak, abs=0.1)


def test_stripes_repeat_at_their_period() -> None:
    stripes = (0.5 + 0.5 * torch.sin(torch.arange(160) * 2 * math.pi / 20)).expand(3, 100, 160)
    found = repetition(stripes + 0.1 * grain(100, 160))
    assert found.peak > 0.9
    assert found.lag[1] % 20 in (0, 1, 19)


@pytest.mark.parametrize("size", [(32, 16384), (16384, 32)])
def test_the_repetition_of_a_strip_is_measured(size: tuple[int, int]) -> None:
    picture = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    assert -1 <= repetition(picture).peak <= 1
