"""Other channels of a material come back in register with the color, from every start and method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ad_service.core import RestyleRequest, SynthesizeRequest, from_uint8, run, synthesize
from ad_service.core.pipeline.options import PipelineOptions
from ad_service.core.pipeline.restyle import restyle
from ad_service.core.pipeline.transform import Channel
from ad_service.core.quilting.quilt import QuiltOptions
from tests.support.tiny_models import SHIPPED, backbone, texture

SWATCH = texture(96, 128)
ASKED: dict[str, Any] = {"swatch": SWATCH, "height": 72, "width": 104, "steps": 1, "detail": "off"}
OPTIONS = PipelineOptions(quilt=QuiltOptions(refinements=2.0))


@pytest.mark.parametrize("tile", [True, False])
@pytest.mark.parametrize("start", ["quilt", "fill"])
def test_a_channel_equal_to_the_color_stays_near_it(start: Any, tile: bool) -> None:
    """The color went through the codec and the denoiser; the channel came straight through the source map."""
    request = SynthesizeRequest(
        **ASKED,
        start=start,
        tile_y=tile,
        strength=0.01,
        channels={"copy": Channel(SWATCH), "gray": Channel(SWATCH[:1])},
    )
    result = run(synthesize(backbone(SHIPPED), request, options=OPTIONS))
    assert set(result.channels) == {"color", "copy", "gray"}
    copy, gray, color = (from_uint8(result.channels[name]) for name in ("copy", "gray", "color"))
    assert torch.equal(copy[:1], gray)
    elsewhere = float((copy.roll((8, 8), (1, 2)) - color).abs().mean())
    assert float((copy - color).abs().mean()) < (0.35 if start == "quilt" else 0.8) * elsewhere


def test_the_source_map_names_the_swatchs_pixels() -> None:
    request = SynthesizeRequest(**ASKED, start="quilt", strength=0.01, channels={"copy": Channel(SWATCH)})
    result = run(synthesize(backbone(SHIPPED), request, options=OPTIONS))
    assert result.source_map is not None
    y, x = result.source_map.pixels(72, 104)
    assert y.shape == (72, 104) and int(y.min()) >= 0 and int(y.max()) < 96 and int(x.max()) < 128
    copied = SWATCH[:, y, x]
    painted = from_uint8(result.channels["copy"])
    assert float((painted - copied).abs().mean()) < 0.5 * float((painted - copied.roll(8, 2)).abs().mean())


def off_register(color: Tensor, copy: Tensor) -> float:
    """How far a copy of the color is off it, relative to a copy that is moved."""
    return float((copy - color).abs().mean()) / float((copy.roll((8, 8), (1, 2)) - color).abs().mean())


def test_channels_follow_the_color_after_a_start_from_noise() -> None:
    """Nothing tells where the pixels came from; the color itself does."""
    request = SynthesizeRequest(**ASKED, start="noise", channels={"copy": Channel(SWATCH, "color")})
    result = run(synthesize(backbone(SHIPPED), request, options=OPTIONS))
    assert result.source_map is None
    assert off_register(*(from_uint8(result.channels[name]) for name in ("color", "copy"))) < 0.9


@pytest.mark.parametrize("method", ["auto", "preview"])
def test_channels_follow_a_restyled_color(method: Any) -> None:
    content = texture(72, 104, seed=5)
    asked = {name: value for name, value in ASKED.items() if name != "steps"} | {"steps": 2}
    request = RestyleRequest(**asked, content=content, method=method, channels={"copy": Channel(SWATCH, "color")})
    result = run(restyle(backbone(SHIPPED), request, options=OPTIONS))
    assert off_register(*(from_uint8(result.channels[name]) for name in ("color", "copy"))) < 0.8


def test_channels_of_sixteen_bits_come_back_with_sixteen() -> None:
    request = SynthesizeRequest(**ASKED, channels={"height": Channel(SWATCH[:1], "height", 16)})
    height = run(synthesize(backbone(SHIPPED), request, options=OPTIONS)).channels["height"]
    assert height.dtype == torch.uint16 and height.shape == (72, 104, 1)
    assert len(height.int().unique()) > 256


def test_seams_and_the_joint_distance_of_channels_are_measured() -> None:
    normals = torch.nn.functional.normalize(torch.cat([SWATCH[:2] - 0.5, torch.ones(1, 96, 128)]), dim=0) / 2 + 0.5
    channels = {
        "normal": Channel(normals, "normal"),
        "height": Channel(SWATCH[:1], "height"),
        "wear": Channel(SWATCH[:1]),
    }
    request = SynthesizeRequest(**ASKED, tile_y=False, channels=channels)
    found = run(synthesize(backbone(SHIPPED), request, options=OPTIONS)).metrics
    assert {"seam_x_normal", "seam_x_height", "seam_x_wear", "joint_distance", "joint_halves_distance"} <= set(found)
    assert "seam_y_normal" not in found and 0 < found["joint_distance"] < 0.5


def test_painted_normals_have_unit_length() -> None:
    tilted = torch.tensor([0.6, 0.0, 0.8])[:, None, None] * torch.ones(3, 96, 128)
    tilted[0, :, ::2] *= -1
    normals = Channel(tilted / 2 + 0.5, "normal")
    request = SynthesizeRequest(**ASKED, start="fill", channels={"normal": normals})
    painted = run(synthesize(backbone(SHIPPED), request, options=OPTIONS)).channels["normal"]
    length = (from_uint8(painted) * 2 - 1).norm(dim=0)
    torch.testing.assert_close(length, torch.ones_like(length), atol=0.02, rtol=0)


@pytest.mark.parametrize("channels", [{"height": Channel(SWATCH[:1, :50])}, {"color": Channel(SWATCH)}])
def test_a_channel_that_does_not_lie_over_the_swatch_is_an_error(channels: Any) -> None:
    with pytest.raises(ValueError, match="channel"):
        SynthesizeRequest(**ASKED, channels=channels)


def test_a_normal_map_needs_three_channels() -> None:
    with pytest.raises(ValueError, match="normal"):
        Channel(SWATCH[:1], "normal")
