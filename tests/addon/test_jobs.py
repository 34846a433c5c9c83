"""From the panel's settings to an image in the material, with a live service behind it."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_addon import wire
from blender_addon.link import background
from blender_addon.scene import image_io, materials, results, session
from blender_addon.ui.panels import elements
from tests.addon import scenes
from tests.addon.conftest import LiveService, command_of, environment, preferences, use_folder, wait_until
from tests.link.fake_service import fake_service

Start = Callable[..., LiveService]


def pump_until(true: Callable[[], Any]) -> None:
    wait_until(lambda: (session.pump(), true())[1])


def test_a_swatch_becomes_a_texture_that_knows_how_it_was_made(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output(128, 64, seed=7)
    image = scenes.make()
    assert tuple(image.size) == (128, 64)
    assert image.name == "bricks 7"
    assert image.packed_file is not None
    assert image["distill_seed"] == 7
    assert image["distill_seam_x"] == pytest.approx(1.02)
    assert json.loads(image["distill_parameters"])["width"] == 128
    assert wire.JobRequest.parse(json.loads(image["distill_request"])).kind == "synthesize"
    assert scenes.newest().notes == ("A note for the artist.",)
    expected = np.roll(scenes.checks(), -7, 0)
    assert (image_io.pixels_of(image, "result")[:, :64, :3] == expected).all()


def test_what_is_painted_on_the_swatch_and_not_saved_counts(service: LiveService, blender: Any) -> None:
    image = scenes.swatch()
    scenes.small_output()
    image.pixels.foreach_set(np.full(len(image.pixels), 0.2, np.float32))
    image.update()
    assert (image_io.pixels_of(scenes.make(), "result")[..., :3] == 51).all()


def test_the_layout_goes_with_the_job(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.two_regions()
    scenes.small_output()
    blender.ops.distill.region_map_new(method="COLOR")
    blender.ops.distill.layout_new()
    blender.ops.distill.fill(picture="layout", region=1, box=(0.0, 0.0, 0.5, 1.0))
    blender.context.scene.distill.use_layout = True
    image = scenes.make()
    assert set(json.loads(image["distill_request"])["inputs"]) == {"swatch", "regions", "layout"}
    pixels = image_io.pixels_of(image, "result")[..., :3].astype(int)
    assert (pixels[:, 2] != pixels[:, 66]).any()


def test_a_content_is_restyled_at_its_own_size(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.content("wall.png", 96)
    image = scenes.make()
    assert tuple(image.size) == (96, 96)
    assert image.name == "wall in bricks 0"
    request = wire.JobRequest.parse(json.loads(image["distill_request"]))
    assert (request.kind, set(request.inputs)) == ("restyle", {"content", "swatch"})
    assert scenes.base_color_node(blender.context.active_object.active_material).image == image


def test_a_restyled_texture_can_be_given_a_size_and_a_method_of_its_own(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.content()
    group = blender.context.scene.distill.parameters_restyle
    group.method = "preview"
    blender.ops.distill.output_size(width=128, height=128)
    image = scenes.make()
    assert tuple(image.size) == (128, 128)
    assert json.loads(image["distill_parameters"])["method"] == "preview"
    blender.ops.distill.output_size(width=0, height=0)
    assert tuple(scenes.make().size) == (96, 96)


def test_what_is_painted_on_the_content_and_not_saved_counts(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    image = scenes.content()
    image.pixels.foreach_set(np.zeros(len(image.pixels), np.float32))
    image.update()
    assert (image_io.pixels_of(scenes.make(), "result")[..., :3] <= 125).all()


def test_the_content_is_taken_from_the_material_or_from_a_file(blender: Any, tmp_path: Path) -> None:
    scenes.material_with_image()
    settings = blender.context.scene.distill
    assert blender.ops.distill.picture_from_material(picture="content") == {"FINISHED"}
    assert settings.image_content.name == "old" and settings.image_swatch is None
    path = tmp_path / "wall.png"
    path.write_bytes(image_io.encode_png(scenes.checks()))
    assert blender.ops.distill.picture_from_file(filepath=str(path), picture="content") == {"FINISHED"}
    assert settings.image_content.name == "wall.png" and settings.image_swatch is None


def test_a_material_without_an_image_greys_the_button_and_says_why(blender: Any) -> None:
    take = blender.ops.distill.picture_from_material
    assert "“Material” has no image as its base color" in refusal(take)
    blender.context.active_object.data.materials.clear()
    assert "The active object has no material" in refusal(take)


def test_no_content_greys_the_button_and_says_why(blender: Any) -> None:
    scenes.swatch()
    blender.context.scene.distill.kind = "restyle"
    assert not blender.ops.distill.run.poll()
    assert "Choose the image to restyle first" in refusal(blender.ops.distill.run)


def test_the_parameters_of_a_restyled_texture_come_back_into_the_panel(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.content()
    settings = blender.context.scene.distill
    settings.parameters_restyle.content_weight = 0.5
    scenes.make()
    settings.kind, settings.parameters_restyle.content_weight = "synthesize", 2.0
    blender.ops.distill.reuse_parameters()
    assert settings.kind == "restyle"
    assert settings.parameters_restyle.content_weight == 0.5


def test_variations_are_jobs_with_seeds_that_follow_each_other(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output(seed=3)
    blender.context.scene.distill.variations = 3
    scenes.make()
    assert [r.seed for r in session.current().of_this_file()] == [5, 4, 3]
    assert all(results.image_of(r.job) for r in session.current().of_this_file())


def test_a_result_lies_beside_what_the_material_had_and_can_be_taken_back(service: LiveService, blender: Any) -> None:
    material = scenes.material_with_image()
    before = scenes.base_color_node(material)
    before_name, count = before.name, len(material.node_tree.nodes)
    blender.ops.distill.picture_from_material()
    scenes.small_output()
    image = scenes.make()
    node = scenes.base_color_node(material)
    assert node.image == image
    assert node.parent.label == f"Distill: {image.name}"
    assert node.inputs["Vector"].links[0].from_node.type == "TEX_COORD"
    assert len(material.node_tree.nodes) == count + 2
    assert material.node_tree.nodes[before_name].image.name == "old"
    assert materials.base_color_image(material).name == "old", "the next swatch is not the result"
    blender.ops.distill.restore_previous()
    assert scenes.base_color_node(material).name == before_name
    assert not blender.ops.distill.restore_previous.poll()
    blender.ops.distill.use_result()
    assert scenes.base_color_node(material).image == image
    assert len(material.node_tree.nodes) == count + 2


def test_results_need_not_be_used_at_once(service: LiveService, blender: Any) -> None:
    material = scenes.material_with_image()
    scenes.swatch()
    scenes.small_output()
    blender.context.scene.distill.use_at_once = False
    scenes.make()
    assert scenes.base_color_node(material).image.name == "old"
    assert [n.label for n in material.node_tree.nodes if n.type == "FRAME"] == ["Distill: bricks 0"]


def test_a_base_colour_without_an_image_is_restored_too(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output()
    scenes.make()
    material = blender.context.active_object.active_material
    assert scenes.base_color_node(material) is not None
    blender.ops.distill.restore_previous()
    assert scenes.base_color_node(material) is None


def test_an_object_without_a_material_gets_one_when_the_result_is_used(service: LiveService, blender: Any) -> None:
    blender.context.active_object.data.materials.clear()
    scenes.swatch()
    scenes.small_output()
    image = scenes.make()
    blender.ops.distill.use_result()
    assert scenes.base_color_node(blender.context.active_object.active_material).image == image


def test_the_other_maps_go_where_they_belong(start: Start, blender: Any) -> None:
    start("material")
    scenes.swatch()
    scenes.small_output()
    scenes.make()
    material = blender.context.active_object.active_material
    shader = material.node_tree.nodes["Principled BSDF"]
    assert shader.inputs["Roughness"].links[0].from_node.image.colorspace_settings.name == "Non-Color"
    converter = shader.inputs["Normal"].links[0].from_node
    assert converter.type == "NORMAL_MAP"
    assert converter.inputs["Color"].links[0].from_node.image.name == "bricks 0 normal"
    output = material.node_tree.get_output_node("ALL")
    assert output.inputs["Displacement"].links[0].from_node.type == "DISPLACEMENT"
    blender.ops.distill.restore_previous()
    assert not shader.inputs["Normal"].links
    assert not output.inputs["Displacement"].links


def test_a_result_with_fewer_maps_leaves_none_of_another_behind(start: Start, blender: Any) -> None:
    live = start("material")
    scenes.swatch()
    scenes.small_output()
    scenes.make()
    live.stop()
    start("quick", live.data_dir)
    image = scenes.make()
    material = blender.context.active_object.active_material
    shader = material.node_tree.nodes["Principled BSDF"]
    assert scenes.base_color_node(material).image == image
    assert not shader.inputs["Normal"].links
    blender.ops.distill.restore_previous()
    assert scenes.base_color_node(material) is None


def test_what_the_artist_connected_since_stays(service: LiveService, blender: Any) -> None:
    material = scenes.material_with_image()
    scenes.swatch()
    scenes.small_output()
    scenes.make()
    tree = material.node_tree
    mine = tree.nodes.new("ShaderNodeRGB")
    tree.links.new(mine.outputs[0], tree.nodes["Principled BSDF"].inputs["Base Color"])
    blender.ops.distill.restore_previous()
    assert scenes.base_color_node(material) == mine


def test_an_object_without_a_material_gets_one_when_results_are_used_at_once(
    service: LiveService, blender: Any
) -> None:
    blender.context.active_object.data.materials.clear()
    scenes.swatch()
    scenes.small_output()
    image = scenes.make()
    assert scenes.base_color_node(blender.context.active_object.active_material).image == image


def test_a_material_of_another_file_is_left_alone_and_that_is_said(
    service: LiveService, blender: Any, tmp_path: Path
) -> None:
    scenes.material_with_image().name = "Borrowed"
    blender.ops.wm.save_as_mainfile(filepath=str(tmp_path / "library.blend"))
    blender.ops.wm.read_homefile(use_factory_startup=True)
    with blender.data.libraries.load(str(tmp_path / "library.blend"), link=True) as (_, wanted):
        wanted.materials = ["Borrowed"]
    material = blender.context.active_object.active_material = blender.data.materials["Borrowed"]
    blender.ops.distill.picture_from_material()
    scenes.small_output()
    count = len(material.node_tree.nodes)
    assert "is linked from another file; make it local" in refusal(scenes.make)
    assert "is linked from another file; make it local" in refusal(blender.ops.distill.use_result)
    assert len(material.node_tree.nodes) == count
    assert results.image_of(scenes.newest().job) is not None


def test_a_long_name_does_not_cost_the_seed(service: LiveService, blender: Any) -> None:
    scenes.swatch("ж" * 30 + ".png")
    scenes.small_output(seed=wire.MAX_SEED)
    names = [scenes.make().name, scenes.make().name]
    assert names[0].endswith(f" {wire.MAX_SEED}") and names[1].endswith(f" {wire.MAX_SEED}.001")


# ---------------------------------------------------------------------------------------------- undo and files


def test_a_result_survives_the_next_undo_and_can_itself_be_undone(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output()
    blender.ops.ed.undo_push(message="set up")
    name = scenes.make().name
    blender.ops.mesh.primitive_cube_add()
    blender.ops.ed.undo_push(message="cube")
    blender.ops.ed.undo()
    assert name in blender.data.images
    blender.ops.ed.undo()
    assert name not in blender.data.images
    assert scenes.newest().state == "succeeded"
    assert blender.ops.distill.fetch_result() == {"FINISHED"}
    assert blender.ops.distill.wait(timeout=30) == {"FINISHED"}
    assert results.image_of(scenes.newest().job) is not None


def test_undo_while_a_job_runs_does_not_lose_it(start: Start, blender: Any) -> None:
    start("brisk")
    blender.ops.ed.undo_push(message="nothing")
    scenes.swatch()
    scenes.small_output()
    blender.ops.ed.undo_push(message="set up")
    blender.ops.distill.run()
    blender.ops.mesh.primitive_cube_add()
    blender.ops.ed.undo_push(message="cube")
    blender.ops.ed.undo()
    blender.ops.ed.undo()
    assert blender.ops.distill.wait(timeout=30) == {"FINISHED"}
    assert results.image_of(scenes.newest().job) is not None


def test_results_and_history_outlast_save_and_reload(service: LiveService, blender: Any, tmp_path: Path) -> None:
    scenes.material_with_image()
    scenes.swatch()
    scenes.small_output()
    before = image_io.pixels_of(scenes.make(), "result")
    scenes.save_and_reload(tmp_path / "a.blend")
    record = scenes.newest()
    image = results.image_of(record.job)
    assert (image_io.pixels_of(image, "result") == before).all()
    assert scenes.base_color_node(blender.context.active_object.active_material).image == image
    assert record.metrics == {"seam_x": pytest.approx(1.02)}
    blender.ops.distill.restore_previous()
    assert scenes.base_color_node(blender.context.active_object.active_material).image.name == "old"
    blender.ops.distill.reuse_parameters()


def test_a_result_that_no_material_uses_outlasts_save_and_reload(
    service: LiveService, blender: Any, tmp_path: Path
) -> None:
    blender.ops.object.delete()
    scenes.swatch()
    scenes.small_output()
    name = scenes.make().name
    scenes.save_and_reload(tmp_path / "a.blend")
    assert blender.data.images[name].packed_file is not None


def test_a_painted_layout_is_there_after_save_and_reload(blender: Any, tmp_path: Path) -> None:
    scenes.two_regions()
    blender.ops.distill.layout_new()
    layout = blender.context.scene.distill.image_layout
    layout.pixels.foreach_set(np.full(len(layout.pixels), 0.2, np.float32))
    layout.update()
    scenes.save_and_reload(tmp_path / "a.blend")
    assert (image_io.pixels_of(blender.context.scene.distill.image_layout, "layout")[..., :3] == 51).all()


def test_a_job_that_ran_while_the_file_was_closed_is_fetched_by_its_id(
    start: Start, blender: Any, tmp_path: Path
) -> None:
    live = start("brisk")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    job = scenes.newest().job
    pump_until(lambda: scenes.newest().state == "running")
    blender.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    session.stop()  # as if Blender were closed
    session.start()
    use_folder(live.data_dir)
    time.sleep(1.0)
    blender.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    assert blender.ops.distill.wait(timeout=30) == {"FINISHED"}
    assert results.image_of(job) is not None


def test_a_job_of_another_file_waits_to_be_brought_in(start: Start, blender: Any) -> None:
    start("brisk")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    job = scenes.newest().job
    session.pump()
    blender.ops.wm.read_homefile(use_factory_startup=True)
    assert session.current().of_this_file() == []
    assert [r.job for r in session.current().of_other_files()] == [job]
    pump_until(lambda: job in session.current().downloaded)
    assert results.image_of(job) is None
    blender.ops.distill.fetch_result(job=job)
    assert results.image_of(job) is not None
    assert [r.job for r in session.current().of_this_file()] == [job]


def test_a_job_lands_in_its_own_file_when_that_is_opened_again(start: Start, blender: Any, tmp_path: Path) -> None:
    start("brisk")
    scenes.swatch()
    scenes.small_output()
    blender.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    blender.ops.distill.run()
    job = scenes.newest().job
    blender.ops.wm.read_homefile(use_factory_startup=True)
    pump_until(lambda: job in session.current().downloaded)
    blender.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    session.pump()
    assert results.image_of(job) is not None


# ---------------------------------------------------------------------------------------------- what goes wrong


def refusal(operator: Any, **settings: Any) -> str:
    with pytest.raises(RuntimeError) as caught:
        operator(**settings)
    return str(caught.value)


def test_without_a_service_the_job_fails_with_what_to_do(blender: Any) -> None:
    preferences().executable = "/opt/ad-service"
    scenes.swatch()
    blender.ops.distill.run()
    sentence = refusal(blender.ops.distill.wait, timeout=20)
    assert "No service has been started" in sentence
    assert "Press Start" in sentence
    assert session.current().error.code == "service-unreachable"


def test_where_the_program_is_not_known_the_remedy_is_to_choose_it_and_not_to_press_start(blender: Any) -> None:
    blender.ops.distill.connect()
    sentence = refusal(blender.ops.distill.wait, timeout=20)
    assert "choose its program in the preferences" in sentence and "Start" not in sentence
    assert [button[0] for button in elements.remedies(session.current().error)] == ["distill.preferences"]
    preferences().executable = "/opt/ad-service"
    assert [button[1] for button in elements.remedies(session.current().error)] == ["Start Service"]


def test_a_service_at_an_address_cannot_be_started_from_here(blender: Any) -> None:
    preferences().url = "127.0.0.1:9"
    blender.ops.distill.connect()
    sentence = refusal(blender.ops.distill.wait, timeout=20)
    assert "start it there, or clear the address" in sentence and "Press Start" not in sentence
    assert [button[1] for button in elements.remedies(session.current().error)] == ["Reconnect"]


def test_the_file_keeps_what_to_do_about_a_job_that_failed(blender: Any, tmp_path: Path) -> None:
    scenes.swatch()
    blender.ops.distill.run()
    refusal(blender.ops.distill.wait, timeout=20)
    sentence = scenes.newest().sentence
    scenes.save_and_reload(tmp_path / "a.blend")
    assert scenes.newest().sentence == sentence and "choose its program" in sentence


def test_a_size_out_of_bounds_cannot_be_set(blender: Any) -> None:
    scenes.small_output(100_000, 1)
    group = blender.context.scene.distill.parameters_synthesize
    assert (group.width, group.height) == (wire.MAX_PICTURE_SIDE, 64)


def test_a_number_has_as_many_digits_as_it_needs(blender: Any) -> None:
    shown = blender.context.scene.distill.parameters_synthesize.bl_rna.properties
    assert (shown["even_light"].precision, shown["scale"].precision, shown["learning_rate"].precision) == (2, 2, 4)


def test_a_seed_beyond_the_last_is_told(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output(seed=wire.MAX_SEED)
    blender.context.scene.distill.variations = 2
    assert "seed" in refusal(blender.ops.distill.run)


def test_no_swatch_greys_the_button_and_says_why(blender: Any) -> None:
    assert not blender.ops.distill.run.poll()
    assert "Choose the swatch first" in refusal(blender.ops.distill.run)


def test_a_layout_that_is_not_ready_greys_the_button_and_says_what_is_next(blender: Any) -> None:
    scenes.swatch()
    blender.context.scene.distill.use_layout = True
    assert "Add two regions first" in refusal(blender.ops.distill.run)
    scenes.two_regions()
    assert "Create the region map first" in refusal(blender.ops.distill.run)
    blender.ops.distill.region_map_new(method="COLOR")
    assert "Create the layout first" in refusal(blender.ops.distill.run)
    blender.ops.distill.layout_new()
    assert blender.ops.distill.run.poll()


def test_a_swatch_that_is_too_small_is_told_before_it_is_sent(blender: Any) -> None:
    blender.context.scene.distill.image_swatch = blender.data.images.new("crumb", 40, 31)
    assert "“crumb” is 40 x 31; the smallest side must have at least 32 pixels" in refusal(blender.ops.distill.run)


def test_what_was_amiss_with_the_maps_is_no_news_once_they_are_made_anew(blender: Any) -> None:
    scenes.swatch()
    scenes.two_regions()
    blender.context.scene.distill.use_layout = True
    blender.ops.distill.region_map_new(method="COLOR")
    blender.context.scene.distill.image_layout = blender.data.images.new("black", 64, 64)
    assert "do not have the color of a region" in refusal(blender.ops.distill.run)
    assert session.current().error is not None
    blender.ops.distill.layout_new()
    assert session.current().error is None


def test_the_error_of_a_job_is_told_and_it_can_be_tried_again(start: Start, blender: Any) -> None:
    live = start("fails")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    assert "does not fit into 1 GB" in refusal(blender.ops.distill.wait, timeout=30)
    assert scenes.newest().code == "out-of-memory"
    live.stop()
    start("quick", live.data_dir)
    blender.ops.distill.fetch_result()
    assert blender.ops.distill.wait(timeout=30) == {"FINISHED"}
    assert results.image_of(scenes.newest().job) is not None


def test_a_worker_that_dies_is_told(start: Start, blender: Any) -> None:
    start("dies")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    refusal(blender.ops.distill.wait, timeout=60)
    assert scenes.newest().code == "worker-crashed"


def test_a_service_that_dies_in_mid_job_and_does_not_come_back_is_told(start: Start, blender: Any) -> None:
    live = start("slow")
    session.current().thread.reconnect_timeout = 2.0
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    pump_until(lambda: scenes.newest().state == "running")
    live.stop(signal.SIGKILL)
    pump_until(lambda: "does not respond" in scenes.newest().message)
    assert "does not respond" in refusal(blender.ops.distill.wait, timeout=30)
    assert scenes.newest().code == "service-unreachable"


def test_a_service_that_comes_back_goes_on_with_the_job(start: Start, blender: Any) -> None:
    live = start("slow")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    pump_until(lambda: scenes.newest().state == "running")
    live.stop(signal.SIGKILL)
    start("quick", live.data_dir)
    assert blender.ops.distill.wait(timeout=60) == {"FINISHED"}
    assert results.image_of(scenes.newest().job) is not None


def test_a_job_can_be_cancelled_while_it_runs_and_while_it_waits(start: Start, blender: Any) -> None:
    start("slow")
    scenes.swatch()
    scenes.small_output()
    blender.context.scene.distill.variations = 2
    blender.ops.distill.run()
    pump_until(lambda: "running" in [r.state for r in session.current().of_this_file()])
    begin = time.monotonic()
    blender.ops.distill.cancel()
    assert blender.ops.distill.wait(timeout=30) == {"FINISHED"}
    assert time.monotonic() - begin < 10
    assert [r.state for r in session.current().of_this_file()] == ["canceled", "canceled"]
    assert not [i for i in blender.data.images if results.JOB in i]


def test_a_wrong_token_is_told(service: LiveService, blender: Any) -> None:
    preferences().token = "wrong"
    blender.ops.distill.connect()
    refusal(blender.ops.distill.wait, timeout=20)
    assert session.current().error.code == "unauthorized"
    preferences().token = ""
    blender.ops.distill.connect()
    assert blender.ops.distill.wait(timeout=60) == {"FINISHED"}
    assert session.current().status.models == ("pocket",)
    assert session.current().status.device == "Test device, 6 of 8 GB free"


def test_a_service_that_goes_while_nothing_is_to_be_done_is_noticed(
    start: Start, blender: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "IDLE_SECONDS", 0.2)
    live = start("quick")
    blender.ops.distill.connect()
    pump_until(lambda: session.current().status is not None)
    live.stop()
    pump_until(lambda: session.current().status is None)
    assert session.current().error.code == "service-unreachable"


def test_a_service_of_another_version_is_told(blender: Any) -> None:
    document = {"service": wire.SERVICE_NAME, "version": "9", "wire": 99}
    with fake_service(lambda *_: (200, "application/json", json.dumps(document).encode())) as url:
        preferences().url = url
        scenes.swatch()
        blender.ops.distill.run()
        refusal(blender.ops.distill.wait, timeout=20)
    assert scenes.newest().code == "version-mismatch"


def test_the_service_is_started_when_it_is_not_there(blender: Any, tmp_path: Path) -> None:
    program = tmp_path / "ad-service"
    command = command_of(tmp_path / "data", "quick")
    lines = [f"#!{sys.executable}", "import os", f"os.chdir({str(Path(__file__).parents[2])!r})"]
    lines.append(f"os.execve({command[0]!r}, {command!r}, {environment()!r})")
    program.write_text("\n".join(lines))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    use_folder(tmp_path / "data")
    preferences().executable, preferences().start_automatically = str(program), True
    scenes.swatch()
    scenes.small_output()
    try:
        assert tuple(scenes.make(120).size) == (128, 64)
    finally:
        os.kill(json.loads((tmp_path / "data" / "runtime.json").read_text())["pid"], signal.SIGKILL)


def test_a_service_that_ends_while_it_starts_says_why(blender: Any, tmp_path: Path) -> None:
    program = tmp_path / "ad-service"
    program.write_text("#!/bin/sh\necho 'torch is not installed'\nexit 3\n")
    program.chmod(0o755)
    preferences().executable = str(program)
    blender.ops.distill.connect()
    assert "torch is not installed" in refusal(blender.ops.distill.wait, timeout=30)


# ---------------------------------------------------------------------------------------------- the add-on itself


def test_the_addon_can_be_disabled_and_enabled_while_a_job_runs(start: Start, blender: Any) -> None:
    import addon_utils

    start("slow")
    scenes.swatch()
    scenes.small_output()
    blender.ops.distill.run()
    pump_until(lambda: scenes.newest().state == "running")
    begin = time.monotonic()
    addon_utils.disable("blender_addon", default_set=False)
    assert time.monotonic() - begin < 5
    addon_utils.enable("blender_addon", default_set=False)
    session.pump()
    assert scenes.newest().active, "the journal in the scene knows the job"
    blender.ops.distill.cancel()
    blender.ops.distill.wait(timeout=30)
