"""The swatch before and after its light is evened: two small jobs of the kind `prepare`, which show what a job uses.

Both have the same crop, corners and scale, so that only the light differs. They are no entries of the list of results,
and their pictures are not saved with the .blend.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import bpy
from bpy.types import Image, Scene

from .. import wire
from ..link import background
from . import image_io, preferences, properties

IMAGES = {"before": "Swatch before Even Lighting", "after": "Swatch after Even Lighting"}
"""Names of the images that are compared."""
SIDE = "distill_compared"
"""Custom property of these images: which of them it is."""


@dataclass
class Comparison:
    """The running jobs by side ("before", "after"), and the parameters and the swatch that were requested last."""

    jobs: dict[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    source: Callable[[], bytes] | None = None
    error: wire.WireError | None = None


_current = Comparison()


def start(scene: Scene, thread: background.BackgroundThread) -> None:
    """Request both pictures; raises WireError if the swatch or a parameter is invalid."""
    global _current
    stop(thread)
    _current = Comparison(source=image_io.source_of(scene.distill.image_swatch, "swatch"))
    _request(_wanted(scene), ("before", "after"), thread)


def update(scene: Scene, thread: background.BackgroundThread) -> None:
    """Request what the parameters have changed, once the last request has been answered."""
    wanted = _wanted(scene)
    if _current.jobs or _current.source is None or wanted == _current.parameters:
        return
    only_light = {**wanted, "even_light": 0.0} == {**_current.parameters, "even_light": 0.0}
    _request(wanted, ("after",) if only_light else ("before", "after"), thread)


def stop(thread: background.BackgroundThread) -> None:
    """Cancel the jobs that run."""
    for job in _current.jobs.values():
        thread.cancel(job)
    _current.jobs.clear()
    _current.source = None


def error() -> wire.WireError | None:
    """Why there is nothing to compare."""
    return _current.error


def is_pending() -> bool:
    """Whether a picture is on its way."""
    return bool(_current.jobs)


def image(side: str) -> Image | None:
    """One of the pictures, "before" or "after"."""
    return next((i for i in bpy.data.images if i.get(SIDE) == side), None)


def on_end(event: background.JobEnded) -> None:
    """Takes the picture of a job, if it is one of the comparison's."""
    side = next((side for side, job in _current.jobs.items() if job == event.job), None)
    if side is None:
        return
    del _current.jobs[side]
    if event.error is not None:
        _current.error = event.error
    elif event.pictures:
        _replace(side, event.pictures["image"])


def remove() -> None:
    """Removes the pictures."""
    for side in IMAGES:
        if (old := image(side)) is not None:
            bpy.data.images.remove(old)


def _wanted(scene: Scene) -> dict[str, Any]:
    """The parameters of a `prepare` job with the scene's settings."""
    settings = scene.distill
    values = properties.values_of(properties.parameters_of(settings), properties.kind_of(settings))
    values["width"], values["height"] = properties.output_size(settings)
    return {p.name: p.check(values[p.name]) for p in wire.PREPARE.parameters}


def _request(parameters: Mapping[str, Any], sides: tuple[str, ...], thread: background.BackgroundThread) -> None:
    _current.parameters, _current.error = parameters, None
    source = _current.source
    if source is None:
        return
    address, may_start = preferences.service_address(), preferences.may_start()
    for side in sides:
        job = _current.jobs[side] = str(uuid.uuid4())
        values = {**parameters, "even_light": 0.0} if side == "before" else parameters
        thread.submit(job, "prepare", values, {"swatch": source}, address, may_start)


def _replace(side: str, png: bytes) -> None:
    """A new image, also in the editors that showed the old one."""
    old = image(side)
    new = image_io.new_image(IMAGES[side], png)
    new[SIDE] = side
    new.is_runtime_data = True  # not saved
    if old is not None:
        old.user_remap(new)
        bpy.data.images.remove(old)
        new.name = IMAGES[side]
