"""Other channels of a material come back in register with the color, as far as the quilt decides."""

from __future__ import annotations

from typing import Any

import pytest
import torch

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
    request = SynthesizeRequest(**ASKED, start="fill", channels={"copy": Channel(SWATCH)})
    result = run(synthesize(backbone(SHIPPED), request, options=OPTIONS))
    assert result.source_map is not None
    y, x = result.source_map.pixels(72, 104)
    assert y.shape == (72, 104) and int(y.min()) >= 0 and int(y.max()) < 96 and int(x.max()) < 128
    copied = SWATCH[:, y, x]
    painted = from_uint8(result.channels["copy"])
    assert float((painted - copied).abs().mean()) < 0.5 * float((painted - copied.roll(8, 2)).abs().mean())


def test_a_start_without_a_source_map_refuses_channels() -> None:
    channels = {"copy": Channel(SWATCH)}
    with pytest.raises(ValueError, match="source map"):
        run(synthesize(backbone("pocket"), SynthesizeRequest(**ASKED, start="noise", channels=channels)))
    with pytest.raises(ValueError, match="source map"):
        run(restyle(backbone("sd15"), RestyleRequest(**ASKED, content=SWATCH, channels=channels)))


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
