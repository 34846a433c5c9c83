"""Image files: bytes to pixels and back. No torch.

Input is not trusted: it is opened with an explicit list of formats, and its size is checked before it is decoded.
"""

from __future__ import annotations

import io
import json
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from ad_service.core.steps import checkpoint
from blender_addon import wire
from blender_addon.wire import WireError

JOB_CHUNK = "texture-distiller"
"""Keyword of the iTXt chunk in which a result's PNG contains its job."""

LARGE_PIXELS = 2048 * 2048
"""Above this many pixels a PNG is compressed at a faster level."""

BAND_PIXELS = 2**20
"""Pixels that are converted at once: a whole picture at once took up to 29 bytes a pixel, 7.7 GB for the largest."""

Pixels = npt.NDArray[np.uint8]
DeepPixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""Pixels (h, w, C) of 8 or 16 bits."""

LOW_BYTES = {"RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGBA;16B": "RGBA;16L", "RGBA;16L": "RGBA;16B"}
"""Pillow reads the high bytes of 16-bit colors only; with the other byte order it reads the low ones."""


@dataclass(frozen=True)
class Decoded:
    """sRGB pixels (h, w, 3), upright, and notes for the artist on what was lost in the conversion.

    `opaque` (h, w) says which pixels are at least half opaque; None if all are fully opaque.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()
    opaque: npt.NDArray[np.bool_] | None = None


def decode(name: str, data: bytes, role: wire.Role = "color") -> Decoded:
    """The pixels of a picture. Only colors are converted by their profile; labels, masks and data keep their values.

    Raises: WireError `invalid-image`, whose detail starts with `name`.
    """
    notes: list[str] = []
    with _reading(name):
        with _opened(name, data, wire.PICTURE_FORMATS) as opened:
            if getattr(opened, "n_frames", 1) > 1:
                notes.append(f"{name} contains {opened.n_frames} pictures; the first is used")  # type: ignore[attr-defined]
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
        return Decoded(_rgb(name, opened, role, notes), tuple(notes), _opaque(opened))


def decode_map(name: str, data: bytes, role: wire.Role) -> tuple[DeepPixels, tuple[str, ...]]:
    """The pixels of a map, upright, and notes on what was lost: (h, w, 1) of a gray picture, (h, w, 3) of another.

    16 bits stay 16 bits; 32 bits become 16. Only colors are converted by their profile, to 8 bits.

    Raises: WireError `invalid-image`, whose detail starts with `name`.
    """
    notes: list[str] = []
    with _reading(name), _opened(name, data, wire.PICTURE_FORMATS) as opened:
        low = _low_bytes_tiles(opened)
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)
        if opened.has_transparency_data:
            notes.append(f"the transparency of {name} is ignored")
        if opened.mode in ("I", "F") or opened.mode.startswith("I;16"):
            return _deep_gray(name, opened, notes), tuple(notes)
        if low is not None and not (role == "color" and opened.info.get("icc_profile")):
            return _deep_color(name, data, opened, low), tuple(notes)
        pixels = _rgb(name, opened, role, notes)
        return pixels[..., :1] if opened.mode in ("1", "L", "LA") else pixels, tuple(notes)


def check_size(name: str, pixels: Pixels, smallest: int) -> None:
    """Raises WireError `invalid-image` for a picture (h, w, 3) with a side shorter than `smallest`."""
    height, width = pixels.shape[:2]
    if min(height, width) < smallest:
        raise WireError(
            "invalid-image",
            f"{name} is {width}x{height} pixels; each side must have at least {smallest} pixels",
            picture=name,
        )


def encode_png(pixels: DeepPixels, document: Mapping[str, Any], pixels_per_meter: float | None = None) -> bytes:
    """A PNG of pixels (h, w, C) that contains the document, and the size of its pixels (pHYs) if it is known.

    The same input gives the same bytes.
    """
    if pixels.dtype == np.uint16:
        return _encode_deep_png(pixels, document, pixels_per_meter)
    info = PngImagePlugin.PngInfo()
    info.add_itxt(JOB_CHUNK, json.dumps(document, sort_keys=True, ensure_ascii=False))
    buffer = io.BytesIO()
    large = pixels.shape[0] * pixels.shape[1] > LARGE_PIXELS
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(
        buffer,
        "PNG",
        pnginfo=info,
        compress_level=3 if large else 6,
        **({} if pixels_per_meter is None else {"dpi": (pixels_per_meter * 0.0254,) * 2}),
    )
    return buffer.getvalue()


