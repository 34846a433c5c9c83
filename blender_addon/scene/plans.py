"""What a job with the present settings would use and make (the plan), which the service finds out.

The session's timer calls `Plans.update`, which requests a plan when the settings have not changed for a moment, and
never waits; a plan of earlier settings is not current.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.types import Image, Scene

from .. import wire
from ..link import background, events
from ..link.records import duration
from . import image_io, properties, regions

NO_PLAN = "Save the swatch as a file to see here what of it is used"
"""Shown for a large image without a file."""


@dataclass(frozen=True)
class PlanOptions:
    """When a plan is requested.

    Attributes:
        delay: seconds without a change of the settings, so that a slider is not followed step by step.
        max_bytes: of an image's file. A JPEG of 48 megapixels has about 25 MB; 64 MB are read in 0.03 s.
        max_pixels: of an image without a file that the service reads; 4096 x 4096 are copied in 0.04 to 0.1 s.
        max_map_pixels: of a label map; one of 1024 x 1024 is checked in 0.03 s. Larger ones are not part of the plan.
    """

    delay: float = 0.4
    max_bytes: int = 64_000_000
    max_pixels: int = 4096 * 4096
    max_map_pixels: int = 1024 * 1024


OPTIONS = PlanOptions()

_Key = tuple[str, tuple[object, ...], tuple[object, ...]]
"""The job kind, the parameters, and the stamps of the pictures."""


class Plans:
    """The settings that were seen last and when they changed, those of the last request, and the answer to it."""

    def __init__(self) -> None:
        self.is_pending = False
        """Whether a plan of the present settings will come."""
        self._seen: _Key | None = None
        self._changed = 0.0
        self._requested: _Key | None = None
        self._answered: _Key | None = None
        self._plan: wire.Plan | None = None
        self._error: wire.WireError | None = None
        self._source_stamps: tuple[object, ...] = ()
        self._sources: dict[str, Callable[[], bytes]] | None = None

    def update(self, thread: background.BackgroundThread, connected: bool) -> None:
        """Request a plan if the settings have changed and are at rest, and if the service is connected. Never waits."""
        scene, now = bpy.context.scene, time.monotonic()
        key = _key(scene)
        if key != self._seen:
            self._seen, self._changed = key, now
        self.is_pending = connected and key is not None and key != self._answered
        if not connected:
            self._requested = self._answered
        elif key is not None and key != self._requested and now - self._changed >= OPTIONS.delay:
            self._requested = key
            kind = properties.kind_of(scene.distill)
            try:
                parameters = properties.values_of(properties.parameters_of(scene.distill), kind)
                sources = self._sources_of(scene, kind)
            except wire.WireError as error:
                self.on_plan(events.PlanReceived(key, error=error))
                return
            if sources is None:
                self.on_plan(events.PlanReceived(key))
            else:
                thread.plan(key, kind.name, parameters, sources)

    def on_plan(self, event: events.PlanReceived) -> None:
        """Takes the answer to the last request; drops one to an earlier request."""
        if event.key == self._requested:
            self._answered, self._plan, self._error = self._requested, event.plan, event.error

    def current(self, scene: Scene) -> wire.Plan | None:
        """The plan of the scene's present settings; None while it is not known."""
        return self._plan if self._is_current(scene) else None

    def newest(self, scene: Scene) -> wire.Plan | None:
        """The newest plan of the scene's pictures, which may be of earlier settings."""
        key = _key(scene)
        return self._plan if key is not None and self._answered and self._answered[-1] == key[-1] else None

    def notes(self, scene: Scene) -> tuple[str, ...]:
        """What the artist should know before a job with the present settings runs: an error, or the plan's notes."""
        if not self._is_current(scene):
            return ()
        if self._error is not None:
            return (self._error.sentence,)
        return (tr(NO_PLAN),) if self._plan is None else self._plan.notes

    def _is_current(self, scene: Scene) -> bool:
        return self._answered is not None and self._answered == _key(scene)

    def _sources_of(self, scene: Scene, kind: wire.JobKind) -> dict[str, Callable[[], bytes]] | None:
        """The job's pictures; None if one of them could only be read in a time that the artist notices.

        They are kept until an image changes; label maps as they were then. Raises WireError if one has no usable
        pixels.
        """
        names = [p.name for p in kind.pictures if p.required]
        images = [getattr(scene.distill, f"image_{name}") for name in names]
        stamps = tuple(_stamp(image) for image in [*images, *_label_maps(scene)])
        if stamps != self._source_stamps:
            self._source_stamps, self._sources = stamps, None
            if all(image_io.is_quick(image, OPTIONS.max_bytes, OPTIONS.max_pixels) for image in images):
                self._sources = {
                    name: image_io.source_of(image, properties.label(name).lower())
                    for name, image in zip(names, images, strict=True)
                }
                if _label_maps(scene):
                    with contextlib.suppress(wire.WireError):  # unfinished maps are an error of the run
                        self._sources |= regions.label_sources(scene)
        return self._sources


def estimate(plan: wire.Plan) -> str:
    """Time and memory of a plan in words; empty if neither is known."""
    parts = [tr("About {}").format(duration(plan.seconds))] if plan.seconds is not None else []
    if plan.memory_bytes is not None:
        parts.append(tr("{:.1f} GB of memory").format(max(plan.memory_bytes / 1e9, 0.1)))
    return ", ".join(parts)


def _key(scene: Scene) -> _Key | None:
    """The settings that a plan depends on, the pictures last; None if a picture is missing."""
    settings = scene.distill
    kind = properties.kind_of(settings)
    images = [getattr(settings, f"image_{p.name}") for p in kind.pictures if p.required]
    if None in images:
        return None
    group = properties.parameters_of(settings)
    chosen: tuple[object, ...]
    try:
        values = properties.values_of(group, kind)
        chosen = tuple((name, value) for name, value in values.items() if name != "seed")
    except wire.WireError:  # a text of the wrong form; `Plans.update` shows what is wrong with it
        chosen = tuple((p.name, repr(getattr(group, p.name))) for p in kind.parameters if p.name != "seed")
    return kind.name, chosen, tuple(_stamp(image) for image in [*images, *_label_maps(scene)])


def _stamp(image: Image) -> object:
    return image.session_uid, tuple(image.size), image.is_dirty, image.packed_file is not None, image.filepath


def _label_maps(scene: Scene) -> list[Image]:
    """The region map and the layout, if they are used and small: they decide which part of the swatch is used."""
    settings = scene.distill
    maps = [getattr(settings, f"image_{name}") for name in properties.LABEL_MAPS]
    if not settings.use_layout or not properties.takes_layout(settings) or None in maps:
        return []
    return maps if all(image.size[0] * image.size[1] <= OPTIONS.max_map_pixels for image in maps) else []
