"""Where the maps of a swatch come from: the images behind a Principled BSDF, or the files of a downloaded set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import bpy
from bpy.types import Image, Material, Node, NodeSocket

from .. import wire
from ..wire.errors import LocalError
from . import image_io, materials, result_nodes, texture_sets
from .texture_sets import EXTENSIONS, Channel, NormalFormat, TextureSet

COLOR_INPUTS = {
    "roughness": "Roughness",
    "metallic": "Metallic",
    "alpha": "Alpha",
    "emission": "Emission Color",
}
"""The shader's inputs that maps are connected to directly."""
_CHANNELS: tuple[Channel, ...] = ("R", "G", "B")
_PLAIN = {"REROUTE", "NORMAL_MAP", "DISPLACEMENT", "RGBTOBW", "CLAMP"}
"""Types of node that leave the values of a map as they are."""
_ADJUSTING = {
    *("GAMMA", "BRIGHTCONTRAST", "HUE_SAT", "CURVE_RGB", "CURVE_FLOAT", "VALTORGB", "MAP_RANGE", "MATH", "INVERT"),
    *("MIX", "MIX_RGB", "VECT_MATH"),
}
"""Types of node that change values. The image behind them is used as it is, and a note says so."""
Behind = Callable[[NodeSocket | None], Iterator["FoundMap"]]
"""Returns the images behind an input."""


@dataclass(frozen=True)
class FoundMap:
    """A map and the image that has it.

    Attributes:
        image: the image.
        channel: what of it is the map.
        inverted: whether 1 and 0 are exchanged.
        flipped: whether the green of a normal map is inverted on its way, so that the image is a DirectX one.
        adjusted: the name of a node on the way that changes the values, which the map does not contain; or empty.
    """

    image: Image
    channel: Channel = "RGB"
    inverted: bool = False
    flipped: bool = False
    adjusted: str = ""


@dataclass(frozen=True)
class MaterialMaps:
    """The base color of a material and its other maps by their names in the contract.

    `normal_format` is known from the name of a file or from nodes. `notes` say what was left out: a sentence each.
    """

    color: Image
    maps: dict[str, FoundMap] = field(default_factory=dict)
    normal_format: NormalFormat = "auto"
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------- from a material


def of_material(material: Material | None) -> MaterialMaps | None:
    """The images of a material that a result has not replaced; None without an image as its base color."""
    color = materials.base_color_image(material)
    shader = materials.surface_shader(material)
    if material is None or color is None or shader is None:
        return None
    found: dict[str, FoundMap] = {}
    base = _origin(material, "Base Color", materials.color_input(shader))
    colors = list(_trace(base, "color", (), frozenset())) if base is not None else []
    first = next((item for item in colors if not _is_occlusion(item.image)), None)
    color, adjusted = (first.image, first.adjusted) if first is not None else (color, "")
    occlusion = _occlusion(material, base)
    if occlusion is not None and occlusion.image != color:
        adjusted = ""  # the color is multiplied by it
        found["ambient_occlusion"] = occlusion
    normal = _origin(material, "Normal", shader.inputs.get("Normal"))
    output = material.node_tree.get_output_node("ALL")
    displacement = _origin(material, "Displacement", output.inputs["Displacement"]) if output is not None else None
    traced = {name: _behind(_origin(material, key, shader.inputs.get(key)), name) for name, key in COLOR_INPUTS.items()}
    traced["normal"] = _behind(normal, "normal")
    traced["height"] = _behind(displacement, "height") or _behind(normal, "height")
    found |= {name: item for name, item in traced.items() if item is not None}
    found = {name: found[name] for name in wire.MAPS if name in found}
    notes = [f"The color passes through “{adjusted}”, which is not applied"] if adjusted else []
    notes += [
        f"The {_words(name)} map passes through “{item.adjusted}”, which is not applied"
        for name, item in found.items()
        if item.adjusted
    ]
    normal_format = _format_of(found["normal"]) if "normal" in found else "auto"
    return _checked(MaterialMaps(color, found, normal_format, tuple(notes)))


def of_shown_result(material: Material) -> MaterialMaps | None:
    """The images of the result that a material shows; None if it shows none."""
    frame = result_nodes.connected_frame(material)
    nodes = result_nodes.picture_nodes(material.node_tree, frame) if frame is not None else {}
    images = {name: image for name, node in nodes.items() if (image := result_nodes.picture_of(node)) is not None}
    color = images.pop("image", None)
    if color is None:
        return None
    return MaterialMaps(color, {name: FoundMap(image) for name, image in images.items()}, "opengl")


