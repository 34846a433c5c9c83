"""The maps of a material before the core gets them: checked, as large as the swatch, with OpenGL normals. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ad_service.worker.image_files import Decoded, DeepPixels, decode_map
from blender_addon import wire
from blender_addon.wire import WireError, geometry

Floats = npt.NDArray[np.floating[Any]]
NormalFormat = Literal["opengl", "directx"]

NAMES_OF_FORMATS: dict[NormalFormat, tuple[str, ...]] = {
    "opengl": ("nor_gl", "normal_gl", "normalgl", "nrm_gl", "opengl"),
    "directx": ("nor_dx", "normal_dx", "normaldx", "nrm_dx", "directx"),
}
"""Parts of the file names of downloaded normal maps, in lower case."""


@dataclass(frozen=True)
class MapOptions:
    """Thresholds of `read_maps`, measured on 199 CC0 materials and their maps.

    Attributes:
        least_up: mean of z of a normal map; the lowest of 178 has 0.55, most colors have less than 0.3.
        most_tilt: mean of x or y of a normal map; 178 have less than 0.1, nearly white pictures 0.4 and more.
        length_error: median deviation of a normal's length from 1; the highest of 178 has 0.34.
        gray: mean difference of the channels of a gray picture, in [0, 1]. All 359 gray maps have 0; 160 of 199
            colors have more.
        least_agreement: correlation of normals with a height map, or of their own slopes, that decides on a format.
            The height map decides right on 143 of 145 and on none wrong; slopes on 168 of 178, and on one wrong.
    """

    least_up: float = 0.45
    most_tilt: float = 0.35
    length_error: float = 0.4
    gray: float = 0.02
    least_agreement: float = 0.05


@dataclass(frozen=True)
class MaterialMap:
    """A map over a swatch: its type, and its pixels (h, w, C) of 8 or 16 bits; normals are OpenGL's."""

    type: wire.MapType
    pixels: DeepPixels


def maps_of(
    request: wire.JobRequest, decoded: Mapping[str, Decoded], read: Callable[[str], bytes], files: Mapping[str, str]
) -> tuple[dict[str, MaterialMap], tuple[str, ...]]:
    """The maps of a job, and notes on them, see `read_maps`; none for a kind of job that takes none."""
    kind = wire.KINDS[request.kind]
    if not kind.maps_over:
        return {}, ()
    height, width = decoded[kind.maps_over].pixels.shape[:2]
    pictures = {name: read(sha) for name, sha in request.inputs.items() if wire.map_name(name)}
    return read_maps(pictures, (width, height), request.parameters["normal_format"], files)


def read_maps(
    pictures: Mapping[str, bytes],
    size: tuple[int, int],
    normal_format: str,
    files: Mapping[str, str],
    options: MapOptions = MapOptions(),
) -> tuple[dict[str, MaterialMap], tuple[str, ...]]:
    """The maps of a swatch of size (width, height), by name, and notes on what was changed.

    Args:
        pictures: the encoded maps by their names among the inputs, `map:NAME`.
        size: of the swatch, to which the maps are resized.
        normal_format: "opengl" or "directx", or "auto": by the file's name, the height map, or the slopes themselves.
        files: file names by input, where known.

    Raises: WireError `invalid-image`.
    """
    maps: dict[str, MaterialMap] = {}
    notes: list[str] = []
    for picture, data in pictures.items():
        name = wire.map_name(picture)
        assert name is not None
        kind = wire.map_type(name)
        pixels, own_notes = decode_map(picture, data, kind.role)
        notes += own_notes
        _check_shape(picture, pixels, size)
        pixels = _checked(picture, kind, pixels, notes, options)
        if pixels.shape[1::-1] != size:
            notes.append(f"{picture} is {_by(pixels)} pixels and was resized to the swatch's {size[0]}x{size[1]}")
            pixels = resized(pixels, size, kind.role)
        maps[name] = MaterialMap(kind, pixels)
    if "normal" in maps:
        height = maps["height"].pixels if "height" in maps else None
        file = files.get(wire.map_input("normal"), "")
        found, note = _format_of(maps["normal"].pixels, height, normal_format, file, options)
        notes.append(note)
        if found == "directx":
            maps["normal"] = replace(maps["normal"], pixels=flipped_green(maps["normal"].pixels))
    return maps, tuple(notes)


