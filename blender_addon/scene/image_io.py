"""Image datablocks from and to picture files in memory, including pixels that were painted and not saved.

Pixels are uint8 arrays (height, width, 4), top row first, in sRGB, as in a PNG file.
"""

from __future__ import annotations

import functools
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from bpy.types import Image

from .. import wire
from ..wire.errors import LocalError
from . import label_arrays, pixel_buffer

_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"II*\0", b"MM\0*", b"BM")
"""First bytes of the file formats that the service reads (wire.PICTURE_FORMATS)."""
_ROTATED = (
    re.compile(rb"\x12\x01\x03\0\x01\0\0\0[\x02-\x08]\0"),
    re.compile(rb"\x01\x12\0\x03\0\0\0\x01\0[\x02-\x08]"),
)
"""The Exif entry of a photograph to be rotated, in both byte orders. The service rotates it, Blender does not."""
BLOCK_ROWS = 128
"""Rows of a PNG that are compressed at once; 8192 x 128 pixels take 0.1 s."""
JPEG_HEAD = 1 << 17
"""Bytes of a JPEG in which its Exif block lies: it comes first and has at most 64 KB."""


MAX_PALETTE = 256
"""Colors in the palette of a PNG."""
ROWS_AT_ONCE = 16
"""Rows of pixels that are converted together."""
SIZE = "distill_size"
"""Custom property of a result's image: width and height of its file, known without decoding it (0.5 s for 4096)."""


def encode_png(pixels: np.ndarray, quick: bool = False) -> bytes:
    """A PNG file of uint8 pixels (height, width, 3 or 4). `quick`: in a third of the time, for the main thread.

    It is made of blocks of rows, so that a thread that encodes a large picture does not hold Python's lock for long.
    """
    deflate = _quick_deflate() if quick else zlib.compressobj(2)
    return _png(pixels, {3: 2, 4: 6}[pixels.shape[2]], deflate)


def encode_labels(labels: np.ndarray, colors: Sequence[Sequence[int]], quick: bool = False) -> bytes:
    """A PNG file with a palette of at most 256 colors, of labels (height, width): a quarter of the bytes.

    `quick`: in half of the time, for labels that differ from pixel to pixel.
    """
    palette = _chunk(b"PLTE", np.array(colors, np.uint8).tobytes())
    return _png(labels, 3, _quick_deflate() if quick else zlib.compressobj(1), palette)


def _quick_deflate() -> Any:
    return zlib.compressobj(1, strategy=zlib.Z_RLE)


