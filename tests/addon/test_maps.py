"""Maps of a swatch: from materials and files, sent with a job, shown in a material, and taken back."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_addon.scene import image_io, map_nodes, map_sources, maps, materials, requests, result_nodes, results
from tests.addon import scenes
from tests.addon.conftest import LiveService, error_of

Start = Callable[..., LiveService]
SIZE = 64


def ramp(seed: int = 0, channels: int = 3) -> np.ndarray:
    """Pixels (SIZE, SIZE, channels) that all differ between seeds, the channels too."""
    y, x = np.mgrid[:SIZE, :SIZE]
    planes = [(x * (3 + seed) + y * (1 + channel) * 2) % 256 for channel in range(channels)]
    return np.stack(planes, -1).astype(np.uint8)


def image(name: str, pixels: np.ndarray | None = None, data: bool = True) -> Any:
    return image_io.new_image(name, image_io.encode_png(ramp() if pixels is None else pixels), data)


def decoded(png: bytes) -> np.ndarray:
    """The values of a PNG file as the add-on writes it: rows without a filter."""
    width, height, depth, color = struct.unpack(">IIBB", png[16:26])
    channels = {0: 1, 2: 3, 6: 4}[color]
    parts, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            parts.append(png[at + 8 : at + 8 + length])
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(b"".join(parts)), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    values = np.ascontiguousarray(rows[:, 1:]).view(">u2" if depth == 16 else np.uint8)
    return values.reshape(height, width, channels)


def whole_material() -> dict[str, Any]:
    """The active material as artists and downloads build it; returns its images by map."""
    import bpy

    material = bpy.context.active_object.active_material
    materials.ensure_tree(material)
    tree, nodes = material.node_tree, material.node_tree.nodes
    shader, output = nodes["Principled BSDF"], tree.get_output_node("ALL")
    images = {"color": image("wall_diff", ramp(1), data=False), "orm": image("wall_arm", ramp(2))}
    images |= {"normal": image("wall_nor_gl", ramp(3)), "height": image("wall_disp", ramp(4)[..., :1].repeat(3, 2))}

    def add(kind: str, **values: Any) -> Any:
        node = nodes.new(kind)
        for name, value in values.items():
            setattr(node, name, value)
        return node

    def link(a: Any, b: Any) -> None:
        tree.links.new(a, b)

    pictures = {name: add("ShaderNodeTexImage", image=picture) for name, picture in images.items()}
    split = add("ShaderNodeSeparateColor")
    link(pictures["orm"].outputs["Color"], split.inputs[0])
    mix = add("ShaderNodeMix", data_type="RGBA", blend_type="MULTIPLY")
    link(pictures["color"].outputs["Color"], map_nodes.socket_of(mix.inputs, "A_Color"))
    link(split.outputs[0], map_nodes.socket_of(mix.inputs, "B_Color"))
    link(map_nodes.socket_of(mix.outputs, "Result_Color"), shader.inputs["Base Color"])
    link(split.outputs[1], shader.inputs["Roughness"])
    link(split.outputs[2], shader.inputs["Metallic"])
    normal = add("ShaderNodeNormalMap")
    link(pictures["normal"].outputs["Color"], normal.inputs["Color"])
    link(normal.outputs[0], shader.inputs["Normal"])
    displacement = add("ShaderNodeDisplacement")
    link(pictures["height"].outputs["Color"], displacement.inputs["Height"])
    link(displacement.outputs[0], output.inputs["Displacement"])
    link(pictures["color"].outputs["Alpha"], shader.inputs["Alpha"])
    return images


def found_in_material() -> dict[str, tuple[str, str, bool]]:
    found = map_sources.of_material(materials.active_material())
    assert found is not None
    return {name: (item.image.name, item.channel, item.inverted) for name, item in found.maps.items()}


# ---------------------------------------------------------------------------------------------- from a material


def test_every_image_of_a_material_is_found_with_its_channel(blender: Any) -> None:
    whole_material()
    found = map_sources.of_material(materials.active_material())
    assert found is not None and found.color.name == "wall_diff" and found.normal_format == "opengl"
    assert found_in_material() == {
        "ambient_occlusion": ("wall_arm", "R", False),
        "roughness": ("wall_arm", "G", False),
        "metallic": ("wall_arm", "B", False),
        "normal": ("wall_nor_gl", "RGB", False),
        "height": ("wall_disp", "RGB", False),
        "alpha": ("wall_diff", "A", False),
    }
    assert found.notes == ()


def test_from_material_takes_the_maps_too_and_another_swatch_drops_them(blender: Any) -> None:
    whole_material()
    settings = blender.context.scene.distill
    assert blender.ops.distill.picture_from_material() == {"FINISHED"}
    assert settings.image_swatch.name == "wall_diff" and len(settings.maps) == 6
    from blender_addon.scene import session

    session.pump()
    assert len(settings.maps) == 6
    settings.image_swatch = image("another", data=False)
    session.pump()
    assert len(settings.maps) == 0


def test_a_height_behind_a_bump_node_and_an_inverted_gloss_map_are_found(blender: Any) -> None:
    material = scenes.material_with_image()
    tree = material.node_tree
    shader = tree.nodes["Principled BSDF"]
    height, gloss = (tree.nodes.new("ShaderNodeTexImage") for _ in range(2))
    height.image, gloss.image = image("h"), image("g")
    bump, invert = tree.nodes.new("ShaderNodeBump"), tree.nodes.new("ShaderNodeInvert")
    tree.links.new(height.outputs[0], bump.inputs["Height"])
    tree.links.new(bump.outputs[0], shader.inputs["Normal"])
    tree.links.new(gloss.outputs[0], invert.inputs["Color"])
    tree.links.new(invert.outputs[0], shader.inputs["Roughness"])
    assert found_in_material() == {"roughness": ("g", "RGB", True), "height": ("h", "RGB", False)}


def test_a_normal_map_whose_green_is_inverted_by_nodes_is_directx(blender: Any) -> None:
    material = scenes.material_with_image()
    tree = material.node_tree
    texture, split = tree.nodes.new("ShaderNodeTexImage"), tree.nodes.new("ShaderNodeSeparateColor")
    join, flip = tree.nodes.new("ShaderNodeCombineColor"), tree.nodes.new("ShaderNodeMath")
    texture.image, flip.operation = image("bump map"), "SUBTRACT"
    flip.inputs[0].default_value = 1.0
    normal = tree.nodes.new("ShaderNodeNormalMap")
    tree.links.new(texture.outputs[0], split.inputs[0])
    tree.links.new(split.outputs[0], join.inputs[0])
    tree.links.new(split.outputs[1], flip.inputs[1])
    tree.links.new(flip.outputs[0], join.inputs[1])
    tree.links.new(split.outputs[2], join.inputs[2])
    tree.links.new(join.outputs[0], normal.inputs["Color"])
    tree.links.new(normal.outputs[0], tree.nodes["Principled BSDF"].inputs["Normal"])
    found = map_sources.of_material(material)
    assert found is not None and found.normal_format == "directx"
    assert found_in_material() == {"normal": ("bump map", "RGB", False)}


def test_images_in_node_groups_are_found(blender: Any) -> None:
    import bpy

    material = scenes.material_with_image()
    group = bpy.data.node_groups.new("Wall", "ShaderNodeTree")
    group.interface.new_socket("Roughness", in_out="OUTPUT", socket_type="NodeSocketFloat")
    texture, end = group.nodes.new("ShaderNodeTexImage"), group.nodes.new("NodeGroupOutput")
    texture.image = image("inside")
    group.links.new(texture.outputs[0], end.inputs[0])
    node = material.node_tree.nodes.new("ShaderNodeGroup")
    node.node_tree = group
    material.node_tree.links.new(node.outputs[0], material.node_tree.nodes["Principled BSDF"].inputs["Roughness"])
    assert found_in_material() == {"roughness": ("inside", "RGB", False)}


def test_nodes_that_change_values_are_named_in_a_note(blender: Any) -> None:
    material = scenes.material_with_image()
    tree = material.node_tree
    texture, curve = tree.nodes.new("ShaderNodeTexImage"), tree.nodes.new("ShaderNodeValToRGB")
    texture.image = image("rough")
    tree.links.new(texture.outputs[0], curve.inputs[0])
    tree.links.new(curve.outputs[0], tree.nodes["Principled BSDF"].inputs["Roughness"])
    found = map_sources.of_material(material)
    assert found is not None
    assert [note.split("“")[0] for note in found.notes] == ["The roughness map passes through "]


def test_maps_without_usable_pixels_are_left_out_with_a_sentence(blender: Any, tmp_path: Path) -> None:
    import bpy

    material = scenes.material_with_image()
    tree = material.node_tree
    for name, socket in (("missing", "Roughness"), ("tiled", "Metallic")):
        node = tree.nodes.new("ShaderNodeTexImage")
        node.image = bpy.data.images.new(name, 8, 8)
        tree.links.new(node.outputs[0], tree.nodes["Principled BSDF"].inputs[socket])
    bpy.data.images["missing"].filepath = str(tmp_path / "gone.png")
    bpy.data.images["missing"].source = "FILE"
    bpy.data.images["tiled"].source = "TILED"
    found = map_sources.of_material(material)
    assert found is not None and found.maps == {}
    roughness, metallic = found.notes
    assert "“missing” has no pixels: its file" in roughness and "UDIM" in metallic


def test_a_material_that_shows_a_result_gives_its_original_maps(service: LiveService, blender: Any) -> None:
    whole_material()
    before = found_in_material()
    blender.ops.distill.picture_from_material()
    scenes.small_output(64, 64)
    scenes.make()
    assert result_nodes.shown_job(materials.active_material())
    assert found_in_material() == before


# ---------------------------------------------------------------------------------------------- from files


def write_set(folder: Path, names: dict[str, np.ndarray]) -> None:
    for name, pixels in names.items():
        (folder / name).write_bytes(image_io.encode_png(pixels))


def test_opening_a_file_of_a_set_opens_the_set(blender: Any, tmp_path: Path) -> None:
    write_set(
        tmp_path, {"Wall_Color.png": ramp(1), "Wall_NormalDX.png": ramp(2), "Wall_ORM.png": ramp(3), "a.png": ramp()}
    )
    settings = blender.context.scene.distill
    assert blender.ops.distill.picture_from_file(filepath=str(tmp_path / "Wall_Color.png")) == {"FINISHED"}
    assert settings.image_swatch.name == "Wall_Color.png"
    assert {m.name: (m.image.name, m.channel) for m in settings.maps} == {
        "normal": ("Wall_NormalDX.png", "RGB"),
        "ambient_occlusion": ("Wall_ORM.png", "R"),
        "roughness": ("Wall_ORM.png", "G"),
        "metallic": ("Wall_ORM.png", "B"),
    }
    assert settings.maps["normal"].image.colorspace_settings.name == "Non-Color"
    assert settings.parameters_synthesize.normal_format == settings.parameters_restyle.normal_format == "directx"
    blender.ops.distill.picture_from_file(filepath=str(tmp_path / "a.png"))
    assert settings.image_swatch.name == "a.png" and len(settings.maps) == 0


def test_a_folder_of_a_set_is_opened(blender: Any, tmp_path: Path) -> None:
    write_set(tmp_path, {"wall_diff_1k.png": ramp(1), "wall_rough_1k.png": ramp(2)})
    settings = blender.context.scene.distill
    assert blender.ops.distill.maps_from_folder(directory=str(tmp_path)) == {"FINISHED"}
    assert settings.image_swatch.name == "wall_diff_1k.png" and [m.name for m in settings.maps] == ["roughness"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "No file in" in error_of(blender.ops.distill.maps_from_folder, directory=str(empty))


def test_the_maps_beside_the_swatch_are_found(blender: Any, tmp_path: Path) -> None:
    import bpy

    write_set(tmp_path, {"wall_diff_1k.png": ramp(1), "wall_nor_gl_1k.png": ramp(2)})
    settings = blender.context.scene.distill
    settings.image_swatch = bpy.data.images.load(str(tmp_path / "wall_diff_1k.png"))
    assert blender.ops.distill.maps_find() == {"FINISHED"}
    assert [m.name for m in settings.maps] == ["normal"]
    settings.image_swatch = image("packed", data=False)
    assert not blender.ops.distill.maps_find.poll()


# ---------------------------------------------------------------------------------------------- sent with a job


def test_a_file_is_sent_as_it_is_and_a_channel_as_gray(blender: Any) -> None:
    packed = image("orm", ramp(2))
    assert image_io.data_source_of(packed, "map")() == bytes(packed.packed_file.data)
    green = decoded(image_io.data_source_of(packed, "map", "G")())
    assert green.shape == (SIZE, SIZE, 1)
    np.testing.assert_array_equal(green[..., 0], ramp(2)[..., 1])
    inverted = decoded(image_io.data_source_of(packed, "map", "B", inverted=True)())
    np.testing.assert_array_equal(inverted[..., 0], 255 - ramp(2)[..., 2])


@pytest.mark.parametrize("colorspace", ["Non-Color", "sRGB"])
def test_sixteen_bits_keep_their_values_whatever_the_color_space(blender: Any, colorspace: str) -> None:
    values = (np.arange(SIZE * SIZE * 3, dtype=np.uint16) * 5 + 7).reshape(SIZE, SIZE, 3)
    deep = image_io.new_image("deep", image_io.encode_png(values), data=True)
    deep.colorspace_settings.name = colorspace
    assert deep.is_float
    sent = decoded(image_io.data_source_of(deep, "map", "R")())
    assert sent.dtype == np.dtype(">u2")
    assert np.abs(sent[..., 0].astype(int) - values[..., 0]).max() <= 1


def test_painted_values_are_sent_without_a_color_conversion(blender: Any) -> None:
    import bpy

    painted = bpy.data.images.new("painted", 32, 32, float_buffer=True, is_data=True)
    values = np.full((32, 32, 4), 0.25, np.float32)
    painted.pixels.foreach_set(values.ravel())
    sent = decoded(image_io.data_source_of(painted, "map")())
    assert np.unique(sent).tolist() == [16384]


def test_all_maps_are_inputs_of_the_job(blender: Any) -> None:
    whole_material()
    blender.ops.distill.picture_from_material()
    (draft,) = requests.drafts(blender.context.scene)
    names = {"normal", "roughness", "metallic", "height", "ambient_occlusion", "alpha"}
    assert set(draft.pictures) == {"swatch"} | {f"map:{name}" for name in names}
    assert draft.sources["map:metallic"] == "wall_arm"
    np.testing.assert_array_equal(decoded(draft.pictures["map:metallic"]())[..., 0], ramp(2)[..., 2])
    assert np.unique(decoded(draft.pictures["map:alpha"]())).tolist() == [255]


def test_a_map_without_an_image_is_not_sent(blender: Any) -> None:
    scenes.swatch()
    blender.ops.distill.map_add(name="wear")
    (draft,) = requests.drafts(blender.context.scene)
    assert set(draft.pictures) == {"swatch"}
    assert "no name of a map" in error_of(blender.ops.distill.map_add, name="Wärme!")
    blender.ops.distill.map_remove()
    assert not blender.ops.distill.map_remove.poll()


def test_a_map_of_another_shape_is_named_in_the_panel(blender: Any) -> None:
    scenes.swatch()
    settings = blender.context.scene.distill
    maps.add(blender.context.scene, "normal", image("wide", np.zeros((32, 64, 3), np.uint8)))
    assert settings.image_swatch.pixels[0] >= 0 and settings.maps["normal"].image.pixels[0] >= 0  # both are read
    assert maps.problems(settings) == ["Normal is 64 x 32, another shape than the swatch’s 64 x 64"]


# ---------------------------------------------------------------------------------------------- the result


@pytest.fixture
def made(service: LiveService, blender: Any) -> Any:
    """A result with the maps of `whole_material`, on the active material."""
    whole_material()
    blender.context.active_object.modifiers.new("Subdivision", "SUBSURF")
    blender.ops.distill.picture_from_material()
    scenes.small_output(64, 64)
    scenes.make()
    return materials.active_material()


def fed_by(material: Any, name: str) -> Any:
    """The node that feeds an input of the shader, or of the material output."""
    socket = materials.input_of(material, name)
    return socket.links[0].from_node if socket is not None and socket.links else None


def test_a_result_shows_every_map_in_one_frame(made: Any) -> None:
    frame = result_nodes.connected_frame(made)
    pictures = result_nodes.picture_nodes(made.node_tree, frame)
    assert list(pictures) == ["image", "normal", "roughness", "metallic", "height", "ambient_occlusion", "alpha"]
    for name, node in pictures.items():
        assert node.image.colorspace_settings.name == ("sRGB" if name == "image" else "Non-Color")
        assert node.inputs["Vector"].links[0].from_node.type == "MAPPING"
    assert fed_by(made, "Roughness") == pictures["roughness"]
    assert fed_by(made, "Metallic") == pictures["metallic"]
    assert fed_by(made, "Alpha") == pictures["alpha"]
    mix = fed_by(made, "Base Color")
    assert (mix.type, mix.blend_type) == ("MIX", "MULTIPLY")
    assert map_nodes.socket_of(mix.inputs, "A_Color").links[0].from_node == pictures["image"]
    assert map_nodes.socket_of(mix.inputs, "B_Color").links[0].from_node == pictures["ambient_occlusion"]
    assert fed_by(made, "Normal").inputs["Color"].links[0].from_node == pictures["normal"]
    assert fed_by(made, "Displacement").inputs["Height"].links[0].from_node == pictures["height"]
    assert made.displacement_method == "DISPLACEMENT"


def test_maps_of_a_result_are_the_swatchs_in_the_same_places(made: Any) -> None:
    found = results.images_of(scenes.newest().job)
    roughness = image_io.copy_values(found["roughness"])()
    np.testing.assert_allclose(roughness[..., 0] * 255, ramp(2)[..., 1], atol=0.5)
    assert {name: i[results.ORIGIN] for name, i in found.items() if name != "image"} == dict.fromkeys(
        ("normal", "roughness", "metallic", "height", "ambient_occlusion", "alpha"), "followed"
    )


def test_restore_and_apply_switch_the_whole_set(made: Any, blender: Any) -> None:
    names = ("Base Color", "Normal", "Roughness", "Metallic", "Alpha", "Displacement")
    blender.ops.distill.restore_previous()
    restored = {name: fed_by(made, name) for name in names}
    assert all(node is not None and not materials.is_in_result(node) for node in restored.values())
    assert made.displacement_method == "BUMP"
    blender.ops.distill.use_result()
    assert all(materials.is_in_result(fed_by(made, name)) for name in names)
    assert made.displacement_method == "DISPLACEMENT"


def test_a_result_without_maps_gives_the_original_maps_back(made: Any, blender: Any) -> None:
    before = scenes.newest().job
    blender.context.scene.distill.maps.clear()
    scenes.make()
    assert list(result_nodes.picture_nodes(made.node_tree, result_nodes.connected_frame(made))) == ["image"]
    assert not materials.is_in_result(fed_by(made, "Roughness"))
    blender.ops.distill.use_result(job=before)
    assert materials.is_in_result(fed_by(made, "Roughness")) and fed_by(made, "Base Color").type == "MIX"


def test_height_makes_bumps_on_top_of_the_normal_map_or_nothing(made: Any, blender: Any) -> None:
    blender.ops.distill.use_height(use="BUMP")
    bump = fed_by(made, "Normal")
    assert bump.type == "BUMP" and bump.inputs["Normal"].links[0].from_node.type == "NORMAL_MAP"
    assert not materials.is_in_result(fed_by(made, "Displacement")) and made.displacement_method == "BUMP"
    blender.ops.distill.use_height(use="OFF")
    assert fed_by(made, "Normal").type == "NORMAL_MAP"
    blender.ops.distill.use_height(use="DISPLACEMENT")
    assert materials.is_in_result(fed_by(made, "Displacement"))


def test_a_coarse_mesh_is_not_deformed(made: Any, blender: Any) -> None:
    blender.context.active_object.modifiers.clear()
    blender.ops.distill.use_result()
    assert not materials.is_in_result(fed_by(made, "Displacement")) and made.displacement_method == "BUMP"
    assert fed_by(made, "Normal").type == "NORMAL_MAP"
    blender.ops.distill.use_height(use="DISPLACEMENT")
    assert materials.is_in_result(fed_by(made, "Displacement")), "the artist may choose it"


def test_a_height_without_a_normal_map_makes_bumps(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    maps.add(blender.context.scene, "height", image("h"))
    scenes.small_output(64, 64)
    scenes.make()
    assert fed_by(materials.active_material(), "Normal").type == "BUMP"
    blender.ops.distill.restore_previous()
    assert fed_by(materials.active_material(), "Normal") is None


def test_the_depth_is_a_part_of_the_width_of_a_tile(made: Any, blender: Any) -> None:
    from blender_addon.scene import mapping

    thing = blender.context.active_object
    width = mapping.tile_width(made, mapping.surface_of(thing))
    depth = map_nodes.depth_of(made.node_tree, result_nodes.connected_frame(made))
    assert depth.default_value == pytest.approx(map_nodes.DEPTH * width, rel=1e-3)
    blender.ops.distill.repeats(factor=2.0)
    depth = map_nodes.depth_of(made.node_tree, result_nodes.connected_frame(made))
    assert depth.default_value == pytest.approx(map_nodes.DEPTH * width / 2, rel=1e-3)


def test_occlusion_goes_to_the_group_of_the_gltf_exporter(made: Any, blender: Any) -> None:
    blender.ops.distill.use_occlusion(use="GLTF")
    assert fed_by(made, "Base Color").type == "TEX_IMAGE"
    (group,) = [n for n in made.node_tree.nodes if n.type == "GROUP"]
    assert group.node_tree.name == "glTF Material Output"
    assert (
        group.inputs["Occlusion"].links[0].from_node.image
        == results.images_of(scenes.newest().job)["ambient_occlusion"]
    )
    assert map_sources.of_material(made) is not None
    blender.ops.distill.use_occlusion(use="MULTIPLY")
    assert fed_by(made, "Base Color").type == "MIX"
    assert not [n for n in made.node_tree.nodes if n.type == "GROUP"]


def test_nodes_that_the_artist_inserts_behind_the_color_stay_with_the_occlusion(made: Any, blender: Any) -> None:
    tree = made.node_tree
    adjust = tree.nodes.new("ShaderNodeHueSaturation")
    adjust.parent = result_nodes.connected_frame(made)
    tree.links.new(map_nodes.socket_of(fed_by(made, "Base Color").outputs, "Result_Color"), adjust.inputs["Color"])
    tree.links.new(adjust.outputs[0], materials.input_of(made, "Base Color"))
    blender.ops.distill.use_occlusion(use="OFF")
    assert fed_by(made, "Base Color").type == "HUE_SAT"
    assert adjust.inputs["Color"].links[0].from_node.type == "TEX_IMAGE"
    blender.ops.distill.use_occlusion(use="MULTIPLY")
    assert fed_by(made, "Base Color").type == "HUE_SAT"
    assert adjust.inputs["Color"].links[0].from_node.type == "MIX"


@pytest.mark.parametrize("projection", ["BOX", "TRIPLANAR"])
def test_every_map_is_projected(made: Any, blender: Any, projection: str) -> None:
    blender.ops.distill.projection(projection=projection)
    pictures = result_nodes.picture_nodes(made.node_tree, result_nodes.connected_frame(made))
    assert len(pictures) == 7
    for name, node in pictures.items():
        grouped = projection == "TRIPLANAR" or name == "normal"
        assert (node.type == "GROUP") == grouped
    assert fed_by(made, "Base Color").type == "MIX"
    assert fed_by(made, "Displacement").inputs["Height"].links[0].from_node == pictures["height"]
    blender.ops.distill.projection(projection="UV")
    assert fed_by(made, "Roughness").type == "TEX_IMAGE"


def test_emission_gets_a_strength_and_loses_it(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    maps.add(blender.context.scene, "emission", image("lava", data=False))
    scenes.small_output(64, 64)
    scenes.make()
    material = materials.active_material()
    assert fed_by(material, "Emission Color").image.colorspace_settings.name == "sRGB"
    assert fed_by(material, "Emission Strength").outputs[0].default_value == 1.0
    blender.ops.distill.restore_previous()
    assert fed_by(material, "Emission Color") is None and fed_by(material, "Emission Strength") is None


def test_a_map_of_another_name_is_in_the_frame_and_connected_to_nothing(service: LiveService, blender: Any) -> None:
    scenes.swatch()
    maps.add(blender.context.scene, "wear_2", image("wear"))
    scenes.small_output(64, 64)
    scenes.make()
    material = materials.active_material()
    node = result_nodes.picture_nodes(material.node_tree, result_nodes.connected_frame(material))["wear_2"]
    assert node.label == "Wear 2" and not node.outputs[0].links


def test_a_set_is_one_result_and_deleted_as_one(made: Any, blender: Any) -> None:
    job = scenes.newest().job
    assert len(results.all_results()) == 1 and len(results.images_of(job)) == 7
    blender.ops.distill.delete_result(job=job, in_use=True)
    assert results.images_of(job) == {}


def test_again_exactly_brings_the_maps_back(made: Any, blender: Any) -> None:
    settings = blender.context.scene.distill
    before = {m.name: (m.image.name, m.channel) for m in settings.maps}
    job = scenes.newest()
    scenes.swatch("other")
    from blender_addon.scene import session
    from tests.addon.conftest import pump_until

    session.pump()
    assert len(settings.maps) == 0
    blender.ops.distill.again_exactly(job=job.job)
    pump_until(lambda: not session.current().is_recalling)
    assert session.current().error is None
    assert settings.image_swatch.name == "wall_diff"
    assert {m.name for m in settings.maps} == set(before)
    (draft,) = requests.drafts(blender.context.scene)
    np.testing.assert_array_equal(decoded(draft.pictures["map:metallic"]())[..., 0], ramp(2)[..., 2])


def test_maps_of_the_swatch_are_saved_with_the_file(blender: Any, tmp_path: Path) -> None:
    import bpy

    scenes.swatch()
    painted = bpy.data.images.new("painted", 32, 32)
    painted.pixels.foreach_set(np.full(32 * 32 * 4, 0.5, np.float32))
    maps.add(blender.context.scene, "roughness", painted)
    scenes.save_and_reload(tmp_path / "saved.blend")
    (item,) = bpy.context.scene.distill.maps
    assert item.name == "roughness" and item.image.pixels[0] == pytest.approx(0.5, abs=0.01)
