"""Regions suggested by the service: one job at a time, whose result becomes the region map."""

from __future__ import annotations

import bpy

from .. import wire
from ..link import events
from ..wire.errors import LocalError
from . import image_io, painting, properties, regions, session, windows

_job = ""
"""The newest request."""


def submit(scene: bpy.types.Scene, parts: int) -> None:
    """Requests a map of the swatch's parts, in place of an earlier request. Raises LocalError without a swatch."""
    global _job
    swatch = scene.distill.image_swatch
    source = image_io.source_of(swatch, properties.label("swatch").lower())
    session.current().cancel_side_job(_job)
    wanted = scene.name, swatch.session_uid
    _job = session.current().submit_side_job(
        wire.SUGGEST_REGIONS.name, {"parts": parts}, {"swatch": source}, lambda event: _on_end(event, *wanted)
    )


def is_pending() -> bool:
    """Whether a suggestion is expected."""
    return session.current().is_side_job(_job)


def _on_end(event: events.JobEnded, scene_name: str, swatch_uid: int) -> None:
    """Makes the region map of a suggestion that has arrived, unless the scene has another swatch now.

    Raises WireError if the job has failed, or the picture is unusable.
    """
    if event.error is not None:
        raise event.error
    scene = bpy.data.scenes.get(scene_name)
    swatch = scene.distill.image_swatch if scene is not None else None
    if event.state != "succeeded" or swatch is None or swatch.session_uid != swatch_uid:
        return
    picture = event.pictures.get("image")
    if picture is None:
        raise LocalError("internal", "The service returned no picture of the parts; try again")
    old = scene.distill.image_regions
    new = regions.map_of_parts(scene, picture)
    if old is not None and new != old:
        painting.replace_canvas(bpy.context, old, new)
    regions.remember_colors(scene)
    windows.push_undo("Suggest Regions")
