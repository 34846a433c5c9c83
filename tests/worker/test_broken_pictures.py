"""Thousands of damaged picture files: each one is a picture or an error with a name, in bounded memory."""

from __future__ import annotations

import io
import random
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_service.worker.image_files import decode
from blender_addon.wire import WireError

MEMORY = 1024**3
"""Bytes of address space that decoding one small file may add, by hand; a broken header may claim any size."""


def whole_files() -> list[bytes]:
    """Pictures of all formats and several modes, of a few hundred bytes each."""
    rng = np.random.default_rng(0)
    color = Image.fromarray(rng.integers(0, 256, (40, 36, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (34, 33)).astype(np.uint16))
    files = []
    for kind, image, options in (
        ("PNG", color, {}),
        ("PNG", color.convert("RGBA"), {}),
        ("PNG", color.quantize(8), {"transparency": 0}),
        ("PNG", color.convert("1"), {}),
        ("PNG", deep, {}),
        ("JPEG", color, {"quality": 70}),
        ("JPEG", color.convert("CMYK"), {"quality": 70}),
        ("JPEG", color, {"progressive": True, "quality": 40}),
        ("WEBP", color, {"quality": 50}),
        ("WEBP", color.convert("RGBA"), {"lossless": True}),
        ("TIFF", color, {}),
        ("TIFF", color, {"compression": "tiff_lzw"}),
        ("TIFF", deep, {"compression": "tiff_deflate"}),
        ("BMP", color, {}),
        ("BMP", color.quantize(4), {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def damaged(rng: random.Random, files: list[bytes]) -> bytes:
    """A file with changed, missing, repeated or foreign bytes; most changes are near the head, which is parsed."""
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(data) if rng.random() < 0.3 else min(len(data), 120))
        kind = rng.randrange(6)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place] = rng.choice((0, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            data[place : place + 4] = struct.pack(
                rng.choice("<>") + "I", rng.choice((0, 1, 2**16, 2**31 - 1, 2**32 - 1))
            )
        elif kind == 3 and len(data) > 8:
            del data[place : place + rng.choice((1, 4, len(data)))]
        elif kind == 4:
            data[place:place] = data[: rng.randrange(64)]
        else:
            data[place:place] = rng.choice(files)[: rng.randrange(200)]
        if not data:
            break
    return bytes(data)


@contextmanager
def memory_capped(limited: bool) -> Iterator[None]:
    """Allocations beyond the present size plus MEMORY fail inside the block."""
    if not limited or sys.platform != "linux":
        yield
        return
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("count", [5000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_every_damaged_file_is_a_picture_or_an_error_with_a_name(count: int) -> None:
    rng, files = random.Random(count), whole_files()
    pictures = 0
    with memory_capped(count > 5000):
        for number in range(count):
            data = damaged(rng, files)
            try:
                decoded = decode("swatch", data)
            except WireError as error:
                assert error.code == "invalid-image", number
                assert "\n" not in error.detail and len(error.detail) < 500, number
            else:
                assert decoded.pixels.ndim == 3 and decoded.pixels.dtype == np.uint8, number
                pictures += 1
    assert count / 20 < pictures < count * 0.95
