"""Node groups that project an image along the three axes of an object and blend the projections by its normal."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.types import Image, Node, NodeSocket, NodeTree

SHARPNESS = 8.0
"""Default exponent of the weights: at 8, an edge of a cube blends over about a tenth of its bevel."""
BOX_SHARPNESS = 64.0
"""Exponent that leaves almost no blend, as a box projection."""
GROUP = "distill_triplanar"
"""Custom property of these node groups."""
PLANES = (("Y", "Z"), ("X", "Z"), ("X", "Y"))
"""For each axis of projection, the axes that the image's width and height lie along."""


def new_group(image: Image, normal: bool) -> NodeTree:
    """A node group that projects an image by a vector: one unit of the vector is one width of the image.

    With |n| the absolute object-space normal and s the sharpness, the weights of the three projections are
    |n|^s / sum(|n|^s). Colors are mixed by them. Normal maps become object-space normals, encoded as colors, by adding
    their slopes along the axes of each plane to the normal (UDN blending: Barré-Brisebois and Hill, Blending in
    Detail, 2012).

    Inputs of the group: Vector, Sharpness, Aspect (width / height of the image). Output: Color.
    """
    tree = bpy.data.node_groups.new(f"Distill Triplanar {image.name}", "ShaderNodeTree")
    tree[GROUP] = True
    for name, kind in (("Vector", "Vector"), ("Sharpness", "Float"), ("Aspect", "Float")):
        tree.interface.new_socket(name, in_out="INPUT", socket_type=f"NodeSocket{kind}")
    tree.interface.new_socket("Color", in_out="OUTPUT", socket_type="NodeSocketColor")
    given, end = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
    given.location.x, end.location.x = -1500, 1000
    surface = _node(tree, "ShaderNodeTexCoord", -1500, -400).outputs["Normal"]
    place = _node(tree, "ShaderNodeSeparateXYZ", -1300, 0, Vector=given.outputs["Vector"])
    weights = _weights(tree, surface, given.outputs["Sharpness"])
    total: NodeSocket | None = None
    for row, (across, up) in enumerate(PLANES):
        y = 300 - 320 * row
        height = _math(tree, "MULTIPLY", -1100, y, place.outputs[up], given.outputs["Aspect"])
        at = _node(tree, "ShaderNodeCombineXYZ", -900, y, X=place.outputs[across], Y=height)
        texture = _node(tree, "ShaderNodeTexImage", -700, y, Vector=at.outputs[0])
        texture.image = image
        value = texture.outputs["Color"]
        if normal:
            value = _slopes(tree, value, across, up, y)
        scaled = _vector(tree, "SCALE", 100, y, value, Scale=weights[row])
        total = scaled if total is None else _vector(tree, "ADD", 300, y, total, scaled)
    if normal:
        total = _vector(tree, "NORMALIZE", 640, 0, _vector(tree, "ADD", 480, 0, total, surface))
        total = _vector(tree, "MULTIPLY_ADD", 800, 0, total, (0.5,) * 3, (0.5,) * 3)
    tree.links.new(total, end.inputs[0])
    return tree


def set_image(tree: NodeTree, image: Image) -> None:
    """Shows another image in a group."""
    tree.name = f"Distill Triplanar {image.name}"
    for node in tree.nodes:
        if node.type == "TEX_IMAGE":
            node.image = image


def image_of(tree: NodeTree) -> Image | None:
    """The image that a group projects."""
    return next((node.image for node in tree.nodes if node.type == "TEX_IMAGE"), None)


def _weights(tree: NodeTree, normal: NodeSocket, sharpness: NodeSocket) -> list[NodeSocket]:
    """The weight of each of the three projections; their sum is 1."""
    length = _vector(tree, "ABSOLUTE", -1300, -400, normal)
    parts = _node(tree, "ShaderNodeSeparateXYZ", -1100, -600, Vector=length)
    powers = [_math(tree, "POWER", -900, -600 - 180 * i, parts.outputs[i], sharpness) for i in range(3)]
    total = _math(tree, "ADD", -700, -700, _math(tree, "ADD", -720, -900, powers[0], powers[1]), powers[2])
    return [_math(tree, "DIVIDE", -400, -600 - 180 * i, power, total) for i, power in enumerate(powers)]


def _slopes(tree: NodeTree, color: NodeSocket, across: str, up: str, y: float) -> NodeSocket:
    """The slopes of a normal map's color as a vector along the two axes of its plane."""
    slope = _vector(tree, "MULTIPLY_ADD", -400, y, color, (2.0,) * 3, (-1.0,) * 3)
    parts = _node(tree, "ShaderNodeSeparateXYZ", -240, y, Vector=slope)
    return _node(tree, "ShaderNodeCombineXYZ", -80, y, **{across: parts.outputs["X"], up: parts.outputs["Y"]}).outputs[
        0
    ]


def _node(tree: NodeTree, kind: str, x: float, y: float, **inputs: NodeSocket) -> Node:
    node = tree.nodes.new(kind)
    node.location, node.hide = (x, y), kind != "ShaderNodeTexImage"
    for name, socket in inputs.items():
        tree.links.new(socket, node.inputs[name])
    return node


def _math(tree: NodeTree, operation: str, x: float, y: float, *inputs: Any) -> NodeSocket:
    return _operation(tree, "ShaderNodeMath", operation, x, y, inputs).outputs[0]


def _vector(tree: NodeTree, operation: str, x: float, y: float, *inputs: Any, **named: NodeSocket) -> NodeSocket:
    node = _operation(tree, "ShaderNodeVectorMath", operation, x, y, inputs)
    for name, socket in named.items():
        tree.links.new(socket, node.inputs[name])
    return node.outputs["Vector"]


def _operation(tree: NodeTree, kind: str, operation: str, x: float, y: float, inputs: tuple[Any, ...]) -> Node:
    node = _node(tree, kind, x, y)
    node.operation = operation
    for index, value in enumerate(inputs):
        if isinstance(value, NodeSocket):
            tree.links.new(value, node.inputs[index])
        else:
            node.inputs[index].default_value = value
    return node
