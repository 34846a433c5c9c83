"""Edits change what they may and nothing else: by pieces of the picture, with its maps, on any model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ad_service.core import LabelMaps, Result, SynthesizeRequest, from_uint8, metrics, run
from ad_service.core.pipeline.edit_canvas import EditOptions, NothingToFillFrom, rectangles
from ad_service.core.pipeline.edits import (
    ExtendRequest,
    RelayoutRequest,
    RepaintRequest,
    TileableRequest,
    extend,
    make_tileable,
    relayout,
    repaint,
)
from ad_service.core.pipeline.transform import Channel
from ad_service.core.quilting.fill import FillOptions
from tests.support.tiny_models import SHIPPED, backbone, texture

OPTIONS = EditOptions(side=64, overlap=8, margin=32, fill=FillOptions(block=24, refinements=1.0))
PICTURE = from_uint8((texture(96, 128) * 255).round().byte().permute(1, 2, 0))


def places(height: int, width: int) -> Tensor:
    """A map of 16 bits (2, height, width) that names each pixel's own row and column."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([y, x]) * 256 / 65535


def normals(height: int, width: int) -> Tensor:
    tilt = torch.linspace(-0.5, 0.5, width).expand(height, width)
    return torch.stack([tilt, torch.zeros(height, width), (1 - tilt.square()).sqrt()]) / 2 + 0.5


CHANNELS = {
    "places": Channel(places(96, 128), bits=16),
    "normal": Channel(normals(96, 128), "normal"),
    "height": Channel(PICTURE.mean(0, keepdim=True), "height", 16),
}


def disc() -> Tensor:
    y, x = np.mgrid[:96, :128]
    return torch.from_numpy((y - 48) ** 2 + (x - 60) ** 2 < 15**2)


def numbers(result: Result, name: str) -> Tensor:
    return result.channels[name].int().permute(2, 0, 1)


def of(channel: Channel) -> Tensor:
    return (channel.pixels * (255 if channel.bits == 8 else 65535)).round().int()


def shown_places(result: Result) -> tuple[Tensor, Tensor]:
    """Rows and columns (H, W) of the picture that each pixel of a result was copied from."""
    y, x = torch.round(numbers(result, "places") / 256).long()
    return y, x


@pytest.mark.parametrize("family", [SHIPPED, "sd15"])
def test_a_repainted_picture_is_unchanged_outside_the_mask_to_the_byte(family: str) -> None:
    mask = disc()
    request = RepaintRequest(picture=PICTURE, channels=CHANNELS, mask=mask, steps=1, detail="off", tile_x=True)
    result = run(repaint(backbone(family), request, options=OPTIONS))
    assert result.metrics["changed_outside"] == 0
    for name, channel in {"color": Channel(PICTURE, "color"), **CHANNELS}.items():
        assert torch.equal(numbers(result, name)[:, ~mask], of(channel)[:, ~mask]), name
        assert result.channels[name].dtype == (torch.uint8 if channel.bits == 8 else torch.uint16)
    assert 0.9 * float(mask.float().mean()) < result.metrics["changed"] <= float(mask.float().mean())


def test_maps_of_a_repainted_part_come_from_the_same_places_outside_the_mask() -> None:
    mask = disc()
    request = RepaintRequest(picture=PICTURE, channels=CHANNELS, mask=mask, steps=1, detail="off")
    result = run(repaint(backbone(SHIPPED), request, options=OPTIONS))
    y, x = shown_places(result)
    assert not bool(mask[y, x].any())
    normal = of(CHANNELS["normal"])[:, y, x]
    assert int((numbers(result, "normal") - normal).abs().max()) <= 1


def test_a_model_that_draws_whole_pictures_redraws_the_mask() -> None:
    mask = disc()
    request = RepaintRequest(picture=PICTURE, mask=mask, steps=1, detail="off")
    pieces = run(repaint(backbone("sd15"), replace(request, learning_rate=1e-6), options=OPTIONS))
    redrawn = run(repaint(backbone("sd15"), replace(request, learning_rate=0.5), options=OPTIONS))
    assert not torch.equal(pieces.color, redrawn.color)


def test_a_fill_next_to_the_edge_of_a_torus_continues_over_it() -> None:
    x = torch.arange(128)
    stripes = (0.5 + 0.4 * torch.sin(x * 2 * torch.pi / 16)).expand(3, 96, 128).clone()
    mask = torch.zeros(96, 128, dtype=torch.bool)
    mask[30:60, :10] = mask[30:60, -12:] = True
    damaged = torch.where(mask, torch.zeros(()), stripes)
    request = RepaintRequest(picture=damaged, mask=mask, steps=1, detail="off", tile_x=True)
    result = run(repaint(backbone(SHIPPED), request, options=OPTIONS))
    assert float((from_uint8(result.color) - stripes).abs().mean()) < 0.003


def test_a_picture_is_made_tileable_in_its_band_only() -> None:
    request = TileableRequest(
        picture=PICTURE, channels=CHANNELS, tile_y=True, tile_x=True, band=20, steps=1, detail="off"
    )
    result = run(make_tileable(backbone(SHIPPED), request, options=OPTIONS))
    assert result.metrics["changed_outside"] == 0
    inner = (slice(None), slice(20, -20), slice(20, -20))
    assert torch.equal(numbers(result, "color")[inner], of(Channel(PICTURE))[inner])
    before, after = metrics.seam(PICTURE), metrics.seam(from_uint8(result.color))
    assert after.x.single.ratio < 0.8 * before.x.single.ratio
    assert after.y.single.ratio < 0.8 * before.y.single.ratio


