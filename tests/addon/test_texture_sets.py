"""Names of files in downloaded sets of textures, and the set that a file belongs to."""

from __future__ import annotations

import pytest

from blender_addon.scene import texture_sets
from blender_addon.scene.texture_sets import MapFile, find_set

ORM = "ambient_occlusion:R roughness:G metallic:B"

NAMES = [
    # ambientCG
    ("Bricks010_1K-JPG_Color.jpg", "color"),
    ("Bricks010_1K-JPG_NormalGL.jpg", "normal opengl"),
    ("Bricks010_1K-JPG_NormalDX.jpg", "normal directx"),
    ("Bricks010_1K-JPG_Roughness.jpg", "roughness"),
    ("Bricks010_2K-PNG_Displacement.png", "height"),
    ("Bricks010_2K-PNG_AmbientOcclusion.png", "ambient_occlusion"),
    ("Metal007_1K_Metalness.jpg", "metallic"),
    ("Fabric061_4K_Opacity.jpg", "alpha"),
    ("Lava004_1K-JPG_Emission.jpg", "emission"),
    # Poly Haven
    ("castle_brick_02_red_diff_1k.png", "color"),
    ("castle_brick_02_red_nor_gl_4k.exr", "normal opengl"),
    ("castle_brick_02_red_nor_dx_4k.exr", "normal directx"),
    ("castle_brick_02_red_arm_2k.jpg", ORM),
    ("castle_brick_02_red_rough_1k.exr", "roughness"),
    ("castle_brick_02_red_disp_1k.png", "height"),
    ("castle_brick_02_red_ao_1k.jpg", "ambient_occlusion"),
    ("blue_metal_plate_metal_2k.png", "metallic"),
    ("aerial_rocks_04_spec_1k.jpg", ""),
    ("fabric_pattern_05_col_01_1k.png", "color"),
    ("floral_jacquard_coll1_1k.png", None),
    # Quixel
    ("tbkhddog_2K_Albedo.jpg", "color"),
    ("tbkhddog_2K_Normal.jpg", "normal"),
    ("tbkhddog_2K_Displacement.exr", "height"),
    ("tbkhddog_2K_Gloss.jpg", "roughness inverted"),
    ("tbkhddog_2K_Cavity.jpg", ""),
    ("T_Brick_Wall_tbkhddog_2K_B.png", "color"),
    ("T_Brick_Wall_tbkhddog_2K_N.png", "normal"),
    ("T_Brick_Wall_tbkhddog_2K_ORM.png", ORM),
    # textures.com, 3dtextures.me
    ("TexturesCom_Brick_Rustic2_1K_albedo.tif", "color"),
    ("TexturesCom_Brick_Rustic2_1K_ao.tif", "ambient_occlusion"),
    ("TexturesCom_Brick_Rustic2_1K_height.tif", "height"),
    ("Stylized_Stone_Wall_001_basecolor.jpg", "color"),
    ("Stylized_Stone_Wall_001_ambientOcclusion.jpg", "ambient_occlusion"),
    ("Abstract_Organic_003_COLOR.jpg", "color"),
    ("Abstract_Organic_003_NORM.jpg", "normal"),
    ("Abstract_Organic_003_OCC.jpg", "ambient_occlusion"),
    ("Abstract_Organic_003_ROUGH.jpg", "roughness"),
    # Poliigon, FreePBR, cgbookcase, Substance, glTF
    ("BricksReclaimed01_COL_4K.jpg", "color"),
    ("BricksReclaimed01_NRM16_4K.tif", "normal"),
    ("BricksReclaimed01_DISP16_4K.tif", "height"),
    ("BricksReclaimed01_REFL_4K.jpg", ""),
    ("rustediron2_normal-ogl.png", "normal opengl"),
    ("rustediron2_normal-dx.png", "normal directx"),
    ("rustediron2_metallic.png", "metallic"),
    ("Bricks04_2K_BaseColor.png", "color"),
    ("Wall_Base_Color.png", "color"),
    ("Wall_Normal_OpenGL.png", "normal opengl"),
    ("Wall_Normal_DirectX.png", "normal directx"),
    ("Wall_Mixed_AO.png", "ambient_occlusion"),
    ("Wall_OcclusionRoughnessMetallic.png", ORM),
    ("helmet_metallicRoughness.png", "roughness:G metallic:B"),
    ("wall_bump.jpg", "height"),
    # a file of one word
    ("color.jpg", "color"),
    ("normal_gl.jpg", "normal opengl"),
    ("diffuse.png", "color"),
    # no map
    ("IMG_20240501_1024.jpg", None),
    ("DSC01234.JPG", None),
    ("wall_b.png", None),
    ("wall_2.png", None),
    ("4096.png", None),
]


