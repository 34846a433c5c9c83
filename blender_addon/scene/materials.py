"""Results in materials: a frame of image nodes beside the existing ones; use a result, restore what it replaced."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import bpy
from bpy.types import Image, Material, Node, NodeLink, NodeSocket, NodeTree, Object

from ..wire.errors import LocalError

PREVIOUS = "distill_previous"
"""Custom property of a material: for each input, the node and the socket (or the value) that a result replaced."""
REPLACED = "distill_replaced"
"""Custom property of a node that a result replaced: its name in PREVIOUS, since the artist may rename it."""
JOB = "distill_job"
"""Custom property of a result's image, and of its frame in a material: the job that made it."""
OUTPUT = "distill_output"
"""Custom property of a result's image, and of its node in a frame: which of the job's pictures it is (`normal`)."""
FEEDS = "distill_feeds"
"""Custom property of a node in a frame: the input and the output socket by which it was connected to the shader."""
INPUTS = {
    "image": "Base Color",
    "normal": "Normal",
    "roughness": "Roughness",
    "metallic": "Metallic",
    "height": "Displacement",
}
"""The input that each picture of a result is connected to; Displacement is the material output's."""
CONVERTERS = {"normal": ("ShaderNodeNormalMap", "Color"), "height": ("ShaderNodeDisplacement", "Height")}
"""The node between an image node and its input, and its socket, for pictures that need one."""
DATA_MAPS = ("normal", "roughness", "metallic", "height")
"""Pictures whose values are not colors."""


def active_material() -> Material | None:
    """The active material of the active object."""
    thing = bpy.context.view_layer.objects.active if bpy.context.view_layer else None
    return thing.active_material if thing else None


def surface_shader(material: Material | None) -> Node | None:
    """The Principled BSDF that the material's output shows, or else the first one."""
    tree = material.node_tree if material else None
    if tree is None:
        return None
    output = tree.get_output_node("ALL")
    if output is not None and (found := _upstream(output.inputs["Surface"], "BSDF_PRINCIPLED")):
        return found
    return next((n for n in tree.nodes if n.type == "BSDF_PRINCIPLED"), None)


def base_color_image(material: Material | None) -> Image | None:
    """The image of the material's base color; the one that was there before, if the material shows a result."""
    shader = surface_shader(material)
    if material is None or shader is None:
        return None
    node = _upstream(shader.inputs["Base Color"], "TEX_IMAGE")
    if node is not None and _is_in_result(node):
        stored = material.get(PREVIOUS, {}).get("Base Color")
        before = _replaced_node(material.node_tree, stored) if stored else None
        node = _find_image_node(before) if before is not None else None
    return node.image if node is not None else None


def can_have_material(thing: Object | None) -> bool:
    """Whether an object has a material or can get one."""
    if thing is None or not hasattr(thing.data, "materials"):
        return False
    return thing.active_material is not None or (thing.library is None and thing.data.library is None)


def ensure_material(thing: Object, name: str) -> Material:
    """The object's active material, or a new one if it has none."""
    if thing.active_material is None:
        thing.active_material = bpy.data.materials.new(name)
        _ensure_tree(thing.active_material)
    return thing.active_material


def _ensure_tree(material: Material) -> None:
    """Gives a material nodes, which every material has since Blender 5.0."""
    if bpy.app.version < (5, 0, 0) and not material.use_nodes:
        material.use_nodes = True


def add_result(material: Material, job: str, title: str, images: Mapping[str, Image], painted: bool = False) -> Node:
    """A frame with an image node for each picture, not connected to the shader; the existing one if there is one.

    A result whose layout was `painted` through the UV map lies there, beside the material's own Mapping node. Raises
    LocalError if the material is linked from another file, since it would not be saved with this one.
    """
    if material.library is not None:
        raise _unusable(material, "is linked from another file; make it local, then apply the result")
    _ensure_tree(material)
    tree = material.node_tree
    frame = frame_of(material, job)
    if frame is not None:
        return frame
    shader = surface_shader(material)
    x = shader.location.x if shader else 0
    y = min((_height(n) for n in tree.nodes if n.type != "FRAME"), default=0) - 380  # below all other nodes
    frame = tree.nodes.new("NodeFrame")
    frame.label, frame.name = f"Distill: {title}", f"Distill {job[:8]}"
    frame[JOB], frame.select = job, False
    coordinates = None if painted else _coordinates(material)  # without a link an image lies on the UV map
    for row, (output, image) in enumerate(images.items()):
        node = tree.nodes.new("ShaderNodeTexImage")
        node.image, node.label, node.parent = image, output.title() if output != "image" else "Base Color", frame
        node.name, node[OUTPUT] = f"{frame.name} {output}", output
        node.location = x - 700, y - (230 + 60 * row if row else 0)
        node.hide, node.select = row > 0, False
        if coordinates is not None:
            tree.links.new(coordinates, node.inputs["Vector"])
        _add_converter(tree, node, output)
    return frame


