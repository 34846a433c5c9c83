"""The swatch before and after its light is evened: two small jobs of the kind `prepare`, which show what a job uses.

Both have the same crop, corners and scale, so that only the light differs. They are no entries of the list of results,
and their pictures are not saved with the .blend.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import bpy
from bpy.types import Image, Scene

from .. import wire
from ..link import events
from . import image_io, properties, session

IMAGES = {"before": "Swatch before Even Lighting", "after": "Swatch after Even Lighting"}
"""Names of the images that are compared."""
SIDE = "distill_compared"
"""Custom property of these images: which of them it is."""


@dataclass
class Comparison:
    """The running jobs by side ("before", "after"), and the parameters and the swatch that were requested last."""

    source: Callable[[], bytes] | None = None
    jobs: dict[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    error: wire.WireError | None = None


_current = Comparison()


def start(scene: Scene) -> None:
    """Request both pictures; raises WireError if the swatch or a parameter is invalid."""
    global _current
    stop()
    source = image_io.source_of(scene.distill.image_swatch, "swatch")
    _current = Comparison(source)
    _request(source, _wanted(scene), ("before", "after"))


def update(scene: Scene) -> None:
    """Request what the parameters have changed, once the last request has been answered."""
    wanted = _wanted(scene)
    if is_pending() or _current.source is None or wanted == _current.parameters:
        return
    only_light = {**wanted, "even_light": 0.0} == {**_current.parameters, "even_light": 0.0}
    _request(_current.source, wanted, ("after",) if only_light else ("before", "after"))


def stop() -> None:
    """Cancel the jobs that run."""
    for job in _current.jobs.values():
        session.current().cancel_side_job(job)
    _current.source = None


def error() -> wire.WireError | None:
    """Why there is nothing to compare."""
    return _current.error


def is_pending() -> bool:
    """Whether a picture is on its way."""
    return any(session.current().is_side_job(job) for job in _current.jobs.values())


def image(side: str) -> Image | None:
    """One of the pictures, "before" or "after"."""
    return next((i for i in bpy.data.images if i.get(SIDE) == side), None)


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


def _request(source: Callable[[], bytes], parameters: Mapping[str, Any], sides: tuple[str, ...]) -> None:
    _current.parameters, _current.error = parameters, None
    for side in sides:
        values = {**parameters, "even_light": 0.0} if side == "before" else parameters
        on_end = functools.partial(_on_end, side)
        _current.jobs[side] = session.current().submit_side_job("prepare", values, {"swatch": source}, on_end)


def _on_end(side: str, event: events.JobEnded) -> None:
    """Takes the picture of a side."""
    if event.error is not None:
        _current.error = event.error
    elif event.pictures:
        _replace(side, event.pictures["image"])


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
