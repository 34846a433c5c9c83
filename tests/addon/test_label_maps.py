"""Regions, region maps, layouts, and painting."""

from __future__ import annotations

import itertools
import time
from typing import Any

import bpy
import numpy as np
import pytest

from blender_addon.scene import (
    image_io,
    label_arrays,
    map_watch,
    mesh_layout,
    painting,
    rasterize,
    regions,
    session,
    suggestion,
)
from blender_addon.wire.colors import MAX_COLOR_DISTANCE, PALETTE, region_of_color
from tests.addon import scenes
from tests.addon.conftest import LiveService, error_of


def decoded(png: bytes) -> np.ndarray:
    return image_io.pixels_of(image_io.new_image("decoded", png), "picture")[..., :3]


def paint(image: Any, value: float) -> None:
    image.pixels.foreach_set(np.full(len(image.pixels), value, np.float32))
    image.update()


def labels(picture: str) -> np.ndarray:
    colors = regions.colors_of(bpy.context.scene)
    image = getattr(bpy.context.scene.distill, f"image_{picture}")
    return label_arrays.nearest_labels(image_io.pixels_of(image, picture), colors, MAX_COLOR_DISTANCE)


def test_colors_mean_the_same_region_as_in_the_service() -> None:
    rng = np.random.default_rng(0)
    colors = list(PALETTE[:5])
    pixels = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    pixels[:20] = (np.array(colors)[rng.integers(0, 5, (20, 50))] + rng.integers(-40, 41, (20, 50, 3))).clip(0, 255)
    expected = [[region_of_color(color, colors) for color in row] for row in pixels.tolist()]
    found = label_arrays.nearest_labels(pixels, colors, MAX_COLOR_DISTANCE)
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
    before = regions.read_map(blender.context.scene, "layout").labels
    was = tuple(settings.regions[1].color)
    settings.regions[1].color = settings.regions[0].color
    settings.regions[0].color = was  # a current color takes precedence over a former one
    assert (regions.read_map(blender.context.scene, "layout").labels == 1 - before).all()
    settings.regions[0].color, settings.regions[1].color = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    assert (regions.read_map(blender.context.scene, "layout").labels == before).all()
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


# ---------------------------------------------------------------------------------------------- set up, fill, pick


def set_up() -> Any:
    scenes.swatch()
    scenes.small_output(64, 64)
    assert bpy.ops.distill.use_layout() == {"FINISHED"}
    return bpy.context.scene.distill


def test_turning_the_layout_on_makes_regions_and_both_maps_in_one_undo_step(blender: Any) -> None:
    blender.ops.ed.undo_push(message="before")
    settings = set_up()
    assert settings.use_layout
    assert len(settings.regions) == 2
    assert set(np.unique(labels("regions"))) == {0, 1}
    assert (labels("layout") == 0).all()
    assert settings.region_index == 1, "a stroke would not be seen on the layout"
    blender.ops.ed.undo()
    settings = blender.context.scene.distill
    assert not settings.use_layout and not settings.regions and settings.image_layout is None


def test_turning_the_layout_off_keeps_the_maps(blender: Any) -> None:
    settings = set_up()
    blender.ops.distill.use_layout()
    assert not settings.use_layout
    assert settings.image_layout is not None and len(settings.regions) == 2
    images = [i.name for i in bpy.data.images]
    blender.ops.distill.use_layout()
    assert settings.use_layout and [i.name for i in bpy.data.images] == images


def test_an_area_is_filled_over_the_edges_that_tile(blender: Any) -> None:
    settings = set_up()
    regions.add_region(blender.context.scene, "Third")
    shape = np.zeros((64, 64), int)
    shape[20:30, 50:] = shape[20:30, :10] = shape[50:55, 30:40] = 1
    regions.assign(blender.context.scene, "layout", shape)
    settings.region_index = 2
    blender.ops.distill.fill_area(picture="layout", point=(0.9, 1 - 25 / 64))
    found = labels("layout")
    assert (found[20:30, 50:] == 2).all() and (found[20:30, :10] == 2).all()
    assert (found == 2).sum() == 10 * 24
    assert (found[50:55, 30:40] == 1).all()


