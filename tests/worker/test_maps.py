"""The maps of a material: read with their bits, checked, turned to OpenGL, and carried along with the swatch."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ad_service.worker.image_files import Decoded, DeepPixels, decode_map, encode_png, job_document
from ad_service.worker.maps import MaterialMap, flipped_green, read_maps, resized, slope_agreement, to_floats
from ad_service.worker.straighten import straighten
from ad_service.worker.swatch import PreparedSwatch, prepare_swatch
from blender_addon import wire
from blender_addon.wire import WireError

RNG = np.random.default_rng(0)
SIZE = (96, 64)


def heights(height: int = 64, width: int = 96) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A smooth surface in [0, 1]."""
    y, x = np.mgrid[0:height, 0:width]
    return 0.5 + 0.25 * np.sin(x / 5 + y / 9) + 0.2 * np.sin(y / 4 - x / 11)


def normals(surface: Any, steepness: float = 20.0, bits: int = 8) -> DeepPixels:
    """The OpenGL normals (h, w, 3) of a surface."""
    down, right = np.gradient(surface * steepness)
    n = np.stack([-right, down, np.ones_like(surface)], 2)
    n = n / np.linalg.norm(n, axis=2, keepdims=True) / 2 + 0.5
    return np.rint(n * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def gray(surface: Any, bits: int = 8) -> DeepPixels:
    return np.rint(surface * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)[..., None]


def read(normal_format: str = "auto", files: dict[str, str] | None = None, **maps: DeepPixels | bytes) -> Any:
    """The maps of a swatch of 96 x 64 pixels, and the notes on them."""
    pictures = {f"map:{n}": m if isinstance(m, bytes) else encode_png(m, {}) for n, m in maps.items()}
    return read_maps(pictures, SIZE, normal_format, files or {})


def refusal(**maps: DeepPixels | bytes) -> str:
    with pytest.raises(WireError) as caught:
        read(**maps)
    assert caught.value.code == "invalid-image" and caught.value.data["picture"] == f"map:{next(iter(maps))}"
    return caught.value.detail


# ---------------------------------------------------------------------------------------------- 16 bits


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_go_through_a_png_unchanged(channels: int) -> None:
    pixels = RNG.integers(0, 65536, (37, 41, channels), np.uint16)
    data = encode_png(pixels, {"kind": "synthesize"}, 512.0)
    again, notes = decode_map("map:x", data, "data")
    assert again.dtype == np.uint16 and np.array_equal(again, pixels) and notes == ()
    assert job_document("x", data) == {"kind": "synthesize"}
    assert round(Image.open(io.BytesIO(data)).info["dpi"][0] / 0.0254) == 512


def test_sixteen_bits_are_written_in_bands_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = RNG.integers(0, 65536, (50, 40, 3), np.uint16)
    monkeypatch.setattr("ad_service.worker.image_files.BAND_PIXELS", 40 * 7)
    assert np.array_equal(decode_map("map:x", encode_png(pixels, {}), "data")[0], pixels)


def test_a_sixteen_bit_tiff_and_a_float_tiff_are_read_with_sixteen_bits() -> None:
    values = RNG.random((20, 30)).astype(np.float32)
    for image in (Image.fromarray(values), Image.fromarray((values * 65535).astype(np.uint16))):
        buffer = io.BytesIO()
        image.save(buffer, "TIFF")
        pixels, _ = decode_map("map:height", buffer.getvalue(), "data")
        assert pixels.dtype == np.uint16 and np.abs(pixels[..., 0] / 65535 - values).max() < 2e-5


def test_a_deep_map_is_turned_as_its_orientation_says() -> None:
    pixels = RNG.integers(0, 65536, (20, 30), np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the left
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    assert np.array_equal(decode_map("map:height", buffer.getvalue(), "data")[0][..., 0], np.rot90(pixels, -1))


# ---------------------------------------------------------------------------------------------- checks


def test_a_map_of_another_size_is_resized_with_a_note() -> None:
    maps, notes = read(height=gray(heights(128, 192), 16))
    assert maps["height"].pixels.shape == (64, 96, 1) and maps["height"].pixels.dtype == np.uint16
    assert "map:height is 192x128 pixels and was resized to the swatch's 96x64" in notes
    assert np.abs(to_floats(maps["height"].pixels)[4:-4, 4:-4] - heights(128, 192)[9:-8:2, 9:-8:2, None]).max() < 0.1


def test_a_map_of_another_shape_is_refused_with_both_sizes() -> None:
    detail = refusal(roughness=gray(heights(64, 64)))
    assert "64x64" in detail and "96x64" in detail


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (gray(heights()), "it is gray"),
        (RNG.integers(0, 256, (64, 96, 3), np.uint8), "its blue is"),
        (np.full((64, 96, 3), (250, 245, 235), np.uint8) - np.eye(3, dtype=np.uint8)[0] * 20, "from the middle"),
    ],
)
def test_a_normal_map_that_is_none_is_refused(picture: DeepPixels, reason: str) -> None:
    assert reason in refusal(normal=picture)


def test_a_color_picture_is_refused_for_a_gray_map() -> None:
    packed = np.concatenate([gray(heights()), gray(1 - heights()), gray(heights() ** 2)], 2)
    assert "map:roughness is a color picture" in refusal(roughness=packed)


def test_a_map_of_any_other_name_keeps_its_colors() -> None:
    packed = np.concatenate([gray(heights()), gray(1 - heights()), gray(heights() ** 2)], 2)
    assert np.array_equal(read(tint=packed)[0]["tint"].pixels, packed)


def test_a_gray_picture_for_a_color_map_is_used_with_a_note() -> None:
    maps, notes = read(emission=gray(heights()))
    assert maps["emission"].pixels.shape == (64, 96, 3) and "is a gray picture" in notes[0]


