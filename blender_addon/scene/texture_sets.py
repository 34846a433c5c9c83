"""Downloaded sets of textures: which map of a material each file is, by its name. No bpy.

The names are those of ambientCG, Poly Haven, Quixel, textures.com, 3dtextures.me, Poliigon, FreePBR, cgbookcase, of
Substance's exports and of Unreal (`T_Wall_N`). Case does not matter, and resolutions (`1K`, `4096`) are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

Channel = Literal["RGB", "R", "G", "B", "A"]
"""What of a picture is a map: its color, or one of its channels as gray."""
NormalFormat = Literal["auto", "opengl", "directx"]

COLOR = "color"
"""Name of the base color among the maps of a set."""


@dataclass(frozen=True)
class Content:
    """A map in a file: its name in the contract or COLOR, its channel, and whether 1 and 0 are exchanged (gloss)."""

    map: str
    channel: Channel = "RGB"
    inverted: bool = False


@dataclass(frozen=True)
class Recognized:
    """What a file's name says.

    Attributes:
        set_name: the name without the map and the resolution, in lower case; files of one set have the same.
        contents: the maps in the file, several if they are packed; empty for a map that is not used (cavity).
        resolution: the longer side in pixels; 0 if the name does not say it.
        rank: among files of the same map, the lowest is used: a packed file or a bump map comes after its own file.
        normal_format: of a normal map.
    """

    set_name: str
    contents: tuple[Content, ...]
    resolution: int = 0
    rank: int = 0
    normal_format: NormalFormat = "auto"


@dataclass(frozen=True)
class MapFile:
    """A map of a set: the file that has it, and where in the file it is."""

    file: str
    channel: Channel = "RGB"
    inverted: bool = False


@dataclass(frozen=True)
class TextureSet:
    """The files of one material.

    Attributes:
        name: of the set.
        color: the file of the base color.
        maps: the other maps by their names in the contract.
        normal_format: of the normal map.
        unused: files of maps that the contract has no name for, such as specular.
    """

    name: str
    color: str
    maps: Mapping[str, MapFile] = field(default_factory=dict)
    normal_format: NormalFormat = "auto"
    unused: tuple[str, ...] = ()


_WORDS: dict[str, tuple[str, ...]] = {
    COLOR: ("basecolor", "basecolour", "albedo", "color", "colour", "col", "coll", "diffuse", "diff", "dif", "bc"),
    "normal": ("normal", "normals", "norm", "nor", "nrm", "nml", "normalmap"),
    "roughness": ("roughness", "rough", "rgh"),
    "metallic": ("metallic", "metalness", "metal", "mtl", "met"),
    "height": ("height", "displacement", "disp", "displace", "heightmap", "hgt", "depth"),
    "ambient_occlusion": ("ambientocclusion", "occlusion", "ao", "occ", "mixedao"),
    "alpha": ("opacity", "alpha", "transparency"),
    "emission": ("emission", "emissive", "emit", "glow"),
}
"""How a map is called at the end of a file's name, as tokens without what is between them."""
_GLOSS = ("gloss", "glossiness", "glossy", "smoothness")
_BUMP = ("bump", "bmp")
_PACKED: dict[str, tuple[str, str, str]] = {
    **dict.fromkeys(
        ("arm", "orm", "aorm", "aoroughnessmetallic", "occlusionroughnessmetallic"),
        ("ambient_occlusion", "roughness", "metallic"),
    ),
    **dict.fromkeys(("mra", "metallicroughnessao"), ("metallic", "roughness", "ambient_occlusion")),
    **dict.fromkeys(("rma", "roughnessmetallicao"), ("roughness", "metallic", "ambient_occlusion")),
    **dict.fromkeys(("metallicroughness", "metalroughness", "metalrough"), ("", "roughness", "metallic")),
}
"""Maps in the red, green and blue of a packed file; glTF's metallicRoughness leaves red free."""
_UNUSED = (
    *("specular", "spec", "reflection", "refl", "speclevel", "ior", "cavity", "translucency", "translucent", "sss"),
    *("scattering", "fuzz", "sheen", "curvature", "anisotropy", "mask", "idmap", "edge", "thickness", "brush"),
)
_UNREAL = {"b": COLOR, "d": COLOR, "c": COLOR, "n": "normal", "r": "roughness", "m": "metallic", "h": "height"}
"""Single letters, used in names that start with `T_` only: `wall_b` may be the second of two walls."""
_OPENGL, _DIRECTX = ("opengl", "ogl", "gl"), ("directx", "dx")
_RESOLUTION = re.compile(r"(\d{1,2})k|(\d{3,5})(?:px|x\d{3,5})?")
_FORMAT = re.compile(r"jpe?g|png|tiff?|exr|\d{1,2}bit|\d+x\d+|srgb|linear|raw|noncolor")
_DEPTH = re.compile(r"(?<=[a-z])(8|16|32)")
"""A number of bits at the end of a map's name: `DISP16`, `NRM16`."""
_COUNTER = re.compile(r"0?\d")
"""A variant of the color: Poly Haven's `_col_01`."""
_FORMAT_ORDER = (".png", ".tif", ".tiff", ".exr", ".jpg", ".jpeg", ".tga", ".webp", ".bmp")
EXTENSIONS = frozenset(_FORMAT_ORDER)
"""Suffixes of the files that a set is made of."""


