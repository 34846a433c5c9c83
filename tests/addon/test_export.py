"""Files of a whole result: names, bytes, the convention of normals, packing for glTF; and the material as an asset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_addon.link.records import JobRecord
from blender_addon.scene import image_io, materials, result_nodes, results, session, texture_sets
from tests.addon import scenes
from tests.addon.conftest import error_of
from tests.addon.test_maps import decoded, ramp

DEEP = (np.arange(64 * 64, dtype=np.uint16) * 15).reshape(64, 64, 1)


@pytest.fixture
def result(blender: Any) -> JobRecord:
    """A result with five maps, one of them with 16 bits, as if a job had ended."""
    session.pump()
    record = JobRecord("job 1", "synthesize", "wall 64 x 64", {"seed": 1}, session.current().document)
    record.state = "succeeded"
    session.current().records[record.job] = record
    blender.context.scene.distill.use_at_once = False
    pictures = {"image": ramp(1), "map:normal": ramp(2), "map:roughness": ramp(3, 1), "map:height": DEEP}
    pictures |= {"map:alpha": ramp(4, 1)}
    results.import_result(record, {name: image_io.encode_png(pixels) for name, pixels in pictures.items()})
    return record


def exported(folder: Path, **options: Any) -> dict[str, np.ndarray]:
    """The pixels of the exported files by the end of their names."""
    import bpy

    assert bpy.ops.distill.export_set(directory=str(folder), **options) == {"FINISHED"}
    (target,) = [path for path in folder.iterdir() if path.is_dir()]
    files = {path.stem.removeprefix(f"{target.name}_"): path for path in target.iterdir()}
    return {name: decoded(path.read_bytes()) for name, path in files.items()}


def test_every_map_is_written_as_it_is_with_its_usual_name(result: JobRecord, tmp_path: Path) -> None:
    found = exported(tmp_path)
    assert sorted(found) == ["basecolor", "height", "normal", "opacity", "roughness"]
    np.testing.assert_array_equal(found["basecolor"], ramp(1))
    np.testing.assert_array_equal(found["height"], DEEP)


def test_exported_files_are_recognized_as_a_set(result: JobRecord, tmp_path: Path) -> None:
    exported(tmp_path)
    (folder,) = tmp_path.iterdir()
    found = texture_sets.find_set(path.name for path in folder.iterdir())
    assert found is not None
    assert found.color.endswith("_basecolor.png") and sorted(found.maps) == ["alpha", "height", "normal", "roughness"]


def test_directx_normals_have_their_green_inverted(result: JobRecord, tmp_path: Path) -> None:
    normal = exported(tmp_path, normals="DIRECTX")["normal"]
    np.testing.assert_array_equal(normal[..., 1], 255 - ramp(2)[..., 1])
    np.testing.assert_array_equal(normal[..., [0, 2]], ramp(2)[..., [0, 2]])


def test_gltf_gets_packed_files(result: JobRecord, tmp_path: Path) -> None:
    found = exported(tmp_path, gltf=True)
    assert sorted(found) == ["basecolor", "height", "normal", "orm"]
    np.testing.assert_array_equal(found["orm"][..., 1], ramp(3, 1)[..., 0])
    assert (found["orm"][..., 0] == 255).all() and (found["orm"][..., 2] == 0).all()
    np.testing.assert_array_equal(found["basecolor"][..., 3], ramp(4, 1)[..., 0])


def test_a_second_export_does_not_overwrite_the_first(result: JobRecord, blender: Any, tmp_path: Path) -> None:
    exported(tmp_path)
    blender.ops.distill.export_set(directory=str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wall 64 x 64", "wall 64 x 64 (2)"]


def test_a_folder_that_cannot_be_written_is_an_error(result: JobRecord, blender: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = error_of(blender.ops.distill.export_set, directory=str(tmp_path / "file"))
    assert "cannot be written" in error


def test_a_result_with_maps_that_nothing_shows_becomes_a_material_asset(result: JobRecord, blender: Any) -> None:
    blender.ops.distill.mark_asset(job=result.job)
    (material,) = [m for m in blender.data.materials if m.asset_data is not None]
    assert result_nodes.in_use(material, result.job) and material.use_fake_user
    frame = result_nodes.connected_frame(material)
    assert len(result_nodes.picture_nodes(material.node_tree, frame)) == 5
    assert material.preview is not None and material.preview.image_size[0] > 0
    blender.ops.distill.mark_asset(job=result.job)
    assert len([m for m in blender.data.materials if m.asset_data is not None]) == 1


def test_a_material_in_an_asset_library_has_its_maps(result: JobRecord, blender: Any, tmp_path: Path) -> None:
    blender.context.preferences.filepaths.asset_libraries.new(name="Mine", directory=str(tmp_path))
    try:
        blender.ops.distill.mark_asset(job=result.job, library="Mine", image=False)
    finally:
        libraries = blender.context.preferences.filepaths.asset_libraries
        libraries.remove(libraries["Mine"])
    (file,) = tmp_path.glob("*.blend")
    with blender.data.libraries.load(str(file)) as (stored, wanted):
        wanted.materials = stored.materials
    (material,) = wanted.materials
    shown = result_nodes.picture_nodes(material.node_tree, result_nodes.connected_frame(material))
    assert all(result_nodes.picture_of(node).packed_file is not None for node in shown.values())
    assert materials.surface_shader(material).inputs["Roughness"].links
    assert not [m for m in blender.data.materials if m.asset_data is not None and m.library is None and m != material]


def test_a_deleted_result_is_not_exported(result: JobRecord, blender: Any, tmp_path: Path) -> None:
    results.delete([result.job])
    assert "were deleted" in error_of(blender.ops.distill.export_set, directory=str(tmp_path), job=result.job)
    assert scenes.newest().job == result.job and not list(tmp_path.iterdir())