def test_a_picture_that_tiles_already_stays_as_it_is() -> None:
    torus = texture(96, 128, tiling=True)
    request = TileableRequest(picture=torus, tile_y=True, tile_x=True, band=20, steps=1, detail="off")
    result = run(make_tileable(backbone(SHIPPED), request, options=OPTIONS))
    assert result.metrics["changed"] == 0
    assert "tiles along x already" in " ".join(result.notes)


def test_the_old_part_of_an_extended_picture_is_unchanged_to_the_byte() -> None:
    request = ExtendRequest(picture=PICTURE, channels=CHANNELS, left=24, bottom=40, steps=1, detail="off")
    result = run(extend(backbone(SHIPPED), request, options=OPTIONS))
    assert result.color.shape == (136, 152, 3)
    for name, channel in {"color": Channel(PICTURE, "color"), **CHANNELS}.items():
        assert torch.equal(numbers(result, name)[:, :96, 24:], of(channel)), name
    assert result.metrics["changed_outside"] == 0
    y, x = shown_places(result)
    assert int(y.max()) < 96 and int(x.max()) < 128


def test_an_extended_picture_tiles_along_the_axis_of_its_extension() -> None:
    request = ExtendRequest(picture=PICTURE, right=48, steps=1, detail="off", tile_x=True, tile_y=True)
    result = run(extend(backbone(SHIPPED), request, options=OPTIONS))
    assert metrics.seam(from_uint8(result.color)).x.single.ratio < 0.8 * metrics.seam(PICTURE).x.single.ratio
    assert "not extended along y" in " ".join(result.notes)


def two_materials() -> tuple[Tensor, Tensor]:
    """A swatch whose left half is dark and right half light, and its regions."""
    swatch = 0.3 * texture(96, 128)
    swatch[:, :, 64:] += 0.6
    regions = torch.zeros(96, 128, dtype=torch.long)
    regions[:, 64:] = 1
    return swatch, regions


def relayout_request(**changes: Any) -> RelayoutRequest:
    swatch, regions = two_materials()
    layout = regions.clone()
    layout[30:60, 20:50] = 1
    synthesis = SynthesizeRequest(swatch=swatch, height=96, width=128, maps=LabelMaps(layout, regions))
    request = RelayoutRequest(picture=swatch, earlier=regions, synthesis=synthesis, steps=1, detail="off")
    return replace(request, **changes)


def test_a_relayout_changes_only_what_the_layout_changes() -> None:
    request = relayout_request()
    result = run(relayout(backbone(SHIPPED), request, options=OPTIONS))
    assert request.synthesis.maps is not None
    changed = request.synthesis.maps.layout != request.earlier
    assert result.metrics["changed_outside"] == 0
    after = from_uint8(result.color)
    assert torch.equal(numbers(result, "color")[:, ~changed], of(Channel(request.picture))[:, ~changed])
    assert float(request.picture[:, changed].mean()) < 0.4 < 0.6 < float(after[:, changed].mean())


def test_a_relayout_with_maps_needs_its_material_in_the_picture() -> None:
    request = relayout_request(channels={"height": Channel(torch.rand(1, 96, 128), "height")})
    assert "copied from the picture alone" in " ".join(run(relayout(backbone(SHIPPED), request, options=OPTIONS)).notes)
    alone = replace(request, earlier=torch.zeros(96, 128, dtype=torch.long))
    with pytest.raises(NothingToFillFrom, match="leave out the maps"):
        run(relayout(backbone(SHIPPED), alone, options=OPTIONS))


def test_nothing_left_to_fill_from_is_an_error() -> None:
    mask = torch.ones(96, 128, dtype=torch.bool)
    mask[:10, :10] = False
    with pytest.raises(NothingToFillFrom, match="only 100 pixels"):
        run(repaint(backbone(SHIPPED), RepaintRequest(picture=PICTURE, mask=mask), options=OPTIONS))


def test_only_windows_around_a_small_mask_are_worked_on() -> None:
    area = np.zeros((4096, 4096), np.bool_)
    area[1000:1100, 2000:2300] = True
    area[-20:, 50:60] = area[:20, 50:60] = True
    found = list(rectangles(area, (True, False), 256))
    assert sum(height * width for _, _, height, width in found) < 100_000
    assert any(top < 0 or top + height > 4096 for top, _, height, _ in found)  # one part lies across the edge
    covered = np.zeros_like(area)
    for top, left, height, width in found:
        covered[(np.arange(top, top + height) % 4096)[:, None], np.arange(left, left + width) % 4096] = True
    assert covered[area].all()


def test_the_same_seed_gives_the_same_edit() -> None:
    request = RepaintRequest(picture=PICTURE, mask=disc(), steps=1, detail="off", seed=3)
    first, second = (run(repaint(backbone(SHIPPED), request, options=OPTIONS)) for _ in range(2))
    assert torch.equal(first.color, second.color)