def test_pick_makes_the_region_under_the_point_active_and_swap_returns(blender: Any) -> None:
    settings = set_up()
    regions.add_region(blender.context.scene, "Third")
    blender.ops.distill.fill(picture="layout", region=2, box=(0.0, 0.0, 0.5, 1.0))
    settings.region_index = 1
    blender.ops.distill.pick_region(picture="layout", point=(0.25, 0.5))
    assert settings.region_index == 2
    blender.ops.distill.pick_region(picture="layout", point=(0.75, 0.5))
    assert settings.region_index == 0
    blender.ops.distill.swap_regions()
    assert settings.region_index == 2
    blender.ops.distill.swap_regions()
    assert settings.region_index == 0


# ---------------------------------------------------------------------------------------------- edges and soft pixels


def test_a_map_of_two_scenes_is_read_with_the_regions_of_each(blender: Any) -> None:
    settings = set_up()
    scene, other = blender.context.scene, blender.data.scenes.new("other")
    blender.ops.distill.fill(picture="layout", region=1)
    other.distill.image_layout = settings.image_layout
    for region in reversed(settings.regions):  # the other way round
        added = other.distill.regions.add()
        added.name, added.color = region.name, region.color
    for each in (scene, other):
        map_watch.update(each)
    shares = [map_watch.facts(each, settings.image_layout).shares for each in (scene, other)]
    assert shares[0][1] == 1.0 and shares[1] == shares[0][::-1]


def test_edges_that_differ_are_named_and_made_to_meet(blender: Any) -> None:
    settings = set_up()
    scene = blender.context.scene
    assert map_watch.differing_edges(scene) == []  # not read yet
    blender.ops.distill.fill(picture="layout", region=1, box=(0.5, 0.0, 1.0, 1.0))
    map_watch.update(scene)
    assert map_watch.differing_edges(scene) == ["left and right"]
    settings.parameters_synthesize.tile = "y"
    assert map_watch.differing_edges(scene) == []
    settings.parameters_synthesize.tile = "xy"
    before = labels("layout")
    blender.ops.distill.meet_edges()
    map_watch.update(scene)
    assert map_watch.differing_edges(scene) == []
    changed = np.argwhere((labels("layout") != before).any(0))
    assert changed.min() >= 64 - 8, "more than an eighth was changed"


def test_edges_meet_along_both_axes() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(6, 8)).repeat(32, 0).repeat(32, 1)
    found = label_arrays.meet_edges((noise > 0).astype(int), (True, True))
    assert max(label_arrays.edge_differences(found)) <= 0.02
    only_x = label_arrays.meet_edges((noise > 0).astype(int), (False, True))
    assert label_arrays.edge_differences(only_x)[1] == 0.0
    assert (only_x[:, :-40] == (noise > 0)[:, :-40]).all()


def test_strokes_wrap_along_tiling_axes_of_the_layout(blender: Any) -> None:
    settings = set_up()
    settings.parameters_synthesize.tile = "x"
    editor = next(a for a in bpy.context.window_manager.windows[0].screen.areas if a.type == "VIEW_3D")
    editor.type = "IMAGE_EDITOR"
    editor.spaces.active.ui_mode = "PAINT"
    editor.spaces.active.image = settings.image_layout
    painting.wrap_strokes(bpy.context)
    paint = bpy.context.tool_settings.image_paint
    assert (paint.tile_x, paint.tile_y) == (True, False)
    editor.spaces.active.image = settings.image_regions
    painting.wrap_strokes(bpy.context)
    assert (paint.tile_x, paint.tile_y) == (False, False)


def test_soft_edges_are_snapped_without_a_press(blender: Any) -> None:
    with_layout()
    first, second = (np.array(c, float) for c in regions.colors_of(blender.context.scene))
    ramp = np.linspace(0, 1, 64)[None, :, None].repeat(64, 0)
    pixels = (first * (1 - ramp) + second * ramp).round().astype(np.uint8)
    blender.context.scene.distill.image_layout = image_io.new_image("soft", image_io.encode_png(pixels))
    sent = decoded(regions.label_sources(blender.context.scene)["layout"]())
    assert (sent[:, :31] == first).all() and (sent[:, 33:] == second).all()


