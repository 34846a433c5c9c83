"""Test scenes, and functions that run jobs in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np

from blender_addon.scene import image_io, session


def checks(size: int = 64) -> np.ndarray:
    """Pixels (size, size, 3): two flat colors, the left half and the right half, with a bright top row."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[:, : size // 2], pixels[:, size // 2 :] = (120, 60, 30), (60, 140, 50)
    pixels[0] = 250
    return pixels


PNG = image_io.encode_png(checks())
"""A picture as another program uploads it."""


def swatch(name: str = "bricks.png") -> Any:
    """The scene's swatch: a packed image."""
    image = image_io.new_image(name, image_io.encode_png(checks()))
    bpy.context.scene.distill.image_swatch = image
    return image


def content(name: str = "wall.png", size: int = 96) -> Any:
    """The scene's content, for a job that restyles it: a packed image."""
    image = image_io.new_image(name, image_io.encode_png(checks(size)))
    bpy.context.scene.distill.kind = "restyle"
    bpy.context.scene.distill.image_content = image
    return image


def small_output(width: int = 128, height: int = 64, **others: Any) -> None:
    group = bpy.context.scene.distill.parameters_synthesize
    for name, value in {"width": width, "height": height, **others}.items():
        setattr(group, name, value)


def two_regions() -> None:
    bpy.ops.distill.region_add(name="Brick")
    bpy.ops.distill.region_add(name="Moss")


def material_with_image() -> Any:
    """The active object's material, whose base color is an image with texture coordinates."""
    material = bpy.context.active_object.active_material
    if bpy.app.version < (5, 0, 0):
        material.use_nodes = True
    tree = material.node_tree
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = image_io.new_image("old", image_io.encode_png(checks()))
    coordinates = tree.nodes.new("ShaderNodeTexCoord")
    tree.links.new(coordinates.outputs["UV"], node.inputs["Vector"])
    tree.links.new(node.outputs["Color"], tree.nodes["Principled BSDF"].inputs["Base Color"])
    return material


def base_color_node(material: Any) -> Any:
    links = material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].links
    return links[0].from_node if links else None


def make(timeout: float = 60.0) -> Any:
    """Run and wait; returns the image of the result."""
    assert bpy.ops.distill.run() == {"FINISHED"}
    assert bpy.ops.distill.wait(timeout=timeout) == {"FINISHED"}
    return bpy.data.images[bpy.context.scene.distill.last_result]


def newest() -> Any:
    return session.current().of_this_file()[0]


def save_and_reload(path: Path) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    bpy.ops.wm.open_mainfile(filepath=str(path))
