"""The swatch: choosing it, the part of it that is used, and what a job with it would make (the plan).

The plan comes from the service. `update_plan`, which the session's timer calls, requests it when the settings have not
changed for a moment, and never waits; a plan of earlier settings is not current.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.types import Image, PropertyGroup, Scene

from .. import wire
from ..link import background
from ..link.records import duration
from ..wire import geometry
from . import image_io, properties, regions

FRAME = ("crop", "corners", "lens", "real_width")
"""Parameters that say which part of the swatch is used, and its size. They belong to one picture."""
PARAMETERS = (*FRAME, "scale", "even_light")
"""Parameters about the swatch, which the section Input shows."""
EXAMPLES = Path(__file__).parent.parent / "examples"
EXAMPLE_REGIONS = {"Stone": (214, 120, 60), "Moss": (60, 160, 80)}
"""The regions of the example's maps."""

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


# ---------------------------------------------------------------------------------------------- the picture


@dataclass(frozen=True)
class _Followed:
    """The swatch of a scene and what belongs to it: the part that is used, and the region map."""

    swatch: int
    frame: str
    region_map: int


_followed: dict[int, _Followed] = {}
"""For each scene, what was seen last."""
_chosen: set[int] = set()
"""The swatches that were chosen since `was_chosen` was called."""


def was_chosen() -> bool:
    """Whether a swatch was chosen since the last call. Opening a file does not count."""
    chosen = bool(_chosen)
    _chosen.clear()
    return chosen


def use(scene: Scene, image: Image) -> bool:
    """Chooses the swatch; returns what `follow` does."""
    scene.distill.image_swatch = image
    return follow(scene)


def follow(scene: Scene) -> bool:
    """Notices another swatch, however it was chosen; returns whether *Regions and Layout* was switched off therefore.

    What belongs to the earlier swatch is dropped, the part that is used, or not used, the region map, unless it was
    changed together with the swatch. Restoring the settings of a result calls `remember` instead.
    """
    settings = scene.distill
    before, now = _followed.get(scene.session_uid), _seen(settings)
    _followed[scene.session_uid] = now
    if before is None or before.swatch == now.swatch:
        return False
    if now.swatch:
        _chosen.add(now.swatch)
    if not before.swatch:
        return False
    if before.frame == now.frame:
        reset_frame(settings)
    if not now.swatch or not settings.use_layout or not now.region_map or before.region_map != now.region_map:
        return False
    settings.use_layout = False
    return True


def remember(scene: Scene) -> None:
    """Takes the swatch, the part that is used and the region map as belonging together."""
    _followed[scene.session_uid] = _seen(scene.distill)


def _seen(settings: PropertyGroup) -> _Followed:
    images = settings.image_swatch, settings.image_regions
    swatch, region_map = (image.session_uid if image is not None else 0 for image in images)
    return _Followed(swatch, repr(frame_of(settings)), region_map)


def use_example(scene: Scene) -> None:
    """Chooses the example swatch; with its regions and its layout, unless the scene has some already."""
    settings = scene.distill
    use(scene, _example("cobbles.png"))
    if len(settings.regions) or settings.image_regions is not None or settings.image_layout is not None:
        return
    for name, color in EXAMPLE_REGIONS.items():
        regions.add_region(scene, name, color)
    settings.region_index = 0
    settings.image_regions, settings.image_layout = _example("cobbles_regions.png"), _example("cobbles_layout.png")
    settings.use_layout = True
    regions.remember_colors(scene)


def _example(name: str) -> Image:
    """A new packed image of an example, so that the .blend does not depend on the add-on's folder."""
    return image_io.new_image(name, (EXAMPLES / name).read_bytes())


# ---------------------------------------------------------------------------------------------- the part that is used


def frame_of(settings: PropertyGroup) -> dict[str, Any]:
    """The parameters of FRAME that the chosen job kind has."""
    group = properties.parameters_of(settings)
    return {name: getattr(group, name) for name in FRAME if hasattr(group, name)}


def set_frame(settings: PropertyGroup, **values: Any) -> None:
    """Sets parameters of FRAME for all job kinds, since they belong to the swatch."""
    for kind in wire.TEXTURE_KINDS:
        group = getattr(settings, f"parameters_{kind}")
        for name, value in values.items():
            setattr(group, name, value)
    remember(settings.id_data)


def reset_frame(settings: PropertyGroup) -> None:
    """Uses the whole picture, as it is."""
    set_frame(settings, crop="", corners="", lens=0.0, real_width=0.0)


def set_crop(settings: PropertyGroup, crop: str) -> None:
    """Uses a rectangle of the swatch; the corners are dropped, and a real width becomes that of the new part."""
    group = properties.parameters_of(settings)
    real_width = group.real_width
    if not group.corners:
        real_width *= _width(settings, crop) / _width(settings, group.crop)
    set_frame(settings, crop=crop, corners="", real_width=real_width)


