"""Result maps -> material nodes: a named frame beside what was there; use a result, restore what it replaced."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import bpy
from bpy.types import Image, Material, Node, NodeSocket, NodeTree, Object

from ..wire.errors import LocalError

PREVIOUS = "distill_previous"
"""Property of a material: for each input, the node and the socket (or the value) that a result took the place of."""
FRAME = "distill_job"
"""Property of a frame: the job whose maps it holds."""
DATA_MAPS = ("normal", "roughness", "metallic", "height")
"""Maps that are no colours."""


def surface_shader(material: Material | None) -> Node | None:
    """The Principled BSDF that the material's output shows, or else the first that there is."""
    tree = material.node_tree if material else None
    if tree is None:
        return None
    output = tree.get_output_node("ALL")
    if output is not None and (found := _upstream(output.inputs["Surface"], "BSDF_PRINCIPLED")):
        return found
    return next((n for n in tree.nodes if n.type == "BSDF_PRINCIPLED"), None)


def base_color_image(material: Material | None) -> Image | None:
    """The image of the material's base colour: what was there before a result of ours took its place."""
    shader = surface_shader(material)
    if shader is None:
        return None
    node = _upstream(shader.inputs["Base Color"], "TEX_IMAGE")
    if node is not None and _is_ours(node):
        kept = material.get(PREVIOUS, {}).get("Base Color")
        before = material.node_tree.nodes.get(kept["node"]) if kept and "node" in kept else None
        node = _from_node(before) if before is not None else None
    return node.image if node is not None else None


def can_have_material(thing: Object | None) -> bool:
    """Whether an object has a material or can be given one."""
    if thing is None or not hasattr(thing.data, "materials"):
        return False
    return thing.active_material is not None or (thing.library is None and thing.data.library is None)


def give_material(thing: Object, name: str) -> Material:
    """The object's active material, or a new one if it has none."""
    if thing.active_material is None:
        thing.active_material = bpy.data.materials.new(name)
        _ensure_tree(thing.active_material)
    return thing.active_material


def _ensure_tree(material: Material) -> None:
    """Gives a material nodes, which every material has from Blender 5.0 on."""
    if bpy.app.version < (5, 0, 0) and not material.use_nodes:
        material.use_nodes = True


def add_result(material: Material, job: str, title: str, images: Mapping[str, Image]) -> Node:
    """A frame with an image node for each map, connected to nothing yet. Once for each job.

    Raises LocalError when the material belongs to another file, which would not be saved with this one.
    """
    if material.library is not None:
        raise LocalError(
            "invalid-image",
            f"The material “{material.name}” is linked from another file; make it local, then use the result",
        )
    _ensure_tree(material)
    tree = material.node_tree
    frame = frame_of(material, job)
    if frame is not None:
        return frame
    shader = surface_shader(material)
    x = shader.location.x if shader else 0
    y = min((_height(n) for n in tree.nodes if n.type != "FRAME"), default=0) - 380  # below all that is there
    frame = tree.nodes.new("NodeFrame")
    frame.label, frame.name = f"Distill: {title}", f"Distill {job[:8]}"
    frame[FRAME], frame.select = job, False
    coordinates = _coordinates(material)
    for row, (output, image) in enumerate(images.items()):
        node = tree.nodes.new("ShaderNodeTexImage")
        node.image, node.label, node.parent = image, output.title() if output != "image" else "Base Color", frame
        node.name = f"{frame.name} {output}"
        node.location = x - 700, y - (230 + 60 * row if row else 0)
        node.hide, node.select = row > 0, False
        if coordinates is not None:
            tree.links.new(coordinates, node.inputs["Vector"])
        _add_converter(tree, frame, node, output)
    return frame


def frame_of(material: Material, job: str) -> Node | None:
    """The frame of a job's result in the material."""
    return next((n for n in material.node_tree.nodes if n.type == "FRAME" and n.get(FRAME) == job), None)


def use(material: Material, job: str) -> None:
    """Connects a result's maps to the shader, in the place of another result's, and keeps what was there before.

    Raises LocalError when there is no shader.
    """
    shader = surface_shader(material)
    frame = frame_of(material, job)
    if shader is None or frame is None:
        raise LocalError("invalid-image", f"The material “{material.name}” has no Principled BSDF; add one")
    if material.get(PREVIOUS):
        restore(material)
    for node in [n for n in material.node_tree.nodes if n.parent == frame]:
        target = _target(shader, material, node)
        if target is not None:
            _keep(material, target)
            material.node_tree.links.new(node.outputs[0], target)