def test_a_noisy_map_is_clean_after_its_regions_were_taken_from_it(blender: Any) -> None:
    noise = np.random.default_rng(1).integers(-20, 21, (64, 64, 3))
    pixels = np.clip(scenes.checks().astype(int) + noise, 0, 255).astype(np.uint8)
    blender.context.scene.distill.image_regions = image_io.new_image("map", image_io.encode_png(pixels))
    blender.ops.distill.regions_from_map(picture="regions")
    shown = image_io.pixels_of(blender.context.scene.distill.image_regions, "map")[..., :3]
    assert {tuple(c) for c in shown.reshape(-1, 3).tolist()} == set(regions.colors_of(blender.context.scene))


def test_a_spiral_is_one_area_and_a_diagonal_is_not() -> None:
    spiral = np.zeros((41, 41), int)
    for ring in range(0, 20, 4):
        spiral[ring, ring : 41 - ring] = spiral[ring : 41 - ring, 40 - ring] = 1
        spiral[40 - ring, ring + 2 : 41 - ring] = spiral[ring + 4 : 41 - ring, ring + 2] = 1
        spiral[ring + 4, ring + 2 : ring + 5] = 1
    assert (label_arrays.connected(spiral, 0, 0) == (spiral == 1)).all()
    assert label_arrays.connected(np.eye(9, dtype=int), 4, 4).sum() == 1
    row = np.zeros((3, 6), int)
    row[1, :2] = row[1, 5] = 1
    assert label_arrays.connected(row, 1, 0).sum() == 2
    assert label_arrays.connected(row, 1, 0, (False, True)).sum() == 3


# ---------------------------------------------------------------------------------------------- from the model


def slots(*names: str) -> Any:
    """The active cube with a material for each name, and its faces in turn in them."""
    thing = bpy.context.active_object
    thing.data.materials.clear()
    for name in names:
        thing.data.materials.append(bpy.data.materials.new(name))
    for face in thing.data.polygons:
        face.material_index = face.index % len(names)
    return thing


def at(u: float, v: float) -> str:
    """The name of the layout's region at UV coordinates."""
    index = regions.region_at(bpy.context.scene, "layout", (u % 1, v % 1))
    return bpy.context.scene.distill.regions[index].name


def face_middles(thing: Any) -> list[tuple[float, float]]:
    uv = thing.data.uv_layers.active.uv
    return [
        tuple(np.mean([tuple(uv[loop].vector) for loop in face.loop_indices], axis=0)) for face in thing.data.polygons
    ]


def test_a_layout_from_material_slots_has_a_region_for_each_material(blender: Any) -> None:
    set_up()
    thing = slots("Stone", "Moss", "Sand")
    blender.ops.distill.layout_from_object(source="SLOTS")
    assert [r.name for r in blender.context.scene.distill.regions] == ["Stone", "Moss", "Sand"]
    for face, middle in zip(thing.data.polygons, face_middles(thing), strict=True):
        assert at(*middle) == thing.data.materials[face.material_index].name
    assert (labels("layout") >= 0).all()


def test_a_layout_from_uv_coordinates_outside_of_the_square_wraps(blender: Any) -> None:
    set_up()
    thing = slots("Stone", "Moss")
    uv = thing.data.uv_layers.active.uv
    for entry in uv:
        entry.vector = (entry.vector[0] + 3.0, entry.vector[1] - 2.0)
    blender.ops.distill.layout_from_object(source="SLOTS")
    for face, middle in zip(thing.data.polygons, face_middles(thing), strict=True):
        assert at(*middle) == thing.data.materials[face.material_index].name


