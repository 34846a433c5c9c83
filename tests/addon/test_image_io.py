"""Image datablocks from and to picture files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from blender_addon import wire
from blender_addon.scene import image_io
from tests.addon import scenes


def saved(path: Path, pixels: np.ndarray) -> Any:
    path.write_bytes(image_io.encode_png(pixels))
    return bpy.data.images.load(str(path))


def decoded(png: bytes) -> np.ndarray:
    return image_io.pixels_of(image_io.new_image("decoded", png), "picture")[..., :3]


def paint(image: Any, value: float) -> None:
    image.pixels.foreach_set(np.full(len(image.pixels), value, np.float32))
    image.update()


@pytest.mark.usefixtures("blender")
def test_encode_png_is_lossless() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2 * image_io.BLOCK_ROWS + 17, 31, 3), np.uint8)
    assert (decoded(image_io.encode_png(pixels)) == pixels).all()


def test_an_unchanged_image_is_sent_as_its_file(blender: Any, tmp_path: Path) -> None:
    image = saved(tmp_path / "a.png", scenes.checks())
    assert image_io.source_of(image, "swatch")() == (tmp_path / "a.png").read_bytes()
    image.pack()
    (tmp_path / "a.png").unlink()
    assert (decoded(image_io.source_of(image, "swatch")()) == scenes.checks()).all()


def test_a_painted_image_is_sent_as_its_pixels(blender: Any, tmp_path: Path) -> None:
    image = saved(tmp_path / "a.png", scenes.checks())
    paint(image, 0.2)
    assert image.is_dirty
    assert (decoded(image_io.source_of(image, "swatch")()) == 51).all()


def test_transparency_of_an_unsaved_image_is_sent(blender: Any) -> None:
    image = blender.data.images.new("generated", 16, 8, alpha=True)
    image.generated_color = (1.0, 0.0, 0.0, 0.2)
    sent = image_io.new_image("sent", image_io.source_of(image, "swatch")())
    assert (image_io.pixels_of(sent, "picture")[..., 3] == 51).all()


def test_an_image_is_quick_if_its_file_is_small_or_its_pixels_are_few(blender: Any, tmp_path: Path) -> None:
    image = saved(tmp_path / "a.png", scenes.checks())
    assert image_io.is_quick(image, max_bytes=10_000, max_pixels=0)
    assert not image_io.is_quick(image, max_bytes=10, max_pixels=0)
    paint(image, 0.2)
    assert not image_io.is_quick(image, max_bytes=10_000, max_pixels=0)
    assert image_io.is_quick(image, max_bytes=10, max_pixels=64 * 64)


def test_a_generated_image_is_sent_as_its_pixels(blender: Any) -> None:
    image = blender.data.images.new("generated", 16, 8)
    image.generated_color = (1.0, 0.0, 0.0, 1.0)
    assert (decoded(image_io.source_of(image, "swatch")()) == (255, 0, 0)).all()


def test_a_float_image_is_converted_to_srgb(blender: Any) -> None:
    image = blender.data.images.new("float", 8, 8, float_buffer=True)
    paint(image, 0.5)
    assert (decoded(image_io.source_of(image, "swatch")()) == 188).all()


def test_a_float_image_of_data_is_not_converted(blender: Any) -> None:
    image = blender.data.images.new("data", 8, 8, float_buffer=True, is_data=True)
    paint(image, 0.5)
    assert (decoded(image_io.source_of(image, "swatch")()) == 128).all()


def test_a_file_in_another_format_is_sent_as_its_pixels(blender: Any, tmp_path: Path) -> None:
    image = saved(tmp_path / "a.png", scenes.checks())
    assert min(image.size) > 0
    image.filepath_raw, image.file_format = str(tmp_path / "a.tga"), "TARGA"
    image.save()
    targa = blender.data.images.load(str(tmp_path / "a.tga"))
    assert (decoded(image_io.source_of(targa, "swatch")()) == scenes.checks()).all()


def test_a_photograph_with_exif_rotation_is_sent_as_blender_shows_it(blender: Any, tmp_path: Path) -> None:
    image = saved(tmp_path / "a.png", scenes.checks())
    assert min(image.size) > 0
    image.filepath_raw, image.file_format = str(tmp_path / "a.jpg"), "JPEG"
    image.save()
    jpeg = (tmp_path / "a.jpg").read_bytes()
    entry = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + entry
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + jpeg[2:]
    (tmp_path / "turned.jpg").write_bytes(turned)
    shown = blender.data.images.load(str(tmp_path / "turned.jpg"))
    sent = image_io.source_of(shown, "swatch")()
    assert sent.startswith(b"\x89PNG")
    assert (decoded(sent) == image_io.pixels_of(shown, "swatch")[..., :3]).all()


def test_a_painted_16_bit_image_keeps_its_brightness(blender: Any, tmp_path: Path) -> None:
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in levels)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    image = blender.data.images.load(str(tmp_path / "deep.png"))
    image.pixels[3] = 1.0
    image.update()
    assert image.is_dirty
    assert (decoded(image_io.source_of(image, "swatch")()) == levels[..., None]).all()


def no_image(_tmp_path: Path) -> Any:
    return None


def udim(_tmp_path: Path) -> Any:
    return bpy.data.images.new("tiles", 8, 8, tiled=True)


def movie(_tmp_path: Path) -> Any:
    image = bpy.data.images.new("movie", 8, 8)
    image.source = "MOVIE"
    return image


def lost_file(tmp_path: Path) -> Any:
    image = saved(tmp_path / "gone.png", scenes.checks())
    (tmp_path / "gone.png").unlink()
    image.reload()
    return image


def no_picture(tmp_path: Path) -> Any:
    (tmp_path / "text.png").write_text("no picture")
    return bpy.data.images.load(str(tmp_path / "text.png"))


def empty(_tmp_path: Path) -> Any:
    image = bpy.data.images.new("empty", 8, 8)
    image.source = "FILE"
    return image


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_image, "No swatch"),
        (udim, "UDIM"),
        (movie, "a movie"),
        (lost_file, "is missing"),
        (empty, "no pixels"),
        (no_picture, "cannot read .*text.png"),
    ],
)
def test_an_image_without_usable_pixels_is_refused(blender: Any, tmp_path: Path, make: Any, words: str) -> None:
    with pytest.raises(wire.WireError, match=words) as caught:
        image_io.source_of(make(tmp_path), "swatch")
    assert caught.value.code == "invalid-image"


@pytest.mark.parametrize(("colors", "alpha"), [(2, 255), (300, 255), (2, 77)])
def test_a_packed_painting_is_exact_and_no_longer_dirty(blender: Any, colors: int, alpha: int) -> None:
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (colors, 4)).astype(np.uint8)
    palette[:, 3] = alpha
    painted = palette[rng.integers(0, colors, (48, 40))]
    for image in (
        blender.data.images.new("generated", 40, 48, alpha=True),
        image_io.new_image("packed", image_io.encode_png(painted[::-1])),
    ):
        image_io.write_packed(image, np.ascontiguousarray(painted).view("<u4")[..., 0])
        assert image.is_dirty
        image_io.pack_painted(image)
        assert not image.is_dirty
        assert image.packed_file is not None
        assert (image_io.pixels_of(image, "painting") == painted).all()


def test_a_packed_painting_with_floats_stays_one(blender: Any) -> None:
    image = blender.data.images.new("floats", 8, 8, alpha=True, float_buffer=True)
    image.pixels.foreach_set(np.full(256, 0.123, np.float32))
    image_io.pack_painted(image)
    assert image.is_float
    assert abs(image.pixels[0] - 0.123) < 1e-3


def test_a_packed_painting_is_not_replaced_by_the_file_at_its_path(blender: Any, tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(image_io.encode_png(np.full((8, 8, 3), 200, np.uint8)))
    image = blender.data.images.load(str(tmp_path / "map.png"))
    image_io.write_packed(image, np.full((8, 8), 0xFF0A0B0C, "<u4"))
    image_io.pack_painted(image)
    assert image_io.pixels_of(image, "map")[0, 0].tolist() == [12, 11, 10, 255]
