"""The nodes of a result in a material: one frame beside the artist's nodes; apply a result, restore what it replaced.

A frame has texture coordinates, a Mapping node, an image node (or a triplanar group) for each picture, and the nodes
that turn a picture into what its input needs (see `map_nodes`). Another result shows its images in the same nodes.
Frames of version 0.1.0 and 0.2.0, one for each result and without a Mapping node, are used in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import bpy
from bpy.types import Image, Material, Node, NodeLink, NodeSocket, NodeTree

from .. import wire
from . import map_nodes, triplanar
from .image_io import size_of
from .map_nodes import FEEDS, ROLE, children, location, place, role_node
from .materials import (
    JOB,
    OUTPUT,
    PREVIOUS,
    REPLACED,
    ensure_tree,
    input_of,
    is_in_result,
    original_coordinates,
    replaced_node,
    surface_shader,
    unusable,
)

PROJECTION = "distill_projection"
"""Custom property of a frame: `UV`, `BOX` or `TRIPLANAR`."""
PLAIN_UV = "distill_plain_uv"
"""Custom property of a frame: whether the result lies on the UV map and not through the artist's own coordinates."""
INPUTS = {
    "image": "Base Color",
    "normal": "Normal",
    "roughness": "Roughness",
    "metallic": "Metallic",
    "alpha": "Alpha",
    "emission": "Emission Color",
}
"""The shader's input that each picture of a result is connected to, directly or through nodes of `map_nodes`."""
MORE_INPUTS = {"height": ("Displacement", "Normal"), "emission": ("Emission Strength",)}
"""Inputs that a picture may take beside it; Displacement is the material output's."""
CONVERTERS = {"normal": ("ShaderNodeNormalMap", "Color")}
"""The node between an image node and its input, and its socket, for pictures that need one."""
BOX_BLEND = 0.2
"""How far the sides of a box projection overlap."""
ROWS = {"coordinates": 0, "mapping": 0, "sharpness": -440}
"""The y of nodes that show no picture, in relation to the frame's corner."""
ROW_HEIGHTS = (260, 60)
"""Heights of the first picture's node and of the folded ones below it."""


# ---------------------------------------------------------------------------------------------- apply and restore


def apply(material: Material, job: str, title: str, images: Mapping[str, Image], coarse: bool = False) -> Node:
    """Shows a result's pictures in the material and stores what they replace; returns the frame.

    `coarse`: the mesh has too few faces to be displaced.
    Nodes that the artist has inserted in the frame stay in effect. Raises LocalError, before anything is changed, if
    the material is linked from another file or has no shader to connect the result to.
    """
    if material.library is not None:
        raise unusable(material, "is linked from another file; make it local, then apply the result")
    ensure_tree(material)
    names = {INPUTS[output] for output in images if output in INPUTS} | {*material.get(PREVIOUS, {})}
    names |= {name for output in images for name in MORE_INPUTS.get(output, ())}
    targets = {name: input_of(material, name) for name in names}
    frame = frame_of(material) or _new_frame(material)
    _disconnect(material)
    frame[JOB], frame.label, frame[map_nodes.COARSE] = job, f"Distill: {title}", coarse
    _show_pictures(material, frame, images)
    map_nodes.arrange(material, frame, picture_nodes(material.node_tree, frame))
    for name, output in _outputs_of(material, frame).items():
        target = targets.get(name)
        if target is not None:
            _store_previous(material, name, target)
            material.node_tree.links.new(output, target)
    return frame


def set_use_of_maps(material: Material, height: str = "", occlusion: str = "") -> None:
    """Chooses how the material's result uses its height (map_nodes.HEIGHTS) and its ambient occlusion (OCCLUSIONS)."""
    frame = connected_frame(material)
    if frame is None:
        raise unusable(material, "shows no result; apply one first")
    if height:
        frame[map_nodes.HEIGHT] = height
    if occlusion:
        frame[map_nodes.OCCLUSION] = occlusion
    pictures = picture_nodes(material.node_tree, frame)
    images = {output: image for output, node in pictures.items() if (image := picture_of(node)) is not None}
    coarse = bool(frame.get(map_nodes.COARSE))
    apply(material, str(frame[JOB]), str(frame.label).removeprefix("Distill: "), images, coarse)