def frame_of(material: Material, job: str) -> Node | None:
    """The frame of a job's result in the material."""
    return next((n for n in material.node_tree.nodes if n.type == "FRAME" and n.get(JOB) == job), None)


def use_result(material: Material, job: str) -> None:
    """Connects a result's pictures to the shader, in place of another result's, and stores what they replace.

    Nodes that the artist has inserted in the frame stay in effect. Raises LocalError, before anything is changed, if
    the material has no frame of this result, or no node to connect it to.
    """
    frame = frame_of(material, job)
    if frame is None:
        raise _unusable(material, "does not contain this result; apply it from the list of results")
    targets = {name: _input(material, name) for name in (*_outputs_of(material, frame), *material.get(PREVIOUS, {}))}
    _disconnect_result(material)
    for name, output in _outputs_of(material, frame).items():
        _store_previous(material, targets[name])
        material.node_tree.links.new(output, targets[name])


def restore(material: Material) -> None:
    """Connects what was connected before a result was used, except where the artist has changed the link since.

    Raises LocalError, before anything is changed, if nothing was stored or a stored node is no longer there.
    """
    if not material.get(PREVIOUS):
        raise _unusable(material, "has nothing to restore")
    for name, previous in material[PREVIOUS].items():
        needed = "node" in previous and not _is_changed(_input(material, name))
        if needed and _replaced_output(material.node_tree, previous) is None:
            raise _unusable(
                material,
                f"no longer has the node “{previous['node']}” that was connected to {name}; undo its removal, or "
                f"connect another node to {name}",
            )
    _disconnect_result(material)


def _disconnect_result(material: Material) -> None:
    """Connects what results have replaced. What is no longer in the material stays in PREVIOUS."""
    tree = material.node_tree
    stored = {name: dict(previous) for name, previous in material.get(PREVIOUS, {}).items()}
    targets = {name: _input(material, name) for name in stored}
    outputs = {name: _replaced_output(tree, previous) for name, previous in stored.items()}
    lost = {}
    for name, target in targets.items():
        if _is_changed(target):
            continue
        for link in list(target.links):
            _store_output(tree, link, name)
            tree.links.remove(link)
        if (output := outputs[name]) is not None:
            tree.links.new(output, target)
        elif "node" in stored[name]:
            lost[name] = stored[name]
    for node in tree.nodes:
        node.pop(REPLACED, None)
    material.pop(PREVIOUS, None)
    if lost:
        material[PREVIOUS] = lost


def _is_changed(target: NodeSocket) -> bool:
    """Whether the artist has connected an input to something else since a result was used."""
    return bool(target.links) and not _is_in_result(target.links[0].from_node)


def _replaced_node(tree: NodeTree, previous: Mapping[str, Any]) -> Node | None:
    """The node of an entry of PREVIOUS: the marked one, or by its name in files of version 0.1.0."""
    name = previous.get("node", "")
    marked = [n for n in tree.nodes if n.get(REPLACED) == name]  # copies of a node have its mark too
    by_name = tree.nodes.get(name)
    return by_name if by_name in marked or not marked else marked[0]


def _replaced_output(tree: NodeTree, previous: Mapping[str, Any]) -> NodeSocket | None:
    """The output of an entry of PREVIOUS, or None if it is no longer there."""
    node, socket = _replaced_node(tree, previous), previous.get("socket", 0)
    return node.outputs[socket] if node is not None and 0 <= socket < len(node.outputs) else None


def in_use(material: Material | None, job: str) -> bool:
    """Whether the material shows this job's result."""
    shader = surface_shader(material)
    links = shader.inputs["Base Color"].links if shader else ()
    parent = links[0].from_node.parent if links else None
    return parent is not None and parent.get(JOB) == job


def _height(node: Node) -> float:
    """A node's y coordinate in the tree; inside a frame its location is relative to the frame."""
    return float(node.location.y) + (_height(node.parent) if node.parent is not None else 0)


def _is_in_result(node: Node) -> bool:
    return node.parent is not None and JOB in node.parent


def _map_of(node: Node) -> str:
    """Which picture of a result an image node shows. Files of version 0.1.0 have that on the image only."""
    image = getattr(node, "image", None)
    return str(node.get(OUTPUT) or (image.get(OUTPUT, "") if image is not None else ""))


