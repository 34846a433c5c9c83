"""Maps: the channels of a material besides its base color, pixel by pixel over it.

A job takes a map NAME as the input `map:NAME` and returns it as the output of the same name. The maps in MAPS have a
meaning; a map of any other name is data that follows the color.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

PREFIX = "map:"
MAP_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
MAX_MAPS = 16
"""Most maps of one job."""

MapRole = Literal["color", "data", "normal"]
"""What the pixels of a map mean: sRGB colors, linear numbers, or vectors of a tangent-space normal map."""

Origin = Literal["given", "followed", "estimated"]
"""Where a map of a result comes from: the input itself, painted along with the color, or guessed from the color."""


@dataclass(frozen=True)
class MapType:
    """A map that a material can have: its name in the contract, its title in the panel, and what its pixels mean."""

    name: str
    title: str
    role: MapRole
    help: str


MAPS: dict[str, MapType] = {
    kind.name: kind
    for kind in (
        MapType("normal", "Normal", "normal", "Direction of the surface in tangent space"),
        MapType("roughness", "Roughness", "data", "0 is a mirror, 1 is matte"),
        MapType("metallic", "Metallic", "data", "1 where the surface is bare metal"),
        MapType("height", "Height", "data", "Displacement of the surface: black is deep, white is high"),
        MapType("ambient_occlusion", "Ambient Occlusion", "data", "Dark where little light of the sky arrives"),
        MapType("alpha", "Alpha", "data", "0 where the surface is transparent"),
        MapType("emission", "Emission", "color", "Color of the light that the surface emits"),
    )
}
"""The maps with a meaning, by name."""


def map_type(name: str) -> MapType:
    """The map of that name; one without a meaning is data."""
    return MAPS.get(name) or MapType(name, name.replace("_", " ").title(), "data", "Numbers that follow the color")


def map_input(name: str) -> str:
    """The name of a map among a job's inputs and a result's outputs."""
    return PREFIX + name


def map_name(picture: str) -> str | None:
    """The map that an input or output holds; None for other pictures, and for names that no map can have."""
    name = picture.removeprefix(PREFIX)
    return name if picture.startswith(PREFIX) and MAP_NAME.fullmatch(name) else None
