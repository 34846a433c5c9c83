"""The requests of edits, from the contract's parameters and pictures; what cannot be edited is an error here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ad_service.core import Channel, from_uint8, labels
from ad_service.core.pipeline.edits import (
    EditRequest,
    ExtendRequest,
    RelayoutRequest,
    RepaintRequest,
    TileableRequest,
)
from ad_service.core.pipeline.request import SynthesizeRequest
from ad_service.worker.image_files import Decoded, Pixels, check_size
from blender_addon import wire
from blender_addon.wire import WireError, geometry
from blender_addon.wire.colors import region_of_color

BETWEEN = (16, 240)
"""Gray levels of a mask between which it is neither black nor white."""

SHOWN_GRAY = 0.001
"""Share of such levels in a mask from which there is a note on it; the edge of a smooth brush alone has more."""

LARGEST_BAND = 256
"""Pixels at each edge that may change to make a picture tileable, unless the job says otherwise."""


def tileable_request(
    parameters: Mapping[str, Any], decoded: Mapping[str, Decoded], channels: Mapping[str, Channel]
) -> tuple[EditRequest, tuple[str, ...]]:
    """The request of a job `make_tileable`, and notes on its pictures. Raises WireError."""
    common = _common(parameters, decoded, channels)
    shorter = min(common["picture"].shape[1:])
    if parameters["tile"] == "none":
        raise WireError(
            "invalid-parameter", "tile is none; choose the axes that should tile: x, y or xy", parameter="tile"
        )
    band = parameters["band"] or min(shorter // 8, LARGEST_BAND)
    if band > shorter // 3:
        raise WireError(
            "invalid-parameter",
            f"band is {band}, and the picture's shorter side has {shorter} pixels; the band must leave a third of it, "
            f"so choose at most {shorter // 3}",
            parameter="band",
        )
    return TileableRequest(**common, band=band), ()


def repaint_request(
    parameters: Mapping[str, Any], decoded: Mapping[str, Decoded], channels: Mapping[str, Channel]
) -> tuple[EditRequest, tuple[str, ...]]:
    """The request of a job `repaint`, and notes on its mask. Raises WireError."""
    common = _common(parameters, decoded, channels)
    height, width = common["picture"].shape[1:]
    mask, notes = _mask(decoded["mask"].pixels, (width, height))
    return RepaintRequest(**common, mask=torch.from_numpy(mask)), notes


def extend_request(
    parameters: Mapping[str, Any], decoded: Mapping[str, Decoded], channels: Mapping[str, Channel]
) -> tuple[EditRequest, tuple[str, ...]]:
    """The request of a job `extend`. Raises WireError."""
    common = _common(parameters, decoded, channels)
    sides = {name: parameters[name] for name in ("left", "right", "top", "bottom")}
    if not any(sides.values()):
        raise WireError(
            "invalid-parameter", "left, right, top and bottom are all 0; give the pixels to add at one side at least"
        )
    height, width = common["picture"].shape[1:]
    grown = width + sides["left"] + sides["right"], height + sides["top"] + sides["bottom"]
    if max(grown) > wire.MAX_PICTURE_SIDE or grown[0] * grown[1] > wire.MAX_PICTURE_PIXELS:
        raise WireError(
            "invalid-parameter",
            f"the extended picture would have {grown[0]}x{grown[1]} pixels; {wire.MAX_PICTURE_SIDE} a side and "
            f"{wire.MAX_PICTURE_PIXELS:,} in total are the limit",
        )
    return ExtendRequest(**common, **sides), ()


def relayout_request(
    parameters: Mapping[str, Any],
    decoded: Mapping[str, Decoded],
    channels: Mapping[str, Channel],
    synthesis: SynthesizeRequest,
) -> tuple[EditRequest, tuple[str, ...]]:
    """The request of a job `relayout`, for the synthesis of the same size with the new layout. Raises WireError."""
    common = _common(parameters, decoded, channels)
    assert synthesis.maps is not None and synthesis.maps.palette is not None
    earlier = labels.match(decoded["earlier_layout"].pixels, synthesis.maps.palette, region_of_color)
    earlier = labels.resize(earlier, synthesis.height, synthesis.width)
    layout = labels.resize(synthesis.maps.layout, synthesis.height, synthesis.width)
    if torch.equal(earlier, layout):
        raise WireError(
            "invalid-labels", "the layout is the earlier layout; paint what should change", picture="layout"
        )
    return RelayoutRequest(**common, earlier=earlier, synthesis=synthesis), ()


RequestOf = Callable[
    [Mapping[str, Any], Mapping[str, Decoded], Mapping[str, Channel]], tuple[EditRequest, tuple[str, ...]]
]

REQUESTS: dict[str, RequestOf] = {
    wire.MAKE_TILEABLE.name: tileable_request,
    wire.REPAINT.name: repaint_request,
    wire.EXTEND.name: extend_request,
}
"""For each kind of edit without a swatch: its request from parameters, pictures and maps."""


def _common(
    parameters: Mapping[str, Any], decoded: Mapping[str, Decoded], channels: Mapping[str, Channel]
) -> dict[str, Any]:
    """The fields that all edits have. Raises WireError `invalid-image` for a picture that is too small."""
    pixels = decoded["picture"].pixels
    check_size("picture", pixels, wire.MIN_PICTURE_SIDE)
    kind = wire.MAKE_TILEABLE
    names = ("seed", "preset", "detail", "method", "strength", "steps", "iterations", "learning_rate")
    return {
        "picture": from_uint8(pixels),
        "channels": channels,
        "tile_y": "y" in parameters["tile"],
        "tile_x": "x" in parameters["tile"],
        **{name: kind.parameter(name).given(parameters[name]) for name in names},
    }


def _mask(pixels: Pixels, size: tuple[int, int]) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
    """A mask (h, w, 3) as (height, width) bool for a picture of size (width, height), and notes. Raises WireError."""
    height, width = pixels.shape[:2]
    if not geometry.has_same_shape((width, height), size):
        raise WireError(
            "invalid-image",
            f"the mask is {width}x{height} pixels, which is not the shape of the picture ({size[0]}x{size[1]}); "
            "paint the mask over the picture",
            picture="mask",
        )
    notes = []
    gray = pixels.max(2)
    between = float(((gray > BETWEEN[0]) & (gray < BETWEEN[1])).mean())
    if between > SHOWN_GRAY:
        notes.append(f"{between:.1%} of the mask is gray; what is lighter than half is filled")
    if (width, height) != size:
        notes.append(f"The mask is {width}x{height} pixels and was resized to the picture's {size[0]}x{size[1]}")
        gray = np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.NEAREST))
    mask: npt.NDArray[np.bool_] = gray >= 128
    if not mask.any():
        raise WireError("invalid-image", "the mask is empty; paint white what should be filled", picture="mask")
    if mask.all():
        raise WireError(
            "invalid-image", "the mask covers the whole picture, so nothing is left to fill from", picture="mask"
        )
    return mask, tuple(notes)