def restore(material: Material) -> None:
    """Connects what was connected before a result was applied, except where the artist has changed the link since.

    The frame stays, not connected, with the artist's changes. Raises LocalError, before anything is changed, if nothing
    was stored or a stored node is no longer there.
    """
    if not material.get(PREVIOUS):
        raise unusable(material, "has nothing to restore")
    for name, previous in material[PREVIOUS].items():
        needed = "node" in previous and not _is_changed(input_of(material, name))
        if needed and _replaced_output(material.node_tree, previous) is None:
            raise unusable(
                material,
                f"no longer has the node “{previous['node']}” that was connected to {name}; undo its removal, or "
                f"connect another node to {name}",
            )
    _disconnect(material)


def remove_frames(material: Material, job: str = "") -> int:
    """Removes the frames that are not connected, with the nodes in them, or only those of a job; returns how many."""
    found = [f for f in frames(material) if f != connected_frame(material) and job in ("", f[JOB])]
    for frame in found:
        tree = material.node_tree
        for node in children(tree, frame):
            _remove_node(tree, node)
        tree.nodes.remove(frame)
    return len(found)


def frames(material: Material | None) -> list[Node]:
    """The frames of results in a material. Files of older versions have one for each result."""
    tree = material.node_tree if material is not None else None
    return [n for n in tree.nodes if n.type == "FRAME" and JOB in n] if tree is not None else []


def connected_frame(material: Material | None) -> Node | None:
    """The frame whose result the material shows."""
    for name in ("Base Color", *(material.get(PREVIOUS, {}) if material is not None else ())):
        shader = surface_shader(material)
        target = input_of(material, name) if shader is not None and material is not None else None
        if target is not None and target.links and is_in_result(target.links[0].from_node):
            return target.links[0].from_node.parent
    return None


def frame_of(material: Material | None) -> Node | None:
    """The frame whose result the material shows, or else its newest one."""
    found = frames(material)
    return connected_frame(material) or (found[-1] if found else None)


def shown_job(material: Material | None) -> str:
    """The job whose result the material shows; empty if it shows none."""
    frame = connected_frame(material)
    return str(frame[JOB]) if frame is not None else ""


def in_use(material: Material | None, job: str) -> bool:
    """Whether the material shows this job's result."""
    return bool(job) and shown_job(material) == job


def is_stale(material: Material) -> bool:
    """Whether the material has frames of results that it does not show."""
    return len(frames(material)) > (connected_frame(material) is not None)


# ---------------------------------------------------------------------------------------------- projection


def projection_of(frame: Node) -> str:
    """How a frame's result is projected: `UV`, `BOX` or `TRIPLANAR`."""
    return str(frame.get(PROJECTION, "UV"))


def set_projection(material: Material, projection: str) -> None:
    """Projects the material's result through its UV map, from the sides of a box, or triplanar."""
    frame = frame_of(material)
    if frame is None:
        raise unusable(material, "shows no result; apply one first")
    tree = material.node_tree
    frame[PROJECTION] = projection
    mapping = mapping_node(material, frame)
    tree.links.new(_coordinates(material, frame), mapping.inputs["Vector"])
    pictures = picture_nodes(tree, frame)
    _show_pictures(material, frame, {output: image for output, n in pictures.items() if (image := picture_of(n))})
    _remove_unused(tree, frame)


def set_plain_uv(material: Material, plain: bool) -> None:
    """Lays the result on the UV map itself, as a painted layout needs it, or through the artist's own coordinates."""
    frame = frame_of(material)
    if frame is None or bool(frame.get(PLAIN_UV)) == plain:
        return
    frame[PLAIN_UV] = plain
    mapping = mapping_node(material, frame)
    material.node_tree.links.new(_coordinates(material, frame), mapping.inputs["Vector"])
    _remove_unused(material.node_tree, frame)


def _coordinates(material: Material, frame: Node) -> NodeSocket:
    """What a frame's Mapping node gets: the artist's coordinates, unless the result lies on the UV map or on a box."""
    is_uv = projection_of(frame) == "UV"
    own = original_coordinates(material) if is_uv and not frame.get(PLAIN_UV) else None
    return own or _role_node(material.node_tree, frame, "coordinates").outputs["UV" if is_uv else "Object"]


