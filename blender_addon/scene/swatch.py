"""The swatch: choosing it, noticing that another one was chosen, and the part of it that is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bpy.types import Image, PropertyGroup, Scene

from .. import wire
from ..wire import geometry
from . import image_io, properties, regions

FRAME = ("crop", "corners", "lens", "real_width")
"""Parameters that say which part of the swatch is used, and its size. They belong to one picture."""
PARAMETERS = (*FRAME, "scale", "even_light")
"""Parameters about the swatch, which the section Input shows."""
EXAMPLES = Path(__file__).parent.parent / "examples"
EXAMPLE_REGIONS = {"Stone": (214, 120, 60), "Moss": (60, 160, 80)}
"""The regions of the example's maps."""


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


def start() -> None:
    """Forgets what was seen. Called when the add-on is enabled and when a file is opened."""
    _followed.clear()
    _chosen.clear()


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
