"""Images in and out: what counts is what the artist sees; what cannot be used is said in one sentence."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from blender_addon import wire
from blender_addon.scene import image_io, painting, regions
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
def test_pixels_come_back_as_they_went_in() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (17, 31, 3), np.uint8)
    assert (decoded(image_io.encode_png(pixels)) == pixels).all()


def test_an_image_that_was_not_touched_gives_its_file(blender: Any, tmp_path: Path) -> None:
    image = saved(tmp_path / "a.png", scenes.checks())
    assert image_io.source_of(image, "swatch")() == (tmp_path / "a.png").read_bytes()
    image.pack()
    (tmp_path / "a.png").unlink()
    assert (decoded(image_io.source_of(image, "swatch")()) == scenes.checks()).all()


def test_an_image_that_was_painted_on_gives_what_was_painted(blender: Any, tmp_path: Path) -> None:
    image = saved(tmp_path / "a.png", scenes.checks())
    paint(image, 0.2)
    assert image.is_dirty
    assert (decoded(image_io.source_of(image, "swatch")()) == 51).all()


def test_a_generated_image_gives_its_pixels(blender: Any) -> None:
    image = blender.data.images.new("generated", 16, 8)
    image.generated_color = (1.0, 0.0, 0.0, 1.0)
    assert (decoded(image_io.source_of(image, "swatch")()) == (255, 0, 0)).all()


def test_a_float_image_is_turned_into_srgb(blender: Any) -> None:
    image = blender.data.images.new("float", 8, 8, float_buffer=True)
    paint(image, 0.5)
    assert (decoded(image_io.source_of(image, "swatch")()) == 188).all()


def test_a_float_image_of_data_is_taken_as_it_is(blender: Any) -> None:
    image = blender.data.images.new("data", 8, 8, float_buffer=True, is_data=True)
    paint(image, 0.5)
    assert (decoded(image_io.source_of(image, "swatch")()) == 128).all()


def test_a_file_in_another_format_gives_its_pixels(blender: Any, tmp_path: Path) -> None:
    image = saved(tmp_path / "a.png", scenes.checks())
    assert min(image.size) > 0
    image.filepath_raw, image.file_format = str(tmp_path / "a.tga"), "TARGA"
    image.save()
    targa = blender.data.images.load(str(tmp_path / "a.tga"))
    assert (decoded(image_io.source_of(targa, "swatch")()) == scenes.checks()).all()


def test_a_photograph_that_asks_to_be_turned_is_sent_as_blender_shows_it(blender: Any, tmp_path: Path) -> None:
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


def test_sixteen_bits_that_were_painted_on_keep_their_light(blender: Any, tmp_path: Path) -> None:
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
def test_what_has_no_pixels_is_said_in_one_sentence(blender: Any, tmp_path: Path, make: Any, words: str) -> None:
    with pytest.raises(wire.WireError, match=words) as caught:
        image_io.source_of(make(tmp_path), "swatch")
    assert caught.value.code == "invalid-image"


def test_undo_brings_back_pixels_that_were_replaced(blender: Any) -> None:
    scenes.swatch()
    scenes.two_regions()
    blender.ops.distill.layout_new()
    blender.ops.ed.undo_push(message="before")
    before = image_io.pixels_of(blender.context.scene.distill.image_layout, "layout")
    blender.ops.distill.fill(picture="layout", region=1)
    blender.ops.ed.undo_push(message="fill")
    layout = blender.context.scene.distill.image_layout
    assert (image_io.pixels_of(layout, "layout") != before).any()
    assert layout.name == "Layout"
    blender.ops.ed.undo()
    layout = blender.context.scene.distill.image_layout
    assert (image_io.pixels_of(layout, "layout") == before).all()
    assert layout.name == "Layout"


# ---------------------------------------------------------------------------------------------- regions


def labels(picture: str) -> np.ndarray:
    colors = regions.colors_of(bpy.context.scene)
    image = getattr(bpy.context.scene.distill, f"image_{picture}")
    return regions.labels_in(image_io.pixels_of(image, picture), colors)


def test_regions_are_told_apart_by_colour(blender: Any) -> None:
    scenes.swatch()
    scenes.two_regions()
    blender.ops.distill.region_map_new(method="COLOR")
    found = labels("regions")
    assert found.shape == (64, 64)
    assert len(np.unique(found[8:, 4:28])) == len(np.unique(found[8:, 36:60])) == 1
    assert found[32, 10] != found[32, 50]


def test_what_stays_grey_over_the_swatch_is_the_first_region(blender: Any) -> None:
    scenes.swatch()
    scenes.two_regions()
    blender.ops.distill.region_map_new(method="OVER")
    blender.ops.distill.fill(picture="regions", region=1, box=(0.0, 0.0, 0.5, 0.25))
    blender.ops.distill.layout_new()
    sent = {name: decoded(source()) for name, source in regions.label_sources(blender.context.scene).items()}
    first, second = regions.colors_of(blender.context.scene)
    assert (sent["regions"][48:, :32] == second).all()
    assert (sent["regions"][:48] == first).all()
    assert (sent["regions"][:, 32:] == first).all()


def test_a_layout_has_the_aspect_of_the_output(blender: Any) -> None:
    scenes.two_regions()
    scenes.small_output(4096, 1024)
    blender.ops.distill.layout_new()
    assert tuple(blender.context.scene.distill.image_layout.size) == (1024, 256)


def test_fill_counts_from_the_bottom_left(blender: Any) -> None:
    scenes.two_regions()
    scenes.small_output(128, 64)
    blender.ops.distill.layout_new()
    blender.ops.distill.fill(picture="layout", region=1, box=(0.0, 0.0, 0.25, 0.5))
    found = labels("layout")
    assert (found[32:, :32] == 1).all()
    assert found.sum() == 32 * 32


def with_layout() -> None:
    scenes.swatch()
    scenes.two_regions()
    scenes.small_output()
    bpy.ops.distill.region_map_new(method="COLOR")
    bpy.ops.distill.layout_new()
    bpy.context.scene.distill.use_layout = True


def refusal() -> str:
    with pytest.raises(RuntimeError) as caught:
        bpy.ops.distill.run()
    return str(caught.value)


def test_colours_that_no_region_has_are_told_and_can_be_cleaned_up(blender: Any) -> None:
    with_layout()
    layout = blender.context.scene.distill.image_layout
    paint(layout, 0.5)
    assert "#808080" in refusal()
    assert "do not have the color of a region" in refusal()
    blender.ops.distill.clean(picture="layout")
    assert (labels("layout") >= 0).all()
    assert regions.label_sources(blender.context.scene)


def test_a_region_without_a_pixel_in_the_swatch_is_told_by_name(blender: Any) -> None:
    with_layout()
    blender.ops.distill.fill(picture="regions", region=0)
    blender.ops.distill.fill(picture="layout", region=1, box=(0.0, 0.0, 0.5, 0.5))
    assert "Moss" in refusal()


def test_a_region_map_of_another_shape_than_the_swatch_is_told(blender: Any) -> None:
    with_layout()
    blender.context.scene.distill.image_swatch = blender.data.images.new("wide", 128, 32)
    assert "the swatch is 128 x 32, another aspect ratio" in refusal()


def test_two_regions_of_one_colour_are_told(blender: Any) -> None:
    with_layout()
    both = blender.context.scene.distill.regions
    both[1].color = both[0].color
    assert "Moss" in refusal()


def test_regions_are_found_in_a_noisy_map(blender: Any) -> None:
    noise = np.random.default_rng(1).integers(-4, 5, (64, 64, 3))
    pixels = np.clip(scenes.checks().astype(int) + noise, 0, 255).astype(np.uint8)
    blender.context.scene.distill.image_regions = image_io.new_image("map", image_io.encode_png(pixels))
    blender.ops.distill.regions_from_map(picture="regions")
    assert len(blender.context.scene.distill.regions) == 3
    blender.ops.distill.clean(picture="regions")
    assert set(np.unique(labels("regions"))) == {0, 1, 2}


def test_regions_keep_their_names_when_they_are_found_in_a_map(blender: Any) -> None:
    scenes.swatch()
    scenes.two_regions()
    blender.ops.distill.region_map_new(method="COLOR")
    blender.ops.distill.region_add(name="Not in the map")
    blender.ops.distill.regions_from_map(picture="regions")
    assert {r.name for r in blender.context.scene.distill.regions} == {"Brick", "Moss"}


def test_a_new_region_has_a_name_that_no_other_has(blender: Any) -> None:
    for _ in range(3):
        blender.ops.distill.region_add()
    blender.context.scene.distill.region_index = 0
    blender.ops.distill.region_remove()
    blender.ops.distill.region_add()
    assert sorted(r.name for r in blender.context.scene.distill.regions) == ["Region 1", "Region 2", "Region 3"]


def test_what_was_painted_stays_with_its_region_when_its_colour_is_changed(blender: Any) -> None:
    with_layout()
    blender.ops.distill.fill(picture="layout", region=1, box=(0.0, 0.0, 1.0, 0.5))
    settings = blender.context.scene.distill
    before = regions._labels(blender.context.scene, "layout")
    was = tuple(settings.regions[1].color)
    settings.regions[1].color = settings.regions[0].color
    settings.regions[0].color = was  # what is some region's colour now is that region, whoever had it before
    assert (regions._labels(blender.context.scene, "layout") == 1 - before).all()
    settings.regions[0].color, settings.regions[1].color = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    assert (regions._labels(blender.context.scene, "layout") == before).all()
    regions.update_colors(blender.context.scene, "layout")
    assert {tuple(c) for c in image_io.pixels_of(settings.image_layout, "layout")[..., :3].reshape(-1, 3).tolist()} == {
        (0, 0, 0),
        (255, 255, 255),
    }


def test_every_region_gets_a_colour_of_its_own(blender: Any) -> None:
    for _ in range(20):
        blender.ops.distill.region_add()
    colors = regions.colors_of(blender.context.scene)
    assert len(set(colors)) == 20


# ---------------------------------------------------------------------------------------------- painting


def test_painting_on_the_model_makes_the_layout_its_canvas(blender: Any) -> None:
    scenes.two_regions()
    blender.ops.distill.layout_new()
    blender.context.scene.distill.region_index = 1
    blender.ops.distill.paint(picture="layout", where="MODEL")
    paint = blender.context.tool_settings.image_paint
    assert paint.canvas == blender.context.scene.distill.image_layout
    assert blender.context.active_object.mode == "TEXTURE_PAINT"
    brush = blender.data.brushes[painting.BRUSH]
    assert not brush.use_paint_antialiasing
    wanted = painting.as_stored(brush, blender.context.scene.distill.regions[1].color)
    assert list(brush.color) == pytest.approx(list(wanted))
    blender.ops.object.mode_set(mode="OBJECT")


def test_a_new_layout_takes_the_place_of_the_one_that_is_painted(blender: Any) -> None:
    with_layout()
    blender.ops.distill.paint(picture="layout", where="MODEL")
    blender.ops.distill.layout_new()
    settings = blender.context.scene.distill
    assert blender.context.tool_settings.image_paint.canvas == settings.image_layout


def test_an_object_without_a_uv_map_is_told(blender: Any) -> None:
    scenes.two_regions()
    blender.ops.distill.layout_new()
    mesh = blender.context.active_object.data
    mesh.uv_layers.remove(mesh.uv_layers[0])
    with pytest.raises(RuntimeError, match="no UV map"):
        blender.ops.distill.paint(picture="layout", where="MODEL")
    blender.context.view_layer.objects.active = None
    with pytest.raises(RuntimeError, match="needs a mesh"):
        blender.ops.distill.paint(picture="layout", where="MODEL")


def test_painting_before_there_is_a_layout_is_told(blender: Any) -> None:
    scenes.two_regions()
    with pytest.raises(RuntimeError, match="There is no layout yet"):
        blender.ops.distill.paint(picture="layout", where="EDITOR")
