"""Makes a result again: its kind, parameters, swatch, regions and layout return to the panel.

Its pictures are those of the file if they still have the sha256 of the job's request. Others are downloaded from the
service, which keeps the pictures of its jobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

import bpy
from bpy.types import Image, Scene

from .. import wire
from ..link.events import PictureSource
from ..link.records import JobRecord
from ..wire.errors import LocalError
from . import image_io, properties, regions, swatch

BLOB = "distill_blob"
"""Custom property of an image that was downloaded to make a result again: its sha256 on the service."""


def bring_back(scene: Scene, record: JobRecord) -> dict[str, str]:
    """Sets the panel as it was for a job; returns the sha256 of the pictures that the file no longer has, by name.

    Raises WireError, before anything is changed, if the job was not submitted or its parameters are unknown.
    """
    inputs = dict(record.request.get("inputs", {}))
    if not inputs:
        raise LocalError("invalid-request", f"“{record.title}” does not say which pictures it was made from")
    settings = scene.distill
    properties.reuse(settings, record.kind, record.request.get("parameters", record.parameters))
    settings.variations = 1
    settings.use_layout = "layout" in inputs
    if record.regions:
        settings.regions.clear()
        for name, color in record.regions:
            red, green, blue = bytes.fromhex(color)
            regions.add_region(scene, name, (red, green, blue))
        settings.region_index = 0
    for name, sha in inputs.items():
        if (image := _candidate(record, name, sha)) is not None:
            setattr(settings, f"image_{name}", image)
    swatch.remember(scene)
    sources = _sources(scene, record.kind, inputs)
    return {name: sha for name, sha in inputs.items() if name not in sources or _sha(sources[name]) != sha}


def complete(scene: Scene, record: JobRecord, missing: Mapping[str, str], blobs: Mapping[str, bytes]) -> None:
    """Sets the pictures that were downloaded; raises LocalError if the service does not have all that are missing."""
    for name, data in blobs.items():
        image = image_io.new_image(record.sources.get(name) or properties.label(name), data)
        image[BLOB] = missing[name]
        setattr(scene.distill, f"image_{name}", image)
    swatch.remember(scene)
    lost = [name for name in missing if name not in blobs]
    if lost:
        which = " and the ".join(regions.TITLES.get(name, properties.label(name).lower()) for name in lost)
        raise LocalError(
            "blob-missing",
            f"The {which} of “{record.title}” changed since or was deleted, and the service no longer has it; all else "
            "was brought back",
        )


def unchanged_sources(record: JobRecord) -> dict[str, PictureSource]:
    """The color pictures of a job that the file still has, to upload again."""
    kind = wire.KINDS.get(record.kind)
    found = {}
    for name, sha in record.request.get("inputs", {}).items():
        image = _candidate(record, name, sha)
        if kind is not None and kind.picture(name).role == "color" and image is not None:
            source = _color_source(image, name)
            if source is not None and _sha(source) == sha:
                found[name] = source
    return found


def _candidate(record: JobRecord, name: str, sha: str) -> Image | None:
    """The image that a job's picture was probably made of."""
    downloaded = next((image for image in bpy.data.images if image.get(BLOB) == sha), None)
    return downloaded or bpy.data.images.get(record.sources.get(name, ""))


def _sources(scene: Scene, kind: str, inputs: Mapping[str, str]) -> dict[str, PictureSource]:
    """The pictures as the panel would send them now, of those that can be sent."""
    found = {}
    for name in inputs:
        if wire.KINDS[kind].picture(name).role != "labels":
            image = getattr(scene.distill, f"image_{name}")
            if (source := _color_source(image, name)) is not None:
                found[name] = source
    if "layout" in inputs:
        with suppress(LocalError):
            found |= regions.label_sources(scene)
    return found


def _color_source(image: Image, name: str) -> PictureSource | None:
    """The bytes of an image; None if it has no usable pixels."""
    try:
        return image_io.source_of(image, name)
    except LocalError:
        return None


def _sha(source: PictureSource) -> str:
    """The checksum of a picture; empty if it has no usable pixels."""
    try:
        return hashlib.sha256(source()).hexdigest()
    except LocalError:
        return ""
