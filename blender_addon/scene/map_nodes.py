"""The nodes that turn the maps of a result into what its shader needs, beside one image node for each map.

Ambient occlusion multiplies the base color or goes to glTF's settings group. Height displaces the surface or makes
bumps. Emission gets a strength. Nodes that the artist has connected behind these stay connected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import bpy
from bpy.types import Material, Node, NodeSocket, NodeTree

FEEDS = "distill_feeds"
"""Custom property of a node in a frame: the input and the output socket by which it was connected to the shader."""
ROLE = "distill_role"
"""Custom property of a frame's nodes that show no picture: what they are for (`mapping`, `bump`)."""
HEIGHT = "distill_height"
"""Custom property of a frame: a key of HEIGHTS."""
COARSE = "distill_coarse"
"""Custom property of a frame: whether the mesh has too few faces to be displaced."""
OCCLUSION = "distill_occlusion"
"""Custom property of a frame: a key of OCCLUSIONS."""
DISPLACEMENT = "distill_displacement"
"""Custom property of a material: its displacement method before a result changed it."""
HEIGHTS = {
    "DISPLACEMENT": ("Displacement", "Moves the surface, in Cycles and EEVEE. The mesh needs many faces"),
    "BUMP": ("Bump", "Changes the shading of the surface only, on top of the normal map"),
    "OFF": ("Off", "Not used"),
}
OCCLUSIONS = {
    "MULTIPLY": ("Multiply", "Darkens the base color"),
    "GLTF": ("glTF", "Is connected to the settings group that the glTF exporter reads, and not rendered"),
    "OFF": ("Off", "Not used"),
}
GLTF_GROUP = "glTF Material Output"
"""Name of the node group that Blender's glTF exporter looks for."""
DEPTH = 0.05
"""Depth of the whole range of a height map when it is first shown, as a part of the width of a tile."""
COLUMNS = {
    "coordinates": -1180,
    "mapping": -960,
    "sharpness": -960,
    "picture": -680,
    "converter": -360,
    "stage": -180,
}
"""Where the nodes of a frame are, in relation to the shader's x."""


@dataclass(frozen=True)
class Stage:
    """A node that uses a map.

    Attributes:
        kind: of the node.
        map: the map that it uses.
        takes: its input for the map, by identifier.
        gives: its output, by identifier.
        feeds: the input of the shader or of the material output that it feeds; empty for none.
        after: its input for what fed that input before, by identifier; empty if it takes nothing.
        column: where it is.
    """

    kind: str
    map: str
    takes: str
    gives: str
    feeds: str
    after: str = ""
    column: str = "converter"


STAGES = {
    "occlusion": Stage(
        "ShaderNodeMix", "ambient_occlusion", "B_Color", "Result_Color", "Base Color", "A_Color", "stage"
    ),
    "gltf": Stage("ShaderNodeGroup", "ambient_occlusion", "", "", ""),
    "displacement": Stage("ShaderNodeDisplacement", "height", "Height", "Displacement", "Displacement"),
    "bump": Stage("ShaderNodeBump", "height", "Height", "Normal", "Normal", "Normal", "stage"),
    "strength": Stage("ShaderNodeValue", "emission", "", "Value", "Emission Strength"),
}
"""The nodes by their role."""


def height_of(frame: Node, has_normal: bool) -> str:
    """How a frame uses its height, unless the artist has chosen it: displacement beside a normal map.

    Bumps would make the relief of a normal map twice as strong, and displacement would only deform a coarse mesh.
    """
    fitting = "BUMP" if not has_normal else "OFF" if frame.get(COARSE) else "DISPLACEMENT"
    return str(frame.get(HEIGHT, fitting))


def occlusion_of(frame: Node) -> str:
    """How a frame uses its ambient occlusion."""
    return str(frame.get(OCCLUSION, "MULTIPLY"))


def arrange(material: Material, frame: Node, pictures: Mapping[str, Node]) -> None:
    """Adds the nodes that a frame's pictures need, by name, and removes those that they need no longer.

    The material's displacement method is set where the surface is displaced; `release` sets it back.
    """
    tree = material.node_tree
    height, occlusion = height_of(frame, "normal" in pictures), occlusion_of(frame)
    wanted = {
        "occlusion": occlusion == "MULTIPLY" and "image" in pictures,
        "gltf": occlusion == "GLTF",
        "displacement": height == "DISPLACEMENT",
        "bump": height == "BUMP",
        "strength": True,
    }
    before = {"occlusion": pictures.get("image"), "bump": _converter(pictures.get("normal"))}
    for role, stage in STAGES.items():
        picture = pictures.get(stage.map)
        node = find(tree, frame, role)
        if picture is None or not wanted[role]:
            if node is not None:
                _remove(tree, node, stage)
            continue
        if node is None:
            previous = before.get(role)
            node = _new(tree, frame, role, previous or picture)
            if previous is not None:
                _insert(tree, previous.outputs[0], node, stage)
        takes = node.inputs["Occlusion"] if role == "gltf" else socket_of(node.inputs, stage.takes)
        if takes is not None:
            tree.links.new(picture.outputs[0], takes)
    if height == "DISPLACEMENT" and "height" in pictures:
        material[DISPLACEMENT] = material.displacement_method
        material.displacement_method = "DISPLACEMENT" if "normal" in pictures else "BOTH"


def release(material: Material) -> None:
    """Sets the material's displacement method to what it was before a result was applied."""
    method = material.pop(DISPLACEMENT, None)
    if method is not None:
        material.displacement_method = method


