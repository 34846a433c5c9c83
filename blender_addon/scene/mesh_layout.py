"""A layout from what an object has: material slots, vertex groups, face sets, selected faces; or from any image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import bmesh
import bpy
import numpy as np
from bpy.types import Context, Image, Mesh, Object, Scene

from ..wire.colors import PALETTE
from ..wire.errors import LocalError
from . import image_io, label_arrays, map_history, rasterize, regions

SOURCES = {
    "SLOTS": ("Material Slots", "A region for each material of the object"),
    "GROUPS": ("Vertex Groups", "A region for each vertex group, where its weight is the largest"),
    "SETS": ("Face Sets", "A region for each face set of Sculpt Mode"),
}
"""What a whole layout is made of: title and help of each source."""
REST = "Rest"
"""Name of the region of vertices that belong to no group."""


def uv_layer(thing: Object | None) -> Any:
    """The UV map that materials use; raises LocalError if the object is no mesh or has none."""
    if thing is None or thing.type != "MESH":
        raise LocalError("invalid-labels", "A layout on the model needs a mesh as the active object")
    found = next((layer for layer in thing.data.uv_layers if layer.active_render), None)
    if found is None:
        raise LocalError("invalid-labels", f"The object “{thing.name}” has no UV map; unwrap it")
    return found


def layout_from_object(scene: Scene, thing: Object, source: str, size: tuple[int, int]) -> Image:
    """A layout from a source in SOURCES, with regions of the same names. `size`: width and height of the texture."""
    name = uv_layer(thing).name
    shape = _shape(scene, size)
    with _mesh_of(thing) as mesh:
        corners, faces, vertices = _triangles(mesh, name)
        if source == "GROUPS":
            names, weights = _group_weights(thing, mesh)
            corners, labels = rasterize.by_weight(corners, weights[vertices], shape)
        else:
            names, of_faces = _slots(thing, mesh) if source == "SLOTS" else _face_sets(thing, mesh)
            labels = of_faces[faces]
    used, labels = np.unique(labels, return_inverse=True)
    names = [names[i] for i in used]
    if len(names) < 2:
        title = SOURCES[source][0].lower()
        raise LocalError("invalid-labels", f"The object “{thing.name}” has faces of one kind only in its {title}")
    if len(names) > len(PALETTE):
        raise LocalError(
            "invalid-labels",
            f"The object “{thing.name}” would need {len(names)} regions; {len(PALETTE)} is the most",
        )
    indices = _regions_named(scene, names)
    drawn = rasterize.rasterize(corners, indices[labels.ravel()], shape)
    largest = int(np.bincount(drawn[drawn >= 0], minlength=1).argmax())
    return regions.assign(scene, "layout", np.where(drawn < 0, largest, drawn))


def fill_selected(scene: Scene, thing: Object, region: int, size: tuple[int, int], uv_selection: bool) -> Image:
    """Paints a region where the selected faces lie. `uv_selection`: those selected in the UV Editor."""
    name = uv_layer(thing).name
    with _mesh_of(thing) as mesh:
        corners, faces, _ = _triangles(mesh, name)
        selected = np.empty(len(mesh.polygons), bool)
        mesh.polygons.foreach_get("select", selected)
    if thing.mode == "EDIT" and uv_selection:
        selected = _selected_in_uv_editor(thing, name)
    if not selected.any():
        raise LocalError(
            "invalid-labels", f"No face of the object “{thing.name}” is selected; select some in Edit Mode"
        )
    chosen = selected[faces]
    drawn = rasterize.rasterize(corners[chosen], np.zeros(int(chosen.sum()), int), _shape(scene, size))
    return _fill(scene, drawn >= 0, region, size)


def fill_mask(scene: Scene, mask: Image, threshold: float, region: int, size: tuple[int, int]) -> Image:
    """Paints a region where an image is brighter than `threshold` (0 to 1)."""
    pixels = image_io.pixels_of(mask, "mask")
    gray = pixels[..., :3].mean(-1, dtype=np.float32) / 255
    height, width = _shape(scene, size)
    rows, columns = (np.arange(height) * len(gray) // height, np.arange(width) * gray.shape[1] // width)
    return _fill(scene, (gray >= threshold)[rows][:, columns], region, size)


def _fill(scene: Scene, area: np.ndarray, region: int, size: tuple[int, int]) -> Image:
    """Paints a region into an area (height, width) of the layout, a new one if there is none."""
    if scene.distill.image_layout is None:
        regions.new_layout(scene, *size)
    found = regions.read_map(scene, "layout")
    after = np.where(area, label_arrays.opaque(regions.colors_of(scene))[region], found.packed)
    return map_history.write(scene, "layout", found.packed, after)


def _shape(scene: Scene, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the layout, or of a new one."""
    image = scene.distill.image_layout
    return (image.size[1], image.size[0]) if image is not None and min(image.size) else regions.layout_shape(*size)


