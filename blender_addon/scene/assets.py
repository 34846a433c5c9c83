"""Images from the Asset Browser."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.types import Image

from ..wire.errors import LocalError
from . import materials

TYPES = {"IMAGE": "images", "MATERIAL": "materials"}
"""The types of asset that have an image, and where a file has them."""


def image_of(asset: Any) -> Image:
    """The image of an asset (bpy.types.AssetRepresentation): itself, or the base color that it shows, appended.

    Raises LocalError if there is none.
    """
    found = asset.local_id
    if found is None:
        found = _append(asset.full_library_path, TYPES[asset.id_type], asset.name)
    image = found
    if asset.id_type == "MATERIAL" and found is not None:
        image = materials.shown_image(found) or materials.base_color_image(found)
    if image is None:
        problem = "has no image as its base color" if found is not None else "cannot be read from its file"
        raise LocalError("invalid-image", f"The asset “{asset.name}” {problem}; choose another asset")
    if asset.local_id is None and found is not image:
        bpy.data.materials.remove(found)
    return image


def _append(path: str, kind: str, name: str) -> Any:
    try:
        with bpy.data.libraries.load(path, link=False) as (_, target):
            setattr(target, kind, [name])
    except OSError:
        return None
    return getattr(target, kind)[0]