def _origin(material: Material, name: str, socket: NodeSocket | None) -> NodeSocket | None:
    """The output that feeds an input, or that fed it before a result was applied."""
    if socket is None or not socket.links:
        return None
    if not materials.is_in_result(socket.links[0].from_node):
        return socket.links[0].from_socket
    previous = material.get(materials.PREVIOUS, {}).get(name, {})
    node = materials.replaced_node(material.node_tree, previous)
    return node.outputs[previous["socket"]] if node is not None else None


def _behind(output: NodeSocket | None, wanted: str) -> FoundMap | None:
    """The image behind an output of a node; `wanted`: `height` is looked for in Bump nodes, `normal` beside them."""
    return next(_trace(output, wanted, (), frozenset()), None) if output is not None else None


def _trace(
    output: NodeSocket, wanted: str, groups: tuple[Node, ...], seen: frozenset[tuple[str, str]]
) -> Iterator[FoundMap]:
    """The images behind an output, nearest first. `groups`: the node groups that the output is in, outermost first."""
    node = output.node
    key = "/".join([*(group.name for group in groups), node.name]), output.identifier
    if key in seen:
        return
    seen = seen | {key}

    def behind(socket: NodeSocket | None) -> Iterator[FoundMap]:
        if socket is not None and socket.links:
            yield from _trace(socket.links[0].from_socket, wanted, groups, seen)

    kind = node.type
    if kind == "TEX_IMAGE":
        if node.image is not None and not (wanted == "height" and output.name == "Alpha"):
            yield FoundMap(node.image, "A" if output.name == "Alpha" else "RGB")
    elif kind == "BUMP":
        yield from behind(node.inputs["Height" if wanted == "height" else "Normal"])
    elif kind == "NORMAL_MAP":
        if wanted == "normal":
            yield from behind(node.inputs["Color"])
    elif kind in ("SEPARATE_COLOR", "SEPRGB"):
        channel = _CHANNELS[list(node.outputs).index(output)]
        for item in behind(node.inputs[0]):
            yield replace(item, channel=channel)
    elif kind in ("COMBINE_COLOR", "COMBRGB"):
        yield from _combined(node, behind)
    elif kind == "GROUP" and node.node_tree is not None:
        inside = next((n for n in node.node_tree.nodes if n.type == "GROUP_OUTPUT" and n.is_active_output), None)
        socket = next((s for s in inside.inputs if s.identifier == output.identifier), None) if inside else None
        if socket is not None and socket.links:
            yield from _trace(socket.links[0].from_socket, wanted, (*groups, node), seen)
    elif kind == "GROUP_INPUT" and groups:
        socket = next((s for s in groups[-1].inputs if s.identifier == output.identifier), None)
        if socket is not None and socket.links:
            yield from _trace(socket.links[0].from_socket, wanted, groups[:-1], seen)
    elif kind in _PLAIN:
        for socket in node.inputs:
            yield from behind(socket)
    elif kind in _ADJUSTING:
        yield from _adjusted(node, behind)


def _combined(node: Node, behind: Behind) -> Iterator[FoundMap]:
    """The image whose channels are put together again; its green may be inverted on the way."""
    parts = [next(behind(socket), None) for socket in list(node.inputs)[:3]]
    first = parts[0] or parts[1]
    if first is not None:
        yield replace(first, channel="RGB", inverted=False, flipped=parts[1] is not None and parts[1].inverted)


def _adjusted(node: Node, behind: Behind) -> Iterator[FoundMap]:
    """The images behind a node that changes values; inverting a map or the green of a normal map is understood."""
    sockets = [s for s in node.inputs if s.links and s.name not in ("Fac", "Factor")] or list(node.inputs)
    for socket in sockets:
        for item in behind(socket):
            if _inverts(node):
                yield replace(item, inverted=not item.inverted)
            elif _flips_green(node):
                yield replace(item, flipped=not item.flipped)
            else:
                yield replace(item, adjusted=item.adjusted or node.label or node.bl_label)


def _inverts(node: Node) -> bool:
    """Whether a node gives 1 minus its input."""
    if node.type == "INVERT":
        return not node.inputs[0].links and float(node.inputs[0].default_value) == 1.0
    if node.type == "MATH" and node.operation == "SUBTRACT":
        return not node.inputs[0].links and float(node.inputs[0].default_value) == 1.0
    return False


