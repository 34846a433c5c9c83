"""Edits of a finished picture with its maps: which picture, the mask that is painted over it, and the job.

The picture is the one that is chosen in the panel, or else the active result of the gallery. The maps of a result go
with its color; the result of an edit is a new result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpy
import numpy as np
from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, Image, Material, PropertyGroup, Scene

from .. import wire
from ..wire.errors import LocalError
from . import image_io, mapping, maps, materials, properties, regions, results
from .requests import JobDraft

EARLIER = {"swatch": "swatch", "regions": "regions", "earlier_layout": "layout"}
"""Pictures of a changed layout that are those of the result's own job, and their names there."""
TILES_AS_RESULT = ("repaint", "estimate")
"""Edits of a result that tile as the result does."""
OWN_PARAMETERS = ("seed", "preset")
"""Parameters of a changed layout that are not those of the result's own job."""
MASK_OF = "distill_mask_of"
"""Custom property of a mask: the name of the image that it was made for."""
TITLE_BYTES = 44
"""Length of an edited picture's name in the title of the job, see requests.TITLE_BYTES."""


def kind_of(settings: PropertyGroup) -> wire.JobKind:
    """The edit that is chosen."""
    return properties.kind_of(settings, edit=True)


def edited_picture(kind: wire.JobKind) -> str:
    """The name of the picture that an edit changes."""
    return kind.maps_over or kind.pictures[0].name


def takes(settings: PropertyGroup, picture: str) -> bool:
    """Whether the chosen edit takes a picture, such as `mask`."""
    return any(p.name == picture for p in kind_of(settings).pictures)


def target(context: Context) -> Image | None:
    """The image that the chosen edit changes: the chosen one, or the active result, or else the newest one."""
    settings = context.scene.distill
    chosen = getattr(settings, f"image_{edited_picture(kind_of(settings))}")
    if chosen is not None:
        return chosen
    return results.image_of(context.window_manager.distill_result) or bpy.data.images.get(settings.last_result)


def maps_of(scene: Scene, image: Image) -> dict[str, Callable[[], bytes]]:
    """The pictures of the maps that belong to an image by their names in a job: of a result, or of the swatch."""
    if materials.JOB in image and image.get(materials.OUTPUT) == "image":
        images = results.images_of(str(image[materials.JOB]))
        return {wire.map_input(name): _map_source(name, i) for name, i in images.items() if name != "image"}
    return maps.sources(scene.distill) if image == scene.distill.image_swatch else {}


def _map_source(name: str, image: Image) -> Callable[[], bytes]:
    what = f"{maps.title_of(name).lower()} map"
    return image_io.data_source_of(image, what) if results.is_data(name) else image_io.source_of(image, what)


def missing(context: Context) -> str:
    """What the artist has to do before the edit can run, in one sentence; empty if nothing is missing."""
    settings, image = context.scene.distill, target(context)
    if image is None:
        return tr("Choose a picture, or make a texture first")
    kind = kind_of(settings)
    if changes_layout(kind) and "layout" not in _request_of(image).get("inputs", {}):
        return tr("“{}” was not made with a layout; choose a result that was").format(image.name)
    if changes_layout(kind) and settings.image_layout is None:
        return tr("Change the layout in Regions and Layout first")
    if takes(settings, "mask") and mask_of(context.scene) is None:
        return tr("Paint the mask first: white where the picture changes")
    return ""


def changes_layout(kind: wire.JobKind) -> bool:
    """Whether an edit changes the layout of a result; all else then is as in the result's own job."""
    return any(picture.name in EARLIER and picture.role == "labels" for picture in kind.pictures)


def tile_of(settings: PropertyGroup, image: Image | None) -> str | None:
    """The axes along which a result tiles, which its edit keeps; None if the panel has them."""
    if image is None or settings.edit not in TILES_AS_RESULT:
        return None
    tile = _request_of(image).get("parameters", {}).get("tile")
    return str(tile) if tile is not None else None