def _encode_deep_png(pixels: DeepPixels, document: Mapping[str, Any], pixels_per_meter: float | None) -> bytes:
    """A PNG of 16 bits, gray (h, w, 1) or RGB (h, w, 3); Pillow cannot write the latter."""
    height, width, channels = pixels.shape
    compressor = zlib.compressobj(1 if height * width > LARGE_PIXELS else 3, strategy=zlib.Z_FILTERED)
    body = io.BytesIO()
    rows_at_once = max(1, BAND_PIXELS // width)
    above = np.zeros((1, width * channels * 2), np.uint8)
    for y in range(0, height, rows_at_once):
        checkpoint()
        band = (
            np.ascontiguousarray(pixels[y : y + rows_at_once]).astype(">u2").view(np.uint8).reshape(-1, above.shape[1])
        )
        up = band - np.concatenate([above, band[:-1]])  # modulo 256, as the filter type Up (2) has it
        body.write(compressor.compress(np.pad(up, ((0, 0), (1, 0)), constant_values=2).tobytes()))
        above = band[-1:]
    body.write(compressor.flush())
    text = (
        JOB_CHUNK.encode("latin-1") + b"\0\0\0\0\0" + json.dumps(document, sort_keys=True, ensure_ascii=False).encode()
    )
    density = (
        b"" if pixels_per_meter is None else _chunk(b"pHYs", struct.pack(">IIB", *(round(pixels_per_meter),) * 2, 1))
    )
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0 if channels == 1 else 2, 0, 0, 0))
        + density
        + _chunk(b"iTXt", text)
        + _chunk(b"IDAT", body.getvalue())
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def size_of(name: str, data: bytes) -> tuple[int, int]:
    """Width and height of a picture, from its header. Raises: WireError `invalid-image`."""
    with _reading(name), _opened(name, data, wire.PICTURE_FORMATS) as image:
        return image.size


