"""Results as assets, as files, over UDIM tiles; presets of parameters."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from blender_addon.link.records import JobRecord
from blender_addon.scene import (
    assets,
    image_io,
    materials,
    presets,
    result_assets,
    result_nodes,
    results,
    session,
    udim,
)
from tests.addon import scenes
from tests.addon.conftest import error_of


def imported(pixels: np.ndarray, title: str = "bricks 64 x 64, seed 1", apply: bool = True) -> JobRecord:
    import bpy

    session.pump()
    record = JobRecord("a job", "synthesize", title, {"seed": 1}, session.current().document, state="succeeded")
    session.current().records[record.job] = record
    bpy.context.scene.distill.use_at_once = apply
    material = bpy.context.active_object.active_material
    record.materials = {materials.ensure_id(material): material.name}
    results.import_result(record, {"image": image_io.encode_png(pixels)})
    return record


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 255, (height, width, 3), dtype=np.uint8)


# ---------------------------------------------------------------------------------------------- files


def test_a_saved_result_has_the_bytes_that_the_service_made(blender: Any, tmp_path: Path) -> None:
    record = imported(noise(64, 64), "tuff: “wet” / dry 64 x 64, seed 1")
    packed = bytes(results.image_of(record.job).packed_file.data)
    assert blender.ops.distill.save_result(job=record.job, directory=str(tmp_path)) == {"FINISHED"}
    (path,) = tmp_path.iterdir()
    assert path.name == "tuff_ “wet” _ dry 64 x 64, seed 1.png"
    assert path.read_bytes() == packed
    blender.ops.distill.save_result(job=record.job, directory=str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir())[0] == "tuff_ “wet” _ dry 64 x 64, seed 1 (2).png"


def test_saving_to_a_folder_that_does_not_exist_says_so(blender: Any, tmp_path: Path) -> None:
    record = imported(noise(64, 64))
    error = error_of(blender.ops.distill.save_result, job=record.job, directory=str(tmp_path / "gone"))
    assert "cannot be written: No such file or directory; choose a folder" in error


def test_favorites_are_saved_together(blender: Any, tmp_path: Path) -> None:
    imported(noise(64, 64))
    with pytest.raises(AssertionError):
        assert blender.ops.distill.save_result(which="FAVORITES", directory=str(tmp_path)) == {"FINISHED"}
    blender.ops.distill.favorite(job="a job")
    assert blender.ops.distill.save_result(which="FAVORITES", directory=str(tmp_path)) == {"FINISHED"}
    assert len(list(tmp_path.iterdir())) == 1


# ---------------------------------------------------------------------------------------------- assets


def test_a_result_and_its_material_become_assets_of_a_catalog(blender: Any, tmp_path: Path) -> None:
    record = imported(noise(600, 300))
    blender.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    assert blender.ops.distill.mark_asset(job=record.job) == {"FINISHED"}
    image, material = results.image_of(record.job), blender.context.active_object.active_material
    assert image.asset_data.catalog_id == material.asset_data.catalog_id == result_assets.CATALOG_ID
    assert tuple(image.preview.image_size) == (200, 100)
    assert any(image.preview.image_pixels_float)
    catalog = (tmp_path / result_assets.CATALOG_FILE).read_text()
    assert "VERSION 1" in catalog and f"{result_assets.CATALOG_ID}:Texture Distiller:Texture Distiller" in catalog


def test_a_preview_that_blender_has_begun_to_draw_is_not_replaced(blender: Any) -> None:
    record = imported(noise(64, 64))
    image = results.image_of(record.job)
    image.preview_ensure().image_size = 16, 16
    assert blender.ops.distill.mark_asset(job=record.job) == {"FINISHED"}
    assert tuple(image.preview.image_size) == (16, 16)


def test_other_catalogs_stay_and_the_catalog_is_added_once(tmp_path: Path) -> None:
    path = tmp_path / result_assets.CATALOG_FILE
    path.write_text("VERSION 1\n\n11111111-1111-4111-8111-111111111111:Mine:Mine")
    result_assets.add_catalog(tmp_path)
    result_assets.add_catalog(tmp_path)
    lines = path.read_text().splitlines()
    assert lines[2].endswith(":Mine:Mine") and [result_assets.CATALOG_ID in line for line in lines].count(True) == 1


def test_a_result_is_saved_to_an_asset_library(blender: Any, tmp_path: Path) -> None:
    record = imported(noise(64, 64))
    library = blender.context.preferences.filepaths.asset_libraries.new(name="Textures", directory=str(tmp_path))
    try:
        assert blender.ops.distill.mark_asset(job=record.job, library="Textures") == {"FINISHED"}
    finally:
        blender.context.preferences.filepaths.asset_libraries.remove(library)
    assert (tmp_path / result_assets.CATALOG_FILE).exists()
    (path,) = tmp_path.glob("*.blend")
    assert path.name == "bricks 64 x 64, seed 1.blend"
    with blender.data.libraries.load(str(path), assets_only=True) as (found, _):
        assert found.images == ["bricks 64 x 64, seed 1"] and found.materials == ["Material"]
    assert results.image_of(record.job).asset_data is None, "the copy in the library is the asset"


def test_an_unknown_asset_library_is_refused(blender: Any) -> None:
    record = imported(noise(64, 64))
    assert "There is no asset library “Nowhere”" in error_of(
        blender.ops.distill.mark_asset, job=record.job, library="Nowhere"
    )


# ---------------------------------------------------------------------------------------------- UDIM


def test_tiles_are_the_pieces_of_the_texture_from_the_bottom(blender: Any) -> None:
    pixels = noise(96, 64)
    tiles = udim.pieces(pixels, 3, 2, repeat=False)
    assert sorted(tiles) == [1001, 1002, 1003, 1011, 1012, 1013]
    assert (tiles[1001] == pixels[32:, :32]).all() and (tiles[1013] == pixels[:32, 64:]).all()


def test_neighboring_tiles_and_outer_edges_continue_each_other(blender: Any) -> None:
    """On a picture that tiles, the step across every border is that of the picture."""
    x, y = np.meshgrid(np.arange(96), np.arange(64))
    waves = 127 + 60 * np.sin(2 * np.pi * x / 48) + 60 * np.sin(2 * np.pi * y / 32)
    tiles = udim.pieces(np.repeat(waves[..., None], 3, -1).astype(np.uint8), 3, 2, repeat=False)
    step = 12
    for u in range(3):
        for v in range(2):
            here = tiles[udim.number(u, v)].astype(int)
            right, above = tiles[udim.number((u + 1) % 3, v)], tiles[udim.number(u, (v + 1) % 2)]
            assert np.abs(here[:, -1] - right[:, 0]).max() <= step
            assert np.abs(here[0] - above[-1]).max() <= step


def test_a_udim_image_is_shown_and_saved_with_the_file(blender: Any, tmp_path: Path) -> None:
    pixels = noise(128, 64)
    record = imported(pixels)
    assert blender.ops.distill.udim(job=record.job, columns=2, rows=1) == {"FINISHED"}
    material = blender.context.active_object.active_material
    assert scenes.base_color_node(material).image.source == "TILED"
    assert results.image_of(record.job).source == "FILE", "the result itself stays"
    scenes.save_and_reload(tmp_path / "a.blend")
    image = scenes.base_color_node(blender.context.active_object.active_material).image
    assert [tile.number for tile in image.tiles] == [1001, 1002]
    assert [tuple(tile.size) for tile in image.tiles] == [(64, 64), (64, 64)]
    assert len(image.packed_files) == 2
    first = np.empty(64 * 64 * 4, np.float32)
    image.pixels.foreach_get(first)
    assert (np.rint(first.reshape(64, 64, 4)[::-1, :, :3] * 255) == pixels[:, :64]).all()
    assert results.unused() == []


def test_every_tile_can_be_the_whole_texture(blender: Any) -> None:
    record = imported(noise(64, 64))
    blender.ops.distill.udim(job=record.job, columns=2, rows=2, mode="REPEAT")
    image = scenes.base_color_node(blender.context.active_object.active_material).image
    assert [tuple(tile.size) for tile in image.tiles] == [(64, 64)] * 4


def test_a_size_that_cannot_be_cut_into_tiles_is_refused(blender: Any) -> None:
    record = imported(noise(64, 64))
    error = error_of(blender.ops.distill.udim, job=record.job, columns=3, rows=1)
    assert "64 x 64 pixels cannot be cut into 3 x 1 equal tiles" in error
    assert not [image for image in blender.data.images if image.source == "TILED"]


def test_the_resolution_for_udim_tiles_is_that_of_all_tiles(blender: Any) -> None:
    blender.ops.distill.udim_size(columns=3, rows=2, size=512)
    group = blender.context.scene.distill.parameters_synthesize
    assert (group.width, group.height) == (1536, 1024)
    assert "choose smaller tiles" in error_of(blender.ops.distill.udim_size, columns=10, rows=1, size=4096)


def test_deleting_a_result_deletes_its_udim_image(blender: Any) -> None:
    record = imported(noise(64, 64), apply=False)
    blender.ops.distill.udim(job=record.job, columns=2, rows=1, use=False)
    blender.ops.distill.delete_result(job=record.job)
    assert not [image for image in blender.data.images if materials.JOB in image]
    assert not result_nodes.frames(blender.context.active_object.active_material)


# ---------------------------------------------------------------------------------------------- presets


def test_every_shipped_preset_sets_parameters_of_its_job_kind(blender: Any) -> None:
    settings = blender.context.scene.distill
    for kind in presets.KINDS:
        found = sorted((presets.SHIPPED / kind.name).glob("*.py"))
        assert found
        for path in found:
            menu = f"DISTILL_MT_presets_{kind.name}"
            assert blender.ops.script.execute_preset(filepath=str(path), menu_idname=menu) == {"FINISHED"}
    assert settings.parameters_synthesize.tile in ("x", "xy", "none")


def test_a_saved_preset_brings_parameters_back_but_not_the_seed(blender: Any) -> None:
    group = blender.context.scene.distill.parameters_synthesize
    group.width, group.tile, group.even_light, group.seed = 768, "x", 0.5, 5
    blender.ops.distill.preset_synthesize(name="Mine")
    group.width, group.tile, group.even_light, group.seed = 512, "xy", 0.0, 6
    path = blender.utils.preset_find("Mine", presets.subfolder("synthesize"))
    assert path and "seed" not in Path(path).read_text()
    blender.ops.script.execute_preset(filepath=path, menu_idname="DISTILL_MT_presets_synthesize")
    assert (group.width, group.tile, group.even_light, group.seed) == (768, "x", 0.5, 6)
    blender.ops.distill.preset_synthesize(remove_name=True, name="Mine")
    assert not blender.utils.preset_find("Mine", presets.subfolder("synthesize"))


def test_the_image_of_a_material_asset_is_the_result_that_it_shows(blender: Any) -> None:
    material = scenes.material_with_image()
    asset = SimpleNamespace(local_id=material, id_type="MATERIAL", name=material.name)
    assert assets.image_of(asset).name.startswith("old")
    record = imported(noise(64, 64))
    assert assets.image_of(asset) == results.image_of(record.job)
