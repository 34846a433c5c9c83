"""What the panel says, made into jobs: the swatch and the maps, the parameters, one job for each variation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bpy.types import Scene

from . import image_io, properties, regions, wire
from .tasks import PictureSource


@dataclass(frozen=True)
class Order:
    """A job that can be sent: checked as far as it can be here."""

    kind: str
    title: str
    parameters: Mapping[str, Any]
    pictures: Mapping[str, PictureSource]
    material: str


def collect(scene: Scene, material: str) -> list[Order]:
    """The jobs that the scene's settings ask for; raises WireError in one sentence when something is amiss."""
    settings = scene.distill
    kind = properties.kind_of(settings)
    parameters = properties.values_of(properties.parameters_of(settings), kind)
    pictures = pictures_of(scene, kind)
    first = int(parameters.get("seed", 0))
    images = [getattr(settings, f"image_{p.name}") for p in kind.pictures if p.required]
    stem = " in ".join(image.name.rsplit(".", 1)[0] for image in images)  # none is missing: pictures_of has looked
    orders = []
    for seed in range(first, first + settings.variations):
        values = {p.name: p.check(parameters[p.name]) for p in kind.parameters}
        if "seed" in values:
            values["seed"] = kind.parameter("seed").check(seed)
        orders.append(Order(kind.name, f"{stem} {seed}", values, pictures, material))
    return orders


def pictures_of(scene: Scene, kind: wire.JobKind) -> dict[str, PictureSource]:
    """The pictures that go with a job: the label maps only if the layout is to be used."""
    sources = {}
    for picture in kind.pictures:
        image = getattr(scene.distill, f"image_{picture.name}")
        if picture.name not in ("regions", "layout") and (picture.required or image is not None):
            sources[picture.name] = image_io.source_of(image, picture.name.replace("_", " "))
    if scene.distill.use_layout and properties.takes(scene.distill, "layout"):
        sources |= regions.label_sources(scene)
    return sources
