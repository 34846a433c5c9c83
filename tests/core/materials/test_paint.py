"""Maps painted along cuts: heights without steps, normals with unit length, data with their histogram."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ad_service.core.materials.correspondence import Correspondence
from ad_service.core.materials.paint import paint
from ad_service.core.pipeline.transform import Channel
from tests.support.tiny_models import texture

CELL = 2
FLAT = torch.full((3, 64, 64), 0.5) + 0.01 * texture(64, 64)


def halves(left: int, right: int, tiles: tuple[bool, bool] = (False, False)) -> Correspondence:
    """A picture of 64 x 64 pixels whose left half shows the columns from `left` on, and whose right half others."""
    y = torch.arange(0, 64, CELL)
    x = torch.cat([left + torch.arange(0, 32, CELL), right + torch.arange(0, 32, CELL)])
    return Correspondence(torch.stack(torch.meshgrid(y, x, indexing="ij")), CELL, tiles)


def steps(picture: Tensor) -> Tensor:
    """The mean difference of neighboring columns (width - 1,)."""
    return (picture[0, :, 1:] - picture[0, :, :-1]).abs().mean(0)


def test_heights_of_two_pieces_meet_without_a_step() -> None:
    heights = torch.full((1, 64, 128), 0.3) + 0.02 * texture(64, 128)[:1]
    heights[:, :, 64:] += 0.3
    painted = paint(Channel(heights, "height"), halves(0, 80), FLAT)
    blended = paint(Channel(heights, "color"), halves(0, 80), FLAT)
    assert float(steps(blended)[28:36].max()) > 0.1
    assert float(steps(painted)[28:36].max()) < 0.01  # the difference of 0.3 is a slope over about 48 pixels
    assert float((painted - blended)[:, :, :4].abs().mean()) < 0.1  # of 0.15 at the cut


def test_a_step_of_the_height_stays_where_the_color_has_an_edge() -> None:
    heights = torch.full((1, 64, 128), 0.3)
    heights[:, :, 64:] += 0.3
    color = FLAT.clone()
    color[:, :, 32:] += 0.4
    painted = paint(Channel(heights, "height"), halves(0, 80), color)
    assert float(painted[0, :, 34].mean() - painted[0, :, 29].mean()) > 0.28


@pytest.mark.parametrize("tiles", [(False, False), (True, False), (True, True)])
def test_heights_of_one_piece_are_kept(tiles: tuple[bool, bool]) -> None:
    heights = texture(64, 64, tiling=True)[:1]
    painted = paint(Channel(heights, "height"), halves(0, 32, tiles), FLAT)
    assert float((painted - heights).abs()[:, 1:-1, 1:-1].max()) < (0.02 if not any(tiles) else 0.1)
    assert float((painted - heights).abs().mean()) < 0.01


def test_blended_normals_have_unit_length() -> None:
    normals = torch.tensor([0.6, 0.0, 0.8])[:, None, None] * torch.ones(3, 64, 128)
    normals[0, :, 64:] *= -1
    painted = paint(Channel(normals / 2 + 0.5, "normal"), halves(0, 80), FLAT)
    torch.testing.assert_close((painted * 2 - 1).norm(dim=0), torch.ones(64, 64), atol=1e-5, rtol=0)


def test_a_mask_stays_a_mask_along_cuts() -> None:
    mask = torch.zeros(1, 64, 128)
    mask[:, :, 64:] = 1
    correspondence = halves(0, 80)
    blended = paint(Channel(mask, "color"), correspondence, FLAT)
    painted = paint(Channel(mask, "data"), correspondence, FLAT)
    assert 0.1 < float(blended[0, 0, 31]) < 0.9
    assert set(painted.unique().tolist()) <= {0.0, 1.0} and abs(float(painted.mean()) - 0.5) < 0.02


def test_data_inside_a_piece_keep_their_values() -> None:
    data = (texture(64, 128)[:1] * 255).round() / 255
    painted = paint(Channel(data, "data"), halves(0, 80), FLAT)
    off = ((painted - data[:, :, :64])[:, :, 2:28] * 255).abs()
    assert float(off.max()) < 4 and float((off < 0.5).float().mean()) > 0.9
