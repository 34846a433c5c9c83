"""The frame of a result in a material: where it is, its projection, repeats, real width and texel density."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from blender_addon.scene import image_io, mapping, materials, result_nodes, triplanar
from tests.addon import scenes
from tests.addon.conftest import error_of


def result(seed: int = 0, width: int = 64, height: int = 64, **properties: Any) -> dict[str, Any]:
    """The images of a result as an import leaves them."""
    image = image_io.new_image(f"bricks {width} x {height}, seed {seed}", image_io.encode_png(pixels(width, height)))
    image[materials.JOB], image[materials.OUTPUT] = f"job {seed}", "image"
    for name, value in properties.items():
        image[f"distill_{name}"] = value
    return {"image": image}


def pixels(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)


def apply(material: Any, thing: Any, seed: int = 0, **size: Any) -> Any:
    frame = result_nodes.apply(material, f"job {seed}", f"bricks {seed}", result(seed, **size))
    mapping.fit(material, thing)
    return frame


def box(node: Any) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of a node in the tree."""
    x, y = node.location
    if node.parent is not None:
        x, y = x + node.parent.location.x, y + node.parent.location.y
    return x, result_nodes.bottom(node), x + node.width, y


def overlap(a: Any, b: Any) -> bool:
    (l1, b1, r1, t1), (l2, b2, r2, t2) = box(a), box(b)
    return l1 < r2 and l2 < r1 and b1 < t2 and b2 < t1


@pytest.fixture
def cube(blender: Any) -> Any:
    """The startup cube, 2 m wide, its material with an image."""
    scenes.material_with_image()
    return blender.context.active_object


# ---------------------------------------------------------------------------------------------- the frame


def test_a_material_has_one_frame_for_all_results(cube: Any) -> None:
    material = cube.active_material
    for seed in range(4):
        apply(material, cube, seed)
    (frame,) = result_nodes.frames(material)
    assert frame.label == "Distill: bricks 3"
    assert len(result_nodes.children(material.node_tree, frame)) == 2, "a Mapping node and an image node"
    assert scenes.base_color_node(material).image.name == "bricks 64 x 64, seed 3"
    result_nodes.restore(material)
    assert scenes.base_color_node(material).image.name == "old"


def test_a_new_material_gets_coordinates_and_a_mapping_node(blender: Any) -> None:
    thing = blender.context.active_object
    thing.data.materials.clear()
    material = materials.ensure_material(thing, "New")
    apply(material, thing)
    node = scenes.base_color_node(material).inputs["Vector"].links[0].from_node
    assert node.type == "MAPPING"
    assert node.inputs["Vector"].links[0].from_socket.name == "UV"


def test_the_nodes_of_a_result_do_not_overlap_others(cube: Any) -> None:
    material = cube.active_material
    tree = material.node_tree
    own = tree.nodes.new("ShaderNodeMapping")
    own.location = tree.nodes["Principled BSDF"].location.x - 900, -250
    before = [node for node in tree.nodes if node.type != "FRAME"]
    frame = apply(material, cube)
    mapping.set_projection(material, "TRIPLANAR", cube)
    mine = result_nodes.children(tree, frame)
    assert not [(a.name, b.name) for a in mine for b in before if overlap(a, b)]
    assert not [(a.name, b.name) for i, a in enumerate(mine) for b in mine[i + 1 :] if overlap(a, b)]


def test_the_artists_mapping_node_stays_in_effect_and_the_result_can_be_repeated(cube: Any) -> None:
    material = cube.active_material
    tree = material.node_tree
    old = scenes.base_color_node(material)
    own = tree.nodes.new("ShaderNodeMapping")
    own.inputs["Scale"].default_value = 2.0, 2.0, 1.0
    tree.links.new(old.inputs["Vector"].links[0].from_socket, own.inputs["Vector"])
    tree.links.new(own.outputs[0], old.inputs["Vector"])
    frame = apply(material, cube)
    node = result_nodes.find_mapping(tree, frame)
    assert node.inputs["Vector"].links[0].from_node == own
    surface = mapping.surface_of(cube)
    mapping.set_tile_width(material, surface, 0.5)
    assert mapping.tile_width(material, surface) == pytest.approx(0.5)
    assert mapping.repeats(material)[0] == pytest.approx(8.0), "a UV unit is 8 m, the artist's own node halves it"
    mapping.set_projection(material, "BOX", cube)
    mapping.set_projection(material, "UV", cube)
    assert node.inputs["Vector"].links[0].from_node == own


