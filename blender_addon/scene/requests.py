"""What the panel says, made into jobs: the swatch and the maps, the parameters, one job for each variation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bpy.types import Image, Scene

from .. import wire
from ..link.background import PictureSource
from ..wire.errors import LocalError
from . import image_io, properties, regions

TITLE_BYTES = 44
"""So long may a title be before its seed: Blender cuts names at 63 bytes, and numbers those that are there twice."""


@dataclass(frozen=True)
class Order:
    """A job that can be sent: checked as far as it can be here."""

    kind: str
    title: str
    parameters: Mapping[str, Any]
    pictures: Mapping[str, PictureSource]


def missing(scene: Scene) -> str:
    """What the artist has to do before a job can be asked for, in one sentence; empty when nothing is missing."""
    settings = scene.distill
    for picture in properties.kind_of(settings).pictures:
        if picture.required and getattr(settings, f"image_{picture.name}") is None:
            return f"Choose the {picture.name} first"
    if settings.use_layout and properties.takes(settings, "layout"):
        if len(settings.regions) < 2:
            return "Add two regions first, or untick Regions and Layout"
        for picture, what in regions.TITLES.items():
            if getattr(settings, f"image_{picture}") is None:
                return f"Make the {what} first, or untick Regions and Layout"
    return ""


def collect(scene: Scene) -> list[Order]:
    """The jobs that the scene's settings ask for; raises WireError in one sentence when something is amiss."""
    settings = scene.distill
    kind = properties.kind_of(settings)
    parameters = properties.values_of(properties.parameters_of(settings), kind)
    pictures = pictures_of(scene, kind)
    first = int(parameters.get("seed", 0))
    images = [getattr(settings, f"image_{p.name}") for p in kind.pictures if p.required]
    stems = [image.name.rsplit(".", 1)[0] for image in images]  # none is missing: pictures_of has looked
    title = " in ".join(_shortened(stem, TITLE_BYTES // len(stems)) for stem in stems)
    orders = []
    for seed in range(first, first + settings.variations):
        values = {p.name: p.check(parameters[p.name]) for p in kind.parameters}
        if "seed" in values:
            values["seed"] = kind.parameter("seed").check(seed)
        orders.append(Order(kind.name, f"{title} {seed}", values, pictures))
    return orders


def _source_of(image: Image, what: str) -> PictureSource:
    source = image_io.source_of(image, what)
    if min(image.size) < wire.MIN_PICTURE_SIDE:
        size = f"{image.size[0]} x {image.size[1]}"
        least = f"{wire.MIN_PICTURE_SIDE} is the least on a side"
        raise LocalError("invalid-image", f"The {what} “{image.name}” is {size}; {least}; choose a larger image")
    return source


def _shortened(text: str, most: int) -> str:
    """The text in at most so many bytes of UTF-8."""
    return text.encode()[:most].decode(errors="ignore").rstrip()


def pictures_of(scene: Scene, kind: wire.JobKind) -> dict[str, PictureSource]:
    """The pictures that go with a job: the label maps only if the layout is to be used."""
    sources = {}
    for picture in kind.pictures:
        image = getattr(scene.distill, f"image_{picture.name}")
        if picture.name not in ("regions", "layout") and (picture.required or image is not None):
            sources[picture.name] = _source_of(image, picture.name)
    if scene.distill.use_layout and properties.takes(scene.distill, "layout"):
        sources |= regions.label_sources(scene)
    return sources
