"""Source maps: random cells of the right label, and the pictures that source maps paint."""

from __future__ import annotations

import pytest
import torch

from ad_service.core.canvas import Shape
from ad_service.core.labels import LabelError
from ad_service.core.quilting.source_maps import Swatch, gather, paint, random_source_map
from tests.support.tiny_models import grain


def test_random_cells_have_the_label_of_the_layout() -> None:
    regions = (torch.arange(30)[None, :] // 10).expand(20, 30)
    layout = torch.randint(3, (17, 41), generator=torch.Generator().manual_seed(1))
    swatch = Swatch(grain(20, 30), regions)
    source = random_source_map(swatch, Shape(17, 41, True, True), layout, torch.Generator().manual_seed(0))
    assert torch.equal(regions.flatten()[source], layout)
    repeated = random_source_map(swatch, Shape(17, 41, True, True), layout, torch.Generator().manual_seed(0))
    assert torch.equal(source, repeated)


def test_a_layout_label_missing_from_the_swatch_is_named_in_the_error() -> None:
    swatch = Swatch(grain(16, 16), torch.zeros(16, 16, dtype=torch.long))
    layout = torch.eye(16, dtype=torch.long)
    with pytest.raises(LabelError, match="label 1, which no pixel of the swatch"):
        random_source_map(swatch, Shape(16, 16, True, True), layout, torch.Generator())


def test_random_cells_without_a_layout_come_from_the_entire_swatch() -> None:
    source = random_source_map(Swatch(grain(6, 5)), Shape(40, 40, True, True), None, torch.Generator().manual_seed(0))
    assert sorted(set(source.flatten().tolist())) == list(range(30))


def test_gather_returns_the_values_of_the_cells_of_a_source_map() -> None:
    picture = torch.arange(6.0).view(1, 2, 3)
    assert gather(torch.tensor([[5, 0], [1, 3]]), picture).tolist() == [[[5, 0], [1, 3]]]


@pytest.mark.parametrize("cell", [1, 2, 4, 8])
def test_the_source_map_of_the_swatch_itself_paints_the_swatch(cell: int) -> None:
    picture = grain(6 * cell, 9 * cell)
    source = torch.arange(54).view(6, 9)
    torch.testing.assert_close(paint(source, picture, cell, (False, False)), picture)


def test_a_rolled_source_map_paints_the_rolled_swatch_except_at_its_old_edges() -> None:
    picture = grain(48, 72)
    source = torch.arange(54).view(6, 9).roll((2, 3), (0, 1))
    painted = paint(source, picture, 8, (True, True))
    inner = torch.ones(48, 72, dtype=torch.bool)
    inner[12:20] = False  # half a cell around the swatch's edges, which now lie at row 16 and column 24
    inner[:, 20:28] = False
    torch.testing.assert_close(painted[:, inner], picture.roll((16, 24), (1, 2))[:, inner])
