"""What cannot be edited is one clear sentence; what can is described in notes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ad_service.core.pipeline.edits import ExtendRequest, RepaintRequest, TileableRequest
from ad_service.worker import edits
from ad_service.worker.image_files import Decoded
from blender_addon import wire
from blender_addon.wire import WireError


def defaults(kind: wire.JobKind, **changes: Any) -> dict[str, Any]:
    return {p.name: p.default for p in kind.parameters} | changes


def gray(height: int, width: int, value: int = 128) -> Decoded:
    return Decoded(np.full((height, width, 3), value, np.uint8))


def painted(height: int, width: int, value: int = 255) -> Decoded:
    """A mask with a white rectangle."""
    mask = gray(height, width, 0)
    mask.pixels[height // 4 : height // 2, width // 4 : width // 2] = value
    return mask


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (gray(64, 96, 0), "the mask is empty"),
        (gray(64, 96, 255), "the mask covers the whole picture"),
        (painted(64, 64), "the mask is 64x64 pixels, which is not the shape of the picture (96x64)"),
    ],
)
def test_a_mask_that_cannot_be_used_is_one_sentence(mask: Decoded, sentence: str) -> None:
    with pytest.raises(WireError) as caught:
        edits.repaint_request(defaults(wire.REPAINT), {"picture": gray(64, 96), "mask": mask}, {})
    assert sentence in caught.value.detail and caught.value.code == "invalid-image"


def test_a_mask_with_gray_levels_is_divided_at_the_half_with_a_note() -> None:
    mask = painted(64, 96, 200)
    mask.pixels[50:60, 50:60] = 90
    request, notes = edits.repaint_request(defaults(wire.REPAINT), {"picture": gray(64, 96), "mask": mask}, {})
    assert isinstance(request, RepaintRequest) and int(request.mask.sum()) == 16 * 24
    assert len(notes) == 1 and "lighter than half is filled" in notes[0]


def test_a_mask_of_the_same_shape_is_resized_with_a_note() -> None:
    request, notes = edits.repaint_request(
        defaults(wire.REPAINT), {"picture": gray(64, 96), "mask": painted(128, 192)}, {}
    )
    assert isinstance(request, RepaintRequest) and request.mask.shape == (64, 96)
    assert "was resized to the picture's 96x64" in notes[0]


def test_an_extension_of_nothing_is_one_sentence() -> None:
    with pytest.raises(WireError, match="are all 0"):
        edits.extend_request(defaults(wire.EXTEND), {"picture": gray(64, 96)}, {})


def test_an_extension_beyond_the_limit_is_one_sentence() -> None:
    with pytest.raises(WireError, match="would have 16480x64 pixels"):
        edits.extend_request(defaults(wire.EXTEND, right=16384), {"picture": gray(64, 96)}, {})


def test_the_sides_of_an_extension_are_those_of_the_job() -> None:
    request, _ = edits.extend_request(defaults(wire.EXTEND, left=3, bottom=5, tile="x"), {"picture": gray(64, 96)}, {})
    assert isinstance(request, ExtendRequest)
    assert (request.left, request.right, request.top, request.bottom) == (3, 0, 0, 5)
    assert request.tiles == (False, True)


@pytest.mark.parametrize("kind", [wire.MAKE_TILEABLE, wire.EXTEND])
def test_a_picture_that_is_too_small_is_one_sentence(kind: wire.JobKind) -> None:
    with pytest.raises(WireError, match="picture is 20x20 pixels; each side must have at least 32"):
        edits.REQUESTS[kind.name](defaults(kind), {"picture": gray(20, 20)}, {})


def test_no_axis_to_tile_is_one_sentence() -> None:
    with pytest.raises(WireError, match="tile is none"):
        edits.tileable_request(defaults(wire.MAKE_TILEABLE, tile="none"), {"picture": gray(64, 96)}, {})


def test_the_band_is_an_eighth_of_the_shorter_side_and_leaves_a_third_of_it() -> None:
    request, _ = edits.tileable_request(defaults(wire.MAKE_TILEABLE), {"picture": gray(64, 96)}, {})
    assert isinstance(request, TileableRequest) and request.band == 8
    with pytest.raises(WireError, match="choose at most 21"):
        edits.tileable_request(defaults(wire.MAKE_TILEABLE, band=30), {"picture": gray(64, 96)}, {})
