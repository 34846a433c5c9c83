"""Results in materials: apply, restore, and nodes that the artist changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blender_addon import wire
from blender_addon.scene import materials, result_nodes, results
from tests.addon import scenes
from tests.addon.conftest import LiveService, error_of

Start = Callable[..., LiveService]


def test_a_result_is_applied_beside_existing_nodes_and_restored(service: LiveService, blender: Any) -> None:
    material = scenes.material_with_image()
    before = scenes.base_color_node(material)
    before_name, count = before.name, len(material.node_tree.nodes)
    blender.ops.distill.picture_from_material()
    scenes.small_output()
    image = scenes.make()
    node = scenes.base_color_node(material)
    assert node.image == image
    assert node.parent.label == f"Distill: {image.name}"
    mapping = node.inputs["Vector"].links[0].from_node
    assert mapping.type == "MAPPING" and mapping.parent == node.parent
    assert mapping.inputs["Vector"].links[0].from_node.type == "TEX_COORD", "the coordinates are those of before"
    assert len(material.node_tree.nodes) == count + 3
    assert material.node_tree.nodes[before_name].image.name == "old"
    assert materials.base_color_image(material).name == "old", "the next swatch is not the result"
    blender.ops.distill.restore_previous()
    assert scenes.base_color_node(material).name == before_name
    assert not blender.ops.distill.restore_previous.poll()
    blender.ops.distill.use_result()
    assert scenes.base_color_node(material).image == image
    assert len(material.node_tree.nodes) == count + 3


def test_results_are_not_applied_if_the_option_is_off(service: LiveService, blender: Any) -> None:
    material = scenes.material_with_image()
    scenes.swatch()
    scenes.small_output()
    blender.context.scene.distill.use_at_once = False
    scenes.make()
    assert scenes.base_color_node(material).image.name == "old"
    assert not result_nodes.frames(material)


def test_restore_disconnects_a_base_color_without_image(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output()
    scenes.make()
    material = blender.context.active_object.active_material
    assert scenes.base_color_node(material) is not None
    blender.ops.distill.restore_previous()
    assert scenes.base_color_node(material) is None


def test_use_result_adds_a_material_to_an_object_without_one(service: LiveService, blender: Any) -> None:
    blender.context.active_object.data.materials.clear()
    scenes.swatch()
    scenes.small_output()
    image = scenes.make()
    blender.ops.distill.use_result()
    assert scenes.base_color_node(blender.context.active_object.active_material).image == image


def test_normal_roughness_and_height_maps_are_connected(start: Start, blender: Any) -> None:
    start("material")
    blender.context.active_object.modifiers.new("Subdivision", "SUBSURF")
    scenes.swatch()
    scenes.small_output()
    scenes.make()
    material = blender.context.active_object.active_material
    shader = material.node_tree.nodes["Principled BSDF"]
    assert shader.inputs["Roughness"].links[0].from_node.image.colorspace_settings.name == "Non-Color"
    converter = shader.inputs["Normal"].links[0].from_node
    assert converter.type == "NORMAL_MAP"
    assert converter.inputs["Color"].links[0].from_node.image.name == "bricks 128 x 64, seed 0 normal"
    output = material.node_tree.get_output_node("ALL")
    assert output.inputs["Displacement"].links[0].from_node.type == "DISPLACEMENT"
    blender.ops.distill.restore_previous()
    assert not shader.inputs["Normal"].links
    assert not output.inputs["Displacement"].links


def test_nodes_inserted_in_the_frame_of_a_result_stay_connected(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    scenes.small_output()
    image = scenes.make()
    material = blender.context.active_object.active_material
    tree, base_color = material.node_tree, material.node_tree.nodes["Principled BSDF"].inputs["Base Color"]
    node = scenes.base_color_node(material)
    inserted, unused = tree.nodes.new("ShaderNodeHueSaturation"), tree.nodes.new("NodeReroute")
    inserted.parent = unused.parent = node.parent
    tree.links.new(node.outputs["Color"], inserted.inputs["Color"])
    tree.links.new(inserted.outputs["Color"], base_color)
    inserted.name = "Adjusted"
    blender.ops.distill.restore_previous()
    assert scenes.base_color_node(material) is None
    assert blender.ops.distill.use_result() == {"FINISHED"}
    assert scenes.base_color_node(material).name == "Adjusted"
    assert tree.nodes["Adjusted"].inputs["Color"].links[0].from_node.image == image
    blender.ops.distill.restore_previous()
    tree.nodes.remove(tree.nodes["Adjusted"])
    blender.ops.distill.use_result()
    assert scenes.base_color_node(material).image == image


def test_a_result_with_renamed_nodes_and_images_is_connected(start: Start, blender: Any) -> None:
    start("material")
    scenes.swatch()
    scenes.small_output()
    scenes.make()
    material = blender.context.active_object.active_material
    blender.ops.distill.restore_previous()
    for index, node in enumerate(n for n in material.node_tree.nodes if n.parent is not None):
        node.name = f"My node {index}"
        if node.type == "TEX_IMAGE":
            node.image.name = f"my image {index}"
    blender.ops.distill.use_result()
    shader = material.node_tree.nodes["Principled BSDF"]
    linked = {name: shader.inputs[name].links[0].from_node for name in ("Base Color", "Roughness", "Normal")}
    assert linked["Base Color"].image[materials.OUTPUT] == "image"
    assert linked["Roughness"].image[materials.OUTPUT] == "roughness"
    assert linked["Normal"].type == "NORMAL_MAP"


def test_a_result_of_version_0_1_0_is_applied(start: Start, blender: Any) -> None:
    start("material")
    scenes.swatch()
    scenes.small_output()
    scenes.make()
    material = blender.context.active_object.active_material
    blender.ops.distill.restore_previous()
    for node in [n for n in material.node_tree.nodes if n.parent is not None]:
        for key in (materials.OUTPUT, result_nodes.FEEDS):  # which nodes did not have then
            node.pop(key, None)
    blender.ops.distill.use_result()
    shader = material.node_tree.nodes["Principled BSDF"]
    assert scenes.base_color_node(material).image[materials.OUTPUT] == "image"
    assert shader.inputs["Normal"].links[0].from_node.type == "NORMAL_MAP"
    assert shader.inputs["Roughness"].links[0].from_node.image[materials.OUTPUT] == "roughness"


def test_a_result_with_fewer_maps_disconnects_the_other_maps(start: Start, blender: Any) -> None:
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


def test_restore_keeps_links_that_the_artist_made_since(service: LiveService, blender: Any) -> None:
    material = scenes.material_with_image()
    scenes.swatch()
    scenes.small_output()
    scenes.make()
    tree = material.node_tree
    mine = tree.nodes.new("ShaderNodeRGB")
    tree.links.new(mine.outputs[0], tree.nodes["Principled BSDF"].inputs["Base Color"])
    blender.ops.distill.restore_previous()
    assert scenes.base_color_node(material) == mine


def test_restore_finds_a_renamed_node(service: LiveService, blender: Any, tmp_path: Path) -> None:
    material = scenes.material_with_image()
    scenes.swatch()
    scenes.small_output()
    before = scenes.base_color_node(material)
    scenes.make()
    before.name = "My bricks"
    other = material.node_tree.nodes.new("ShaderNodeTexImage")
    other.name = "Image Texture"
    assert materials.base_color_image(material).name == "old"
    scenes.save_and_reload(tmp_path / "a.blend")
    material = blender.context.active_object.active_material
    scenes.make()  # another result in its place
    blender.ops.distill.restore_previous()
    assert scenes.base_color_node(material).name == "My bricks"
    assert not blender.ops.distill.restore_previous.poll()


def test_restore_changes_nothing_if_the_node_was_removed(service: LiveService, blender: Any) -> None:
    material = scenes.material_with_image()
    scenes.swatch()
    scenes.small_output()
    tree, removed = material.node_tree, scenes.base_color_node(material)
    scenes.make()
    tree.nodes.remove(removed)
    image = scenes.make()  # results can still be applied
    error = error_of(blender.ops.distill.restore_previous)
    assert "no longer has the node “Image Texture” that was connected to Base Color" in error
    assert scenes.base_color_node(material).image == image
    assert blender.ops.distill.restore_previous.poll(), "the stored node is not forgotten"
    mine = tree.nodes.new("ShaderNodeRGB")
    tree.links.new(mine.outputs[0], tree.nodes["Principled BSDF"].inputs["Base Color"])
    assert blender.ops.distill.restore_previous() == {"FINISHED"}
    assert scenes.base_color_node(material) == mine


def test_restore_checks_the_stored_socket(service: LiveService, blender: Any) -> None:
    material = scenes.material_with_image()
    scenes.swatch()
    scenes.small_output()
    image = scenes.make()
    material[materials.PREVIOUS] = {"Base Color": {"node": "Image Texture", "socket": 7}}
    assert "that was connected to Base Color" in error_of(blender.ops.distill.restore_previous)
    assert scenes.base_color_node(material).image == image


def test_a_height_map_is_refused_without_a_material_output(start: Start, blender: Any) -> None:
    start("material")
    material = scenes.material_with_image()
    tree = material.node_tree
    tree.nodes.remove(tree.get_output_node("ALL"))
    scenes.swatch()
    scenes.small_output()
    assert "“Material” has no Material Output; add one" in error_of(scenes.make)
    assert scenes.base_color_node(material).image.name == "old"
    assert "“Material” has no Material Output; add one" in error_of(blender.ops.distill.use_result)
    tree.nodes.new("ShaderNodeOutputMaterial")
    assert blender.ops.distill.use_result() == {"FINISHED"}


def test_each_missing_node_has_its_own_error(blender: Any) -> None:
    material = scenes.material_with_image()
    with pytest.raises(wire.WireError, match="has nothing to restore"):
        result_nodes.restore(material)
    material.node_tree.nodes.remove(material.node_tree.nodes["Principled BSDF"])
    with pytest.raises(wire.WireError, match="has no Principled BSDF; add one"):
        result_nodes.apply(material, "known", "Bricks", {"image": scenes.swatch()})
    assert not result_nodes.frames(material)


def test_run_adds_a_material_to_an_object_without_one(service: LiveService, blender: Any) -> None:
    blender.context.active_object.data.materials.clear()
    scenes.swatch()
    scenes.small_output()
    image = scenes.make()
    assert scenes.base_color_node(blender.context.active_object.active_material).image == image


def test_a_linked_material_is_not_changed_and_applying_a_result_shows_an_error(
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
    scenes.make()  # the panel said it before the run, so that it is no error after it
    assert "is linked from another file; make it local" in error_of(blender.ops.distill.use_result)
    assert len(material.node_tree.nodes) == count
    assert results.image_of(scenes.newest().job) is not None


def test_a_result_with_a_painted_layout_lies_on_the_uv_map(blender: Any, service: LiveService) -> None:
    material = scenes.material_with_image()
    tree = material.node_tree
    image = scenes.base_color_node(material)
    mapping = tree.nodes.new("ShaderNodeMapping")
    mapping.inputs["Scale"].default_value = (2.0, 2.0, 1.0)
    tree.links.new(image.inputs["Vector"].links[0].from_socket, mapping.inputs["Vector"])
    tree.links.new(mapping.outputs["Vector"], image.inputs["Vector"])
    assert materials.is_mapped(material)
    scenes.swatch()
    scenes.small_output()
    scenes.make()
    own = scenes.base_color_node(material).inputs["Vector"].links[0].from_node
    assert own.inputs["Vector"].links[0].from_node == mapping
    blender.ops.distill.use_layout()
    scenes.make()
    assert own.inputs["Vector"].links[0].from_socket.name == "UV"
    assert own.inputs["Vector"].links[0].from_node.parent == own.parent, "not the artist's coordinates"
    mapping.inputs["Scale"].default_value = (1.0, 1.0, 1.0)
    blender.ops.distill.use_layout()
    assert not materials.is_mapped(material)