def _request_of(image: Image) -> dict[str, Any]:
    """The request of a result's job; empty for other images."""
    return mapping.json_of(image, "distill_request")


def draft(context: Context) -> JobDraft:
    """The job of the chosen edit; raises WireError if a setting or a picture is invalid."""
    scene = context.scene
    settings = scene.distill
    kind, image = kind_of(settings), image_io.check_usable(target(context), "picture")
    edited, request = edited_picture(kind), _request_of(image)
    parameters = properties.values_of(properties.parameters_of(settings, edit=True), kind)
    sources, names = {edited: image_io.source_of(image, "picture")}, {edited: image.name}
    stored: dict[str, str] = {}
    if kind.maps_over:
        sources |= maps_of(scene, image)
    if (mask := mask_of(scene)) is not None and takes(settings, "mask"):
        check_mask(mask)
        sources["mask"], names["mask"] = image_io.source_of(mask, "mask"), mask.name
    if changes_layout(kind):
        sources["layout"], names["layout"] = regions.label_sources(scene)["layout"], settings.image_layout.name
        inputs = request["inputs"]  # `missing` has checked that there is a layout among them
        stored = {name: inputs[earlier] for name, earlier in EARLIER.items()}
        own = {n: v for n, v in request.get("parameters", {}).items() if n in parameters and n not in OWN_PARAMETERS}
        parameters |= own
    if (tile := tile_of(settings, image)) is not None:
        parameters["tile"] = tile
    values = {p.name: p.check(parameters[p.name]) for p in kind.parameters}
    stem = image.name.encode()[:TITLE_BYTES].decode(errors="ignore").rstrip()
    return JobDraft(kind.name, f"{stem}, {kind.title.lower()}", values, sources, names, (), stored)


def users_of(image: Image) -> list[Material]:
    """The materials that show an edited result, which get the edit's result in its place."""
    job = str(image.get(materials.JOB, ""))
    return [m for m in results.users_of(job) if m.library is None] if job else []


# ---------------------------------------------------------------------------------------------- the mask


def mask_of(scene: Scene) -> Image | None:
    """The mask that is painted for edits."""
    return scene.distill.image_mask


def ensure_mask(scene: Scene, image: Image) -> Image:
    """The mask over an image; a new, black one of its size if there is none or it belongs to another image."""
    mask = mask_of(scene)
    if mask is not None and mask.get(MASK_OF) == image.name and tuple(mask.size) == tuple(image.size):
        return mask
    width, height = image.size
    mask = image_io.new_image(f"{image.name} mask", image_io.encode_png(np.zeros((height, width, 3), np.uint8), True))
    mask[MASK_OF] = image.name
    scene.distill.image_mask = mask
    return mask


def clear_mask(scene: Scene) -> None:
    """Replaces the mask by a black one: undo restores datablocks, and no pixels."""
    mask = mask_of(scene)
    image = edited_under(scene, mask) if mask is not None else None
    if mask is None or image is None:
        return
    mask.name = f"{mask.name} (before)"
    scene.distill.image_mask = None
    ensure_mask(scene, image)


def edited_under(scene: Scene, mask: Image) -> Image | None:
    """The image that a mask was made for; None if the image is not the scene's mask."""
    if mask != mask_of(scene):
        return None
    return bpy.data.images.get(str(mask.get(MASK_OF, "")))


def check_mask(mask: Image) -> None:
    """Raises LocalError if a mask is empty or full."""
    levels = image_io.pixels_of(mask, "mask", every=1)[..., :3].max(2)
    painted = float(np.mean(levels > 127))
    if painted == 0.0:
        raise LocalError("invalid-image", f"The mask “{mask.name}” is empty; paint white where the picture changes")
    if painted == 1.0:
        raise LocalError("invalid-image", f"The mask “{mask.name}” covers everything; leave black what is to stay")
