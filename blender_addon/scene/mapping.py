"""The size of a result on an object: repeats, the real width of a tile, and texel density."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from bpy.types import Image, Material, Node, Object

from . import map_nodes, result_nodes
from .image_io import size_of
from .materials import feeding, unusable

FITTED = "distill_fitted"
"""Custom property of a frame: width and height in pixels of the image that its repeats were chosen for."""
DEPTH_FITTED = "distill_depth_fitted"
"""Custom property of the node with the depth of a height map: whether the depth was set for the object."""
COVERS = "distill_covers_uv"
"""Custom property of a frame: whether that image covers the UV map once, as one that follows a layout."""
PROJECTIONS = {
    "UV": ("UV", "Through the object's UV map"),
    "BOX": ("Box", "From the six sides of a box, without a UV map. Edges are blended a little"),
    "TRIPLANAR": ("Triplanar", "From three sides, blended by the direction of the surface, without a UV map"),
}
COARSE_VERTICES = 2000
"""Vertices below which a displaced mesh shows no relief: 45 x 45 of them on a plane."""
MAX_MEASURED_LOOPS = 400_000
"""Face corners up to which a UV map is measured while the panel is drawn: about 10 ms on one core."""


@dataclass(frozen=True)
class Surface:
    """An object's size: meters for one unit of its UV map (0 without one), local scale in meters, largest side."""

    meters_per_uv: float
    scale: tuple[float, float, float]
    largest: float


def set_projection(material: Material, projection: str, thing: Object | None) -> None:
    """Changes the projection of a material's result. The width of a tile stays the same on the object, if known."""
    frame = _frame(material)
    if result_nodes.projection_of(frame) == projection:
        return
    surface = surface_of(thing) if thing is not None else None
    width = tile_width(material, surface)
    result_nodes.set_projection(material, projection)
    if projection == "UV" and (width is None or surface is None or not surface.meters_per_uv):
        set_repeats(material, 1.0)
    elif surface is not None:
        set_tile_width(material, surface, width or surface.largest)


def fit(material: Material, thing: Object | None) -> None:
    """Sizes a result that was just applied: by its real width if it is known, else as the result before it.

    A result that was painted through the UV map, or that restyles a texture, covers the UV map once. Others are not
    stretched: an image of 256 x 64 repeats four times as often in height. An object without UV map gets a box.
    """
    frame = _frame(material)
    image = _image(material)
    if image is None:
        return
    has_uv = thing is None or thing.type != "MESH" or bool(thing.data.uv_layers)
    if not has_uv and result_nodes.projection_of(frame) == "UV":
        result_nodes.set_projection(material, "BOX")
        frame.pop(FITTED, None)
    before, covered = tuple(frame.get(FITTED, ())), bool(frame.get(COVERS, False))
    size = frame[FITTED] = size_of(image)
    covers = frame[COVERS] = covers_uv(image)
    result_nodes.set_plain_uv(material, follows_layout(image))
    surface = surface_of(thing) if thing is not None else None
    is_uv = result_nodes.projection_of(frame) == "UV"
    width = real_width(image)
    if image.source == "TILED" or (is_uv and covers):
        if not covered or image.source == "TILED":
            _set_scale(material, (1.0, 1.0, 1.0))
    elif width and surface is not None and (surface.meters_per_uv or not is_uv):
        set_tile_width(material, surface, width)
    elif is_uv:
        x, y = repeats(material)
        shape = before[0] / before[1] if before else 1.0
        _set_scale(material, (x, y * (size[0] / size[1]) / shape, 1.0))
    elif not before and surface is not None:
        set_tile_width(material, surface, surface.largest)


def fit_depth(material: Material, thing: Object | None) -> None:
    """Sets the depth of a height map that was not shown before: a part of the width of a tile on the object."""
    socket = map_nodes.depth_of(material.node_tree, _frame(material))
    if socket is None or socket.node.get(DEPTH_FITTED):
        return
    socket.node[DEPTH_FITTED] = True
    surface = surface_of(thing) if thing is not None else None
    width = tile_width(material, surface)
    if width is not None and surface is not None:
        in_object = socket.node.type == "DISPLACEMENT"
        socket.default_value = map_nodes.DEPTH * width / (surface.scale[0] if in_object else 1.0)


