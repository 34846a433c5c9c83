"""Steps with the maps of a material: the sections Maps, Surface and Edit, and the frame in the Shader Editor."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np

from blender_addon.scene import image_io, map_nodes, materials, painting, result_nodes, results
from tests.addon import scenes
from tests.window import interface
from tests.window.interface import Steps, area, operate, redo, screenshot, show_tab, stroke, undo, within
from tests.window.steps.jobs import newest, until_imported
from tests.window.steps.panels import widen
from tests.window.steps.states import shown_in_editor


def write_set(folder: Path) -> Path:
    """A set of textures in a folder: the swatch of the tests with a normal, a packed and a height map."""
    checks = scenes.checks()
    flat = np.full((64, 64, 3), (128, 128, 255), np.uint8)
    packed = np.stack([np.full((64, 64), v, np.uint8) for v in (255, 180, 0)], -1)
    for name, pixels in (("diff", checks), ("nor_gl", flat), ("arm", packed), ("disp", checks[..., :1].repeat(3, 2))):
        (folder / f"wall_{name}_1k.png").write_bytes(image_io.encode_png(np.ascontiguousarray(pixels)))
    return folder / "wall_diff_1k.png"


def made(left: str, *sections: str) -> Steps:
    """A set is opened, and a result with its maps is on the cube; the Distill tab shows sections, and `left` is a kind
    of editor beside the 3D View."""
    interface.open_sections(sections)
    interface.close_others("VIEW_3D")
    yield 0.5
    interface.split(area("VIEW_3D"), left, 0.6)
    yield from show_tab(area("VIEW_3D"))
    yield from widen(area("VIEW_3D"), 300)
    operate("distill.drop_swatch", area("VIEW_3D"), filepath=str(write_set(interface.folder)))
    yield 1.0
    scenes.small_output(512, 512)
    operate("distill.run", area("VIEW_3D"))
    yield from until_imported()
    area(left).spaces.active.show_region_ui = False
    yield 0.5


def whole_material() -> Steps:
    """The uses of height and occlusion are chosen in the panel, undone and done again."""
    yield from made("NODE_EDITOR", "Mapping", "Surface")
    with within(area("NODE_EDITOR")):
        bpy.ops.node.view_all()
    yield 1.5
    operate("distill.use_height", area("VIEW_3D"), use="DISPLACEMENT")
    yield 0.5
    material = materials.active_material()
    assert material is not None and len(results.images_of(newest().job)) == 6
    screenshot("displaced")
    operate("distill.use_height", area("VIEW_3D"), use="BUMP")
    yield 1.0
    frame = result_nodes.connected_frame(material)
    assert map_nodes.height_of(frame, True) == "BUMP"
    screenshot("bumps")
    yield from undo(area("VIEW_3D"))
    material = materials.active_material()
    frame = result_nodes.connected_frame(material)
    assert map_nodes.height_of(frame, True) == "DISPLACEMENT" and material.displacement_method == "DISPLACEMENT"
    yield from redo(area("VIEW_3D"))
    material = materials.active_material()
    assert map_nodes.height_of(result_nodes.connected_frame(material), True) == "BUMP"
    operate("distill.use_occlusion", area("VIEW_3D"), use="GLTF")
    operate("distill.restore_previous", area("VIEW_3D"))
    yield 1.0
    operate("distill.use_result", area("VIEW_3D"))
    yield 1.0
    operate("distill.show_result", area("VIEW_3D"), picture="normal")
    yield 0.5


def mask_is_painted() -> Steps:
    """A stroke in the Image Editor paints the mask over the picture; undo takes it back; the edit changes that part."""
    yield from made("IMAGE_EDITOR", "Edit")
    settings = bpy.context.scene.distill
    settings.edit = "repaint"
    operate("distill.mask_paint", area("VIEW_3D"))
    editor = area("IMAGE_EDITOR")
    yield from shown_in_editor(settings.image_mask)
    painting.unified_settings(bpy.context).size = 30
    assert white_share() == 0
    yield from stroke(editor, 300)
    painted = white_share()
    screenshot("mask")
    assert 0.01 < painted < 0.5, painted
    yield from undo(editor)
    assert white_share() == 0
    yield from redo(editor)
    assert white_share() == painted
    before = newest().job
    operate("distill.edit", area("VIEW_3D"))
    yield from until_imported()
    job = newest().job
    assert job != before and result_nodes.in_use(materials.active_material(), job)
    pixels = image_io.pixels_of(results.image_of(job), "result")[..., :3]
    assert abs((pixels.max(2) == 0).mean() - painted) < 0.01
    yield 1.0
    screenshot("repainted")


def white_share() -> float:
    """The part of the mask that is white."""
    levels = image_io.pixels_of(bpy.context.scene.distill.image_mask, "mask")[..., 0]
    return float((levels > 127).mean())