def _remove_unused(tree: NodeTree, frame: Node) -> None:
    """Removes nodes of ours that nothing in the frame uses any more."""
    unused = [n for n in children(tree, frame) if n.get(ROLE) in {"coordinates", "sharpness"}]
    for node in [n for n in unused if not any(o.links for o in n.outputs)]:
        tree.nodes.remove(node)


def mapping_node(material: Material, frame: Node) -> Node:
    """The Mapping node of a frame; frames of older versions get one."""
    tree = material.node_tree
    found = find_mapping(tree, frame)
    if found is not None:
        return found
    pictures = picture_nodes(tree, frame).values()
    linked = next((n.inputs["Vector"].links[0].from_socket for n in pictures if n.inputs["Vector"].links), None)
    socket = linked or _coordinates(material, frame)
    mapping = _role_node(tree, frame, "mapping")
    tree.links.new(socket, mapping.inputs["Vector"])
    for node in pictures:
        tree.links.new(mapping.outputs[0], node.inputs["Vector"])
    return mapping


def find_mapping(tree: NodeTree, frame: Node) -> Node | None:
    """The Mapping node of a frame; None in a frame of an older version to which nothing was applied since."""
    return next((n for n in children(tree, frame) if n.get(ROLE) == "mapping"), None)


def sharpness_node(tree: NodeTree, frame: Node) -> Node | None:
    """The node with the exponent of a triplanar projection's weights."""
    return next((n for n in children(tree, frame) if n.get(ROLE) == "sharpness"), None)


def picture_nodes(tree: NodeTree, frame: Node) -> dict[str, Node]:
    """The image nodes or groups of a frame by the picture of the result that they show."""
    return {_map_of(n): n for n in children(tree, frame) if _map_of(n)}


def picture_of(node: Node) -> Image | None:
    """The image that a picture's node shows."""
    return triplanar.image_of(node.node_tree) if node.type == "GROUP" else node.image


# ---------------------------------------------------------------------------------------------- nodes


def _new_frame(material: Material) -> Node:
    """An empty frame below all other nodes, its corner marked by its Mapping node."""
    tree = material.node_tree
    shader = surface_shader(material)
    x = location(shader)[0] if shader is not None else 0.0
    y = min((bottom(n) for n in tree.nodes if n.type != "FRAME"), default=0.0) - 120
    frame = tree.nodes.new("NodeFrame")
    frame.name, frame.select, frame[PROJECTION] = "Distill", False, "UV"
    frame["distill_corner"] = [x, y]
    frame[JOB] = ""
    mapping_node(material, frame)
    return frame


def _show_pictures(material: Material, frame: Node, images: Mapping[str, Image]) -> None:
    """Shows images in a frame by a node for each, and removes the nodes of pictures that are not among them."""
    tree = material.node_tree
    mapping = mapping_node(material, frame)
    nodes = picture_nodes(tree, frame)
    for output, node in nodes.items():
        if output not in images:
            map_nodes.remove_stages(tree, frame, output)
            _remove_picture(tree, node, output)
    depth = 0
    for row, (output, image) in enumerate(images.items()):
        grouped = _needs_group(projection_of(frame), output, image)
        node = nodes.get(output)
        if node is None or (node.type == "GROUP") != grouped:
            node = _new_picture(tree, frame, output, image, grouped, node)
            place(node, frame, "picture", -depth)
            node.hide = row > 0
        _set_image(node, image, output)
        tree.links.new(mapping.outputs[0], node.inputs["Vector"])
        if grouped:
            width, height = size_of(image)
            node.inputs["Aspect"].default_value = width / max(1, height)
            tree.links.new(_sharpness(tree, frame).outputs[0], node.inputs["Sharpness"])
        else:
            node.projection = "BOX" if projection_of(frame) == "BOX" else "FLAT"
            node.projection_blend = BOX_BLEND
        _ensure_converter(tree, frame, node, output, -depth)
        depth += ROW_HEIGHTS[row > 0]


