"""Materials of objects: which ones get a result, the shader input it is connected to, and what prevents that."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import bpy
from bpy.types import Context, Image, Material, Node, NodeSocket, NodeTree, Object

from ..wire.errors import LocalError

JOB = "distill_job"
"""Custom property of a result's image, and of the frame in a material that shows it: the job that made it."""
OUTPUT = "distill_output"
"""Custom property of a result's image, and of its node in a frame: which of the job's pictures it is (`normal`)."""
PREVIOUS = "distill_previous"
"""Custom property of a material: for each input, the node and the socket (or the value) that a result replaced."""
REPLACED = "distill_replaced"
"""Custom property of a node that a result replaced: its name in PREVIOUS, since the artist may rename it."""
ID = "distill_id"
"""Custom property of a material that gets a job's result: the artist may rename it while the job runs."""
DATA_MAPS = ("normal", "roughness", "metallic", "height")
"""Pictures whose values are not colors."""


# ---------------------------------------------------------------------------------------------- of objects


def active_material() -> Material | None:
    """The active material of the active object."""
    thing = bpy.context.view_layer.objects.active if bpy.context.view_layer else None
    return thing.active_material if thing else None


def can_have_material(thing: Object | None) -> bool:
    """Whether an object has a material or can get one."""
    if thing is None or not hasattr(thing.data, "materials"):
        return False
    return thing.active_material is not None or (thing.library is None and thing.data.library is None)


def target_objects(context: Context) -> list[Object]:
    """The objects whose materials get a result: the active object first, then the other selected ones.

    Selected objects that cannot have a material, such as lights, are left out; an active one is not.
    """
    active = context.view_layer.objects.active if context.view_layer else None
    others = [o for o in context.view_layer.objects.selected if o != active and can_have_material(o)]
    return ([active] if active is not None else []) + others


def ensure_material(thing: Object, name: str) -> Material:
    """The object's active material, or a new one if it has none."""
    if thing.active_material is None:
        thing.active_material = bpy.data.materials.new(name)
        ensure_tree(thing.active_material)
    return thing.active_material


def ensure_materials(objects: Sequence[Object], name: str, every_slot: bool = False) -> list[Material]:
    """The active materials of objects, or those of all their slots, each once; new ones where there is none."""
    found: dict[str, Material] = {}
    for thing in objects:
        first = ensure_material(thing, name)
        slots = [slot.material for slot in thing.material_slots if slot.material] if every_slot else [first]
        found |= {material.name_full: material for material in slots}
    return list(found.values())


def ensure_tree(material: Material) -> None:
    """Gives a material nodes, which every material has since Blender 5.0."""
    if bpy.app.version < (5, 0, 0) and not material.use_nodes:
        material.use_nodes = True


def ensure_id(material: Material) -> str:
    """The id by which `find` finds the material after it was renamed; a linked one keeps its name as id."""
    if material.library is not None:
        return str(material.name)
    others = {other.get(ID) for other in bpy.data.materials if other != material}
    if material.get(ID, "") in {"", *others}:  # a copy of a material has the original's id
        material[ID] = uuid.uuid4().hex
    return str(material[ID])


def find(key: str, name: str) -> Material | None:
    """The material with an id of `ensure_id`, or else of that name: undo may have removed the id."""
    return next((m for m in bpy.data.materials if m.get(ID) == key), None) or bpy.data.materials.get(name)


def user_of(material: Material) -> Object | None:
    """An object that shows a material, the active one first."""
    layer = bpy.context.view_layer
    if layer is None:
        return None
    objects = [layer.objects.active] if layer.objects.active is not None else []
    return next((o for o in (*objects, *layer.objects) if any(s.material == material for s in o.material_slots)), None)


# ---------------------------------------------------------------------------------------------- what prevents it


def problem_of(objects: Sequence[Object], every_slot: bool = False) -> str:
    """Why a result cannot be applied to the materials of objects, and what to do, in one sentence; empty if it can."""
    for thing in objects:
        if not can_have_material(thing):
            linked = thing.library is not None or (thing.data is not None and thing.data.library is not None)
            remedy = "is linked from another file; make it local" if linked else "cannot have a material; select a mesh"
            return f"The object “{thing.name}” {remedy}"
        slots = [slot.material for slot in thing.material_slots] if every_slot else [thing.active_material]
        for material in slots:
            if material is not None and (problem := problem_of_material(material)):
                return f"The material “{material.name}” {problem}"
    return ""


def note_of(objects: Sequence[Object]) -> str:
    """What happens to objects without a UV map, in one sentence; empty if all have one."""
    without = [thing.name for thing in objects if thing.type == "MESH" and not thing.data.uv_layers]
    if not without:
        return ""
    names = f"“{without[0]}” has" if len(without) == 1 else f"{len(without)} objects have"
    return f"{names} no UV map: the texture is projected from the sides of a box"


def linked_materials(objects: Sequence[Object]) -> list[Material]:
    """The active materials of objects that are linked from another file."""
    found = [thing.active_material for thing in objects if can_have_material(thing)]
    return [material for material in found if material is not None and material.library is not None]


def make_local(objects: Sequence[Object]) -> int:
    """Makes the linked active materials of objects local to this file; returns how many."""
    linked = linked_materials(objects)
    for material in linked:
        material.make_local()
    return len(linked)


