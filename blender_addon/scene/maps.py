"""The maps of a scene's swatch: which ones are given, which a job returns, and the pictures that are sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bpy.types import Image, PropertyGroup, Scene

from .. import wire
from . import image_io, properties, swatch
from .map_sources import MaterialMaps
from .texture_sets import Channel, NormalFormat

BASE_COLOR = "Base Color"
"""Name of a result's color beside those of its maps."""
ESTIMATED = ("normal", "roughness", "height")
"""Maps that the service estimates from the color."""
PARAMETERS = ("estimate_maps", "normal_format", "normal_strength")
"""Parameters about maps, which the section Maps shows."""
SHAPE_TOLERANCE = 0.01
"""Relative difference of two aspect ratios that still count as the same: scans are cut to odd sizes."""


@dataclass(frozen=True)
class Overview:
    """What the result of the panel's settings will have: maps that follow the color, and maps that are estimated."""

    followed: tuple[str, ...]
    estimated: tuple[str, ...]


def title_of(name: str) -> str:
    """A map's name in the panel."""
    return wire.map_type(name).title


def takes_maps(settings: PropertyGroup) -> bool:
    """Whether the chosen kind of job takes the maps of the swatch."""
    return properties.kind_of(settings).maps_over == "swatch"


def use(scene: Scene, found: MaterialMaps) -> bool:
    """Chooses a swatch with its maps; returns what `swatch.follow` does."""
    settings = scene.distill
    settings.image_swatch = found.color
    settings.maps.clear()
    for name, item in found.maps.items():
        _set(settings.maps.add(), name, item.image, item.channel, item.inverted)
    settings.map_index = 0
    set_normal_format(settings, found.normal_format)
    return swatch.follow(scene)


def set_normal_format(settings: PropertyGroup, chosen: NormalFormat) -> None:
    """Chooses the convention of the swatch's normal map, for all kinds of job that have it."""
    for kind in wire.TEXTURE_KINDS:
        group = getattr(settings, f"parameters_{kind}")
        if hasattr(group, "normal_format"):
            group.normal_format = chosen


def add(scene: Scene, name: str, image: Image | None = None) -> None:
    """Adds a map to the swatch, or sets the image of one that it has."""
    settings = scene.distill
    names = [item.name for item in settings.maps]
    if name not in names:
        settings.maps.add()
        names.append(name)
    settings.map_index = names.index(name)
    _set(settings.maps[settings.map_index], name, image)
    if image is not None and wire.map_type(name).role != "color" and not image.is_dirty:
        image.colorspace_settings.name = "Non-Color"


def _set(item: PropertyGroup, name: str, image: Image | None, channel: Channel = "RGB", inverted: bool = False) -> None:
    item.name, item.image, item.channel, item.inverted = name, image, channel, inverted


def remove(scene: Scene) -> None:
    """Removes the active map."""
    settings = scene.distill
    settings.maps.remove(settings.map_index)
    settings.map_index = max(0, min(settings.map_index, len(settings.maps) - 1))


def given(settings: PropertyGroup) -> dict[str, PropertyGroup]:
    """The maps of the swatch that have an image, by name."""
    return {item.name: item for item in settings.maps if item.image is not None}


def missing(settings: PropertyGroup) -> list[str]:
    """The maps with a meaning that the swatch does not have yet."""
    names = {item.name for item in settings.maps}
    return [name for name in wire.MAPS if name not in names]


def overview(settings: PropertyGroup) -> Overview:
    """What the result will have beside its color."""
    group = properties.parameters_of(settings)
    followed = tuple(given(settings)) if takes_maps(settings) else ()
    estimates = getattr(group, "estimate_maps", "off") == "missing"
    return Overview(followed, tuple(n for n in ESTIMATED if n not in followed) if estimates else ())


def sources(settings: PropertyGroup) -> dict[str, Callable[[], bytes]]:
    """The pictures of the swatch's maps by their names in a job. Raises LocalError if one has no usable pixels."""
    return {wire.map_input(name): _source_of(name, item) for name, item in given(settings).items()}


def source_of(settings: PropertyGroup, picture: str) -> dict[str, Callable[[], bytes]]:
    """The picture of one map by its name in a job; empty if the swatch has none. Raises as `sources`."""
    found = {wire.map_input(name): item for name, item in given(settings).items()}
    return {picture: _source_of(found[picture].name, found[picture])} if picture in found else {}


def _source_of(name: str, item: PropertyGroup) -> Callable[[], bytes]:
    what = f"{title_of(name).lower()} map"
    if wire.map_type(name).role == "color" and item.channel == "RGB":
        return image_io.source_of(item.image, what)
    return image_io.data_source_of(item.image, what, item.channel, item.inverted)


def source_names(settings: PropertyGroup) -> dict[str, str]:
    """The names of the images that the swatch's maps are in, by their names in a job."""
    return {wire.map_input(name): item.image.name for name, item in given(settings).items()}


def problems(settings: PropertyGroup) -> list[str]:
    """What is wrong with the sizes of maps, one sentence each. Images that Blender has not read yet are left out."""
    image = settings.image_swatch
    if image is None or not image.has_data or not min(image.size):
        return []
    width, height = image.size
    found = []
    for name, item in given(settings).items():
        if not item.image.has_data or not min(item.image.size):
            continue
        x, y = item.image.size
        if abs(x * height / (y * width) - 1) > SHAPE_TOLERANCE:
            found.append(f"{title_of(name)} is {x} x {y}, another shape than the swatch’s {width} x {height}")
    return found


def images_of(settings: PropertyGroup) -> set[Image]:
    """The images of the swatch's maps."""
    return {item.image for item in settings.maps if item.image is not None}


def restore(settings: PropertyGroup, wanted: Mapping[str, Image | None]) -> None:
    """Sets the maps of the swatch to images by name; a map that has the image already keeps its channel."""
    before = {(m.name, m.image): (m.channel, m.inverted) for m in settings.maps}
    settings.maps.clear()
    for name, image in wanted.items():
        _set(settings.maps.add(), name, image, *before.get((name, image), ("RGB", False)))
    settings.map_index = 0