def restore(material: Material) -> None:
    """Connects again what was connected before a result was used; leaves what the artist has connected since.

    Raises LocalError when nothing was kept.
    """
    kept = material.get(PREVIOUS)
    shader = surface_shader(material)
    if not kept or shader is None:
        raise LocalError("invalid-image", f"The material “{material.name}” has nothing to restore")
    tree = material.node_tree
    for name, was in kept.items():
        target = _input(shader, material, name)
        if target.links and not _is_ours(target.links[0].from_node):
            continue
        for link in list(target.links):
            tree.links.remove(link)
        before = tree.nodes.get(was.get("node", ""))
        if before is not None:
            tree.links.new(before.outputs[was["socket"]], target)
    del material[PREVIOUS]


def in_use(material: Material | None, job: str) -> bool:
    """Whether the material shows this job's result."""
    shader = surface_shader(material)
    links = shader.inputs["Base Color"].links if shader else ()
    parent = links[0].from_node.parent if links else None
    return parent is not None and parent.get(FRAME) == job


def _height(node: Node) -> float:
    """Where a node is in the tree; inside a frame its own location says only where it is in the frame."""
    return node.location.y + (_height(node.parent) if node.parent is not None else 0)


def _is_ours(node: Node) -> bool:
    return node.parent is not None and FRAME in node.parent


def _keep(material: Material, target: NodeSocket) -> None:
    """Remember what an input is connected to, unless that is a result of ours or something is remembered already."""
    kept = {name: dict(was) for name, was in material.get(PREVIOUS, {}).items()}
    if target.name in kept:
        return
    link = target.links[0] if target.links else None
    if link is None or _is_ours(link.from_node):
        kept[target.name] = {"value": "unconnected"}
    else:
        outputs = list(link.from_node.outputs)
        kept[target.name] = {"node": link.from_node.name, "socket": outputs.index(link.from_socket)}
    material[PREVIOUS] = kept


def _target(shader: Node, material: Material, node: Node) -> NodeSocket | None:
    """The input that a node of a result's frame belongs to."""
    wanted = {"TEX_IMAGE": node.name.rpartition(" ")[2], "NORMAL_MAP": "normal", "DISPLACEMENT": "height"}[node.type]
    if node.type == "TEX_IMAGE" and wanted in ("normal", "height"):
        return None  # they go through a converter
    names = {
        "image": "Base Color",
        "normal": "Normal",
        "roughness": "Roughness",
        "metallic": "Metallic",
        "height": "Displacement",
    }
    return _input(shader, material, names[wanted]) if wanted in names else None


def _input(shader: Node, material: Material, name: str) -> NodeSocket:
    if name == "Displacement":
        return material.node_tree.get_output_node("ALL").inputs[name]
    return shader.inputs[name]


def _add_converter(tree: NodeTree, frame: Node, node: Node, output: str) -> None:
    """Normals and heights are no colours: they go through a node that turns them into what the input wants."""
    kind, socket = {"normal": ("ShaderNodeNormalMap", "Color"), "height": ("ShaderNodeDisplacement", "Height")}.get(
        output, (None, None)
    )
    if kind is None:
        return
    converter = tree.nodes.new(kind)
    converter.parent = frame
    converter.location = node.location.x + 320, node.location.y
    tree.links.new(node.outputs[0], converter.inputs[socket])


def _coordinates(material: Material) -> NodeSocket | None:
    """Where the material's base colour image takes its coordinates from, so that a result lies the same way."""
    shader = surface_shader(material)
    node = _upstream(shader.inputs["Base Color"], "TEX_IMAGE") if shader else None
    links = node.inputs["Vector"].links if node is not None else ()
    return links[0].from_socket if links else None


def _upstream(socket: NodeSocket, kind: str) -> Node | None:
    """The nearest node of a kind that feeds a socket."""
    waiting = deque(link.from_node for link in socket.links)
    seen = set()
    while waiting:
        node = waiting.popleft()
        if node.name in seen:
            continue
        seen.add(node.name)
        if found := _from_node(node, kind, deep=False):
            return found
        waiting.extend(link.from_node for s in node.inputs for link in s.links)
    return None


def _from_node(node: Node, kind: str = "TEX_IMAGE", deep: bool = True) -> Node | None:
    """The node itself if it is of the kind (and holds an image), or else the nearest one that feeds it."""
    if node.type == kind and (kind != "TEX_IMAGE" or node.image is not None):
        return node
    if not deep:
        return None
    return next((found for s in node.inputs if (found := _upstream(s, kind))), None)
