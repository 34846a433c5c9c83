"""A job's pictures before the core gets them: the size of the result, and what the artist should know. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ad_service.core.backbone import memory
from ad_service.storage import models
from ad_service.worker.image_files import Decoded, Pixels, check_size
from ad_service.worker.swatch import PreparedSwatch
from blender_addon import wire
from blender_addon.wire import WireError

OTHER_REGION = 64
"""Levels of 0 to 255 by which two pixels of a layout differ that belong to two regions; JPEG noise stays below."""
MAX_DIFFERENT = 0.03
"""Share of two opposite edges that may differ: a border that meets the edge at a slant does not match exactly."""


def result_size(parameters: Mapping[str, Any], content: tuple[int, int] | None) -> tuple[int, int]:
    """Width and height of a job's result; automatic ones are those of the content (width, height)."""
    sides = {}
    for axis, name in enumerate(("width", "height")):
        own = 0 if content is None else wire.SYNTHESIZE.parameter(name).value.nearest(content[axis])
        sides[name] = int(parameters[name] or own)
    return sides["width"], sides["height"]


def enlarged_side(parameters: Mapping[str, Any], data_dir: Path | None, allow_paths: bool = False) -> int:
    """Pixels to which the shorter side of a small swatch is enlarged: Stable Diffusion's own size, 0 for other models.

    Its features tell little of pictures much smaller than those it was trained on; the paper's authors scale every
    swatch to 512 pixels.
    """
    name = parameters.get("model", "pocket")
    if name == "pocket" or data_dir is None:
        return 0
    with suppress(WireError):  # reported where the model is loaded
        return 8 * memory.WINDOWS.get(models.find(name, data_dir, allow_paths=allow_paths).family, 0)
    return 0


def size_of_content(decoded: Mapping[str, Decoded]) -> tuple[int, int] | None:
    """Width and height of the content, if there is one. Raises: WireError `invalid-image` if it is too small."""
    if "content" not in decoded:
        return None
    pixels = decoded["content"].pixels
    check_size("content", pixels, wire.MIN_PICTURE_SIDE)
    return pixels.shape[1], pixels.shape[0]


def picture_notes(decoded: Mapping[str, Decoded], parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Notes on a job's pictures, other than those on the prepared swatch."""
    notes = [note for picture in decoded.values() for note in picture.notes]
    for name, picture in decoded.items():
        if name != "swatch" and picture.opaque is not None:
            notes.append(f"the transparency of {name} is ignored")
    if "layout" in decoded:
        notes += layout_notes(decoded["layout"].pixels, parameters["tile"])
    return tuple(notes)


def swatch_notes(swatch: PreparedSwatch) -> tuple[str, ...]:
    """Notes on the prepared swatch for the result of a job; the sentence only if it says more than "all of it"."""
    return swatch.notes + ((swatch.sentence,) if swatch.is_fitted or swatch.pixels_per_meter else ())


def layout_notes(layout: Pixels, tile: str) -> list[str]:
    """One note for each tiling axis along which the opposite edges of a layout (h, w, 3) belong to other regions."""
    notes = []
    for axis, edges, first, last in (
        ("x", "left and right", layout[:, 0], layout[:, -1]),
        ("y", "top and bottom", layout[0], layout[-1]),
    ):
        different = float((np.abs(first.astype(int) - last).max(1) > OTHER_REGION).mean())
        if axis in tile and different > MAX_DIFFERENT:
            notes.append(
                f"The {edges} edges of the layout differ along {different:.0%} of their length; a seam will show "
                "there. Paint both edges alike, or turn off the tiling of that axis"
            )
    return notes
