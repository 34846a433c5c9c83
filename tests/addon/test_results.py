"""The gallery of results: titles, filter, favorites, deleting, comparing, and making a result again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_addon.link.records import JobRecord
from blender_addon.scene import image_io, materials, requests, result_nodes, results, session
from tests.addon import scenes
from tests.addon.conftest import LiveService, error_of

Start = Callable[..., LiveService]


def imported(seed: int, swatch: str = "bricks", apply: bool = False) -> JobRecord:
    """A result in the file as if a job had ended."""
    import bpy

    session.pump()
    record = JobRecord(
        f"job {seed} {swatch}",
        "synthesize",
        session.current().free_title(f"{swatch} 64 x 64, seed {seed}"),
        {"seed": seed},
        session.current().document,
        state="succeeded",
        sources={"swatch": swatch},
        request={"kind": "synthesize", "inputs": {"swatch": "a" * 64}},
    )
    session.current().records[record.job] = record
    bpy.context.scene.distill.use_at_once = apply
    if apply:
        material = bpy.context.active_object.active_material
        record.materials = {materials.ensure_id(material): material.name}
    results.import_result(record, {"image": image_io.encode_png(scenes.checks())})
    return record


def shown(**chosen: Any) -> list[str]:
    order = [record.job for record in session.current().of_this_file()]
    return [image.name for image in results.gallery(results.all_results(), order, results.Filter(**chosen))]


# ---------------------------------------------------------------------------------------------- titles and filter


def test_titles_tell_swatch_size_and_seed(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output(128, 64, seed=7)
    assert scenes.make().name == "bricks 128 x 64, seed 7"


def test_the_same_seed_with_another_layout_or_size_has_another_title(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output(128, 64, seed=7)
    names = [scenes.make().name]
    scenes.small_output(64, 64, seed=7)
    names.append(scenes.make().name)
    scenes.two_regions()
    blender.ops.distill.region_map_new(method="COLOR")
    blender.ops.distill.layout_new()
    blender.context.scene.distill.use_layout = True
    names.append(scenes.make().name)
    assert names == ["bricks 128 x 64, seed 7", "bricks 64 x 64, seed 7", "bricks 64 x 64, seed 7 (2)"]


def test_the_gallery_is_filtered_by_swatch_favorites_and_text(blender: Any) -> None:
    for seed, swatch in ((1, "bricks"), (2, "moss"), (31, "moss")):
        imported(seed, swatch)
    assert shown() == ["moss 64 x 64, seed 31", "moss 64 x 64, seed 2", "bricks 64 x 64, seed 1"]
    assert shown(swatch="moss") == ["moss 64 x 64, seed 31", "moss 64 x 64, seed 2"]
    assert shown(text="SEED 1") == ["bricks 64 x 64, seed 1"]
    assert shown(favorites=True) == []
    blender.ops.distill.favorite(job="job 2 moss")
    assert shown(favorites=True) == ["moss 64 x 64, seed 2"]
    assert results.swatches(results.all_results()) == ["bricks", "moss"]


def test_results_without_a_record_are_shown_with_what_their_image_stores(blender: Any) -> None:
    record = imported(5, "moss")
    image = results.image_of(record.job)
    image["distill_seam_x"] = 1.25
    session.current().records.clear()
    assert shown() == ["moss 64 x 64, seed 5"]
    restored = results.record_of(image)
    assert (restored.seed, restored.sources, restored.metrics) == (5, {"swatch": "moss"}, {"seam_x": 1.25})


def test_the_gallery_lists_two_hundred_results_in_less_than_two_milliseconds(blender: Any) -> None:
    pixels = image_io.encode_png(scenes.checks(8))
    session.pump()
    for seed in range(200):
        record = JobRecord(str(seed), "synthesize", f"bricks, seed {seed}", {}, session.current().document)
        image = image_io.new_image(record.title, pixels)
        results.write_properties(image, record, "image")
    begin = min(_timed(lambda: results.gallery(results.all_results(), [], results.Filter(text="9"))) for _ in range(20))
    assert begin < 0.002


def _timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


# ---------------------------------------------------------------------------------------------- deleting


def test_a_deleted_result_is_gone_from_the_file_and_from_the_list(blender: Any) -> None:
    record = imported(1)
    count = len(blender.data.images)
    assert blender.ops.distill.delete_result(job=record.job) == {"FINISHED"}
    assert len(blender.data.images) == count - 1
    assert record.job not in session.current().records


def test_a_result_in_use_is_deleted_only_on_request(blender: Any) -> None:
    material = scenes.material_with_image()
    record = imported(1, apply=True)
    error = error_of(blender.ops.distill.delete_result, job=record.job)
    assert "is shown by the material “Material”; restore its original first" in error
    assert results.image_of(record.job) is not None
    assert blender.ops.distill.delete_result(job=record.job, in_use=True) == {"FINISHED"}
    assert scenes.base_color_node(material).image.name == "old"
    assert not result_nodes.frames(material), "its nodes are removed"


def test_a_deleted_result_comes_back_with_undo(blender: Any) -> None:
    record = imported(1)
    blender.ops.ed.undo_push(message="result")
    blender.ops.distill.delete_result(job=record.job)
    blender.ops.ed.undo_push(message="deleted")
    blender.ops.ed.undo()
    assert shown() == ["bricks 64 x 64, seed 1"]


def test_delete_unused_keeps_favorites_and_what_is_used(blender: Any) -> None:
    scenes.material_with_image()
    kept = [imported(1, apply=True), imported(2), imported(3)]
    imported(4), imported(5)
    blender.ops.distill.favorite(job=kept[1].job)
    blender.context.scene.distill.image_swatch = results.image_of(kept[2].job)
    unused = results.unused()
    assert sorted(unused) == ["job 4 bricks", "job 5 bricks"]
    assert results.memory_of(unused) == 2 * len(image_io.encode_png(scenes.checks()))
    assert blender.ops.distill.delete_unused() == {"FINISHED"}
    assert sorted(results.all_results()) == sorted(record.job for record in kept)


def test_a_result_that_is_only_in_an_unconnected_frame_is_unused(blender: Any) -> None:
    material = scenes.material_with_image()
    record = imported(1, apply=True)
    assert results.unused() == []
    result_nodes.restore(material)
    assert results.unused() == [record.job]


def test_a_result_removed_from_the_list_leaves_no_packed_image(blender: Any, tmp_path: Path) -> None:
    record = imported(1)
    name = results.image_of(record.job).name
    blender.ops.distill.dismiss(job=record.job)
    scenes.save_and_reload(tmp_path / "a.blend")
    assert name not in blender.data.images


def test_results_whose_images_are_gone_are_cleared(blender: Any) -> None:
    kept = imported(1)
    for number in range(5):
        failed = JobRecord(f"f{number}", "synthesize", "Bricks", {}, session.current().document, state="succeeded")
        session.current().records[failed.job] = failed
    blender.ops.distill.dismiss_missing()
    assert [record.job for record in session.current().of_this_file()] == [kept.job]


# ---------------------------------------------------------------------------------------------- making again


def test_again_exactly_brings_everything_back_and_makes_the_same_pixels(service: LiveService, blender: Any) -> None:
    settings = blender.context.scene.distill
    swatch = scenes.swatch()
    scenes.two_regions()
    scenes.small_output(128, 64, seed=7)
    blender.ops.distill.region_map_new(method="COLOR")
    blender.ops.distill.layout_new()
    blender.ops.distill.fill(picture="layout", region=1, box=(0.0, 0.0, 0.5, 1.0))
    settings.use_layout = True
    first = scenes.make()
    record = scenes.newest()
    layout = settings.image_layout

    settings.image_swatch = image_io.new_image("other", image_io.encode_png(scenes.checks(96)))
    settings.use_layout = False
    settings.regions.clear()
    scenes.small_output(64, 64, seed=99)
    settings.image_layout = None
    assert blender.ops.distill.again_exactly(job=record.job) == {"FINISHED"}
    assert (settings.image_swatch, settings.image_layout) == (swatch, layout)
    assert [region.name for region in settings.regions] == ["Brick", "Moss"]
    again = scenes.make()
    assert json.loads(again["distill_request"]) == json.loads(first["distill_request"])
    assert (image_io.pixels_of(again, "result") == image_io.pixels_of(first, "result")).all()


def test_again_exactly_downloads_pictures_that_changed_since(service: LiveService, blender: Any) -> None:
    settings = blender.context.scene.distill
    swatch = scenes.swatch()
    scenes.small_output()
    first = scenes.make()
    swatch.pixels.foreach_set(np.full(len(swatch.pixels), 0.2, np.float32))
    swatch.update()
    assert blender.ops.distill.again_exactly() == {"FINISHED"}
    assert session.wait(30)
    assert session.current().error is None
    assert settings.image_swatch != swatch
    again = scenes.make()
    assert (image_io.pixels_of(again, "result") == image_io.pixels_of(first, "result")).all()


def test_again_exactly_says_what_is_missing(start: Start, blender: Any) -> None:
    live = start("quick")
    swatch = scenes.swatch()
    scenes.small_output()
    scenes.make()
    blender.data.images.remove(swatch)
    live.stop()
    start("quick", live.data_dir.parent / "another folder")
    blender.ops.distill.again_exactly()
    assert session.wait(30)
    sentence = session.current().error.sentence
    assert "The swatch of “bricks 128 x 64, seed 0” changed since or was deleted" in sentence
    assert "the service no longer has it" in sentence


def test_more_like_this_makes_results_with_other_seeds(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output(seed=3)
    scenes.make()
    first = scenes.newest()
    blender.context.scene.distill.image_swatch = None  # the panel is not used
    assert blender.ops.distill.more_like_this(job=first.job, count=2) == {"FINISHED"}
    assert blender.ops.distill.wait(timeout=60) == {"FINISHED"}
    made = session.current().of_this_file()
    assert [record.seed for record in made] == [5, 4, 3]
    assert made[0].title == "bricks 128 x 64, seed 5"
    assert {**made[0].parameters, "seed": 3} == first.parameters
    assert result_nodes.shown_job(materials.active_material()) == first.job, "they do not take the material"


def test_only_the_first_variation_takes_the_material(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output(seed=3)
    blender.context.scene.distill.variations = 3
    scenes.make()
    (shown_seed,) = [
        record.seed
        for record in session.current().of_this_file()
        if result_nodes.in_use(materials.active_material(), record.job)
    ]
    assert shown_seed == 3


# ---------------------------------------------------------------------------------------------- comparing


def test_one_press_switches_the_material_between_two_results(blender: Any) -> None:
    material = scenes.material_with_image()
    a, b = imported(1), imported(2)
    manager = blender.context.window_manager
    manager.distill_result = a.job
    assert "Choose a result to compare with first" in error_of(blender.ops.distill.compare_switch)
    blender.ops.distill.compare(job=b.job)
    shown_jobs = []
    for _ in range(3):
        assert blender.ops.distill.compare_switch() == {"FINISHED"}
        shown_jobs.append(result_nodes.shown_job(material))
    assert shown_jobs == [a.job, b.job, a.job]
    assert manager.distill_result == a.job
    blender.ops.distill.compare(job="")
    assert not blender.ops.distill.compare_switch.poll()


# ---------------------------------------------------------------------------------------------- materials of jobs


def test_a_material_that_was_renamed_while_the_job_ran_gets_the_result(start: Start, blender: Any) -> None:
    start("brisk")
    material = scenes.material_with_image()
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    material.name = "Renamed"
    assert blender.ops.distill.wait(timeout=60) == {"FINISHED"}
    assert scenes.base_color_node(material).image == results.image_of(scenes.newest().job)


def test_a_result_whose_material_was_deleted_says_so(start: Start, blender: Any) -> None:
    start("brisk")
    material = scenes.material_with_image()
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    blender.data.materials.remove(material)
    assert "is no longer in the file; select an object and press Apply" in error_of(
        blender.ops.distill.wait, timeout=60
    )
    assert results.image_of(scenes.newest().job) is not None


def test_a_result_is_applied_to_all_selected_objects(service: LiveService, blender: Any) -> None:
    first = blender.context.active_object
    blender.ops.mesh.primitive_cube_add()
    second = blender.context.active_object
    blender.ops.mesh.primitive_cube_add()
    for thing in (first, second):
        thing.select_set(True)
    scenes.swatch()
    scenes.small_output()
    image = scenes.make()
    objects = [first, second, blender.context.active_object]
    assert [scenes.base_color_node(thing.active_material).image for thing in objects] == [image] * 3


def test_a_result_is_applied_to_all_slots(blender: Any) -> None:
    scenes.material_with_image()
    thing = blender.context.active_object
    blender.ops.object.material_slot_add()
    thing.material_slots[1].material = blender.data.materials.new("Second")
    materials.ensure_tree(thing.material_slots[1].material)
    thing.active_material_index = 0
    record = imported(1)
    blender.ops.distill.use_result(job=record.job, slots="ALL")
    assert all(result_nodes.in_use(slot.material, record.job) for slot in thing.material_slots)


def test_what_cannot_work_is_said_before_the_run(blender: Any, tmp_path: Path) -> None:
    thing = blender.context.active_object
    assert materials.problem_of([thing]) == ""
    light = blender.data.objects["Light"]
    assert materials.problem_of([thing, light]) == "The object “Light” cannot have a material; select a mesh"
    tree = scenes.material_with_image().node_tree
    group = blender.data.node_groups.new("Paint", "ShaderNodeTree")
    group.interface.new_socket("Shader", in_out="OUTPUT", socket_type="NodeSocketShader")
    node = tree.nodes.new("ShaderNodeGroup")
    node.node_tree = group
    tree.nodes.remove(tree.nodes["Principled BSDF"])
    tree.links.new(node.outputs[0], tree.get_output_node("ALL").inputs["Surface"])
    assert "is made by the node group “Paint”, which has no color input" in materials.problem_of([thing])
    group.interface.new_socket("Base Color", in_out="INPUT", socket_type="NodeSocketColor")
    assert materials.problem_of([thing]) == ""
    tree.nodes.remove(node)
    assert "has no Principled BSDF; add one" in materials.problem_of([thing])


def test_a_linked_material_is_made_local_on_request(blender: Any, tmp_path: Path) -> None:
    scenes.material_with_image().name = "Borrowed"
    blender.ops.wm.save_as_mainfile(filepath=str(tmp_path / "library.blend"))
    blender.ops.wm.read_homefile(use_factory_startup=True)
    with blender.data.libraries.load(str(tmp_path / "library.blend"), link=True) as (_, wanted):
        wanted.materials = ["Borrowed"]
    thing = blender.context.active_object
    thing.active_material = blender.data.materials["Borrowed"]
    assert "is linked from another file; make it local" in materials.problem_of([thing])
    assert blender.ops.distill.make_local() == {"FINISHED"}
    assert materials.problem_of([thing]) == ""
    record = imported(1)
    assert blender.ops.distill.use_result(job=record.job) == {"FINISHED"}


@pytest.mark.parametrize("kind", ["ShaderNodeEmission", "ShaderNodeBsdfDiffuse"])
def test_a_shader_with_a_color_input_takes_the_result(blender: Any, kind: str) -> None:
    material = scenes.material_with_image()
    tree = material.node_tree
    shader = tree.nodes.new(kind)
    tree.links.new(shader.outputs[0], tree.get_output_node("ALL").inputs["Surface"])
    assert materials.problem_of([blender.context.active_object]) == ""
    record = imported(1, apply=True)
    assert shader.inputs["Color"].links[0].from_node.image == results.image_of(record.job)
    blender.ops.distill.restore_previous()
    assert not shader.inputs["Color"].links


def test_the_title_of_a_restyled_image_has_its_size(blender: Any) -> None:
    scenes.swatch()
    scenes.content("wall.png", 96)
    (draft,) = requests.drafts(blender.context.scene)
    assert draft.title == "wall in bricks 96 x 96, seed 0"
    assert draft.sources == {"content": "wall.png", "swatch": "bricks.png"}


def test_no_job_begins_while_the_pictures_of_a_result_are_downloaded(blender: Any) -> None:
    scenes.swatch()
    assert blender.ops.distill.run.poll()
    record = JobRecord("job", "synthesize", "bricks 0", {}, session.current().document)
    session.current()._recalls["job"] = record, {}
    assert not blender.ops.distill.run.poll()
    session.current()._recalls.clear()
    assert blender.ops.distill.run.poll()


def test_a_result_that_is_in_the_file_is_not_fetched_again(blender: Any) -> None:
    record = imported(1)
    del session.current().records[record.job]
    assert blender.ops.distill.fetch_result(job=record.job) == {"CANCELLED"}
    assert list(results.all_results()) == [record.job]


def test_a_variation_that_no_material_gets_does_not_become_the_large_one(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output()
    blender.context.scene.distill.variations = 3
    scenes.make()
    first = session.current().of_this_file()[-1]
    assert first.materials and blender.context.window_manager.distill_result == first.job
    blender.context.scene.distill.use_at_once = False
    scenes.make()
    assert blender.context.window_manager.distill_result == scenes.newest().job


def test_what_was_said_before_the_run_is_no_error_after_it(service: LiveService, blender: Any) -> None:
    material = scenes.material_with_image()
    material.node_tree.nodes.clear()
    scenes.swatch()
    scenes.small_output()
    assert requests.warnings(blender.context)
    scenes.make()
    assert session.current().error is None