def resized(pixels: DeepPixels, size: tuple[int, int], role: wire.Role) -> DeepPixels:
    """A map at another size (width, height), bicubic and antialiased; normals keep unit length."""
    if pixels.shape[1::-1] == size:
        return pixels
    channels = [
        np.asarray(Image.fromarray(pixels[..., i].astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
        for i in range(pixels.shape[2])
    ]
    return of_floats(np.stack(channels, 2) / np.float32(np.iinfo(pixels.dtype).max), pixels.dtype, role)


def to_floats(pixels: DeepPixels) -> Floats:
    """The values of pixels of 8 or 16 bits in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def flipped_green(pixels: DeepPixels) -> DeepPixels:
    """Normals (h, w, 3) of OpenGL as DirectX has them, and the reverse."""
    flipped = pixels.copy()
    flipped[..., 1] = np.iinfo(pixels.dtype).max - flipped[..., 1]
    return flipped


def of_floats(values: Floats, dtype: np.dtype[Any], role: wire.Role) -> DeepPixels:
    """Pixels of 8 or 16 bits of values in [0, 1], clipped; normals get unit length."""
    if role == "normal":
        vectors = values * 2 - 1
        values = vectors / np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-6) / 2 + 0.5
    most = np.iinfo(dtype).max
    pixels: DeepPixels = np.rint(np.clip(values, 0, 1) * most).astype(dtype)
    return pixels


# ---------------------------------------------------------------------------------------------- checks


def _by(pixels: DeepPixels) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _check_shape(picture: str, pixels: DeepPixels, size: tuple[int, int]) -> None:
    """Raises WireError `invalid-image` for a map of another shape than the swatch (width, height)."""
    if not geometry.has_same_shape((pixels.shape[1], pixels.shape[0]), size):
        raise WireError(
            "invalid-image",
            f"{picture} is {_by(pixels)} pixels, which is not the shape of the swatch ({size[0]}x{size[1]}); "
            "give the map that belongs to it",
            picture=picture,
        )


def _checked(picture: str, kind: wire.MapType, pixels: DeepPixels, notes: list[str], options: MapOptions) -> DeepPixels:
    """The pixels with as many channels as the map has. Raises WireError `invalid-image` for another kind of picture."""
    sample = to_floats(pixels[:: -(-pixels.shape[0] // 512), :: -(-pixels.shape[1] // 512)])
    spread = float((sample.max(2) - sample.min(2)).mean())
    is_gray = spread < options.gray
    if kind.role == "normal":
        _check_normal(picture, sample, is_gray, options)
        return pixels
    if kind.role == "color":
        if is_gray:
            notes.append(f"{picture} is a gray picture, and {kind.title.lower()} is a color; it is used as gray")
        return pixels[..., [0, 0, 0]] if pixels.shape[2] == 1 else pixels
    if kind.name in wire.MAPS and not is_gray:
        raise WireError(
            "invalid-image",
            f"{picture} is a color picture, whose channels differ by {255 * spread:.0f} of 255 on average; a map of "
            f"{kind.title.lower()} is gray. Of a packed map give the channel that has it",
            picture=picture,
        )
    if kind.name == "roughness" and float(sample.max()) < 0.004:
        notes.append(f"{picture} is black everywhere, so the material is a mirror; check that it is the right file")
    if kind.name == "height" and float(sample.max() - sample.min()) < 0.004:
        notes.append(f"{picture} has the same value everywhere, so the surface stays flat")
    return pixels[..., :1] if is_gray else pixels


def _check_normal(picture: str, sample: Floats, is_gray: bool, options: MapOptions) -> None:
    vectors = sample * 2 - 1
    up = float(vectors[..., -1].mean())
    tilt = float(np.abs(vectors.mean((0, 1))[:2]).max())
    off = float(np.median(np.abs(np.linalg.norm(vectors, axis=2) - 1)))
    if is_gray:
        reason = "it is gray; a bump or height map is map:height"
    elif up < options.least_up:
        reason = f"its blue is {up / 2 + 0.5:.2f} on average, where vectors that point up have nearly 1"
    elif tilt > options.most_tilt:
        reason = f"its red or green is {tilt / 2:.2f} from the middle on average"
    elif off > options.length_error:
        reason = f"its vectors are off the length 1 by {off:.2f}"
    else:
        return
    raise WireError("invalid-image", f"{picture} is not a normal map of tangent space: {reason}", picture=picture)


# ---------------------------------------------------------------------------------------------- OpenGL or DirectX


def _format_of(
    pixels: DeepPixels, height: DeepPixels | None, given: str, file: str, options: MapOptions
) -> tuple[NormalFormat, str]:
    """The format of a normal map, and the sentence that says so."""
    names: dict[NormalFormat, str] = {"opengl": "OpenGL (green is up)", "directx": "DirectX (green is down)"}
    converted: dict[NormalFormat, str] = {"opengl": "", "directx": ", and were converted to OpenGL"}
    for name in names:
        if given == name:
            return name, f"The normals were given as {names[name]}{converted[name]}"
    for name, parts in NAMES_OF_FORMATS.items():
        if any(part in file.lower().replace("-", "_") for part in parts):
            return name, f"The normals are {names[name]} by the name of {file}{converted[name]}"
    ways = [("height map", height_agreement(pixels, height))] if height is not None else []
    for way, agreement in (*ways, ("slopes", slope_agreement(pixels))):
        if abs(agreement) >= options.least_agreement:
            found: NormalFormat = "opengl" if agreement > 0 else "directx"
            return found, f"The normals are {names[found]} by their {way}{converted[found]}"
    return (
        "opengl",
        "The format of the normals could not be found out and is taken as OpenGL; set it if light looks wrong",
    )


def height_agreement(normal: DeepPixels, height: DeepPixels) -> float:
    """Correlation, -1 to 1, of OpenGL normals' slopes down the picture with those of a height map (h, w, 1).

    Above 0 the normals are OpenGL's, below 0 DirectX's.
    """
    _, down = _slopes(normal)
    heights = _halved(to_floats(height))[..., 0]
    return _correlation(down[1:-1], (heights[2:] - heights[:-2]) / 2)


def slope_agreement(normal: DeepPixels) -> float:
    """How well the slopes of normals (h, w, 3) fit a surface as OpenGL's, -1 to 1; as DirectX's it is the negative.

    The slopes p (right) and q (down) of a height have dp/ddown = dq/dright, which the wrong sign of q breaks:
    2 <dp/ddown dq/dright> / (<(dp/ddown)^2> + <(dq/dright)^2>).
    """
    right, down = _slopes(normal)
    a = (right[2:] - right[:-2])[:, 1:-1]
    b = (down[:, 2:] - down[:, :-2])[1:-1]
    return float(2 * (a * b).mean() / max(float((a * a).mean() + (b * b).mean()), 1e-12))


def _slopes(normal: DeepPixels) -> tuple[Floats, Floats]:
    """The slopes of the surface of OpenGL normals to the right and down, at half the size."""
    x, y, z = np.moveaxis(_halved(to_floats(normal)) * 2 - 1, 2, 0)
    z = np.maximum(z, 0.1)
    return -x / z, y / z


def _halved(values: Floats) -> Floats:
    h, w = values.shape[0] // 2 * 2, values.shape[1] // 2 * 2
    halved: Floats = (values[:h:2, :w:2] + values[1:h:2, :w:2] + values[:h:2, 1:w:2] + values[1:h:2, 1:w:2]) / 4
    return halved


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).mean() / max(float(np.sqrt((a * a).mean() * (b * b).mean())), 1e-12))
