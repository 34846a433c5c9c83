"""A .blend that version 0.1.0 saved: two results of one material, one by a painted layout, found and used as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blender_addon import wire
from blender_addon.scene import requests, result_nodes, results, session
from tests.addon import scenes

OLD_FILE = Path(__file__).parents[1] / "data" / "version_0_1_0.blend"


@pytest.fixture
def opened(blender: Any, tmp_path: Path) -> Any:
    copy = tmp_path / "old.blend"
    copy.write_bytes(OLD_FILE.read_bytes())
    blender.ops.wm.open_mainfile(filepath=str(copy))
    session.pump()
    return blender


def test_the_results_of_an_old_file_are_found(opened: Any) -> None:
    records = session.current().of_this_file()
    assert [record.state for record in records] == ["succeeded", "succeeded"]
    images = [results.image_of(record.job) for record in records]
    assert all(image is not None and tuple(image.size) == (64, 64) for image in images)
    for image in images:
        assert wire.JobRequest.parse(json.loads(image["distill_request"])).parameters["method"] in ("auto", "optimize")


def test_another_result_of_an_old_file_can_be_used_and_the_original_restored(opened: Any) -> None:
    material = opened.context.active_object.active_material
    newer, older = session.current().of_this_file()
    assert result_nodes.in_use(material, newer.job) and not result_nodes.in_use(material, older.job)
    assert opened.ops.distill.use_result(job=older.job) == {"FINISHED"}
    assert result_nodes.in_use(material, older.job)
    assert scenes.base_color_node(material).image == results.image_of(older.job)
    assert opened.ops.distill.restore_previous() == {"FINISHED"}
    assert scenes.base_color_node(material).image.name == "old"


def test_parameters_regions_and_layout_of_an_old_file_make_a_job(opened: Any) -> None:
    settings = opened.context.scene.distill
    assert [region.name for region in settings.regions] == ["Brick", "Moss"]
    assert settings.use_layout
    older = session.current().of_this_file()[-1]
    assert opened.ops.distill.reuse_parameters(job=older.job) == {"FINISHED"}
    assert settings.parameters_synthesize.method == "optimize", "version 0.1.0 stored “optimise”"
    (draft,) = requests.drafts(opened.context.scene)
    assert draft.parameters["seed"] == 7
    assert set(draft.pictures) == {"swatch", "regions", "layout"}