def _outputs_of(material: Material, frame: Node) -> dict[str, NodeSocket]:
    """The output sockets of a frame by the input that they belong to."""
    nodes = [n for n in material.node_tree.nodes if n.parent == frame]
    found = {n[FEEDS]["input"]: n.outputs[n[FEEDS]["socket"]] for n in nodes if FEEDS in n}
    for node in nodes:
        output = _map_of(node)
        if output in INPUTS:
            converter = next((n for n in _following(node) if n.bl_idname == CONVERTERS.get(output, ("",))[0]), node)
            found.setdefault(INPUTS[output], converter.outputs[0])
    return found


def _following(node: Node) -> list[Node]:
    return [link.to_node for output in node.outputs for link in output.links]


def _store_output(tree: NodeTree, link: NodeLink, name: str) -> None:
    """Stores which node of a result's frame was connected to an input: the artist may have inserted nodes."""
    for node in [n for n in tree.nodes if n.parent == link.from_node.parent and n.get(FEEDS, {}).get("input") == name]:
        del node[FEEDS]
    link.from_node[FEEDS] = {"input": name, "socket": list(link.from_node.outputs).index(link.from_socket)}


def _store_previous(material: Material, target: NodeSocket) -> None:
    """Stores what an input is connected to, unless that is a result or something is stored already."""
    stored = {name: dict(previous) for name, previous in material.get(PREVIOUS, {}).items()}
    if target.name in stored:
        return
    link = target.links[0] if target.links else None
    if link is None or _is_in_result(link.from_node):
        stored[target.name] = {"value": "unconnected"}
    else:
        outputs = list(link.from_node.outputs)
        stored[target.name] = {"node": link.from_node.name, "socket": outputs.index(link.from_socket)}
        link.from_node[REPLACED] = link.from_node.name
    material[PREVIOUS] = stored


def _input(material: Material, name: str) -> NodeSocket:
    """The input of that name; raises LocalError if the material does not have its node."""
    if name == "Displacement":
        node, title = material.node_tree.get_output_node("ALL"), "Material Output"
    else:
        node, title = surface_shader(material), "Principled BSDF"
    if node is None:
        raise _unusable(material, f"has no {title}; add one")
    return node.inputs[name]


def _unusable(material: Material, problem: str) -> LocalError:
    return LocalError("invalid-image", f"The material “{material.name}” {problem}")


def _add_converter(tree: NodeTree, node: Node, output: str) -> None:
    """Adds the node that turns a picture into what its input needs, if it needs one."""
    if output not in CONVERTERS:
        return
    kind, socket = CONVERTERS[output]
    converter = tree.nodes.new(kind)
    converter.parent = node.parent
    converter.location = node.location.x + 320, node.location.y
    tree.links.new(node.outputs[0], converter.inputs[socket])


def _coordinates(material: Material) -> NodeSocket | None:
    """The texture coordinates of the material's base color image, for a result to lie the same way."""
    shader = surface_shader(material)
    node = _upstream(shader.inputs["Base Color"], "TEX_IMAGE") if shader else None
    links = node.inputs["Vector"].links if node is not None else ()
    return links[0].from_socket if links else None


def is_mapped(material: Material | None) -> bool:
    """Whether the material's base color image goes through a Mapping node that moves, turns or scales it."""
    shader = surface_shader(material)
    node = _upstream(shader.inputs["Base Color"], "TEX_IMAGE") if shader else None
    mapping = _upstream(node.inputs["Vector"], "MAPPING") if node is not None else None
    if mapping is None:
        return False
    plain = {"Location": (0.0, 0.0, 0.0), "Rotation": (0.0, 0.0, 0.0), "Scale": (1.0, 1.0, 1.0)}
    inputs = [(mapping.inputs[name], value) for name, value in plain.items() if name in mapping.inputs]
    return any(socket.links or tuple(socket.default_value) != value for socket, value in inputs)


def _upstream(socket: NodeSocket, kind: str) -> Node | None:
    """The nearest node of a kind that feeds a socket; image nodes without an image do not count."""
    waiting = deque(link.from_node for link in socket.links)
    seen = set()
    while waiting:
        node = waiting.popleft()
        if node.name in seen:
            continue
        seen.add(node.name)
        if node.type == kind and (kind != "TEX_IMAGE" or node.image is not None):
            return node
        waiting.extend(link.from_node for s in node.inputs for link in s.links)
    return None


def _find_image_node(node: Node) -> Node | None:
    """The node itself if it is an image node with an image, or else the nearest one that feeds it."""
    if node.type == "TEX_IMAGE" and node.image is not None:
        return node
    return next((found for s in node.inputs if (found := _upstream(s, "TEX_IMAGE"))), None)