def _needs_group(projection: str, output: str, image: Image) -> bool:
    """Whether a picture is projected by a node group.

    Blender's box projection gives normals along the wrong axes and stretches images that are not square.
    """
    if image.source == "TILED":
        return False
    width, height = size_of(image)
    is_plain = output != "normal" and width == height
    return projection == "TRIPLANAR" or (projection == "BOX" and not is_plain)


def _new_picture(tree: NodeTree, frame: Node, output: str, image: Image, grouped: bool, old: Node | None) -> Node:
    """A node that shows an image, in place of another one if there is one."""
    node = tree.nodes.new("ShaderNodeGroup" if grouped else "ShaderNodeTexImage")
    if grouped:
        node.node_tree = triplanar.new_group(image, output == "normal")
    node.name, node.label = f"Distill {output}", "Base Color" if output == "image" else wire.map_type(output).title
    node.parent, node.select, node[OUTPUT] = frame, False, output
    if old is not None:
        if FEEDS in old:
            node[FEEDS] = {"input": old[FEEDS]["input"], "socket": 0}
        for link in list(old.outputs[0].links):
            tree.links.new(node.outputs[0], link.to_socket)
        _remove_node(tree, old)
    return node


def _set_image(node: Node, image: Image, output: str) -> None:
    node[OUTPUT] = output  # files of version 0.1.0 have it on the image only
    if node.type == "GROUP":
        triplanar.set_image(node.node_tree, image)
    else:
        node.image = image


def _remove_picture(tree: NodeTree, node: Node, output: str) -> None:
    """Removes a picture's node with its converter. Nodes that the artist has inserted behind it stay."""
    frame = node.parent
    converter = next((n for n in _following(node) if n.bl_idname == CONVERTERS.get(output, ("",))[0]), None)
    _remove_node(tree, node)
    if converter is not None and converter.parent == frame:
        tree.nodes.remove(converter)
    for rest in children(tree, frame):
        if FEEDS in rest and rest[FEEDS]["input"] == INPUTS.get(output):
            del rest[FEEDS]


def _remove_node(tree: NodeTree, node: Node) -> None:
    group = node.node_tree if node.type == "GROUP" and OUTPUT in node else None
    tree.nodes.remove(node)
    if group is not None and group.users == 0:
        bpy.data.node_groups.remove(group)


def _sharpness(tree: NodeTree, frame: Node) -> Node:
    found = sharpness_node(tree, frame)
    if found is None:
        found = _role_node(tree, frame, "sharpness")
        found.label = "Sharpness"
        sharp = projection_of(frame) == "BOX"
        found.outputs[0].default_value = triplanar.BOX_SHARPNESS if sharp else triplanar.SHARPNESS
    return found


def _role_node(tree: NodeTree, frame: Node, role: str) -> Node:
    """The frame's node for coordinates, mapping or sharpness; a new one if there is none."""
    kinds = {"coordinates": "ShaderNodeTexCoord", "mapping": "ShaderNodeMapping", "sharpness": "ShaderNodeValue"}
    return role_node(tree, frame, role, kinds[role], role, ROWS[role])


def _ensure_converter(tree: NodeTree, frame: Node, node: Node, output: str, y: float) -> None:
    """Adds the node that turns a picture into what its input needs, if it needs one and there is none."""
    if output not in CONVERTERS:
        return
    kind, socket = CONVERTERS[output]
    converter = next((n for n in _following(node) if n.bl_idname == kind), None)
    if converter is None:
        if node.outputs[0].links:  # the artist has connected it to something else
            return
        converter = tree.nodes.new(kind)
        converter.name, converter.parent, converter.select = f"Distill {output} converter", frame, False
        place(converter, frame, "converter", y)
        converter.hide = True
        tree.links.new(node.outputs[0], converter.inputs[socket])
    if output == "normal":
        converter.space = "OBJECT" if node.type == "GROUP" else "TANGENT"