def _regions_named(scene: Scene, names: Sequence[str]) -> np.ndarray:
    """The index of the region of each name (n,): one of that name, else one that was never renamed, else a new one."""
    settings = scene.distill
    indices = []
    for name in names:
        known = {r.name: i for i, r in enumerate(settings.regions)}
        unnamed = [i for n, i in known.items() if regions.is_default_name(n) and i not in indices and n not in names]
        index = known.get(name, unnamed[0] if unnamed else -1)
        if index < 0:
            index = regions.add_region(scene, name)
        settings.regions[index].name = name
        indices.append(index)
    settings.region_index = indices[0]
    return np.array(indices, np.int16)


@contextmanager
def _mesh_of(thing: Object) -> Iterator[Mesh]:
    """The object's mesh; a copy of the edited one in Edit Mode, where the mesh itself has no UV coordinates."""
    if thing.mode != "EDIT":
        yield thing.data
        return
    copy = bpy.data.meshes.new("copy")
    try:
        bmesh.from_edit_mesh(thing.data).to_mesh(copy)
        yield copy
    finally:
        bpy.data.meshes.remove(copy)


def _triangles(mesh: Mesh, layer: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """UV coordinates (n, 3, 2), faces (n,) and vertices (n, 3) of a mesh's triangles."""
    mesh.calc_loop_triangles()
    count = len(mesh.loop_triangles)
    loops, vertices, faces = np.empty(count * 3, np.int32), np.empty(count * 3, np.int32), np.empty(count, np.int32)
    mesh.loop_triangles.foreach_get("loops", loops)
    mesh.loop_triangles.foreach_get("vertices", vertices)
    mesh.loop_triangles.foreach_get("polygon_index", faces)
    uv = np.empty(len(mesh.loops) * 2, np.float32)
    mesh.uv_layers[layer].uv.foreach_get("vector", uv)
    return uv.reshape(-1, 2)[loops].reshape(-1, 3, 2), faces, vertices.reshape(-1, 3)


def _slots(thing: Object, mesh: Mesh) -> tuple[list[str], np.ndarray]:
    names = [slot.material.name if slot.material else f"Slot {i + 1}" for i, slot in enumerate(thing.material_slots)]
    of_faces = np.empty(len(mesh.polygons), np.int32)
    mesh.polygons.foreach_get("material_index", of_faces)
    return names or ["Slot 1"], of_faces.clip(0, max(0, len(names) - 1))


def _face_sets(thing: Object, mesh: Mesh) -> tuple[list[str], np.ndarray]:
    attribute = mesh.attributes.get(".sculpt_face_set")
    if attribute is None:
        raise LocalError("invalid-labels", f"The object “{thing.name}” has no face sets; make some in Sculpt Mode")
    values = np.empty(len(mesh.polygons), np.int32)
    attribute.data.foreach_get("value", values)
    distinct, of_faces = np.unique(values, return_inverse=True)
    return [f"Face Set {value}" for value in distinct], of_faces.ravel()


def _group_weights(thing: Object, mesh: Mesh) -> tuple[list[str], np.ndarray]:
    """The names of the groups that are used, and the weight (vertices, groups) of each; the first one is the rest."""
    if not thing.vertex_groups:
        raise LocalError("invalid-labels", f"The object “{thing.name}” has no vertex groups")
    weights = np.zeros((len(mesh.vertices), len(thing.vertex_groups) + 1), np.float32)
    for vertex in mesh.vertices:
        for member in vertex.groups:
            weights[vertex.index, member.group + 1] = member.weight
    weights[:, 0] = (1 - weights[:, 1:].sum(1)).clip(0) + 1e-6
    return [REST, *(group.name for group in thing.vertex_groups)], weights


def _selected_in_uv_editor(thing: Object, layer: str) -> np.ndarray:
    """Whether all corners of each face are selected in the UV Editor, which shows selected faces only."""
    edited = bmesh.from_edit_mesh(thing.data)
    uv = edited.loops.layers.uv[layer]
    since_5 = bpy.app.version >= (5, 0, 0)
    selected = (
        face.select and all(loop.uv_select_vert if since_5 else loop[uv].select for loop in face.loops)
        for face in edited.faces
    )
    return np.fromiter(selected, bool, len(edited.faces))


def takes_uv_selection(context: Context) -> bool:
    """Whether the artist selects in the UV Editor independently of the viewport."""
    area = context.area
    return area is not None and area.type == "IMAGE_EDITOR" and not context.tool_settings.use_uv_select_sync
