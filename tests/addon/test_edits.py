"""Edits of a finished picture: the picture and its maps, the mask, the layout, and the new result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_addon.scene import edits, image_io, maps, materials, result_nodes, results, session
from tests.addon import scenes
from tests.addon.conftest import LiveService, error_of
from tests.addon.test_maps import image, ramp


@pytest.fixture
def made(service: LiveService, blender: Any) -> Any:
    """A result with a normal map on the active material; returns the record of its job."""
    scenes.swatch()
    maps.add(blender.context.scene, "normal", image("wall_nor", ramp(3)))
    scenes.small_output(64, 64, tile="x")
    scenes.make()
    return scenes.newest()


def edited(kind: str) -> Any:
    """Runs an edit and waits; returns the record of its job."""
    import bpy

    bpy.context.scene.distill.edit = kind
    assert bpy.ops.distill.edit() == {"FINISHED"}
    assert bpy.ops.distill.wait(timeout=60.0) == {"FINISHED"}
    return scenes.newest()


def paint_half(mask: Any) -> None:
    """White in the lower half."""
    pixels = np.zeros((mask.size[1], mask.size[0], 4), np.float32)
    pixels[: mask.size[1] // 2] = 1
    pixels[..., 3] = 1
    mask.pixels.foreach_set(pixels.ravel())


def test_a_result_is_edited_with_its_maps_and_the_edit_takes_its_place(made: Any, blender: Any) -> None:
    record = edited("make_tileable")
    assert set(record.request["inputs"]) == {"picture", "map:normal"}
    assert record.title == f"{made.title}, make tileable"
    assert len(results.all_results()) == 2 and set(results.images_of(record.job)) == {"image", "normal"}
    assert result_nodes.in_use(materials.active_material(), record.job)
    blender.ops.distill.use_result(job=made.job)
    assert result_nodes.in_use(materials.active_material(), made.job)


def test_the_active_result_is_edited_unless_a_picture_is_chosen(made: Any, blender: Any) -> None:
    settings = blender.context.scene.distill
    blender.context.window_manager.distill_result = made.job
    assert edits.target(blender.context) == results.image_of(made.job)
    settings.image_picture = image("another", data=False)
    record = edited("make_tileable")
    assert set(record.request["inputs"]) == {"picture"} and record.sources["picture"] == "another"
    assert not result_nodes.in_use(materials.active_material(), record.job), "nothing shows the picture"


def test_a_part_is_repainted_under_the_mask_and_nothing_else(made: Any, blender: Any) -> None:
    settings = blender.context.scene.distill
    settings.edit = "repaint"
    assert not blender.ops.distill.edit.poll()
    assert blender.ops.distill.mask_paint() == {"FINISHED"}
    mask = settings.image_mask
    assert tuple(mask.size) == (64, 64) and edits.edited_under(blender.context.scene, mask).name == made.title
    assert "is empty" in error_of(blender.ops.distill.edit)
    paint_half(mask)
    record = edited("repaint")
    before, after = (image_io.pixels_of(results.image_of(job), "result") for job in (made.job, record.job))
    np.testing.assert_array_equal(after[:32], before[:32])
    assert not after[32:, :, :3].any()
    assert record.request["parameters"]["tile"] == "x", "the result tiles along x"
    mask.pixels.foreach_set(np.ones(64 * 64 * 4, np.float32))
    assert "covers everything" in error_of(blender.ops.distill.edit)


def test_a_mask_belongs_to_one_picture_and_is_cleared_into_a_new_image(made: Any, blender: Any) -> None:
    settings = blender.context.scene.distill
    settings.edit = "repaint"
    blender.ops.distill.mask_paint()
    first = settings.image_mask
    paint_half(first)
    blender.ops.distill.mask_paint()
    assert settings.image_mask == first, "painting goes on in the same mask"
    blender.ops.distill.mask_clear()
    assert settings.image_mask != first and not image_io.pixels_of(settings.image_mask, "mask")[..., :3].any()
    assert image_io.pixels_of(first, "mask")[..., 0].any(), "undo brings the painted mask back"
    settings.image_picture = image("another", data=False)
    blender.ops.distill.mask_paint()
    assert edits.edited_under(blender.context.scene, settings.image_mask).name == "another"


def test_a_painted_mask_is_saved_with_the_file(made: Any, blender: Any, tmp_path: Path) -> None:
    import bpy

    blender.context.scene.distill.edit = "repaint"
    blender.ops.distill.mask_paint()
    paint_half(blender.context.scene.distill.image_mask)
    scenes.save_and_reload(tmp_path / "saved.blend")
    levels = image_io.pixels_of(bpy.context.scene.distill.image_mask, "mask")[..., 0]
    assert levels.mean() == pytest.approx(127.5)


def test_maps_are_estimated_from_a_result_or_an_image(service: LiveService, blender: Any) -> None:
    blender.context.scene.distill.image_picture = image("photo", data=False)
    record = edited("estimate")
    images = results.images_of(record.job)
    assert set(images) == {"image", "normal"} and images["normal"][results.ORIGIN] == "estimated"
    assert images["normal"].colorspace_settings.name == "Non-Color"


def test_a_swatch_is_edited_with_its_maps(blender: Any) -> None:
    settings = blender.context.scene.distill
    settings.image_picture = scenes.swatch()
    maps.add(blender.context.scene, "roughness", image("rough"))
    settings.edit = "extend"
    settings.parameters_extend.left = 64
    draft = edits.draft(blender.context)
    assert set(draft.pictures) == {"picture", "map:roughness"} and draft.parameters["left"] == 64


def with_layout() -> Any:
    """A result with a painted layout, of two regions; returns the record of its job."""
    import bpy

    scenes.swatch()
    scenes.small_output(64, 64, seed=5)
    scenes.two_regions()
    bpy.ops.distill.region_map_new(method="COLOR")
    bpy.ops.distill.layout_new()
    bpy.context.scene.distill.use_layout = True
    scenes.make()
    return scenes.newest()


def test_a_changed_layout_is_sent_with_the_pictures_of_the_results_own_job(service: LiveService, blender: Any) -> None:
    first = with_layout()
    blender.ops.distill.fill(picture="layout", region=1, box=(0.0, 0.0, 1.0, 0.3))
    blender.context.scene.distill.image_swatch = image("another", data=False)
    session.pump()
    blender.context.scene.distill.parameters_relayout.seed = 9
    record = edited("relayout")
    before, after = first.request["inputs"], record.request["inputs"]
    assert after["swatch"] == before["swatch"] and after["regions"] == before["regions"]
    assert after["earlier_layout"] == before["layout"] != after["layout"]
    parameters = record.request["parameters"]
    assert parameters["seed"] == 9 and parameters["tile"] == first.request["parameters"]["tile"]


def test_a_result_without_a_layout_has_none_to_change(made: Any, blender: Any) -> None:
    blender.context.scene.distill.edit = "relayout"
    assert "was not made with a layout" in edits.missing(blender.context)


def test_an_edit_without_a_picture_says_what_is_missing(blender: Any) -> None:
    assert not blender.ops.distill.edit.poll()
    assert "Choose a picture" in edits.missing(blender.context)


def test_an_edit_is_repeated_exactly(made: Any, blender: Any) -> None:
    settings = blender.context.scene.distill
    settings.edit = "repaint"
    blender.ops.distill.mask_paint()
    paint_half(settings.image_mask)
    settings.parameters_repaint.seed = 4
    record = edited("repaint")
    mask = settings.image_mask.name
    settings.edit, settings.image_mask, settings.image_picture = "extend", None, None
    settings.parameters_repaint.seed = 0
    assert blender.ops.distill.again_exactly(job=record.job) == {"FINISHED"}
    assert (settings.edit, settings.parameters_repaint.seed) == ("repaint", 4)
    assert settings.image_mask.name == mask and settings.image_picture.name == made.title
    assert [m.name for m in settings.maps] == ["normal"], "the maps of the swatch stay"


def test_an_edit_keeps_the_real_size_and_the_swatch_of_the_result(made: Any, blender: Any) -> None:
    results.image_of(made.job)[results.DENSITY] = 512.0
    record = edited("make_tileable")
    found = results.image_of(record.job)
    assert found[results.DENSITY] == 512.0 and found[results.SWATCH] == results.image_of(made.job)[results.SWATCH]