def problem_of_material(material: Material) -> str:
    """Why a material cannot take a result, as the end of a sentence that starts with its name; empty if it can."""
    if material.library is not None:
        return "is linked from another file; make it local"
    if material.node_tree is None or surface_shader(material) is not None:
        return ""
    output = material.node_tree.get_output_node("ALL")
    nodes = feeding(output.inputs["Surface"]) if output else ()
    group = next((node for node in nodes if node.type == "GROUP" and node.node_tree is not None), None)
    if group is not None:
        return (
            f"is made by the node group “{group.node_tree.name}”, which has no color input named Base Color or Color; "
            "add that input to the group"
        )
    return "has no Principled BSDF; add one"


def unusable(material: Material, problem: str) -> LocalError:
    """The error for a material that cannot take a result."""
    return LocalError("invalid-image", f"The material “{material.name}” {problem}")


# ---------------------------------------------------------------------------------------------- the shader


def surface_shader(material: Material | None) -> Node | None:
    """The shader that gets the base color.

    That is the Principled BSDF that the material's output shows, or else the nearest shader or node group with a color
    input that feeds the output (Emission, Diffuse), or else any Principled BSDF.
    """
    tree = material.node_tree if material else None
    if tree is None:
        return None
    output = tree.get_output_node("ALL")
    shaders = list(feeding(output.inputs["Surface"])) if output is not None else []
    principled = [n for n in (*shaders, *tree.nodes) if n.type == "BSDF_PRINCIPLED"]
    if principled and principled[0] in shaders:
        return principled[0]
    return next((n for n in shaders if color_input(n) is not None), principled[0] if principled else None)


def color_input(node: Node) -> NodeSocket | None:
    """The input of a shader that takes its color; None if it has none."""
    if not any(socket.type == "SHADER" for socket in node.outputs):
        return None
    inputs = [node.inputs.get(name) for name in ("Base Color", "Color")]
    return next((socket for socket in inputs if socket is not None and socket.type == "RGBA"), None)


def input_of(material: Material, name: str) -> NodeSocket | None:
    """The input for a picture of a result: of the material output for Displacement, of its shader for others.

    None if the shader has no such input, as Emission has no Roughness. Raises LocalError if the material has no shader
    or no output.
    """
    if name == "Displacement":
        output = material.node_tree.get_output_node("ALL")
        if output is None:
            raise unusable(material, "has no Material Output; add one")
        return output.inputs[name]
    shader = surface_shader(material)
    if shader is None:
        raise unusable(material, problem_of_material(material))
    return color_input(shader) if name == "Base Color" else shader.inputs.get(name)


def base_color_image(material: Material | None) -> Image | None:
    """The image of the material's base color; the one that was there before, if the material shows a result."""
    node = _original_image_node(material)
    return node.image if node is not None else None


def shown_image(material: Material) -> Image | None:
    """The image that feeds the color of the material's shader, such as a result; None if there is none."""
    shader = surface_shader(material)
    socket = color_input(shader) if shader is not None else None
    found = feeding(socket) if socket is not None else ()
    return next((node.image for node in found if node.type == "TEX_IMAGE" and node.image is not None), None)


def original_coordinates(material: Material) -> NodeSocket | None:
    """The texture coordinates of the image that the base color had before a result, which lies the same way."""
    node = _original_image_node(material)
    links = node.inputs["Vector"].links if node is not None else ()
    return links[0].from_socket if links else None


def is_mapped(material: Material | None) -> bool:
    """Whether the material's own base color image goes through a Mapping node that moves, turns or scales it."""
    node = _original_image_node(material)
    mapping = next((n for n in feeding(node.inputs["Vector"]) if n.type == "MAPPING"), None) if node else None
    if mapping is None:
        return False
    plain = {"Location": (0.0, 0.0, 0.0), "Rotation": (0.0, 0.0, 0.0), "Scale": (1.0, 1.0, 1.0)}
    inputs = [(mapping.inputs[name], value) for name, value in plain.items() if name in mapping.inputs]
    return any(socket.links or tuple(socket.default_value) != value for socket, value in inputs)


def _original_image_node(material: Material | None) -> Node | None:
    shader = surface_shader(material)
    if material is None or shader is None:
        return None
    target = color_input(shader)
    nodes = list(feeding(target)) if target is not None else []
    if any(is_in_result(node) for node in nodes):
        before = replaced_node(material.node_tree, material.get(PREVIOUS, {}).get("Base Color", {}))
        return _image_node(before) if before is not None else None
    return next((n for n in nodes if n.type == "TEX_IMAGE" and n.image is not None), None)


def is_in_result(node: Node) -> bool:
    """Whether a node is in a frame of a result."""
    return node.parent is not None and JOB in node.parent


def replaced_node(tree: NodeTree, previous: Mapping[str, Any]) -> Node | None:
    """The node of an entry of PREVIOUS: the marked one, or by its name in files of version 0.1.0."""
    if "node" not in previous:
        return None
    name = previous["node"]
    marked = [n for n in tree.nodes if n.get(REPLACED) == name]  # copies of a node have its mark too
    by_name = tree.nodes.get(name)
    return by_name if by_name in marked or not marked else marked[0]


def feeding(socket: NodeSocket) -> Iterator[Node]:
    """The nodes that feed a socket, nearest first."""
    waiting = deque(link.from_node for link in socket.links)
    seen = set()
    while waiting:
        node = waiting.popleft()
        if node.name in seen:
            continue
        seen.add(node.name)
        yield node
        waiting.extend(link.from_node for s in node.inputs for link in s.links)


def _image_node(node: Node) -> Node | None:
    """The node itself if it is an image node with an image, or else the nearest one that feeds it."""
    nodes = (node, *(found for socket in node.inputs for found in feeding(socket)))
    return next((n for n in nodes if n.type == "TEX_IMAGE" and n.image is not None), None)