def is_coarse(thing: Object | None) -> bool:
    """Whether an object has too few faces for a displacement to show more than a deformed object."""
    if thing is None or thing.type != "MESH":
        return thing is None
    subdivides = any(modifier.type in {"SUBSURF", "MULTIRES", "REMESH"} for modifier in thing.modifiers)
    return not subdivides and len(thing.data.vertices) < COARSE_VERTICES


def covers_uv(image: Image) -> bool:
    """Whether a result belongs to the UV map as a whole: it follows a painted layout or restyles a texture."""
    return json_of(image, "distill_request").get("kind") == "restyle" or follows_layout(image)


def follows_layout(image: Image) -> bool:
    """Whether a result was made for a layout, which is painted through the UV map."""
    return "layout" in json_of(image, "distill_request").get("inputs", {})


def real_width(image: Image) -> float:
    """The width of a result in meters, from the pixels per meter that its job has found; 0 if unknown."""
    density = float(image.get("distill_pixels_per_meter", 0.0))
    return size_of(image)[0] / density if density > 0 else 0.0


def repeats(material: Material) -> tuple[float, float]:
    """How often a result repeats along the first two axes of its coordinates."""
    node = result_nodes.find_mapping(material.node_tree, _frame(material))
    scale = node.inputs["Scale"].default_value if node is not None else (1.0, 1.0)
    return float(scale[0]), float(scale[1])


def set_repeats(material: Material, count: float) -> None:
    """Repeats a result `count` times across the UV map (or per unit of the object); the height is not stretched."""
    image = _image(material)
    width, height = size_of(image) if image is not None else (1, 1)
    shape = width / max(1, height)
    is_uv = result_nodes.projection_of(_frame(material)) == "UV"
    _set_scale(material, (count, count * shape, 1.0) if is_uv else (count, count, count))


def set_tile_width(material: Material, surface: Surface, width: float) -> None:
    """Makes a tile `width` meters wide on an object. Raises LocalError if the object has no UV map to measure."""
    if result_nodes.projection_of(_frame(material)) == "UV":
        if not surface.meters_per_uv:
            raise unusable(material, "is used without a UV map, so its width cannot be set; choose Box or Triplanar")
        set_repeats(material, surface.meters_per_uv / width / _artist_scale(material))
    else:
        x, y, z = surface.scale
        _set_scale(material, (x / width, y / width, z / width))


def tile_width(material: Material, surface: Surface | None) -> float | None:
    """Width of a tile in meters on an object; None if it cannot be measured."""
    count = repeats(material)[0]
    if surface is None or count <= 0:
        return None
    if result_nodes.projection_of(_frame(material)) != "UV":
        return surface.scale[0] / count
    return surface.meters_per_uv / (count * _artist_scale(material)) or None


def texel_density(material: Material, surface: Surface | None) -> float | None:
    """Pixels of a result on one meter of an object; None if it cannot be measured."""
    width, image = tile_width(material, surface), _image(material)
    return size_of(image)[0] / width if width and image is not None else None


def set_texel_density(material: Material, surface: Surface, density: float) -> None:
    """Shows `density` pixels of a result on one meter of an object; raises as `set_tile_width`."""
    image = _image(material)
    if image is not None:
        set_tile_width(material, surface, size_of(image)[0] / density)


def stretch(material: Material) -> float:
    """Width of a pixel divided by its height on a square UV map; 1 is not stretched."""
    image = _image(material)
    if image is None or result_nodes.projection_of(_frame(material)) != "UV":
        return 1.0
    x, y = repeats(material)
    width, height = size_of(image)
    return (y * height) / (x * width) if x * y * width * height else 1.0


# ---------------------------------------------------------------------------------------------- surfaces

_measured: dict[tuple[object, ...], tuple[Surface, float]] = {}
"""Surfaces by object, and until when they are used: measuring a large mesh takes longer than drawing the panel."""


