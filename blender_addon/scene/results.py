"""Results in the open file: packed images that know how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping

import bpy
from bpy.types import Image

from ..link.records import JobRecord
from . import image_io, materials
from .materials import JOB, OUTPUT


def import_result(record: JobRecord, pictures: Mapping[str, bytes]) -> None:
    """Adds a job's pictures to the file as packed images, and to the job's material.

    Raises LocalError if the material cannot take the result; the images are in the file then.
    """
    images = {}
    for output, png in pictures.items():
        suffix = "" if output == "image" else f" {output}"
        image = image_io.new_image(f"{record.title}{suffix}", png, data=output in materials.DATA_MAPS)
        image.use_fake_user = True  # Blender does not save images without users
        write_properties(image, record, output)
        images[output] = image
    record.imported = True
    settings = bpy.context.scene.distill
    settings.last_result = images["image"].name
    material = bpy.data.materials.get(record.material) if record.material else None
    if material is not None:
        painted = "layout" in record.request.get("inputs", {})
        materials.add_result(material, record.job, record.title, images, painted)
        if settings.use_at_once:
            materials.use_result(material, record.job)


def write_properties(image: Image, record: JobRecord, output: str) -> None:
    """Writes how an image was made into custom properties, which the artist can read."""
    image[JOB], image[OUTPUT] = record.job, output
    image["distill_kind"], image["distill_seed"] = record.kind, record.seed
    image["distill_parameters"] = json.dumps(dict(record.parameters))
    image["distill_request"] = json.dumps(dict(record.request))
    for name, value in record.metrics.items():
        image[f"distill_{name}"] = float(value)


def image_of(job: str, output: str = "image") -> Image | None:
    """A picture of a job's result, found by its custom properties, since the artist may rename it."""
    return next((i for i in bpy.data.images if i.get(JOB) == job and i.get(OUTPUT) == output), None)


def images_of(job: str) -> dict[str, Image]:
    """All pictures of a job's result that are in the file, the base color first."""
    found = {i[OUTPUT]: i for i in bpy.data.images if i.get(JOB) == job and OUTPUT in i}
    return dict(sorted(found.items(), key=lambda pair: pair[0] != "image"))