def test_black_roughness_and_flat_heights_are_noted_and_black_metal_is_not() -> None:
    black = np.zeros((64, 96, 1), np.uint8)
    _, notes = read(roughness=black, height=black, metallic=black)
    assert len(notes) == 2 and "mirror" in notes[0] and "flat" in notes[1]


# ---------------------------------------------------------------------------------------------- OpenGL or DirectX


@pytest.mark.parametrize("with_height", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_directx_normals_are_found_out_and_converted(with_height: bool, bits: int) -> None:
    opengl = normals(heights(), bits=bits)
    more = {"height": gray(heights())} if with_height else {}
    for given, said in ((opengl, "OpenGL (green is up)"), (flipped_green(opengl), "DirectX (green is down)")):
        maps, notes = read(normal=given, **more)
        assert np.array_equal(maps["normal"].pixels, opengl)
        assert said in notes[-1] and ("height map" if with_height else "slopes") in notes[-1]


def test_the_name_of_the_file_decides_on_the_format() -> None:
    opengl = normals(heights())
    maps, notes = read(files={"map:normal": "wall_nor_dx_2k.png"}, normal=opengl)
    assert np.array_equal(maps["normal"].pixels, flipped_green(opengl)) and "wall_nor_dx_2k.png" in notes[-1]
    assert np.array_equal(read(files={"map:normal": "Wall-NormalGL.png"}, normal=opengl)[0]["normal"].pixels, opengl)


def test_a_given_format_is_used_as_it_is() -> None:
    opengl = normals(heights())
    assert np.array_equal(read("directx", normal=opengl)[0]["normal"].pixels, flipped_green(opengl))
    assert np.array_equal(read("opengl", normal=flipped_green(opengl))[0]["normal"].pixels, flipped_green(opengl))


def test_normals_without_slopes_are_taken_as_opengl_with_a_note() -> None:
    flat = np.full((64, 96, 3), (128, 128, 255), np.uint8)
    assert "could not be found out" in read(normal=flat)[1][-1]


def test_slopes_agree_with_a_surface_in_one_format_only() -> None:
    assert slope_agreement(normals(heights())) > 0.8
    assert slope_agreement(flipped_green(normals(heights()))) < -0.8


# ---------------------------------------------------------------------------------------------- along with the swatch


def prepared(maps: dict[str, MaterialMap], pixels: Any, **parameters: Any) -> PreparedSwatch:
    values = {"crop": "", "corners": "", "lens": 0.0, "real_width": 0.0, "scale": 1.0, **parameters}
    opaque = parameters.pop("opaque", None)
    values.pop("opaque", None)
    return prepare_swatch(Decoded(pixels, (), opaque), values, (64, 64), maps=maps)


@pytest.mark.parametrize(
    "parameters",
    [
        {"crop": "20,10,60,48"},
        {"corners": "10,4 86,8 90,60 6,58", "lens": -0.1},
        {"lens": 0.2},
        {"scale": 0.0},
    ],
)
def test_a_map_goes_through_the_same_geometry_as_the_swatch(parameters: dict[str, Any]) -> None:
    surface = gray(heights())
    color = np.repeat(surface, 3, 2)
    deep = gray(heights(), 16)
    maps = {"height": MaterialMap(wire.map_type("height"), deep)}
    swatch = prepared(maps, color, **parameters)
    height = swatch.maps["height"].pixels
    assert height.dtype == np.uint16 and height.shape[:2] == swatch.pixels.shape[:2]
    assert np.abs(to_floats(height)[..., 0] - swatch.pixels[..., 0] / 255).max() < 0.02


def test_transparent_pixels_of_a_map_are_filled_as_those_of_the_swatch() -> None:
    surface = gray(heights())
    opaque = np.zeros((64, 96), bool)
    opaque[8:56, 8:48] = opaque[:40, 8:80] = True
    swatch = prepared(
        {"height": MaterialMap(wire.map_type("height"), surface)}, np.repeat(surface, 3, 2), opaque=opaque
    )
    assert np.array_equal(swatch.maps["height"].pixels[..., 0], swatch.pixels[..., 0])


def test_normals_turn_with_a_straightened_surface() -> None:
    """A quarter turn by corners: what sloped to the right slopes down."""
    surface = np.repeat(np.linspace(0, 1, 64)[None], 64, 0)  # rises to the right
    given = normals(surface, 63.0)
    turned = straighten(given, ((0.0, 64.0), (0.0, 0.0), (64.0, 0.0), (64.0, 64.0)), 0.0, "normal")
    expected = normals(np.rot90(surface, -1), 63.0)
    assert np.abs(turned[4:-4, 4:-4].astype(int) - expected[4:-4, 4:-4]).max() <= 2


def test_normals_of_a_stretched_surface_are_less_steep_along_it() -> None:
    surface = np.repeat(np.linspace(0, 1, 64)[None], 64, 0)
    given = normals(surface, 63.0)  # a slope of 1
    corners = ((0.0, 0.0), (32.0, 0.0), (32.0, 64.0), (0.0, 64.0))
    same = straighten(given, corners, 0.0, "normal").astype(float) / 255 * 2 - 1
    slope = float((-same[..., 0] / same[..., 2])[8:-8, 8:-8].mean())
    assert slope == pytest.approx(1.0, abs=0.03)  # cut, not stretched: 32 x 64 pixels


def test_a_resized_normal_map_keeps_unit_length() -> None:
    small = resized(normals(heights(), 60.0), (48, 32), "normal")
    length = np.linalg.norm(small.astype(float) / 255 * 2 - 1, axis=2)
    assert small.shape == (32, 48, 3) and np.abs(length - 1).max() < 0.02