def remove_stages(tree: NodeTree, frame: Node, picture: str) -> None:
    """Removes the nodes that use a map, which is about to be removed."""
    for role, stage in STAGES.items():
        node = find(tree, frame, role)
        if node is not None and stage.map == picture:
            _remove(tree, node, stage)


def outputs_of(tree: NodeTree, frame: Node) -> dict[str, NodeSocket]:
    """The outputs of a frame's nodes of this module, by the input that they feed."""
    found = {}
    for role, stage in STAGES.items():
        node = find(tree, frame, role)
        if node is not None and stage.feeds:
            found[stage.feeds] = socket_of(node.outputs, stage.gives)
    return found


def depth_of(tree: NodeTree, frame: Node) -> NodeSocket | None:
    """The input with the depth of the height map; None if the height is not used."""
    for role, name in (("displacement", "Scale"), ("bump", "Distance")):
        node = find(tree, frame, role)
        if node is not None:
            return node.inputs[name]
    return None


def find(tree: NodeTree, frame: Node, role: str) -> Node | None:
    """The frame's node of a role."""
    return next((n for n in children(tree, frame) if n.get(ROLE) == role), None)


def children(tree: NodeTree, frame: Node) -> list[Node]:
    """The nodes in a frame."""
    return [n for n in tree.nodes if n.parent == frame]


def socket_of(sockets: bpy.types.bpy_prop_collection, identifier: str) -> NodeSocket | None:
    """The socket of an identifier: a Mix node has several of the same name."""
    return next((s for s in sockets if s.identifier == identifier), None)


def role_node(tree: NodeTree, frame: Node, role: str, kind: str, column: str, y: float) -> Node:
    """The frame's node of a role; a new one if there is none."""
    found = find(tree, frame, role)
    if found is None:
        found = tree.nodes.new(kind)
        found.name, found.parent, found.select, found[ROLE] = f"Distill {role}", frame, False, role
        place(found, frame, column, y)
    return found


def place(node: Node, frame: Node, column: str, y: float) -> None:
    """Puts a node in a column of its frame. A frame of an older version has its corner at its first node."""
    if "distill_corner" not in frame:
        nodes = [n for n in children(node.id_data, frame) if n != node]
        first = location(nodes[0]) if nodes else (0.0, 0.0)
        frame["distill_corner"] = [first[0] - COLUMNS["picture"], first[1]]
    left, top = frame["distill_corner"]
    outer = location(frame)
    node.location = left + COLUMNS[column] - outer[0], top + y - outer[1]


def location(node: Node) -> tuple[float, float]:
    """A node's place in the tree; inside a frame its location is relative to the frame."""
    x, y = float(node.location.x), float(node.location.y)
    if node.parent is None:
        return x, y
    outer = location(node.parent)
    return x + outer[0], y + outer[1]


# ---------------------------------------------------------------------------------------------- one node


def _new(tree: NodeTree, frame: Node, role: str, beside: Node) -> Node:
    stage = STAGES[role]
    y = location(beside)[1] - frame["distill_corner"][1]
    node = role_node(tree, frame, role, stage.kind, stage.column, y)
    node.hide = True
    if role == "occlusion":
        node.data_type, node.blend_type, node.label = "RGBA", "MULTIPLY", "Ambient Occlusion"
        socket_of(node.inputs, "Factor_Float").default_value = 1.0  # type: ignore[union-attr]
    elif role == "gltf":
        node.node_tree = _gltf_group()
    elif role == "displacement":
        node.inputs["Midlevel"].default_value, node.inputs["Scale"].default_value = 0.5, DEPTH
    elif role == "bump":
        node.inputs["Distance"].default_value = DEPTH
    elif role == "strength":
        node.label = "Emission Strength"
        node.outputs[0].default_value = 1.0
    return node


def _insert(tree: NodeTree, output: NodeSocket, node: Node, stage: Stage) -> None:
    """Puts a node between an output and all that it is connected to."""
    gives, after = socket_of(node.outputs, stage.gives), socket_of(node.inputs, stage.after)
    for target in [link.to_socket for link in output.links if link.to_node != node]:
        tree.links.new(gives, target)
    tree.links.new(output, after)
    before = output.node
    if before.get(FEEDS, {}).get("input") == stage.feeds:
        node[FEEDS] = {"input": stage.feeds, "socket": list(node.outputs).index(gives)}
        del before[FEEDS]


def _remove(tree: NodeTree, node: Node, stage: Stage) -> None:
    """Removes a node and connects what came before it to what came behind."""
    after = socket_of(node.inputs, stage.after) if stage.after else None
    output = after.links[0].from_socket if after is not None and after.links else None
    if output is not None:
        for target in [link.to_socket for socket in node.outputs for link in socket.links]:
            tree.links.new(output, target)
        if FEEDS in node:
            output.node[FEEDS] = {"input": stage.feeds, "socket": list(output.node.outputs).index(output)}
    tree.nodes.remove(node)


def _converter(picture: Node | None) -> Node | None:
    """The Normal Map node behind a normal map."""
    if picture is None:
        return None
    links = picture.outputs[0].links
    return next((link.to_node for link in links if link.to_node.type == "NORMAL_MAP"), picture)


def _gltf_group() -> NodeTree:
    """The node group with the settings that the glTF exporter reads; a new one if the file has none."""
    found = bpy.data.node_groups.get(GLTF_GROUP)
    if found is None:
        found = bpy.data.node_groups.new(GLTF_GROUP, "ShaderNodeTree")
        found.nodes.new("NodeGroupInput")
    if "Occlusion" not in found.interface.items_tree:
        found.interface.new_socket("Occlusion", in_out="INPUT", socket_type="NodeSocketFloat")
    return found
