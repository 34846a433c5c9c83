"""Image files: any file gives RGB pixels with notes, or a one-line error that names the picture."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread, current_thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from ad_service.worker import image_files
from ad_service.worker.image_files import (
    JOB_CHUNK,
    Pixels,
    check_size,
    decode,
    encode_png,
    encode_preview,
    job_document,
)
from blender_addon.wire import WireError

RNG = np.random.default_rng(0)


def noise(height: int = 40, width: int = 48, channels: int = 3) -> Pixels:
    return RNG.integers(0, 256, (height, width, channels), np.uint8)


def encoded(image: Image.Image | Pixels, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of_size(width: int, height: int, depth: int = 8, color: int = 2, pixels: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def rejection(data: bytes, name: str = "swatch") -> str:
    with pytest.raises(WireError) as caught:
        decode(name, data)
    assert (caught.value.code, caught.value.data) == ("invalid-image", {"picture": name})
    assert caught.value.detail.startswith(name)
    assert "\n" not in caught.value.detail
    return caught.value.detail


# ---------------------------------------------------------------------------------------------- accepted


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_lossless_formats_are_read_exactly(kind: str) -> None:
    pixels = noise()
    decoded = decode("swatch", encoded(pixels, kind))
    assert np.array_equal(decoded.pixels, pixels)
    assert decoded.notes == ()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_are_read_closely(kind: str) -> None:
    pixels = np.full((40, 48, 3), (200, 100, 50), np.uint8)
    decoded = decode("swatch", encoded(pixels, kind, quality=95))
    assert np.abs(decoded.pixels.astype(int) - pixels).max() < 6


def test_gray_becomes_three_equal_channels() -> None:
    gray = noise(channels=1)[..., 0]
    assert np.array_equal(decode("swatch", encoded(gray)).pixels, np.dstack([gray] * 3))


def test_sixteen_bit_gray_is_scaled_and_not_clipped() -> None:
    deep = np.linspace(0, 65535, 40 * 48).round().astype(np.uint16).reshape(40, 48)
    for kind in ("PNG", "TIFF"):
        pixels = decode("swatch", encoded(Image.fromarray(deep), kind)).pixels
        assert np.abs(pixels[..., 0].astype(float) - deep / 257).max() <= 0.5
        assert pixels[0, 0, 0] == 0 and pixels[-1, -1, 0] == 255


def test_sixteen_bit_color_is_scaled_and_not_clipped() -> None:
    deep = RNG.integers(0, 65536, (40, 48, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    pixels = decode("swatch", png_of_size(48, 40, depth=16, pixels=rows)).pixels
    assert np.abs(pixels.astype(float) - deep.astype(float) / 257).max() <= 1


def test_thirty_two_bit_gray_and_floats_are_scaled() -> None:
    ints = np.linspace(0, 65535, 40 * 48).reshape(40, 48)
    for image in (Image.fromarray(ints.astype(np.int32)), Image.fromarray((ints / 65535).astype(np.float32))):
        pixels = decode("swatch", encoded(image, "TIFF")).pixels
        assert np.abs(pixels[..., 0].astype(float) - ints / 257).max() < 0.51


def test_floats_above_one_are_clipped_with_a_note_and_nan_is_rejected() -> None:
    values = np.full((40, 48), 0.5, np.float32)
    values[0, 0] = 4.0
    decoded = decode("swatch", encoded(Image.fromarray(values), "TIFF"))
    assert decoded.pixels[0, 0, 0] == 255
    assert "clipped" in decoded.notes[0]
    values[0, 0] = np.nan
    assert "contains NaN" in rejection(encoded(Image.fromarray(values), "TIFF"))


def test_a_transparent_picture_keeps_its_colors_and_a_mask_of_its_opaque_pixels() -> None:
    pixels = noise(channels=4)
    decoded = decode("swatch", encoded(pixels))
    assert np.array_equal(decoded.pixels, pixels[..., :3])
    assert decoded.opaque is not None
    assert np.array_equal(decoded.opaque, pixels[..., 3] >= 128)
    pixels[..., 3] = 255
    assert decode("swatch", encoded(pixels)).opaque is None


def test_a_palette_becomes_its_colors_even_with_a_transparent_one() -> None:
    image = Image.fromarray(noise()).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode("swatch", encoded(image)).pixels, expected)
    transparent = decode("swatch", encoded(image, transparency=0))
    assert np.array_equal(transparent.pixels, expected)
    assert transparent.opaque is not None
    assert np.array_equal(transparent.opaque, np.asarray(image) != 0)


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("RGB", (48, 40), (200, 100, 50)).convert("CMYK")
    pixels = decode("swatch", encoded(image, "JPEG", quality=95)).pixels
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() < 6


def test_one_bit_becomes_black_and_white() -> None:
    image = Image.fromarray(noise(channels=1)[..., 0]).convert("1")
    assert set(np.unique(decode("swatch", encoded(image)).pixels)) == {0, 255}


def test_a_rotated_picture_is_turned_upright() -> None:
    pixels = noise(40, 48)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 270 degrees
    decoded = decode("swatch", encoded(pixels, "PNG", exif=exif))
    assert np.array_equal(decoded.pixels, np.rot90(pixels, -1))


def test_an_animation_gives_its_first_picture_with_a_note() -> None:
    first, second = Image.fromarray(noise()), Image.fromarray(noise())
    for kind in ("PNG", "TIFF"):
        decoded = decode("swatch", encoded(first, kind, save_all=True, append_images=[second]))
        assert np.array_equal(decoded.pixels, np.asarray(first))
        assert decoded.notes == ("swatch contains 2 pictures; the first is used",)


def test_a_color_profile_is_applied_except_to_a_label_map() -> None:
    pixels = np.full((40, 48, 3), (50, 50, 200), np.uint8)
    srgb = ImageCms.createProfile("sRGB")
    swapped = _profile_with_red_and_blue_swapped(ImageCms.ImageCmsProfile(srgb).tobytes())
    data = encoded(pixels, icc_profile=swapped)
    assert np.abs(decode("swatch", data).pixels[0, 0].astype(int) - (200, 50, 50)).max() <= 2
    assert np.array_equal(decode("regions", data, "labels").pixels, pixels)


def _profile_with_red_and_blue_swapped(srgb: bytes) -> bytes:
    """The sRGB profile with the tags of its first and last primary exchanged, and under another name."""
    swapped = srgb.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    return swapped.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


def test_a_profile_that_cannot_be_read_is_ignored_with_a_note() -> None:
    pixels = noise()
    decoded = decode("swatch", encoded(pixels, icc_profile=b"no profile at all"))
    assert np.array_equal(decoded.pixels, pixels)
    assert decoded.notes == ("the color profile of swatch cannot be read and is ignored",)


# ---------------------------------------------------------------------------------------------- rejected


def test_a_header_with_too_many_pixels_is_rejected_before_decoding() -> None:
    tracemalloc.start()
    detail = rejection(png_of_size(60_000, 60_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert detail == "swatch is 60000x60000 pixels; 16384 pixels a side is the limit"
    assert peak < 10 * 2**20


def test_a_picture_slightly_above_the_limit_is_rejected_with_its_size() -> None:
    assert "16385x16384" in rejection(png_of_size(16385, 16384))


def test_a_strip_that_is_longer_than_the_limit_is_rejected_before_decoding() -> None:
    assert "48x5242920" in rejection(png_of_size(48, 5_242_920))
    assert "20000x32" in rejection(png_of_size(20_000, 32))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of the resident memory")
@pytest.mark.parametrize("mode", ["I;16", "RGB", "RGBA", "1"])
def test_decoding_takes_at_most_nine_bytes_a_pixel(mode: str, tmp_path: Path) -> None:
    """Seven are the least: four of Pillow's image and three of the result. A gray of 16 bits took 29."""
    side = 4096
    array = np.zeros((side, side), np.uint16) if mode == "I;16" else None
    image = Image.new(mode, (side, side)) if array is None else Image.fromarray(array)
    image.save(tmp_path / "picture.png", compress_level=1)
    code = """
import resource, sys
from ad_service.worker import image_files
data = open(sys.argv[1], "rb").read()
image_files.decode("swatch", open(sys.argv[2], "rb").read())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image_files.decode("swatch", data)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    Image.new(image.mode if mode != "I;16" else "RGB", (8, 8)).save(tmp_path / "small.png")
    command = [sys.executable, "-c", code, str(tmp_path / "picture.png"), str(tmp_path / "small.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 <= 9 * side * side


def test_a_large_picture_is_converted_like_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gray = np.random.default_rng(0).integers(0, 65536, (40, 48)).astype(np.uint16)
    for data in (encoded(noise(channels=4)), encoded(gray), encoded(noise())):
        whole = decode("swatch", data)
        monkeypatch.setattr(image_files, "BAND_PIXELS", 100)
        bands = decode("swatch", data)
        monkeypatch.undo()
        assert (bands.pixels == whole.pixels).all() and bands.notes == whole.notes


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_a_picture_between_the_limit_of_pillow_and_ours_is_read(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise(), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode("swatch", data).pixels.shape == (40, 48, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_pillows_limit_is_in_force_again_while_pixels_are_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def record(*arguments: Any) -> Pixels:
        limits.append(Image.MAX_IMAGE_PIXELS)
        return np.zeros((40, 48, 3), np.uint8)

    limit = Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(image_files, "_rgb", record)
    decode("swatch", encoded(noise(channels=4)))
    assert limits == [limit]


def test_threads_that_open_pictures_together_restore_pillows_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second thread starts while the first has a picture open, and ends after it."""
    limit, data, first_is_open, second_started = Image.MAX_IMAGE_PIXELS, encoded(noise()), Event(), Event()
    real_open = Image.open

    def open_slowly(*arguments: Any, **options: Any) -> Image.Image:
        if current_thread().name == "first":
            first_is_open.set()
            second_started.wait(0.3)
        else:
            second_started.set()
            first.join(0.3)
        return real_open(*arguments, **options)

    monkeypatch.setattr(Image, "open", open_slowly)
    first, second = (Thread(target=decode, args=(name, data), name=name) for name in ("first", "second"))
    first.start()
    first_is_open.wait()
    second.start()
    first.join()
    second.join()
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_truncated_picture_is_rejected() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        whole = encoded(noise(), kind)
        rejection(whole[: len(whole) // 2])


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n"])
def test_data_that_is_not_a_picture_is_rejected(data: bytes) -> None:
    rejection(data)


@pytest.mark.parametrize("kind", ["GIF", "PPM", "TGA", "ICO", "PDF", "EPS"])
def test_unlisted_formats_are_rejected(kind: str) -> None:
    assert "PNG, JPEG, WEBP, TIFF, BMP" in rejection(encoded(Image.fromarray(noise()), kind))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_a_picture_or_a_wire_error(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode("swatch", bytes(whole))
    except WireError as error:
        assert error.code == "invalid-image"
    else:
        assert decoded.pixels.ndim == 3 and decoded.pixels.dtype == np.uint8


WHOLE = [encoded(noise(8, 8), kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP")]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (31, 512), (512, 31)])
def test_a_swatch_that_is_too_small_is_rejected_with_its_size_and_the_minimum(width: int, height: int) -> None:
    with pytest.raises(WireError) as caught:
        check_size("swatch", noise(height, width), 32)
    assert caught.value.detail == f"swatch is {width}x{height} pixels; each side must have at least 32 pixels"
    check_size("swatch", noise(32, 32), 32)


# ---------------------------------------------------------------------------------------------- writing


def test_a_result_contains_its_document_and_its_exact_pixels() -> None:
    pixels, document = noise(), {"kind": "synthesize", "files": {"swatch": "Grün ☂.png"}}
    data = encode_png(pixels, document)
    assert np.array_equal(decode("image", data).pixels, pixels)
    assert job_document("image", data) == document


def test_the_same_result_has_the_same_bytes() -> None:
    pixels = noise()
    assert encode_png(pixels, {"a": 1, "b": 2}) == encode_png(pixels.copy(), {"b": 2, "a": 1})


@pytest.mark.parametrize("text", ["", "{half", "[" * 100_000])
def test_a_damaged_document_is_reported(text: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(JOB_CHUNK, text)
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, "PNG", pnginfo=info)
    with pytest.raises(WireError, match=r"wall\.png contains a job that is not JSON") as caught:
        job_document("wall.png", buffer.getvalue())
    assert caught.value.code == "invalid-request"


def test_a_picture_without_a_document_is_reported() -> None:
    with pytest.raises(WireError, match=r"bricks\.png contains no job"):
        job_document("bricks.png", encoded(noise()))


@pytest.mark.parametrize("write", [encode_preview, lambda pixels: encode_png(pixels, {})])
def test_written_pictures_are_rgb_of_the_same_size(write: Callable[[Pixels], bytes]) -> None:
    with Image.open(io.BytesIO(write(noise(40, 48)))) as image:
        assert (image.mode, image.size) == ("RGB", (48, 40))