def recognize(file: str) -> Recognized | None:
    """What a file's name says about its map; None if it names none, as the name of a photograph."""
    tokens = [t for t in re.split(r"[\W_]+", PurePath(file).stem.lower()) if t]
    is_unreal = tokens[:1] == ["t"] and len(tokens) > 2
    resolution = 0
    kept: list[str] = []
    for index, token in enumerate(tokens):
        found = _RESOLUTION.fullmatch(token)
        if index and found and (found[1] or found[2] in ("256", "512", "1024", "2048", "4096", "8192", "16384")):
            resolution = int(found[1]) * 1024 if found[1] else int(found[2])
        elif not index or not _FORMAT.fullmatch(token):
            kept.append(token)
    for end in (len(kept), len(kept) - 1):
        if end < len(kept) and not (end > 0 and _COUNTER.fullmatch(kept[end])):
            break
        for start in range(max(0, end - 3), end):
            word = _DEPTH.sub("", "".join(kept[start:end]))
            named = _named(word, is_unreal and end - start == 1)
            if named is not None:
                contents, rank, normal_format = named
                return Recognized(" ".join(kept[:start]), contents, resolution, rank, normal_format)
    return None


def _named(word: str, is_unreal: bool) -> tuple[tuple[Content, ...], int, NormalFormat] | None:
    """The maps, the rank and the format of normals that the end of a name means; None if it means nothing."""
    for format_name, endings in (("opengl", _OPENGL), ("directx", _DIRECTX)):
        for ending in endings:
            if word.endswith(ending) and word.removesuffix(ending) in _WORDS["normal"]:
                return (Content("normal"),), int(format_name == "directx"), format_name  # type: ignore[return-value]
    for name, words in _WORDS.items():
        if word in words:
            return (Content(name),), words.index(word) if name == COLOR else 0, "auto"
    if word in _GLOSS:
        return (Content("roughness", inverted=True),), 1, "auto"
    if word in _BUMP:
        return (Content("height"),), 1, "auto"
    if word in _PACKED:
        channels: tuple[Channel, ...] = ("R", "G", "B")
        packed = tuple(Content(n, c) for n, c in zip(_PACKED[word], channels, strict=True) if n)
        return packed, 2, "auto"
    if word in _UNUSED:
        return (), 0, "auto"
    if is_unreal and word in _UNREAL:
        return (Content(_UNREAL[word]),), 0, "auto"
    return None


def find_set(files: Iterable[str], chosen: str = "") -> TextureSet | None:
    """The set of textures among files, by their names; None if there is none.

    Args:
        files: paths of one folder. Of a map that several files have, the one with the resolution of the color is used,
            OpenGL normals before DirectX, a separate file before a packed one, PNG before JPEG.
        chosen: the file that was opened: the set is its set, and its color if it is one. Otherwise the set with most
            maps is taken.

    A set has a color. A file whose name names no map is the color if the others are called like it (`wall.jpg` beside
    `wall_normal.jpg`).
    """
    paths = [file for file in files if PurePath(file).suffix.lower() in EXTENSIONS]
    groups: dict[str, list[tuple[str, Recognized]]] = {}
    for path in paths:
        found = recognize(path)
        if found is not None:
            groups.setdefault(found.set_name, []).append((path, found))
    for path in paths:  # a color without a word for it
        stem = " ".join(t for t in re.split(r"[\W_]+", PurePath(path).stem.lower()) if t)
        if recognize(path) is None and stem in groups:
            groups[stem].append((path, Recognized(stem, (Content(COLOR),), rank=len(_WORDS[COLOR]))))
    sets = [made for members in groups.values() if (made := _make(members, chosen)) is not None]
    if chosen:
        sets = [made for made in sets if chosen in (made.color, *(m.file for m in made.maps.values()), *made.unused)]
    return max(sets, key=lambda made: len(made.maps), default=None)


def _make(members: list[tuple[str, Recognized]], chosen: str) -> TextureSet | None:
    """The set of the files of one name; None without a color."""
    wanted = next((found.resolution for path, found in members if path == chosen), 0)
    wanted = wanted or max(found.resolution for _, found in members)

    def order(member: tuple[str, Recognized]) -> tuple[bool, bool, int, int, str]:
        path, found = member
        suffix = PurePath(path).suffix.lower()
        return path != chosen, found.resolution != wanted, found.rank, _FORMAT_ORDER.index(suffix), path

    maps: dict[str, MapFile] = {}
    normal_format: NormalFormat = "auto"
    unused = []
    for path, found in sorted(members, key=order):
        for content in found.contents:
            if content.map not in maps:
                maps[content.map] = MapFile(path, content.channel, content.inverted)
                normal_format = found.normal_format if content.map == "normal" else normal_format
        if not found.contents:
            unused.append(path)
    color = maps.pop(COLOR, None)
    if color is None:
        return None
    return TextureSet(members[0][1].set_name, color.file, maps, normal_format, tuple(sorted(unused)))
