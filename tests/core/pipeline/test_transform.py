"""One transform for all channels: sizes agree, labels stay labels, and normals turn with their surface."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ad_service.core import LabelMaps, SynthesizeRequest
from ad_service.core.backbone.model import FAMILIES
from ad_service.core.pipeline.exemplar import prepare
from ad_service.core.pipeline.options import PipelineOptions
from ad_service.core.pipeline.transform import Channel, Crop, Scale, Transform, Warp
from tests.support.tiny_models import texture


def normals_of(height: Tensor) -> Tensor:
    """OpenGL normals (3, h, w) as (n + 1) / 2 of a height map (h, w) with one pixel as its unit."""
    down, right = torch.gradient(height)
    n = torch.stack([-right, down, torch.ones_like(height)])
    return n / n.norm(dim=0) / 2 + 0.5


def waves(h: int, w: int, matrix: Tensor) -> Tensor:
    """A smooth surface (h, w) seen through a matrix on (down, right) that keeps the center."""
    y, x = torch.meshgrid(torch.arange(h) + 0.5 - h / 2, torch.arange(w) + 0.5 - w / 2, indexing="ij")
    y, x = torch.einsum("ij,jhw->ihw", torch.linalg.inv(matrix), torch.stack([y, x]))
    return 3 * torch.sin(y / 7) + 2 * torch.cos(x / 9 + y / 11)


@pytest.mark.parametrize("matrix", [[[1.1, 0.0], [0.0, 0.95]], [[1.0, 0.05], [-0.04, 1.02]]])
def test_warped_normals_are_the_normals_of_the_warped_surface(matrix: list[list[float]]) -> None:
    warp = Warp(torch.tensor(matrix))
    before = normals_of(waves(96, 128, torch.eye(2)))
    turned = warp.apply(before, "normal")
    h, w = turned.shape[1:]
    expected = normals_of(waves(h, w, warp.matrix))
    inner = (slice(None), slice(8, -8), slice(8, -8))
    wrong = warp.apply(before, "color")
    turned_error, unturned_error = (float((n - expected)[inner].abs().mean()) for n in (turned, wrong))
    assert turned_error < 0.25 * unturned_error


def test_scaled_normals_keep_their_slopes_and_unit_length() -> None:
    small = Scale(48, 64).apply(normals_of(waves(96, 128, torch.eye(2))), "normal")
    torch.testing.assert_close((small * 2 - 1).norm(dim=0), torch.ones(48, 64), atol=1e-4, rtol=0)


def test_labels_stay_labels_through_every_step() -> None:
    regions = (torch.arange(80)[:, None] >= 40).long().expand(80, 100) * 7
    transform = (
        Transform().then(Scale(40, 50)).then(Warp(torch.diag(torch.tensor([1.05, 1.0])))).then(Crop(1, 2, 30, 40))
    )
    assert transform.apply(regions, "labels").unique().tolist() == [0, 7]


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.3])
def test_every_channel_and_label_map_gets_the_size_of_the_color(scale: float) -> None:
    swatch, regions = texture(101, 131), torch.zeros(101, 131, dtype=torch.long)
    regions[50:, 60:] = 1
    request = SynthesizeRequest(
        swatch=swatch, height=64, width=64, scale=scale, channels={"same": Channel(swatch), "one": Channel(swatch[:1])}
    )
    maps = LabelMaps(torch.zeros(64, 64, dtype=torch.long), regions)
    exemplar = prepare(request, FAMILIES["pocket"], PipelineOptions(), fit_periods=True, maps=maps)
    size = exemplar.color.shape[1:]
    assert exemplar.regions is not None and exemplar.regions.shape == size
    assert exemplar.channels["one"].pixels.shape == (1, *size)
    assert torch.equal(exemplar.channels["same"].pixels, exemplar.color), "the same pixels stay in register"