def encode_preview(pixels: Pixels) -> bytes:
    """A JPEG of pixels (h, w, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def job_document(name: str, data: bytes) -> Any:
    """The job that a result's PNG contains. Raises: WireError `invalid-request` if it contains none."""
    with _reading(name), _opened(name, data, ("PNG",)) as image:
        image.load()  # a text chunk may follow the pixels
        text = image.info.get(JOB_CHUNK)
    if text is None:
        raise WireError("invalid-request", f"{name} contains no job; only results of this program do")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError("invalid-request", f"{name} contains a job that is not JSON: {error}") from error


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turns any exception of Pillow, which raises almost every type for damaged files, into `invalid-image`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (WireError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        formats = ", ".join(wire.PICTURE_FORMATS)
        raise WireError(
            "invalid-image", f"{name} is not a picture in one of the formats {formats}", picture=name
        ) from error
    except Exception as error:
        raise WireError("invalid-image", f"{name} is damaged: {error}", picture=name) from error


_limit_lock = threading.Lock()


@contextmanager
def _opened(name: str, data: bytes, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """A picture that is open and not yet loaded, after a check of its size.

    Pillow's own limit of pixels is lower than MAX_PICTURE_PIXELS, and a global of the process. It is lifted inside the
    block only, by one thread at a time.
    """
    with _limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            with Image.open(io.BytesIO(data), formats=formats) as image:
                _check_size(name, *image.size)
                yield image
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(name: str, width: int, height: int) -> None:
    if max(width, height) > wire.MAX_PICTURE_SIDE:
        raise WireError(
            "invalid-image",
            f"{name} is {width}x{height} pixels; {wire.MAX_PICTURE_SIDE} pixels a side is the limit",
            picture=name,
        )


def _rgb(name: str, image: Image.Image, role: wire.Role, notes: list[str]) -> Pixels:
    """The pixels (h, w, 3) of an image of any mode, converted in bands of rows."""
    convert = _conversion(name, image, role, notes)
    pixels = np.empty((*image.size[::-1], 3), np.uint8)
    for y, band in _bands(image):
        pixels[y : y + band.height] = convert(band)
    return pixels


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The image in bands of at most BAND_PIXELS, each with its first row."""
    width, height = image.size
    rows = max(1, BAND_PIXELS // width)
    for y in range(0, height, rows):
        checkpoint()
        yield y, image.crop((0, y, width, min(y + rows, height)))


def _conversion(
    name: str, image: Image.Image, role: wire.Role, notes: list[str]
) -> Callable[[Image.Image], npt.NDArray[np.uint8]]:
    """A function from bands (h, w) of the image to sRGB pixels (h, w, 3), or (h, w, 1) of gray."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _gray_conversion(name, image, notes)
    profile = image.info.get("icc_profile")
    opaque = _without_alpha if image.has_transparency_data else lambda band: band
    to_srgb = (
        _srgb_conversion(name, opaque(image.crop((0, 0, 1, 1))).mode, profile, notes)
        if (profile and role == "color")
        else lambda band: band
    )
    return lambda band: np.asarray(to_srgb(opaque(band)).convert("RGB"), np.uint8)


def _gray_conversion(name: str, image: Image.Image, notes: list[str]) -> Callable[[Image.Image], npt.NDArray[np.uint8]]:
    """Gray of 16 or 32 bits, or float in [0, 1], scaled to 8 bits."""
    convert = _deep_conversion(name, image, notes, 255)
    return lambda band: convert(band).astype(np.uint8)


def _deep_conversion(
    name: str, image: Image.Image, notes: list[str], most: int
) -> Callable[[Image.Image], npt.NDArray[np.floating[Any]]]:
    """A function from bands (h, w) of 16 or 32 bits, or floats in [0, 1], to whole numbers (h, w, 1) up to `most`."""

    def rounded(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        whole: npt.NDArray[np.floating[Any]] = np.clip(np.rint(values), 0, most)[..., None]
        return whole

    if image.mode != "F":
        full = 65535.0 if image.mode != "I" or image.getextrema()[1] <= 65535 else 2.0**31 - 1  # type: ignore[operator]
        return lambda band: rounded(np.asarray(band).astype(np.float64) * (most / full))

    def of_floats(band: Image.Image) -> npt.NDArray[np.floating[Any]]:
        values = np.asarray(band)
        if not np.isfinite(values).all():
            raise WireError("invalid-image", f"{name} contains NaN or infinity", picture=name)
        note = f"{name} has values outside of 0 to 1, which were clipped"
        if (values.min() < 0 or values.max() > 1) and note not in notes:
            notes.append(note)
        return rounded(values * float(most))

    return of_floats


def _low_bytes_tiles(image: Image.Image) -> list[Any] | None:
    """The tiles of an image of 16-bit colors, changed to read the low bytes; None for other images."""
    tiles = getattr(image, "tile", [])
    changed = [
        tile._replace(
            args=tuple(LOW_BYTES.get(argument, argument) for argument in tile.args)
            if isinstance(tile.args, tuple)
            else LOW_BYTES.get(tile.args, tile.args)
        )
        for tile in tiles
    ]
    return None if changed == tiles else changed


def _deep_color(name: str, data: bytes, high: Image.Image, low_tiles: list[Any]) -> npt.NDArray[np.uint16]:
    """Colors (h, w, 3) of 16 bits, from an image of their high bytes and the tiles that read the low ones."""
    pixels = np.asarray(high)[..., :3].astype(np.uint16) * np.uint16(256)
    with _opened(name, data, wire.PICTURE_FORMATS) as low:
        low.tile = low_tiles  # type: ignore[attr-defined]
        low.load()
        ImageOps.exif_transpose(low, in_place=True)
        pixels |= np.asarray(low)[..., :3]
    return pixels


def _deep_gray(name: str, image: Image.Image, notes: list[str]) -> npt.NDArray[np.uint16]:
    """Gray (h, w, 1) of 16 or 32 bits, or float in [0, 1], as 16 bits."""
    convert = _deep_conversion(name, image, notes, 65535)
    pixels = np.empty((*image.size[::-1], 1), np.uint16)
    for y, band in _bands(image):
        pixels[y : y + band.height] = convert(band)
    return pixels


def _opaque(image: Image.Image) -> npt.NDArray[np.bool_] | None:
    """`Decoded.opaque`, converted in bands of rows."""
    if not image.has_transparency_data:
        return None
    opaque, lowest = np.empty(image.size[::-1], bool), 255
    for y, band in _bands(image):
        alpha = np.asarray(band.convert("RGBA").getchannel("A"))
        lowest = min(lowest, int(alpha.min()))
        opaque[y : y + band.height] = alpha >= 128
    return None if lowest == 255 else opaque


def _without_alpha(band: Image.Image) -> Image.Image:
    """The colors of a band, also where it is transparent."""
    return band.convert("RGBA").convert("RGB")


def _srgb_conversion(name: str, mode: str, profile: bytes, notes: list[str]) -> Callable[[Image.Image], Image.Image]:
    """A function that converts a band of a mode from a color profile to sRGB."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return lambda band: band
        mode = "RGB" if mode in ("P", "1") else mode
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        notes.append(f"the color profile of {name} cannot be read and is ignored")
        return lambda band: band

    def convert(band: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(band if band.mode == mode else band.convert(mode), transform)
        assert converted is not None  # only inPlace returns None
        return converted

    return convert
