"""Regions suggested by the service: one job at a time, whose result becomes the region map."""

from __future__ import annotations

import uuid

import bpy

from .. import wire
from ..link import background
from ..wire.errors import LocalError
from . import image_io, painting, preferences, properties, regions

_job, _scene = "", ""


def submit(thread: background.BackgroundThread, scene: bpy.types.Scene, parts: int) -> None:
    """Requests a map of the swatch's parts, in place of an earlier request. Raises LocalError without a swatch."""
    global _job, _scene
    source = image_io.source_of(scene.distill.image_swatch, properties.label("swatch").lower())
    if _job:
        thread.cancel(_job)
    _job, _scene = str(uuid.uuid4()), scene.name
    parameters, pictures = {"parts": parts}, {"swatch": source}
    kind = wire.SUGGEST_REGIONS.name
    thread.submit(_job, kind, parameters, pictures, preferences.service_address(), preferences.may_start())


def is_pending() -> bool:
    """Whether a suggestion is expected."""
    return bool(_job)


def on_end(event: background.JobEnded) -> bool:
    """Makes the region map of a suggestion that has arrived; returns whether it did.

    Raises WireError if the job has failed, or the picture is unusable.
    """
    global _job
    scene = bpy.data.scenes.get(_scene)
    if event.job != _job:
        return False
    _job = ""
    if event.error is not None:
        raise event.error
    if event.state != "succeeded" or scene is None:
        return False
    picture = event.pictures.get("image")
    if picture is None:
        raise LocalError("internal", "The service returned no picture of the parts; try again")
    old = scene.distill.image_regions
    new = regions.map_of_parts(scene, picture)
    if old is not None and new != old:
        painting.replace_canvas(bpy.context, old, new)
    regions.remember_colors(scene)
    return True


def forget() -> None:
    """Drops what is expected. Called when the add-on is disabled."""
    global _job
    _job = ""
