"""Regions, region maps, layouts, and painting."""

from __future__ import annotations

import itertools
from typing import Any

import bpy
import numpy as np
import pytest

from blender_addon.scene import image_io, label_arrays, painting, regions
from blender_addon.wire.colors import region_of_color
from tests.addon import scenes
from tests.addon.conftest import error_of


def decoded(png: bytes) -> np.ndarray:
    return image_io.pixels_of(image_io.new_image("decoded", png), "picture")[..., :3]


def paint(image: Any, value: float) -> None:
    image.pixels.foreach_set(np.full(len(image.pixels), value, np.float32))
    image.update()


def labels(picture: str) -> np.ndarray:
    colors = regions.colors_of(bpy.context.scene)
    image = getattr(bpy.context.scene.distill, f"image_{picture}")
    return label_arrays.labels_in(image_io.pixels_of(image, picture), colors)


def test_colors_mean_the_same_region_as_in_the_service() -> None:
    rng = np.random.default_rng(0)
    colors = list(regions.PALETTE[:5])
    pixels = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    pixels[:20] = (np.array(colors)[rng.integers(0, 5, (20, 50))] + rng.integers(-40, 41, (20, 50, 3))).clip(0, 255)
    expected = [[region_of_color(color, colors) for color in row] for row in pixels.tolist()]
    found = label_arrays.labels_in(pixels, colors)
    assert found.tolist() == [[-1 if label is None else label for label in row] for row in expected]
    assert 0 < (found < 0).mean() < 0.5


def all_pixels() -> np.ndarray:
    return image_io.pixels_of(bpy.context.scene.distill.image_layout, "layout")


def test_undo_and_redo_of_changes_to_a_map_are_pixel_exact(blender: Any) -> None:
    scenes.swatch()
    scenes.two_regions()
    blender.ops.distill.layout_new()
    layout = blender.context.scene.distill.image_layout
    paint(layout, 0.5)
    states = [all_pixels()]
    for box in ((0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 1.0)):
        blender.ops.distill.fill(picture="layout", region=1, box=box)
        states.append(all_pixels())
    blender.ops.distill.clean(picture="layout")
    states.append(all_pixels())
    assert all((a != b).any() for a, b in itertools.pairwise(states))
    for _ in range(2):
        for state in states[-2::-1]:
            blender.ops.ed.undo()
            assert (all_pixels() == state).all()
        for state in states[1:]:
            blender.ops.ed.redo()
            assert (all_pixels() == state).all()


def test_changes_to_a_map_leave_no_other_images(blender: Any) -> None:
    with_layout()
    names = [i.name for i in bpy.data.images]
    for picture in ("layout", "regions"):
        blender.ops.distill.fill(picture=picture, region=1, box=(0.0, 0.0, 0.5, 0.5))
        blender.ops.distill.clean(picture=picture)
        blender.ops.ed.undo()
    assert [i.name for i in bpy.data.images] == names


def test_the_swatch_is_split_by_color(blender: Any) -> None:
    scenes.swatch()
    scenes.two_regions()
    blender.ops.distill.region_map_new(method="COLOR")
    found = labels("regions")
    assert found.shape == (64, 64)
    assert len(np.unique(found[8:, 4:28])) == len(np.unique(found[8:, 36:60])) == 1
    assert found[32, 10] != found[32, 50]


def test_gray_pixels_of_a_region_map_are_the_first_region(blender: Any) -> None:
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


def test_a_layout_has_the_aspect_ratio_of_the_output(blender: Any) -> None:
    scenes.two_regions()
    scenes.small_output(4096, 1024)
    blender.ops.distill.layout_new()
    assert tuple(blender.context.scene.distill.image_layout.size) == (1024, 256)


def test_the_box_of_fill_starts_at_the_bottom_left(blender: Any) -> None:
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


def test_unknown_colors_are_refused_and_cleaned_up(blender: Any) -> None:
    with_layout()
    layout = blender.context.scene.distill.image_layout
    paint(layout, 0.5)
    assert "#808080" in error_of(bpy.ops.distill.run)
    assert "do not have the color of a region" in error_of(bpy.ops.distill.run)
    blender.ops.distill.clean(picture="layout")
    assert (labels("layout") >= 0).all()
    assert regions.label_sources(blender.context.scene)


def test_a_region_missing_in_the_region_map_is_named(blender: Any) -> None:
    with_layout()
    blender.ops.distill.fill(picture="regions", region=0)
    blender.ops.distill.fill(picture="layout", region=1, box=(0.0, 0.0, 0.5, 0.5))
    assert "Moss" in error_of(bpy.ops.distill.run)


def test_a_region_map_with_another_aspect_ratio_is_refused(blender: Any) -> None:
    with_layout()
    blender.context.scene.distill.image_swatch = blender.data.images.new("wide", 128, 32)
    assert "the swatch is 128 x 32, another aspect ratio" in error_of(bpy.ops.distill.run)