def test_frames_of_older_versions_are_used_and_removed(cube: Any) -> None:
    material = cube.active_material
    tree = material.node_tree
    coordinates = scenes.base_color_node(material).inputs["Vector"].links[0].from_socket
    for seed in (7, 8):  # as version 0.2.0 made them
        frame = tree.nodes.new("NodeFrame")
        frame[materials.JOB] = f"job {seed}"
        node = tree.nodes.new("ShaderNodeTexImage")
        node.parent, node[materials.OUTPUT], node.image = frame, "image", result(seed)["image"]
        tree.links.new(coordinates, node.inputs["Vector"])
    material[materials.PREVIOUS] = {"Base Color": {"node": "Image Texture", "socket": 0}}
    tree.links.new(node.outputs["Color"], tree.nodes["Principled BSDF"].inputs["Base Color"])
    assert result_nodes.in_use(material, "job 8")
    assert mapping.repeats(material) == (1.0, 1.0)
    apply(material, cube, 9)
    assert result_nodes.in_use(material, "job 9")
    assert scenes.base_color_node(material) == node, "its image node shows the new result"
    assert node.inputs["Vector"].links[0].from_node.type == "MAPPING"
    assert result_nodes.is_stale(material)
    import bpy

    assert bpy.ops.distill.remove_frames() == {"FINISHED"}
    assert [frame[materials.JOB] for frame in result_nodes.frames(material)] == ["job 9"]
    assert bpy.ops.distill.restore_previous() == {"FINISHED"}
    assert scenes.base_color_node(material).image.name == "old"


# ---------------------------------------------------------------------------------------------- size


def test_texel_density_is_measured_on_the_uv_map_and_the_scale(cube: Any) -> None:
    material = cube.active_material
    apply(material, cube)
    surface = mapping.surface_of(cube)
    assert surface.meters_per_uv == pytest.approx(8.0), "24 square meters on 0.375 of the UV map"
    assert mapping.texel_density(material, surface) == pytest.approx(64 / 8)
    cube.scale = 2.0, 2.0, 2.0
    import bpy

    bpy.context.view_layer.update()
    assert mapping.texel_density(material, mapping.surface_of(cube)) == pytest.approx(64 / 16)


def test_a_real_width_sets_repeats_without_stretching(cube: Any) -> None:
    material = cube.active_material
    apply(material, cube, width=128, height=64)
    import bpy

    assert bpy.ops.distill.tile_width(width=1.6) == {"FINISHED"}
    assert mapping.repeats(material) == (pytest.approx(5.0), pytest.approx(10.0))
    assert mapping.stretch(material) == pytest.approx(1.0)
    assert bpy.ops.distill.texel_density(density=160.0) == {"FINISHED"}
    assert mapping.tile_width(material, mapping.surface_of(cube)) == pytest.approx(0.8)


def test_a_result_with_a_known_width_gets_it(cube: Any) -> None:
    material = cube.active_material
    result_nodes.apply(material, "job 0", "bricks", result(0, 64, 64, pixels_per_meter=32.0))
    mapping.fit(material, cube)
    assert mapping.tile_width(material, mapping.surface_of(cube)) == pytest.approx(2.0)


def test_a_result_that_is_not_square_is_not_stretched(cube: Any) -> None:
    material = cube.active_material
    apply(material, cube, 0, width=256, height=64)
    assert mapping.repeats(material) == (1.0, 4.0)
    mapping.set_repeats(material, 3.0)
    assert mapping.repeats(material) == (3.0, 12.0)
    apply(material, cube, 1, width=64, height=64)
    assert mapping.repeats(material) == (3.0, 3.0), "the artist's repeats stay"


def test_a_result_that_follows_a_layout_covers_the_uv_map_once(cube: Any) -> None:
    material = cube.active_material
    request = json.dumps({"kind": "synthesize", "inputs": {"layout": "a" * 64}})
    result_nodes.apply(material, "job 0", "bricks", result(0, 256, 64, request=request))
    mapping.fit(material, cube)
    assert mapping.repeats(material) == (1.0, 1.0)
    assert mapping.stretch(material) == pytest.approx(0.25), "which the panel says"


# ---------------------------------------------------------------------------------------------- projection


def test_an_object_without_a_uv_map_gets_a_box_projection(cube: Any) -> None:
    cube.data.uv_layers.remove(cube.data.uv_layers[0])
    material = cube.active_material
    frame = apply(material, cube)
    assert result_nodes.projection_of(frame) == "BOX"
    node = scenes.base_color_node(material)
    assert node.projection == "BOX" and node.projection_blend > 0
    coordinates = result_nodes.find_mapping(material.node_tree, frame).inputs["Vector"].links[0].from_socket
    assert coordinates.name == "Object"
    assert mapping.tile_width(material, mapping.surface_of(cube)) == pytest.approx(2.0), "one tile on a side"
    assert "no UV map: the texture is projected from the sides of a box" in materials.note_of([cube])