def test_a_layout_from_vertex_groups_follows_the_weights(blender: Any) -> None:
    set_up()
    thing = blender.context.active_object
    group = thing.vertex_groups.new(name="Wet")
    group.add([v.index for v in thing.data.vertices if v.co.z > 0], 1.0, "REPLACE")
    blender.ops.distill.layout_from_object(source="GROUPS")
    assert {r.name for r in blender.context.scene.distill.regions} == {"Rest", "Wet"}
    for face, middle in zip(thing.data.polygons, face_middles(thing), strict=True):
        if abs(face.normal.z) > 0.5:
            assert at(*middle) == ("Wet" if face.normal.z > 0 else "Rest")
    assert 0.2 < (labels("layout") == 0).mean() < 0.8


def test_a_layout_from_face_sets_and_its_errors(blender: Any) -> None:
    set_up()
    thing = blender.context.active_object
    assert "has no face sets" in error_of(blender.ops.distill.layout_from_object, source="SETS")
    assert "faces of one kind only" in error_of(blender.ops.distill.layout_from_object, source="SLOTS")
    sets = thing.data.attributes.new(".sculpt_face_set", "INT", "FACE")
    sets.data.foreach_set("value", [1, 1, 1, 5, 5, 5])
    blender.ops.distill.layout_from_object(source="SETS")
    assert [r.name for r in blender.context.scene.distill.regions] == ["Face Set 1", "Face Set 5"]


def test_selected_faces_are_filled_in_object_and_edit_mode(blender: Any) -> None:
    settings = set_up()
    thing = blender.context.active_object
    middles = face_middles(thing)
    for face in thing.data.polygons:
        face.select = face.index == 2
    settings.region_index = 1
    blender.ops.distill.fill_selected()
    assert [at(*m) == settings.regions[1].name for m in middles] == [i == 2 for i in range(6)]
    blender.ops.object.mode_set(mode="EDIT")
    blender.ops.mesh.select_all(action="SELECT")
    blender.ops.distill.fill_selected()
    blender.ops.object.mode_set(mode="OBJECT")
    assert all(at(*m) == settings.regions[1].name for m in middles)


def test_a_mask_is_filled_above_its_threshold(blender: Any) -> None:
    settings = set_up()
    ramp = np.linspace(0, 255, 32).astype(np.uint8)[None, :, None].repeat(32, 0).repeat(3, 2)
    image_io.new_image("ramp", image_io.encode_png(ramp))
    settings.region_index = 1
    blender.ops.distill.fill_mask(image="ramp", threshold=0.75)
    assert (labels("layout")[:, 48:] == 1).all() and (labels("layout")[:, :47] == 0).all()
    assert "There is no image" in error_of(blender.ops.distill.fill_mask, image="missing")


def test_touching_triangles_leave_no_gap() -> None:
    rng = np.random.default_rng(0)
    corners, labels_of = [], []
    grid = np.linspace(0, 1, 6)
    grid = np.stack(np.meshgrid(grid, grid), -1) + np.pad(rng.uniform(-0.06, 0.06, (4, 4, 2)), ((1, 1), (1, 1), (0, 0)))
    for i in range(5):
        for j in range(5):
            a, b, c, d = grid[i, j], grid[i, j + 1], grid[i + 1, j + 1], grid[i + 1, j]
            corners += [[a, b, c], [a, c, d]]
            labels_of += [0, 1]
    found = rasterize.rasterize(np.array(corners), np.array(labels_of), (100, 130))
    assert (found >= 0).all()
    assert (found == 0).mean() == pytest.approx(0.5, abs=0.1)


def test_a_triangle_covers_its_pixels() -> None:
    corners = np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    found = rasterize.rasterize(corners, np.array([0]), (200, 100))
    y, x = np.mgrid[0:200, 0:100]
    inside = (x + 0.5) / 100 + 1 - (y + 0.5) / 200 <= 1
    assert (found[inside] == 0).all()
    assert (found == 0).sum() < inside.sum() + 12 * 300


