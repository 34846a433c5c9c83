"""Guided quilts: the light and dark of a content in pieces of the swatch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.canvas import Shape
from ad_service.core.metrics import content_correlation
from ad_service.core.quilting.quilt import QuiltOptions, guide_of, quilt
from ad_service.core.quilting.source_maps import Swatch, paint, patch_features
from tests.support.tiny_models import end, seeded, texture

CELL = 4
SWATCH = F.interpolate(texture(64, 80)[None], scale_factor=4, mode="bicubic")[0].clamp(0, 1)
"""Blobs of some ten cells."""


def disc(side: int = 128) -> Tensor:
    """A white disc on black, off center."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((y - side / 3) ** 2 + (x - side / 2) ** 2 < (side / 4) ** 2).float().expand(3, -1, -1)


def quilted(content: Tensor, price: float, *, tile: bool = True) -> Tensor:
    """The picture of a guided quilt at the content's size."""
    shape = Shape(content.shape[1] // CELL, content.shape[2] // CELL, tile, tile)
    guide = guide_of(content, SWATCH, CELL, (tile, tile))
    options = QuiltOptions(block=8, overlap=2, refinements=1.0, guide_price=price)
    _, source = end(quilt(Swatch(patch_features(SWATCH, CELL)), shape, None, seeded(), options, guide))
    return paint(source, SWATCH, CELL, (tile, tile))


@pytest.mark.parametrize("tile", [True, False])
def test_a_higher_guide_price_keeps_more_of_the_content(tile: bool) -> None:
    free, some, much = (content_correlation(quilted(disc(), price, tile=tile), disc()) for price in (0.0, 0.5, 4.0))
    assert abs(free) < 0.4
    assert free + 0.2 < some < much
    assert much > 0.7


def test_a_guide_has_the_tones_of_the_swatch_in_the_order_of_the_content() -> None:
    content = texture(64, 64, seed=3)
    guide = guide_of(content, SWATCH, CELL, (True, True))
    assert guide.canvas.shape == (16, 16) and guide.swatch.shape == (64, 80)
    assert float((guide.canvas.mean() - guide.swatch.mean()).abs()) < 0.02
    assert guide.swatch.min() <= guide.canvas.min() and guide.canvas.max() <= guide.swatch.max()
    brighter = guide_of(0.5 * content + 0.3, SWATCH, CELL, (True, True))
    torch.testing.assert_close(brighter.canvas, guide.canvas, atol=0.02, rtol=0)


def test_cells_of_equal_tone_keep_equal_tones() -> None:
    guide = guide_of(torch.full((3, 64, 64), 0.9), SWATCH, CELL, (True, True))
    assert len(guide.canvas.unique()) == 1
    assert abs(float(guide.canvas[0, 0]) - float(guide.swatch.median())) < 0.02


def test_the_tones_of_a_tiling_content_wrap_around_its_edges() -> None:
    content = disc().roll(40, 2)
    whole, moved = (guide_of(c, SWATCH, CELL, (True, True)).canvas for c in (content, content.roll((20, 60), (1, 2))))
    torch.testing.assert_close(whole.roll((5, 15), (0, 1)), moved)
