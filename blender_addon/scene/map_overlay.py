"""The layout drawn over the model, and the swatch over the region map, while they are painted.

Both are drawn by the viewport and belong to no datablock, so that they are neither saved nor rendered nor undone.
"""

from __future__ import annotations

from typing import Any

import bpy
import gpu
import numpy as np
from bpy.app.handlers import persistent
from bpy.types import Context, Depsgraph, Image, Mesh, Object
from gpu_extras.batch import batch_for_shader

from . import edits, image_editors, properties

DEPTH_BIAS = 2e-5
"""Distance in clip space by which the layout lies before the surface. Smaller ones flicker at 100 m with a clip start
of 0.01 m."""
_VERTEX = """
void main()
{
  gl_Position = matrix * vec4(position, 1.0);
  gl_Position.z -= bias * gl_Position.w;
  place = uv;
}
"""
_FRAGMENT = """
void main()
{
  color = vec4(texture(image, fract(place)).rgb, strength);
}
"""
_handles: list[tuple[Any, Any]] = []
_batches: dict[tuple[int, str], Any] = {}
_shaders: list[Any] = []


def is_shown(context: Context) -> bool:
    """Whether the overlay is on, for the open scene."""
    settings = context.scene.distill
    return bool(settings.use_layout and context.window_manager.distill_overlay and properties.takes_layout(settings))


def is_painted(thing: Object, layout: Image) -> bool:
    """Whether the layout is being painted, on the object or in an Image Editor. Otherwise it would hide the result."""
    if thing.mode != "OBJECT":
        return bool(thing.mode == "TEXTURE_PAINT")
    return any(area.spaces.active.image == layout for _, area in image_editors.painted())


def _draw_on_model() -> None:
    context = bpy.context
    thing = context.view_layer.objects.active if context.view_layer else None
    if not is_shown(context) or not context.space_data.overlay.show_overlays:
        return
    image = context.scene.distill.image_layout
    if image is None or thing is None or thing.type != "MESH" or not thing.visible_get() or min(image.size) == 0:
        return
    if not is_painted(thing, image):
        return
    batch = _batch_of(thing, context.evaluated_depsgraph_get())
    if batch is None:
        return
    shader = _shader()
    matrix = gpu.matrix.get_projection_matrix() @ gpu.matrix.get_model_view_matrix() @ thing.matrix_world
    shader.bind()
    shader.uniform_float("matrix", matrix)
    shader.uniform_float("bias", DEPTH_BIAS)
    shader.uniform_float("strength", context.window_manager.distill_overlay_strength)
    shader.uniform_sampler("image", gpu.texture.from_image(image))
    gpu.state.blend_set("ALPHA")
    gpu.state.depth_test_set("LESS_EQUAL")
    batch.draw(shader)
    gpu.state.depth_test_set("NONE")
    gpu.state.blend_set("NONE")


def _shader() -> Any:
    if not _shaders:
        info = gpu.types.GPUShaderCreateInfo()
        between = gpu.types.GPUStageInterfaceInfo("distill_overlay")
        between.smooth("VEC2", "place")
        info.push_constant("MAT4", "matrix")
        for name in ("bias", "strength"):
            info.push_constant("FLOAT", name)
        info.sampler(0, "FLOAT_2D", "image")
        info.vertex_in(0, "VEC3", "position")
        info.vertex_in(1, "VEC2", "uv")
        info.vertex_out(between)
        info.fragment_out(0, "VEC4", "color")
        info.vertex_source(_VERTEX)
        info.fragment_source(_FRAGMENT)
        _shaders.append(gpu.shader.create_from_info(info))
    return _shaders[0]


def _batch_of(thing: Object, depsgraph: Depsgraph) -> Any:
    """The triangles of an object as it is shown, with modifiers, and their UV coordinates; None without a UV map."""
    mesh = thing.evaluated_get(depsgraph).data
    layer = next((layer for layer in mesh.uv_layers if layer.active_render), None)
    if layer is None:
        return None
    key = thing.session_uid, layer.name
    if key not in _batches:
        _batches[key] = _new_batch(mesh, layer)
    return _batches[key]


def _new_batch(mesh: Mesh, layer: Any) -> Any:
    mesh.calc_loop_triangles()
    count = len(mesh.loop_triangles)
    vertices, loops = np.empty(count * 3, np.int32), np.empty(count * 3, np.int32)
    mesh.loop_triangles.foreach_get("vertices", vertices)
    mesh.loop_triangles.foreach_get("loops", loops)
    positions, uv = np.empty(len(mesh.vertices) * 3, np.float32), np.empty(len(mesh.loops) * 2, np.float32)
    mesh.vertices.foreach_get("co", positions)
    layer.uv.foreach_get("vector", uv)
    corners = {"position": positions.reshape(-1, 3)[vertices], "uv": uv.reshape(-1, 2)[loops]}
    return batch_for_shader(_shader(), "TRIS", corners)


def _draw_in_editor() -> None:
    context = bpy.context
    under = _underlay(context, context.space_data.image)
    if under is None or min(under.size) == 0:
        return
    view = context.region.view2d
    (x0, y0), (x1, y1) = (view.view_to_region(v, v, clip=False) for v in (0.0, 1.0))
    shader = gpu.shader.from_builtin("IMAGE_COLOR")
    corners = {"pos": [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], "texCoord": [(0, 0), (1, 0), (1, 1), (0, 1)]}
    batch = batch_for_shader(shader, "TRI_FAN", corners)
    shader.bind()
    shader.uniform_float("color", (1.0, 1.0, 1.0, 1.0 - context.window_manager.distill_overlay_strength))
    shader.uniform_sampler("image", gpu.texture.from_image(under))
    gpu.state.blend_set("ALPHA")
    batch.draw(shader)
    gpu.state.blend_set("NONE")


def _underlay(context: Context, shown: Image | None) -> Image | None:
    """What is seen through the map that an Image Editor shows: the swatch, the newest result under the layout, or the
    picture under a mask."""
    settings = context.scene.distill
    if shown is None or not context.window_manager.distill_overlay:
        return None
    if (edited := edits.edited_under(context.scene, shown)) is not None:
        return edited
    if not is_shown(context):
        return None
    if shown == settings.image_regions:
        return settings.image_swatch
    return bpy.data.images.get(settings.last_result) if shown == settings.image_layout else None


@persistent
def _on_change(_scene: bpy.types.Scene, depsgraph: Depsgraph) -> None:
    if any(changed.is_updated_geometry for changed in depsgraph.updates):
        _batches.clear()


@persistent
def _on_load(*_args: object) -> None:
    _batches.clear()


def start() -> None:
    """Begin to draw. Called when the add-on is enabled."""
    bpy.app.handlers.depsgraph_update_post.append(_on_change)
    bpy.app.handlers.load_post.append(_on_load)
    if bpy.app.background:
        return
    for space, draw, when in (
        (bpy.types.SpaceView3D, _draw_on_model, "POST_VIEW"),
        (bpy.types.SpaceImageEditor, _draw_in_editor, "POST_PIXEL"),
    ):
        _handles.append((space, space.draw_handler_add(draw, (), "WINDOW", when)))


def stop() -> None:
    """Called when the add-on is disabled."""
    for space, handle in _handles:
        space.draw_handler_remove(handle, "WINDOW")
    _handles.clear()
    _batches.clear()
    _shaders.clear()
    bpy.app.handlers.load_post.remove(_on_load)
    bpy.app.handlers.depsgraph_update_post.remove(_on_change)