def test_the_width_of_a_tile_stays_when_the_projection_changes(cube: Any) -> None:
    import bpy

    material = cube.active_material
    apply(material, cube)
    bpy.ops.distill.tile_width(width=0.5)
    for projection in ("BOX", "TRIPLANAR", "UV"):
        assert bpy.ops.distill.projection(projection=projection) == {"FINISHED"}
        assert mapping.tile_width(material, mapping.surface_of(cube)) == pytest.approx(0.5)
    assert scenes.base_color_node(material).projection == "FLAT"
    assert not [group for group in bpy.data.node_groups if triplanar.GROUP in group], "no groups are left behind"


def test_another_result_is_shown_in_the_same_triplanar_group(cube: Any) -> None:
    material = cube.active_material
    apply(material, cube)
    mapping.set_projection(material, "TRIPLANAR", cube)
    group = scenes.base_color_node(material).node_tree
    apply(material, cube, 1)
    assert scenes.base_color_node(material).node_tree == group
    assert triplanar.image_of(group).name == "bricks 64 x 64, seed 1"
    assert materials.base_color_image(material).name == "old"
    result_nodes.restore(material)
    assert scenes.base_color_node(material).image.name == "old"


def test_a_box_of_an_image_that_is_not_square_is_not_stretched(cube: Any) -> None:
    material = cube.active_material
    apply(material, cube, width=128, height=64)
    mapping.set_projection(material, "BOX", cube)
    node = scenes.base_color_node(material)
    assert node.type == "GROUP" and node.inputs["Aspect"].default_value == pytest.approx(2.0)


def test_normal_maps_are_projected_as_object_space_normals(cube: Any) -> None:
    material = cube.active_material
    images = result()
    normal = image_io.new_image("normal", image_io.encode_png(pixels(64, 64)), data=True)
    normal[materials.JOB], normal[materials.OUTPUT] = "job 0", "normal"
    result_nodes.apply(material, "job 0", "bricks", {**images, "normal": normal})
    mapping.set_projection(material, "BOX", cube)
    converter = material.node_tree.nodes["Principled BSDF"].inputs["Normal"].links[0].from_node
    assert converter.space == "OBJECT"
    assert converter.inputs["Color"].links[0].from_node.type == "GROUP"
    mapping.set_projection(material, "UV", cube)
    assert converter.space == "TANGENT"
    assert converter.inputs["Color"].links[0].from_node.type == "TEX_IMAGE"


def test_a_flat_normal_map_projected_triplanar_changes_no_shading(blender: Any, cube: Any) -> None:
    """Rendered with Cycles: a sphere with a flat normal map looks like one without."""
    scene = blender.context.scene
    blender.data.objects.remove(cube)
    blender.ops.mesh.primitive_uv_sphere_add(segments=24, ring_count=12)
    sphere = blender.context.active_object
    blender.ops.object.shade_smooth()
    material = materials.ensure_material(sphere, "Plain")
    gray = np.full((64, 64, 3), 128, np.uint8)
    color = image_io.new_image("gray", image_io.encode_png(gray))
    flat = np.full((64, 64, 3), (128, 128, 255), np.uint8)
    normal = image_io.new_image("flat", image_io.encode_png(flat), data=True)
    for image, output in ((color, "image"), (normal, "normal")):
        image[materials.JOB], image[materials.OUTPUT] = "job 0", output
    scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 8, "CPU"
    scene.render.resolution_x = scene.render.resolution_y = 48
    scene.cycles.use_denoising = False

    def rendered(images: dict[str, Any]) -> np.ndarray:
        result_nodes.apply(material, "job 0", "gray", images)
        mapping.set_projection(material, "TRIPLANAR", sphere)
        path = f"{blender.app.tempdir}shade.png"
        scene.render.filepath = path
        blender.ops.render.render(write_still=True)
        return image_io.pixels_of(blender.data.images.load(path), "render").astype(int)

    plain, mapped = rendered({"image": color}), rendered({"image": color, "normal": normal})
    assert np.abs(plain - mapped).mean() < 1.0


def test_a_result_over_a_shared_material_of_a_renamed_object_is_measured(cube: Any) -> None:
    cube.name = "Wall"
    assert materials.user_of(cube.active_material) == cube


def test_the_projection_needs_a_result(cube: Any) -> None:
    import bpy

    assert "No result is applied to the active material" in error_of(bpy.ops.distill.projection, projection="BOX")