def _png(pixels: np.ndarray, color_type: int, deflate: Any, palette: tuple[bytes, ...] = ()) -> bytes:
    """A PNG file of pixels (height, width) or (height, width, channels), compressed by an object of zlib."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", *_chunk(b"IHDR", header), *palette]
    for first in range(0, height, BLOCK_ROWS):
        block = pixels[first : first + BLOCK_ROWS].reshape(min(BLOCK_ROWS, height - first), -1)
        filtered = np.zeros((len(block), 1 + block.shape[1]), np.uint8)  # a row starts with its filter type, 0: none
        filtered[:, 1:] = block
        parts += _chunk(b"IDAT", deflate.compress(filtered.tobytes()))
    return b"".join([*parts, *_chunk(b"IDAT", deflate.flush()), *_chunk(b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def check_usable(image: Image | None, what: str) -> Image:
    """The image itself; raises LocalError if it has no usable pixels."""
    if image is None:
        raise _unusable(f"No {what} is chosen; choose an image, or open a file")
    name = f"The {what} “{image.name}”"
    if image.type in {"RENDER_RESULT", "COMPOSITING"}:
        raise _unusable(f"{name} is a render; save it as an image first")
    if image.source == "TILED":
        raise _unusable(f"{name} has UDIM tiles; save one of the tiles as a separate image")
    if image.source in {"MOVIE", "SEQUENCE"}:
        raise _unusable(f"{name} is a movie or a sequence; save one of the frames as a separate image")
    if min(image.size) == 0:
        path = file_of(image)
        if image.source == "FILE" and image.packed_file is None and path is not None and not path.exists():
            raise _unusable(f"{name} has no pixels: its file {path} is missing; open it again")
        raise _unusable(f"{name} has no pixels{f': Blender cannot read {path}' if path else ''}; choose another image")
    if max(image.size) > wire.MAX_PICTURE_SIDE:
        raise _unusable(
            f"{name} is {image.size[0]} x {image.size[1]}; the largest side is {wire.MAX_PICTURE_SIDE}; scale it down"
        )
    return image


def file_of(image: Image) -> Path | None:
    """The path that an image was loaded from, which may no longer exist."""
    return Path(bpy.path.abspath(image.filepath, library=image.library)) if image.filepath else None


def is_quick(image: Image, max_bytes: int, max_pixels: int) -> bool:
    """Whether `source_of` takes no time that the artist notices: a small file, or few pixels that have to be copied."""
    path, packed = file_of(image), image.packed_file
    size, head = 0, b""
    if image.source == "FILE" and not image.is_dirty:
        if packed is not None:
            size, head = packed.size, bytes(packed.data[:JPEG_HEAD])
        elif path is not None and path.is_file():
            size = path.stat().st_size
            with path.open("rb") as file:
                head = file.read(JPEG_HEAD)
    if head.startswith(_SIGNATURES) and not _is_rotated(head):
        return size <= max_bytes
    return int(image.size[0]) * int(image.size[1]) <= max_pixels


def _is_rotated(data: bytes) -> bool:
    """Whether a file says that it is shown rotated."""
    head = data[:JPEG_HEAD] if data.startswith(b"\xff\xd8") else data
    return any(entry.search(head) for entry in _ROTATED)


def source_of(image: Image | None, what: str) -> Callable[[], bytes]:
    """A function that returns the picture's bytes and may be called on any thread; raises as `check_usable`.

    The bytes are those of the image's file or packed file, or a PNG of its pixels if they were painted or generated.
    """
    image = check_usable(image, what)
    if image.source == "FILE" and not image.is_dirty:
        path = file_of(image)
        data = b""
        if image.packed_file is not None:
            data = bytes(image.packed_file.data)
        elif path is not None and path.is_file():
            data = path.read_bytes()
        if data.startswith(_SIGNATURES) and not _is_rotated(data):
            return lambda: data
    convert = copy_pixels(image)
    return functools.cache(lambda: encode_png(_without_unused_alpha(convert())))  # all variations use the same bytes


def _without_unused_alpha(pixels: np.ndarray) -> np.ndarray:
    """Pixels (height, width, 4), without alpha (height, width, 3) if all of them are opaque."""
    return pixels if (pixels[..., 3] < 255).any() else pixels[..., :3]


def pixels_of(image: Image | None, what: str, every: int = 1) -> np.ndarray:
    """The pixels as the artist sees them: uint8 (height, width, 4), top row first, sRGB; only each `every`th one."""
    return copy_pixels(check_usable(image, what), every)()


def copy_pixels(image: Image, every: int = 1) -> Callable[[], np.ndarray]:
    """Copies the pixels, and returns a function that returns them as `pixels_of`: on any thread.

    That function converts linear pixels, which takes long; others are converted at once, to a quarter of the memory.
    """
    width, height = image.size
    channels, is_float = image.channels, image.is_float
    linear = is_float and not image.colorspace_settings.is_data  # Blender converts them to linear when it loads them
    count = width * height * channels
    copied = np.empty(count, np.float32) if linear else pixel_buffer.take(count)
    image.pixels.foreach_get(copied)
    values = copied.reshape(height, width, channels)[::-1][::every, ::every]
    if linear:
        return lambda: _rgba(_levels(values, True, True))
    levels = _levels(values, is_float, False)
    return lambda: _rgba(levels)


def _levels(values: np.ndarray, is_float: bool, linear: bool) -> np.ndarray:
    """Pixels (height, width, channels) as uint8 in sRGB. `is_float`: values beyond 0 to 1 are clipped."""
    levels = np.empty(values.shape, np.uint8)
    band = np.empty((ROWS_AT_ONCE, *values.shape[1:]), np.float32)
    whole = np.empty(band.shape, np.int32)  # from float32 to uint8 at once takes six times as long
    for row in range(0, len(values), ROWS_AT_ONCE):  # a few rows fit into the processor's cache
        rows = values[row : row + ROWS_AT_ONCE]
        band, whole = band[: len(rows)], whole[: len(rows)]
        if linear:
            rows = rows.copy()
            rgb = rows[..., :3]
            rgb[:] = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * np.maximum(rgb, 0) ** (1 / 2.4) - 0.055)
        np.multiply(rows, 255, out=band)
        np.add(band, 0.5, out=band)
        if is_float:
            np.clip(band, 0, 255, out=band)
        np.copyto(whole, band, casting="unsafe")
        levels[row : row + ROWS_AT_ONCE] = whole
    return levels


def _rgba(levels: np.ndarray) -> np.ndarray:
    """Pixels (height, width, 4) of those with 1 to 4 channels."""
    channels = levels.shape[-1]
    if channels == 4:
        return levels
    rgba = np.full((*levels.shape[:2], 4), 255, np.uint8)
    rgba[..., :3] = levels[..., :3] if channels == 3 else levels[..., :1]
    if channels == 2:
        rgba[..., 3] = levels[..., 1]
    return rgba


def write_packed(image: Image, packed: np.ndarray) -> None:
    """Writes packed colors with alpha (height, width), top row first, into an 8-bit image of that size."""
    height, width = packed.shape
    values = pixel_buffer.take(height * width * 4).reshape(height, width * 4)
    for row in range(0, height, ROWS_AT_ONCE):
        band = packed[::-1][row : row + ROWS_AT_ONCE].view(np.uint8)
        np.multiply(band, np.float32(1 / 255), out=values[row : row + ROWS_AT_ONCE])  # Blender rounds it
    image.pixels.foreach_set(values.ravel())
    image.update()


def pack_painted(image: Image) -> None:
    """Packs an image as it is now, so that it is saved with the file; it is not dirty afterwards.

    Blender's own encoder takes 0.7 s for a flat map of 4096 x 4096, and 2 s for noise.
    """
    if image.is_float or image.channels != 4:
        image.pack()
        return
    pixels = pixels_of(image, "image")
    png = _encode_exactly(pixels)
    image.pack(data=png, data_len=len(png))
    image.source = "GENERATED"  # frees the pixels; `reload` would pack the file at the image's path
    image.source = "FILE"


def _encode_exactly(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 pixels (height, width, 4), with alpha only if it is used: a palette for up to 256 colors."""
    if (pixels[..., 3] < 255).any():
        return encode_png(pixels, quick=True)
    packed = label_arrays.pack(pixels)
    distinct = label_arrays.distinct_colors(packed)
    if len(distinct) > MAX_PALETTE:
        return encode_png(pixels[..., :3], quick=True)
    labels = label_arrays.look_up(packed, distinct, np.arange(len(distinct), dtype=np.uint8))
    return encode_labels(labels, label_arrays.unpack(distinct).tolist())


def new_image(name: str, png: bytes, data: bool = False) -> Image:
    """A new packed image of a PNG file's bytes. `data`: the values are not colors (normals, roughness)."""
    image = bpy.data.images.new(name, 8, 8, alpha=False)
    image.pack(data=png, data_len=len(png))
    image.source = "FILE"
    if data:
        image.colorspace_settings.name = "Non-Color"
    return image


def size_of(image: Image) -> tuple[int, int]:
    """Width and height of an image. Those of a result that was not drawn yet are known without decoding it."""
    stored = image.get(SIZE)
    width, height = stored if stored is not None and not image.has_data else image.size
    return int(width), int(height)


def store_size(image: Image, png: bytes) -> None:
    """Stores the size in a PNG file's header, for `size_of`."""
    image[SIZE] = struct.unpack(">II", png[16:24])


def _unusable(sentence: str) -> LocalError:
    return LocalError("invalid-image", sentence)