def test_faces_selected_in_the_uv_editor_are_found(blender: Any) -> None:
    thing = blender.context.active_object
    blender.ops.object.mode_set(mode="EDIT")
    blender.ops.mesh.select_all(action="SELECT")
    edited = mesh_layout.bmesh.from_edit_mesh(thing.data)
    uv = edited.loops.layers.uv.active
    for face in edited.faces:
        for loop in face.loops:
            if bpy.app.version >= (5, 0, 0):
                loop.uv_select_vert = face.index in (1, 4)
            else:
                loop[uv].select = face.index in (1, 4)
    found = mesh_layout._selected_in_uv_editor(thing, uv.name)
    assert found.tolist() == [i in (1, 4) for i in range(6)]
    blender.ops.object.mode_set(mode="OBJECT")


# ---------------------------------------------------------------------------------------------- suggested regions


def test_suggested_parts_become_the_region_map_with_the_largest_first(blender: Any, service: LiveService) -> None:
    assert "Choose the swatch first" in error_of(blender.ops.distill.suggest_regions)
    scenes.swatch()
    scenes.two_regions()
    blender.ops.distill.suggest_regions(parts=3)
    assert suggestion.is_pending()
    assert blender.ops.distill.wait(timeout=30.0) == {"FINISHED"}
    assert not suggestion.is_pending()
    assert [r.name for r in blender.context.scene.distill.regions] == ["Brick", "Moss", "Region 1"]
    found = labels("regions")
    assert (found[:, 20:44] == 0).all()
    assert set(np.unique(found)) == {0, 1, 2}
    assert session.current().of_this_file() == []


def test_an_error_of_a_suggestion_is_shown(blender: Any, start: Any) -> None:
    start("fails")
    scenes.swatch()
    blender.ops.distill.suggest_regions(parts=2)
    assert "does not fit into 1 GB" in error_of(blender.ops.distill.wait, timeout=30.0)
    assert not suggestion.is_pending()


def test_a_suggestion_is_dropped_when_another_file_is_opened(service: LiveService, blender: Any, tmp_path: Any) -> None:
    session.pump()
    scenes.swatch("other.png")
    blender.ops.wm.save_as_mainfile(filepath=str(tmp_path / "other.blend"))
    blender.ops.distill.connect()
    blender.ops.distill.suggest_regions(parts=3)
    blender.ops.wm.open_mainfile(filepath=str(tmp_path / "other.blend"))
    assert not suggestion.is_pending()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        session.pump()
        time.sleep(0.1)
    assert len(blender.context.scene.distill.regions) == 0
    assert session.current().error is None


def test_a_suggestion_for_another_swatch_is_dropped(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    blender.ops.distill.suggest_regions(parts=3)
    scenes.swatch("other.png")
    assert blender.ops.distill.wait(timeout=30.0) == {"FINISHED"}
    assert not suggestion.is_pending()
    assert blender.context.scene.distill.image_regions is None


def test_an_error_of_a_large_map_arrives_after_the_press_with_its_remedy(
    blender: Any, service: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "QUICK_PIXELS", 0)
    with_layout()
    paint(blender.context.scene.distill.image_layout, 0.5)
    assert blender.ops.distill.run() == {"FINISHED"}
    current = session.current()
    assert session.wait(60)
    assert current.error is not None and current.error.data["unclean"] == "layout"
    assert current.of_this_file() == [], "a job that was never submitted is not listed"
    blender.ops.distill.clean(picture="layout")
    blender.ops.distill.run()
    assert session.wait(60)
    assert [record.state for record in current.of_this_file()] == ["succeeded"]


def test_the_history_keeps_flat_and_noisy_maps_exactly_and_in_little_memory(blender: Any) -> None:
    from blender_addon.scene.map_history import Runs

    flat = np.full((256, 200), 0xFF102030, np.uint32)
    flat[50:60, 20:] = 0xFF405060
    noise = np.random.default_rng(0).integers(0, 1 << 32, (256, 200), np.uint32)
    for pixels, most in ((flat, 400), (noise, noise.nbytes)):
        kept = Runs.of(pixels)
        assert (kept.packed() == pixels).all() and kept.nbytes <= most
        assert kept.equals(Runs.of(pixels.copy())) and not kept.equals(Runs.of(pixels[::-1]))