def test_two_regions_with_one_color_are_refused(blender: Any) -> None:
    with_layout()
    both = blender.context.scene.distill.regions
    both[1].color = both[0].color
    assert "Moss" in error_of(bpy.ops.distill.run)


def test_regions_are_found_in_a_noisy_map(blender: Any) -> None:
    noise = np.random.default_rng(1).integers(-4, 5, (64, 64, 3))
    pixels = np.clip(scenes.checks().astype(int) + noise, 0, 255).astype(np.uint8)
    blender.context.scene.distill.image_regions = image_io.new_image("map", image_io.encode_png(pixels))
    blender.ops.distill.regions_from_map(picture="regions")
    assert len(blender.context.scene.distill.regions) == 3
    blender.ops.distill.clean(picture="regions")
    assert set(np.unique(labels("regions"))) == {0, 1, 2}


def test_regions_found_in_a_map_keep_their_names(blender: Any) -> None:
    scenes.swatch()
    scenes.two_regions()
    blender.ops.distill.region_map_new(method="COLOR")
    blender.ops.distill.region_add(name="Not in the map")
    blender.ops.distill.regions_from_map(picture="regions")
    assert {r.name for r in blender.context.scene.distill.regions} == {"Brick", "Moss"}


def test_regions_are_found_in_the_layout_if_there_is_no_region_map(blender: Any) -> None:
    assert "Choose a region map or a layout first" in error_of(blender.ops.distill.regions_from_map)
    pixels = image_io.encode_png(scenes.checks())
    blender.context.scene.distill.image_layout = image_io.new_image("map", pixels)
    assert blender.ops.distill.regions_from_map() == {"FINISHED"}
    assert len(blender.context.scene.distill.regions) == 3
    assert "No region map is chosen" in error_of(blender.ops.distill.regions_from_map, picture="regions")


def test_fill_with_an_unknown_region_is_refused(blender: Any) -> None:
    scenes.two_regions()
    blender.ops.distill.layout_new()
    error = error_of(blender.ops.distill.fill, region=5)
    assert "Region 5 does not exist; choose 0 to 1, or -1 for the active one" in error


def test_new_regions_have_unique_names(blender: Any) -> None:
    for _ in range(3):
        blender.ops.distill.region_add()
    blender.context.scene.distill.region_index = 0
    blender.ops.distill.region_remove()
    blender.ops.distill.region_add()
    assert sorted(r.name for r in blender.context.scene.distill.regions) == ["Region 1", "Region 2", "Region 3"]


def test_painted_pixels_follow_their_region_to_a_new_color(blender: Any) -> None:
    with_layout()
    blender.ops.distill.fill(picture="layout", region=1, box=(0.0, 0.0, 1.0, 0.5))
    settings = blender.context.scene.distill
    before = regions._labels(blender.context.scene, "layout")
    was = tuple(settings.regions[1].color)
    settings.regions[1].color = settings.regions[0].color
    settings.regions[0].color = was  # a current color takes precedence over a former one
    assert (regions._labels(blender.context.scene, "layout") == 1 - before).all()
    settings.regions[0].color, settings.regions[1].color = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    assert (regions._labels(blender.context.scene, "layout") == before).all()
    regions.update_colors(blender.context.scene, "layout")
    assert {tuple(c) for c in image_io.pixels_of(settings.image_layout, "layout")[..., :3].reshape(-1, 3).tolist()} == {
        (0, 0, 0),
        (255, 255, 255),
    }


def test_new_regions_have_unique_colors(blender: Any) -> None:
    for _ in range(20):
        blender.ops.distill.region_add()
    colors = regions.colors_of(blender.context.scene)
    assert len(set(colors)) == 20


def test_paint_on_model_uses_the_layout_as_canvas(blender: Any) -> None:
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


def test_a_new_layout_replaces_the_canvas(blender: Any) -> None:
    with_layout()
    blender.ops.distill.paint(picture="layout", where="MODEL")
    blender.ops.distill.layout_new()
    settings = blender.context.scene.distill
    assert blender.context.tool_settings.image_paint.canvas == settings.image_layout


def test_paint_on_model_is_refused_without_a_uv_map(blender: Any) -> None:
    scenes.two_regions()
    blender.ops.distill.layout_new()
    mesh = blender.context.active_object.data
    mesh.uv_layers.remove(mesh.uv_layers[0])
    with pytest.raises(RuntimeError, match="no UV map"):
        blender.ops.distill.paint(picture="layout", where="MODEL")
    blender.context.view_layer.objects.active = None
    with pytest.raises(RuntimeError, match="needs a mesh"):
        blender.ops.distill.paint(picture="layout", where="MODEL")


def test_paint_is_refused_without_a_layout(blender: Any) -> None:
    scenes.two_regions()
    with pytest.raises(RuntimeError, match="There is no layout yet"):
        blender.ops.distill.paint(picture="layout", where="EDITOR")