def bottom(node: Node) -> float:
    """The lowest y coordinate of a node, from what it shows where Blender has not drawn it yet (in background)."""
    y = location(node)[1]
    if node.hide:
        return y - 40
    scale = bpy.context.preferences.system.ui_scale
    drawn = node.dimensions[1] / scale if scale else 0.0
    vectors = sum(s.type == "VECTOR" and not s.links and not s.hide_value for s in node.inputs)
    sockets = sum(not s.hide for s in (*node.inputs, *node.outputs))
    guess = 60 + 22 * sockets + 66 * vectors + {"TEX_IMAGE": 180, "GROUP": 40, "VALTORGB": 130}.get(node.type, 60)
    if node.type == "BSDF_PRINCIPLED":
        guess = min(guess, 420)  # most of its sockets are in closed panels
    return y - (drawn or guess)


# ---------------------------------------------------------------------------------------------- links


def _disconnect(material: Material) -> None:
    """Connects what results have replaced. What is no longer in the material stays in PREVIOUS."""
    tree = material.node_tree
    map_nodes.release(material)
    stored = {name: dict(previous) for name, previous in material.get(PREVIOUS, {}).items()}
    lost = {}
    for name, previous in stored.items():
        target = input_of(material, name)
        if target is None or _is_changed(target):
            continue
        for link in list(target.links):
            _store_output(tree, link, name)
            tree.links.remove(link)
        output = _replaced_output(tree, previous)
        if output is not None:
            tree.links.new(output, target)
        elif "node" in previous:
            lost[name] = previous
    for node in tree.nodes:
        node.pop(REPLACED, None)
    material.pop(PREVIOUS, None)
    if lost:
        material[PREVIOUS] = lost


def _is_changed(target: NodeSocket | None) -> bool:
    """Whether the artist has connected an input to something else since a result was applied."""
    return target is not None and bool(target.links) and not is_in_result(target.links[0].from_node)


def _replaced_output(tree: NodeTree, previous: Mapping[str, Any]) -> NodeSocket | None:
    """The output of an entry of PREVIOUS, or None if it is no longer there."""
    node, socket = replaced_node(tree, previous), previous.get("socket", 0)
    return node.outputs[socket] if node is not None and 0 <= socket < len(node.outputs) else None


def _map_of(node: Node) -> str:
    """Which picture of a result a node shows. Files of version 0.1.0 have that on the image only."""
    image = getattr(node, "image", None)
    return str(node.get(OUTPUT) or (image.get(OUTPUT, "") if image is not None else ""))


def _outputs_of(material: Material, frame: Node) -> dict[str, NodeSocket]:
    """The output sockets of a frame by the input that they belong to."""
    nodes = children(material.node_tree, frame)
    found = {n[FEEDS]["input"]: n.outputs[n[FEEDS]["socket"]] for n in nodes if FEEDS in n}
    fed = set(found)
    for node in nodes:
        output = _map_of(node)
        if output in INPUTS:
            converter = next((n for n in _following(node) if n.bl_idname == CONVERTERS.get(output, ("",))[0]), node)
            found.setdefault(INPUTS[output], converter.outputs[0])
    return found | {n: s for n, s in map_nodes.outputs_of(material.node_tree, frame).items() if n not in fed}


def _following(node: Node) -> Iterator[Node]:
    return (link.to_node for output in node.outputs for link in output.links)


def _store_output(tree: NodeTree, link: NodeLink, name: str) -> None:
    """Stores which node of a result's frame was connected to an input: the artist may have inserted nodes."""
    for node in [n for n in tree.nodes if n.parent == link.from_node.parent and n.get(FEEDS, {}).get("input") == name]:
        del node[FEEDS]
    link.from_node[FEEDS] = {"input": name, "socket": list(link.from_node.outputs).index(link.from_socket)}


def _store_previous(material: Material, name: str, target: NodeSocket) -> None:
    """Stores what an input is connected to, unless that is a result or something is stored already."""
    stored = {key: dict(previous) for key, previous in material.get(PREVIOUS, {}).items()}
    if name in stored:
        return
    link = target.links[0] if target.links else None
    if link is None or is_in_result(link.from_node):
        stored[name] = {"value": "unconnected"}
    else:
        outputs = list(link.from_node.outputs)
        stored[name] = {"node": link.from_node.name, "socket": outputs.index(link.from_socket)}
        link.from_node[REPLACED] = link.from_node.name
    material[PREVIOUS] = stored
