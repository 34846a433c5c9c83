"""Where each place of a finished color comes from: known, or looked up in the color."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ad_service.core import run
from ad_service.core.materials.correspondence import Correspondence, Labels, LookupOptions, look_up
from tests.support.tiny_models import seeded, texture

EXEMPLAR = texture(96, 128)
CELL = LookupOptions().cell


def places_of(top: int, left: int, height: int, width: int) -> Tensor:
    """The places of a picture that is the rectangle of the exemplar at (top, left)."""
    y, x = top + torch.arange(0, height, CELL), left + torch.arange(0, width, CELL)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"))


def found(
    picture: Tensor, known: Tensor | None = None, labels: Labels | None = None, tile: bool = False
) -> Correspondence:
    return run(look_up(picture, EXEMPLAR, (tile, tile), seeded(0), known, labels))


def right(ours: Tensor, theirs: Tensor) -> float:
    """Share of the cells that have the same places."""
    return float((ours == theirs).all(0).float().mean())


def test_a_part_of_the_exemplar_is_found_in_it() -> None:
    places = found(EXEMPLAR[:, 20:84, 33:97]).places
    assert right(places[:, 2:-2, 2:-2], places_of(20, 33, 64, 64)[:, 2:-2, 2:-2]) > 0.98


def test_on_a_torus_a_part_that_crosses_the_edge_is_found() -> None:
    places = found(EXEMPLAR[:, 20:84, 32:96].roll((14, 20), (1, 2)), tile=True).places.roll((-7, -10), (1, 2))
    assert right(places[:, 2:-2, 2:-2], places_of(20, 32, 64, 64)[:, 2:-2, 2:-2]) > 0.95


def test_known_places_stay_and_a_changed_part_is_looked_up() -> None:
    known = places_of(8, 8, 80, 80)
    picture = EXEMPLAR[:, 8:88, 8:88].clone()
    picture[:, 24:56, 24:56] = EXEMPLAR[:, 60:92, 90:122]
    correspondence = found(picture, known)
    outside = torch.ones(40, 40, dtype=torch.bool)
    outside[10:30, 10:30] = False
    outside[[0, -1]] = outside[:, [0, -1]] = False  # at its border a picture is not what surrounds it in the exemplar
    assert torch.equal(correspondence.places[:, outside], known[:, outside])
    assert right(correspondence.places[:, 14:26, 14:26], places_of(60, 90, 32, 32)[:, 2:-2, 2:-2]) > 0.95
    assert 0.1 < correspondence.looked_up < 0.35


def test_a_color_that_shows_its_known_places_is_not_searched() -> None:
    known = places_of(8, 8, 80, 80)
    correspondence = found(EXEMPLAR[:, 8:88, 8:88], known)
    assert torch.equal(correspondence.places[:, 1:-1, 1:-1], known[:, 1:-1, 1:-1])
    assert correspondence.looked_up < 0.02


def test_places_are_looked_up_in_their_own_region() -> None:
    regions = (torch.arange(128) >= 64).long().expand(96, 128)
    layout = torch.zeros(64, 64, dtype=torch.long)
    layout[:, 32:] = 1
    picture = EXEMPLAR[:, 20:84, 0:64]  # all of it is in region 0
    places = found(picture, labels=Labels(layout, regions)).places
    middle = (places + CELL // 2).clamp_max(torch.tensor([95, 127])[:, None, None])
    labels = regions[middle[0], middle[1]]
    assert float((labels[:, 17:] == 1).float().mean()) > 0.97 and float((labels[:, :15] == 0).float().mean()) > 0.97


def test_the_same_seed_finds_the_same_places() -> None:
    picture = texture(64, 64, seed=1)
    assert torch.equal(found(picture).places, found(picture).places)


@pytest.mark.parametrize("size", [(40, 40), (34, 66)])
def test_small_exemplars_and_pictures_can_be_searched(size: tuple[int, int]) -> None:
    exemplar = texture(32, 32)
    places = run(look_up(texture(*size, seed=1), exemplar, (True, False), seeded(0))).places
    assert places.shape == (2, size[0] // CELL, size[1] // CELL)
    assert int(places.min()) >= 0 and int(places.max()) < 32
