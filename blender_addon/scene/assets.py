"""Images from the Asset Browser."""

from __future__ import annotations

from typing import Any

import bpy

from ..wire.errors import LocalError
from . import map_sources
from .map_sources import MaterialMaps

TYPES = {"IMAGE": "images", "MATERIAL": "materials"}
"""The types of asset that have an image, and where a file has them."""


def maps_of(asset: Any) -> MaterialMaps:
    """The images of an asset (bpy.types.AssetRepresentation): itself, or those that the material shows, appended.

    Raises LocalError if there is none.
    """
    found = asset.local_id
    if found is None:
        found = _append(asset.full_library_path, TYPES[asset.id_type], asset.name)
    if asset.id_type == "MATERIAL" and found is not None:
        images = map_sources.of_shown_result(found) or map_sources.of_material(found)
    else:
        images = MaterialMaps(found) if found is not None else None
    if images is None:
        problem = "has no image as its base color" if found is not None else "cannot be read from its file"
        raise LocalError("invalid-image", f"The asset “{asset.name}” {problem}; choose another asset")
    if asset.local_id is None and asset.id_type == "MATERIAL":
        bpy.data.materials.remove(found)
    return images


def _append(path: str, kind: str, name: str) -> Any:
    try:
        with bpy.data.libraries.load(path, link=False) as (_, target):
            setattr(target, kind, [name])
    except OSError:
        return None
    return getattr(target, kind)[0]