def set_corners(settings: PropertyGroup, corners: str) -> None:
    """Straightens the part between four corners; the crop is dropped, since only one of them can be used."""
    set_frame(settings, crop="", corners=corners)


def _width(settings: PropertyGroup, crop: str) -> float:
    return geometry.parse_crop(crop)[2] if crop else max(1, settings.image_swatch.size[0])


# ---------------------------------------------------------------------------------------------- the plan


_Key = tuple[str, tuple[object, ...], tuple[object, ...]]
"""The job kind, the parameters, and the stamps of the pictures."""


@dataclass
class _Planning:
    """The settings that were seen last and when they changed, those of the last request, and the answer to it."""

    seen: _Key | None = None
    changed: float = 0.0
    requested: _Key | None = None
    answered: _Key | None = None
    is_pending: bool = False
    plan: wire.Plan | None = None
    error: wire.WireError | None = None
    source_stamps: tuple[object, ...] = ()
    sources: dict[str, Callable[[], bytes]] | None = None


_planning = _Planning()


def start() -> None:
    """Forget what was seen. Called when the add-on is enabled and when a file is opened."""
    global _planning
    _planning = _Planning()
    _followed.clear()
    _chosen.clear()


def update_plan(thread: background.BackgroundThread, connected: bool) -> None:
    """Request a plan if the settings have changed and are at rest, and if the service is connected. Never waits."""
    scene, state, now = bpy.context.scene, _planning, time.monotonic()
    key = _key(scene)
    if key != state.seen:
        state.seen, state.changed = key, now
    state.is_pending = connected and key is not None and key != state.answered
    if not connected:
        state.requested = state.answered
    elif key is not None and key != state.requested and now - state.changed >= OPTIONS.delay:
        state.requested = key
        kind = properties.kind_of(scene.distill)
        try:
            parameters = properties.values_of(properties.parameters_of(scene.distill), kind)
            sources = _sources(scene, kind)
        except wire.WireError as error:
            on_plan(background.PlanReceived(key, error=error))
            return
        if sources is None:
            on_plan(background.PlanReceived(key))
        else:
            thread.plan(key, kind.name, parameters, sources)


def is_plan_pending() -> bool:
    """Whether a plan of the present settings will come."""
    return _planning.is_pending


def on_plan(event: background.PlanReceived) -> None:
    """Takes the answer to the last request; drops one to an earlier request."""
    if event.key == _planning.requested:
        _planning.answered, _planning.plan, _planning.error = _planning.requested, event.plan, event.error


def plan(scene: Scene) -> wire.Plan | None:
    """The plan of the scene's present settings; None while it is not known."""
    return _planning.plan if _is_current(scene) else None


def last_plan(scene: Scene) -> wire.Plan | None:
    """The newest plan of the scene's pictures, which may be of earlier settings."""
    key = _key(scene)
    return _planning.plan if key is not None and _planning.answered and _planning.answered[-1] == key[-1] else None


def plan_notes(scene: Scene) -> tuple[str, ...]:
    """What the artist should know before a job with the present settings runs: an error, or the plan's notes."""
    if not _is_current(scene):
        return ()
    if _planning.error is not None:
        return (_planning.error.sentence,)
    return (tr(NO_PLAN),) if _planning.plan is None else _planning.plan.notes


def estimate(found: wire.Plan) -> str:
    """Time and memory of a plan in words; empty if neither is known."""
    parts = [tr("About {}").format(duration(found.seconds))] if found.seconds is not None else []
    if found.memory_bytes is not None:
        parts.append(tr("{:.1f} GB of memory").format(max(found.memory_bytes / 1e9, 0.1)))
    return ", ".join(parts)


def _is_current(scene: Scene) -> bool:
    return _planning.answered is not None and _planning.answered == _key(scene)


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
    except wire.WireError:  # a text of the wrong form; `update_plan` shows what is wrong with it
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


def _sources(scene: Scene, kind: wire.JobKind) -> dict[str, Callable[[], bytes]] | None:
    """The job's pictures; None if one of them could only be read in a time that the artist notices.

    They are kept until an image changes; label maps as they were then. Raises WireError if one has no usable pixels.
    """
    names = [p.name for p in kind.pictures if p.required]
    images = [getattr(scene.distill, f"image_{name}") for name in names]
    stamps = tuple(_stamp(image) for image in [*images, *_label_maps(scene)])
    if stamps != _planning.source_stamps:
        _planning.source_stamps, _planning.sources = stamps, None
        if all(image_io.is_quick(image, OPTIONS.max_bytes, OPTIONS.max_pixels) for image in images):
            _planning.sources = {
                name: image_io.source_of(image, properties.label(name).lower())
                for name, image in zip(names, images, strict=True)
            }
            if _label_maps(scene):
                with contextlib.suppress(wire.WireError):  # unfinished maps are an error of the run, not of the plan
                    _planning.sources |= regions.label_sources(scene)
    return _planning.sources