@pytest.mark.parametrize(("file", "expected"), NAMES)
def test_a_file_is_recognized_by_its_name(file: str, expected: str | None) -> None:
    found = texture_sets.recognize(file)
    if expected is None:
        assert found is None
        return
    assert found is not None
    words = [f"{c.map}{'' if c.channel == 'RGB' else f':{c.channel}'}" for c in found.contents]
    words += ["inverted"] * any(c.inverted for c in found.contents)
    words += [found.normal_format] * (found.normal_format != "auto")
    assert " ".join(words) == expected


@pytest.mark.parametrize("name", ["{}_DIFF_2K.PNG", "{}-diff-2k.png", "{} diff 2048.png", "{}.diff.2k.png"])
def test_case_and_separators_do_not_matter(name: str) -> None:
    found = texture_sets.recognize(name.format("Old Wall"))
    assert found is not None
    assert (found.set_name, found.contents[0].map, found.resolution) == ("old wall", "color", 2048)


def test_files_of_one_name_are_a_set() -> None:
    files = [f"Bricks010_1K-JPG_{n}.jpg" for n in ("Color", "NormalDX", "NormalGL", "Roughness", "Displacement")]
    found = find_set(["readme.txt", "Bricks010.blend", *files])
    assert found is not None
    assert (found.name, found.color, found.normal_format) == ("bricks010", files[0], "opengl")
    assert found.maps == {
        "normal": MapFile(files[2]),
        "roughness": MapFile(files[3]),
        "height": MapFile(files[4]),
    }


def test_a_packed_file_is_split_and_gives_way_to_a_file_of_its_own() -> None:
    files = ["wall_diff_1k.jpg", "wall_arm_1k.jpg", "wall_rough_1k.jpg", "wall_spec_1k.jpg"]
    found = find_set(files)
    assert found is not None
    assert found.maps == {
        "roughness": MapFile("wall_rough_1k.jpg"),
        "ambient_occlusion": MapFile("wall_arm_1k.jpg", "R"),
        "metallic": MapFile("wall_arm_1k.jpg", "B"),
    }
    assert found.unused == ("wall_spec_1k.jpg",)


def test_the_resolution_of_the_chosen_file_is_kept() -> None:
    files = [f"wall_{name}_{size}.png" for name in ("diff", "nor_gl") for size in ("1k", "4k")]
    for chosen in ("wall_diff_1k.png", "wall_diff_4k.png"):
        found = find_set(files, chosen)
        assert found is not None
        assert found.color == chosen and found.maps["normal"].file == chosen.replace("diff", "nor_gl")
    largest = find_set(files)
    assert largest is not None and largest.color == "wall_diff_4k.png"


def test_the_chosen_file_decides_between_several_sets() -> None:
    files = ["a_color.png", "a_normal.png", "a_rough.png", "b_color.png", "b_normal.png"]
    largest, chosen = find_set(files), find_set(files, "b_normal.png")
    assert largest is not None and largest.name == "a"
    assert chosen is not None and chosen.color == "b_color.png"


def test_a_directx_normal_map_alone_is_used_as_such() -> None:
    found = find_set(["a_color.png", "a_NormalDX.png"])
    assert found is not None and found.normal_format == "directx" and found.maps["normal"].file == "a_NormalDX.png"


def test_a_color_without_a_word_belongs_to_the_maps_of_its_name() -> None:
    found = find_set(["wall.jpg", "wall_normal.jpg", "door.jpg"], "wall.jpg")
    assert found is not None and found.color == "wall.jpg" and list(found.maps) == ["normal"]
    assert find_set(["wall.jpg", "wall_normal.jpg", "door.jpg"], "door.jpg") is None


def test_maps_without_a_color_are_no_set() -> None:
    assert find_set(["a_normal.png", "a_rough.png"]) is None
    assert find_set([]) is None
