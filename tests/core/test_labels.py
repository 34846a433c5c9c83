"""Label maps: the colors that were meant are found in noisy and soft maps, and labels are resized to token grids."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from ad_service.core.labels import (
    LabelError,
    LabelMap,
    LabelOptions,
    check,
    condense,
    hex_color,
    match,
    membership,
    resize,
    snap,
    tokens,
    used,
)
from blender_addon.wire.colors import region_of_color

COLORS = [
    (0, 0, 0),
    (255, 255, 255),
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (128, 128, 128),
    (0, 128, 128),
]


pytestmark = pytest.mark.usefixtures("one_thread")


def painted(count: int, size: int = 256, seed: int = 0) -> Image.Image:
    """Discs of the first `count` colors, a stroke of 4 pixels in each, and a square of 256 pixels of the last."""
    generator = np.random.default_rng(seed)
    picture = Image.new("RGB", (size, size), COLORS[0])
    draw = ImageDraw.Draw(picture)
    for i in range(2 * count):
        x, y = generator.integers(0, size, 2)
        r = generator.integers(20, 60)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=COLORS[i % count])
    for color in COLORS[1:count]:
        x0, y0, x1, y1 = generator.integers(0, size, 4).tolist()
        draw.line((x0, y0, x1, y1), fill=color, width=4)
    draw.rectangle((100, 100, 115, 115), fill=COLORS[count - 1])
    return picture


def jpeg(picture: Image.Image, quality: int) -> np.ndarray:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return np.array(Image.open(file).convert("RGB"))


def colors(found: LabelMap) -> Tensor:
    """The picture (h, w, 3) of a label map."""
    return found.palette[found.labels].int()


def agreement(found: LabelMap, truth: Image.Image, count: int) -> float:
    """The share of pixels whose nearest true color is the painted one, where each label has a color of its own."""
    true = torch.tensor(COLORS[:count])
    nearest = torch.cdist(found.palette.float(), true.float()).argmin(1)
    assert len(set(nearest.tolist())) == len(found.palette) == count
    wanted = torch.tensor(np.array(truth)).int()
    return float((true[nearest][found.labels].int() == wanted).all(-1).float().mean())


# Colors from pictures


@pytest.mark.parametrize("count", range(1, 9))
def test_a_painted_hard_map_comes_back_exactly(count: int) -> None:
    picture = np.array(painted(count))
    found = snap(picture)
    assert found.labels.dtype == torch.int64
    assert found.palette.dtype == torch.uint8
    assert len(found.palette) == count
    assert torch.equal(colors(found), torch.tensor(picture).int())


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=16, unique=True),
    st.integers(3, 6),
)
def test_any_hard_blocks_come_back_exactly(palette: list[tuple[int, int, int]], side: int) -> None:
    row = np.repeat(np.array(palette, dtype=np.uint8), side, axis=0)
    picture = np.repeat(row[None], side, axis=0)
    found = snap(picture)
    assert torch.equal(colors(found), torch.tensor(picture).int())
    assert found.palette.tolist() == sorted(list(c) for c in palette)


def test_near_colors_of_a_hard_map_stay_separate() -> None:
    picture = np.zeros((40, 40, 3), dtype=np.uint8)
    picture[:, 20:] = (6, 0, 0)
    picture[10:20, 10:20] = (0, 0, 4)
    assert torch.equal(colors(snap(picture)), torch.tensor(picture).int())


@pytest.mark.parametrize(("quality", "least"), [(95, 0.995), (90, 0.995), (75, 0.994), (50, 0.99)])
@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_jpeg_noise_adds_no_colors(count: int, quality: int, least: float) -> None:
    truth = painted(count)
    assert agreement(snap(jpeg(truth, quality)), truth, count) > least


def test_jpeg_noise_makes_no_islands() -> None:
    picture = Image.new("RGB", (128, 128), (255, 255, 255))
    ImageDraw.Draw(picture).ellipse((30, 30, 90, 90), fill=(200, 0, 0))
    labels = snap(jpeg(picture, 60)).labels
    kin = torch.nn.functional.avg_pool2d(torch.stack([labels == i for i in range(2)]).float(), 5, 1, 2)
    assert float(kin.gather(0, labels[None]).min()) > 4.5 / 25


@pytest.mark.parametrize("radius", [1, 2, 4, 8])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_ramp_of_a_soft_edge_adds_no_colors(count: int, radius: int) -> None:
    truth = painted(count, size=384)
    soft = np.array(truth.filter(ImageFilter.GaussianBlur(radius)))
    assert agreement(snap(soft), truth, count) > 0.99 - 0.005 * radius


def test_a_soft_and_noisy_map_has_its_two_colors() -> None:
    truth = painted(2)
    found = snap(jpeg(truth.filter(ImageFilter.GaussianBlur(6)), 75))
    assert found.palette.tolist() == [[0, 0, 0], [255, 255, 255]]


def test_antialiased_edges_add_no_colors() -> None:
    truth = painted(5, 512)
    small = truth.resize((256, 256), Image.Resampling.BOX)
    assert agreement(snap(np.array(small)), truth.resize((256, 256), Image.Resampling.NEAREST), 5) > 0.98


def test_a_gray_area_between_black_and_white_is_a_color() -> None:
    picture = Image.new("RGB", (256, 256))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((128, 0, 256, 256), fill=(255, 255, 255))
    draw.rectangle((20, 20, 40, 40), fill=(128, 128, 128))
    for made in (np.array(picture.filter(ImageFilter.GaussianBlur(2))), jpeg(picture, 75)):
        assert snap(made).palette.tolist() == [[0, 0, 0], [128, 128, 128], [255, 255, 255]]


def test_the_edge_of_two_colors_does_not_get_the_color_between_them() -> None:
    picture = Image.new("RGB", (256, 256))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((128, 0, 256, 256), fill=(255, 255, 255))
    draw.rectangle((20, 20, 60, 60), fill=(128, 128, 128))
    labels = snap(np.array(picture.filter(ImageFilter.GaussianBlur(1)))).labels
    assert used(labels[:, 100:]) == [0, 2]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (5, 3)])
def test_tiny_maps_have_labels(shape: tuple[int, int]) -> None:
    picture = np.zeros((*shape, 3), dtype=np.uint8)
    found = snap(picture)
    assert found.palette.tolist() == [[0, 0, 0]]
    assert torch.equal(found.labels, torch.zeros(shape, dtype=torch.long))


def test_a_photograph_is_refused() -> None:
    noise = np.random.default_rng(0).normal(128, 60, (128, 128, 3)).clip(0, 255).astype(np.uint8)
    with pytest.raises(LabelError, match=r"pixels of the regions are .* looks like a photograph"):
        snap(noise, "regions")
    with pytest.raises(LabelError, match="pixels of the layout"):
        match(noise, torch.zeros(1, 3, dtype=torch.uint8), region_of_color)


def test_the_options_decide_what_is_a_photograph() -> None:
    noise = np.random.default_rng(0).normal(128, 60, (128, 128, 3)).clip(0, 255).astype(np.uint8)
    assert len(snap(noise, options=LabelOptions(min_near_share=0.0)).palette) >= 1


def test_an_array_without_channels_is_refused() -> None:
    with pytest.raises(LabelError, match=r"got \(4, 4\)"):
        snap(np.zeros((4, 4), dtype=np.uint8))


def test_snap_does_not_change_the_picture() -> None:
    picture = jpeg(painted(3), 75)
    picture.setflags(write=False)
    before = picture.copy()
    snap(picture)
    assert np.array_equal(picture, before)


# A layout against the regions


def test_a_layout_is_matched_by_its_colors() -> None:
    palette = torch.tensor([[0, 0, 0], [0, 0, 255], [255, 0, 0]], dtype=torch.uint8)
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    picture[:, 32:] = (250, 8, 4)  # nearly the regions' red
    labels = match(picture, palette, region_of_color)
    assert (labels[:, :32] == 0).all()
    assert (labels[:, 32:] == 2).all()


def test_a_soft_noisy_layout_is_matched() -> None:
    truth = painted(3)
    palette = torch.tensor(COLORS[:3], dtype=torch.uint8)
    labels = match(jpeg(truth.filter(ImageFilter.GaussianBlur(2)), 80), palette, region_of_color)
    wanted = match(np.array(truth), palette, region_of_color)
    assert float((labels == wanted).float().mean()) > 0.98


def test_a_layout_color_without_a_region_is_named_in_the_error() -> None:
    palette = torch.tensor([[0, 0, 0], [255, 255, 255]], dtype=torch.uint8)
    picture = np.zeros((100, 100, 3), dtype=np.uint8)
    picture[:25] = (0, 0xC0, 0x20)
    with pytest.raises(LabelError, match=r"#00c020 \(25\.0% .*#000000, #ffffff"):
        match(picture, palette, region_of_color)


def test_a_layout_label_without_a_swatch_pixel_is_named_in_the_error() -> None:
    palette = torch.tensor([[0, 0, 0], [16, 32, 48], [255, 255, 255]], dtype=torch.uint8)
    regions = torch.tensor([[0, 2], [2, 0]])
    check(torch.tensor([[2, 2, 0]]), regions)
    with pytest.raises(LabelError, match=r"label 1 \(#102030\).*: label 0 \(#000000\), label 2 \(#ffffff\)"):
        check(torch.tensor([[0, 1]]), regions, palette)
    with pytest.raises(LabelError, match=r"uses label 7, .*: label 0, label 2"):
        check(torch.tensor([[7]]), regions)


def test_colors_are_written_in_hex() -> None:
    assert hex_color(torch.tensor([1, 171, 255], dtype=torch.uint8)) == "#01abff"


# Labels on other grids


def test_shrinking_takes_the_majority() -> None:
    labels = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 2], [2, 2, 0, 1], [2, 0, 0, 0]])
    assert resize(labels, 2, 2).tolist() == [[0, 1], [2, 0]]


def test_enlarging_takes_the_nearest() -> None:
    assert resize(torch.tensor([[0, 1, 2]]), 2, 6).tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    assert resize(torch.tensor([[0, 1]]), 1, 3).tolist() == [[0, 1, 1]]


def test_one_axis_can_grow_while_the_other_shrinks() -> None:
    labels = torch.tensor([[0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]])
    assert resize(labels, 4, 2).tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]


@settings(deadline=None, max_examples=60)
@given(*[st.integers(1, 30)] * 4, st.integers(1, 5))
def test_a_resized_map_has_no_new_labels(h: int, w: int, height: int, width: int, count: int) -> None:
    labels = torch.randint(count, (h, w), generator=torch.Generator().manual_seed(h * w))
    out = resize(labels, height, width)
    assert out.shape == (height, width)
    assert set(used(out)) <= set(used(labels))
    assert torch.equal(resize(labels, h, w), labels)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4), st.integers(1, 4))
def test_enlarging_and_shrinking_gives_the_map_back(h: int, w: int, y: int, x: int) -> None:
    labels = torch.randint(3, (h, w), generator=torch.Generator().manual_seed(h + w))
    assert torch.equal(resize(resize(labels, h * y, w * x), h, w), labels)


def test_condense_keeps_each_thin_label_in_a_cell_of_its_own() -> None:
    labels = torch.zeros(32, 32, dtype=torch.long)
    labels[1, 1], labels[2, 2], labels[20, 9] = 1, 2, 3  # 1 and 2 lie in the same cell
    small = condense(labels, 4, 4)
    assert used(small) == [0, 1, 2, 3]
    assert int(small[0, 0]) == 1
    assert int(small[2, 1]) == 3
    assert 2 in (int(small[0, 1]), int(small[1, 0]))


@settings(deadline=None, max_examples=60)
@given(*[st.integers(1, 24)] * 2, *[st.integers(1, 6)] * 2, st.integers(1, 8))
def test_condense_loses_labels_only_if_there_are_too_few_cells(h: int, w: int, gy: int, gx: int, count: int) -> None:
    labels = torch.randint(count, (h, w), generator=torch.Generator().manual_seed(h * 31 + w))
    small = condense(labels, gy, gx)
    assert set(used(small)) <= set(used(labels))
    assert len(used(small)) == min(len(used(labels)), gy * gx)


def test_tokens_of_a_rectangular_grid() -> None:
    labels = torch.zeros(32, 48, dtype=torch.long)
    labels[:16, 24:] = 1
    assert tokens(labels, (4, 6), 2).tolist() == [0, 0, 0, 1, 1, 1] * 2 + [0] * 12


def test_labels_beyond_the_count_are_refused() -> None:
    with pytest.raises(LabelError, match="from 0 to 3, expected 0 to 2"):
        tokens(torch.tensor([[0, 3]]), (1, 2), 3)


def test_keys_belong_to_their_majority_label() -> None:
    labels = torch.zeros(8, 8, dtype=torch.long)
    labels[:, 4:] = 1
    assert membership(labels, (2, 2), 2).tolist() == [[True, False] * 2, [False, True] * 2]


def test_a_label_too_small_for_the_grid_shares_the_token_with_most_of_it() -> None:
    labels = torch.zeros(16, 16, dtype=torch.long)
    labels[9, 9] = labels[9, 10] = labels[3, 3] = 1
    member = membership(labels, (4, 4), 3)
    assert member[1].nonzero().flatten().tolist() == [10]
    assert member[0].all()  # and the token is still a key of its majority
    assert not member[2].any()


@settings(deadline=None, max_examples=60)
@given(*[st.integers(1, 24)] * 2, *[st.integers(1, 8)] * 2, st.integers(1, 6))
def test_each_label_has_a_key_and_each_token_a_label(h: int, w: int, gy: int, gx: int, count: int) -> None:
    labels = torch.randint(count, (h, w), generator=torch.Generator().manual_seed(h * 31 + w))
    member = membership(labels, (gy, gx), count)
    assert member.shape == (count, gy * gx)
    assert member.any(0).all()
    assert (resize(labels, gy, gx).flatten()[None] == torch.arange(count)[:, None]).logical_and(~member).sum() == 0
    if gy <= h and gx <= w:
        assert member.any(1).nonzero().flatten().tolist() == used(labels)