def _flips_green(node: Node) -> bool:
    """Whether a node's curves invert the green channel only, as is done with normal maps of DirectX."""
    if node.type != "CURVE_RGB":
        return False
    ends = [(curve.points[0].location[1], curve.points[-1].location[1]) for curve in node.mapping.curves]
    return [first > last for first, last in ends] == [False, True, False, False]


def _occlusion(material: Material, base: NodeSocket | None) -> FoundMap | None:
    """The ambient occlusion: of glTF's settings group, or what the base color `base` is multiplied with."""
    for node in material.node_tree.nodes:
        if node.type == "GROUP" and node.node_tree is not None and node.node_tree.name.startswith("glTF"):
            socket = node.inputs.get("Occlusion")
            found = _behind(_origin(material, "", socket), "ambient_occlusion")
            if found is not None:
                return found
    sockets = base.node.inputs if base is not None else ()
    nodes = [base.node, *(n for s in sockets for n in materials.feeding(s))] if base is not None else []
    for node in nodes:
        if node.type in ("MIX", "MIX_RGB") and node.blend_type == "MULTIPLY" and not materials.is_in_result(node):
            behind = [_behind(s.links[0].from_socket, "color") for s in node.inputs if s.links]
            named = [item for item in behind if item is not None and _is_occlusion(item.image)]
            if named and len(behind) > 1:
                return named[0]
    return None


def _is_occlusion(image: Image) -> bool:
    """Whether an image that a color is multiplied with is an ambient occlusion map, by its name."""
    for name in (image.name, Path(image.filepath).name):
        found = texture_sets.recognize(name)
        if found is not None and any(content.map == "ambient_occlusion" for content in found.contents):
            return True
    return False


def _format_of(normal: FoundMap) -> NormalFormat:
    """The convention of a normal map: from a green that is inverted, or from its name."""
    if normal.flipped:
        return "directx"
    for name in (normal.image.name, Path(normal.image.filepath).name):
        found = texture_sets.recognize(name)
        if found is not None and found.normal_format != "auto":
            return found.normal_format
    return "auto"


def _checked(found: MaterialMaps) -> MaterialMaps:
    """Without the maps whose image has no usable pixels; the notes say why."""
    problems = {name: image_io.problem_of(item.image, f"{_words(name)} map") for name, item in found.maps.items()}
    usable = {name: item for name, item in found.maps.items() if not problems[name]}
    return replace(found, maps=usable, notes=(*found.notes, *filter(None, problems.values())))


def _words(name: str) -> str:
    return name.replace("_", " ")


# ---------------------------------------------------------------------------------------------- from files


def set_of_file(path: Path) -> TextureSet | None:
    """The set that a file belongs to, among the files beside it; None if it belongs to none."""
    try:
        files = [file.name for file in path.parent.iterdir() if file.suffix.lower() in EXTENSIONS]
    except OSError:
        return None
    return texture_sets.find_set(files, path.name)


def set_in_folder(folder: Path) -> TextureSet:
    """The set with most maps in a folder; raises LocalError if there is none."""
    try:
        found = texture_sets.find_set(file.name for file in folder.iterdir())
    except OSError as error:
        raise LocalError("invalid-image", f"The folder {folder} cannot be read: {error.strerror}") from error
    if found is None:
        raise LocalError(
            "invalid-image",
            f"No file in {folder} has a name like wall_color.png or wall_diff_2k.jpg; open the color image itself",
        )
    return found


def load_set(found: TextureSet, folder: Path) -> MaterialMaps:
    """Loads the files of a set; raises LocalError if its color cannot be read. Other files are read when needed."""
    color = load_color(folder / found.color)
    notes, maps = [], {}
    for name in [name for name in wire.MAPS if name in found.maps]:
        source = found.maps[name]
        try:
            image = _load(folder / source.file)
        except LocalError as error:
            notes.append(error.sentence)
            continue
        if name != "emission" and image != color:
            image.colorspace_settings.name = "Non-Color"
        maps[name] = FoundMap(image, source.channel, source.inverted)
    return MaterialMaps(color, maps, found.normal_format if "normal" in maps else "auto", tuple(notes))


def load_color(path: Path) -> Image:
    """The image of a file, the one that is open already if there is one; raises LocalError if it cannot be read."""
    image = _load(path)
    if not min(image.size):
        bpy.data.images.remove(image)
        raise LocalError("invalid-image", f"{path} cannot be read as an image; choose another file")
    return image


def _load(path: Path) -> Image:
    try:
        return bpy.data.images.load(str(path), check_existing=True)
    except RuntimeError as error:
        raise LocalError("invalid-image", f"{path} cannot be opened as an image; choose another file") from error