def shown_surface(thing: Object | None) -> Surface | None:
    """The surface of an object for the panel, measured again from time to time; None for very large meshes."""
    if thing is None:
        return None
    loops = len(thing.data.loops) if thing.type == "MESH" else 0
    if loops > MAX_MEASURED_LOOPS:
        return None
    key = (thing.name_full, loops, tuple(thing.scale))
    found = _measured.get(key)
    begin = time.monotonic()
    if found is not None and begin < found[1]:
        return found[0]
    surface = surface_of(thing)
    now = time.monotonic()
    if len(_measured) > 100:
        _measured.clear()
    _measured[key] = surface, now + max(1.0, 100 * (now - begin))  # at most a hundredth of the time
    return surface


def surface_of(thing: Object) -> Surface:
    """Measures an object in meters, with its scale and the unit scale of the scene."""
    unit = bpy.context.scene.unit_settings.scale_length
    x, y, z = (abs(s) * unit for s in thing.matrix_world.to_scale())
    largest = max(thing.dimensions) * unit or 1.0
    return Surface(_meters_per_uv(thing, np.array([x, y, z])), (x, y, z), largest)


def _meters_per_uv(thing: Object, scale: np.ndarray) -> float:
    """Square root of the area of an object's triangles divided by their area in the UV map."""
    mesh = thing.data
    if thing.type != "MESH" or not mesh.uv_layers or not len(mesh.polygons):
        return 0.0
    mesh.calc_loop_triangles()
    corners = _values(mesh.loop_triangles, "loops", np.int32, 3).reshape(-1, 3)
    vertices = _values(mesh.loops, "vertex_index", np.int32)
    layer = next((layer for layer in mesh.uv_layers if layer.active_render), mesh.uv_layers[0])
    if len(layer.data) != len(mesh.loops):  # edit mode holds the UV map
        return 0.0
    places = _values(mesh.vertices, "co", np.float32, 3).reshape(-1, 3) * scale
    a, b, c = (places[vertices[corners[:, i]]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()
    uv = _values(layer.data, "uv", np.float32, 2).reshape(-1, 2)
    (ax, ay), (bx, by), (cx, cy) = (uv[corners[:, i]].T for i in range(3))
    uv_area = np.abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)).sum()
    return float(np.sqrt(area / uv_area)) if uv_area > 0 else 0.0


def _values(collection: bpy.types.bpy_prop_collection, name: str, kind: type, each: int = 1) -> np.ndarray:
    values: np.ndarray = np.empty(len(collection) * each, kind)
    collection.foreach_get(name, values)
    return values


# ---------------------------------------------------------------------------------------------- nodes


def _frame(material: Material) -> Node:
    frame = result_nodes.frame_of(material)
    if frame is None:
        raise unusable(material, "shows no result; apply one first")
    return frame


def _image(material: Material) -> Image | None:
    node = result_nodes.picture_nodes(material.node_tree, _frame(material)).get("image")
    return result_nodes.picture_of(node) if node is not None else None


def _set_scale(material: Material, scale: tuple[float, float, float]) -> None:
    """Sets the repeats; a height map becomes as much shallower as its tiles become smaller."""
    frame = _frame(material)
    socket = result_nodes.mapping_node(material, frame).inputs["Scale"]
    before, depth = float(socket.default_value[0]), map_nodes.depth_of(material.node_tree, frame)
    socket.default_value = scale
    if depth is not None and before > 0 and scale[0] > 0:
        depth.default_value *= before / scale[0]


def _artist_scale(material: Material) -> float:
    """The scale of the artist's own Mapping node, if the result's coordinates go through it."""
    own = result_nodes.find_mapping(material.node_tree, _frame(material))
    node = next((n for n in feeding(own.inputs["Vector"]) if n.type == "MAPPING"), None) if own is not None else None
    if node is None or node.inputs["Scale"].links:
        return 1.0
    return float(node.inputs["Scale"].default_value[0]) or 1.0


def json_of(image: Image, key: str) -> dict[str, Any]:
    try:
        found = json.loads(image.get(key, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
