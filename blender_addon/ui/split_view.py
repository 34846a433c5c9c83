"""Two results in one Image Editor: the active one left of a line that can be dragged, the other one right of it."""

from __future__ import annotations

import functools
from typing import Any

import bpy
import gpu
import numpy as np
from bpy.types import Context, Event, Gizmo, GizmoGroup, Image, Region
from gpu_extras.batch import batch_for_shader

from ..scene import materials, results, windows

GRAB_PIXELS = 8
"""Distance from the line within which it can be grabbed."""

_textures: dict[int, tuple[tuple[int, int], Any]] = {}
"""The texture of the result on the right, with its size, by the session_uid of its image: an image of another file can
have the same name. Only the newest one is kept."""


def is_shown(context: Context) -> bool:
    """Whether the context's Image Editor shows a comparison: only one that shows one of the two results."""
    manager, space = context.window_manager, context.space_data
    image = getattr(space, "image", None)
    return bool(manager.distill_split_on and image is not None and image.get(materials.JOB) == manager.distill_result)


def corners(region: Region) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of the image in pixels of the region."""
    left, bottom = region.view2d.view_to_region(0.0, 0.0, clip=False)
    right, top = region.view2d.view_to_region(1.0, 1.0, clip=False)
    return left, bottom, right, top


def _texture(image: Image) -> Any:
    """The image's pixels, linear: the frame buffer of a region turns them into sRGB."""
    size = (image.size[0], image.size[1])
    kept = _textures.get(image.session_uid)
    if kept is None or kept[0] != size:
        values = np.empty(size[0] * size[1] * 4, np.float32)
        image.pixels.foreach_get(values)
        rgb = values.reshape(-1, 4)[:, :3]
        rgb[:] = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        buffer = gpu.types.Buffer("FLOAT", len(values), values)
        _textures.clear()
        kept = _textures[image.session_uid] = size, gpu.types.GPUTexture(size, format="RGBA16F", data=buffer)
    return kept[1]


def _draw() -> None:
    context = bpy.context
    if not is_shown(context):
        return
    manager = context.window_manager
    other = results.image_of(manager.distill_compare)
    if other is None:
        return
    left, bottom, right, top = corners(context.region)
    split = manager.distill_split
    x = left + (right - left) * split
    places = ((x, bottom), (right, bottom), (right, top), (x, top))
    parts = ((split, 0.0), (1.0, 0.0), (1.0, 1.0), (split, 1.0))
    shader = _image_shader()
    batch = batch_for_shader(shader, "TRI_FAN", {"pos": places, "texCoord": parts})
    shader.bind()
    shader.uniform_float("matrix", gpu.matrix.get_projection_matrix() @ gpu.matrix.get_model_view_matrix())
    shader.uniform_sampler("image", _texture(other))
    batch.draw(shader)
    _draw_line(x, bottom, top)


@functools.cache
def _image_shader() -> Any:
    """A shader that draws linear pixels as squares, as the Image Editor draws an image: Blender's own ones smooth."""
    info = gpu.types.GPUShaderCreateInfo()
    info.push_constant("MAT4", "matrix")
    info.sampler(0, "FLOAT_2D", "image")
    info.vertex_in(0, "VEC2", "pos")
    info.vertex_in(1, "VEC2", "texCoord")
    between = gpu.types.GPUStageInterfaceInfo("distill_split_view")
    between.smooth("VEC2", "place")
    info.vertex_out(between)
    info.fragment_out(0, "VEC4", "color")
    info.vertex_source("void main() { place = texCoord; gl_Position = matrix * vec4(pos, 0.0, 1.0); }")
    info.fragment_source(
        """
        void main() {
          ivec2 size = textureSize(image, 0);
          ivec2 pixel = clamp(ivec2(place * vec2(size)), ivec2(0), size - 1);
          color = vec4(texelFetch(image, pixel, 0).rgb, 1.0);
        }
        """
    )
    return gpu.shader.create_from_info(info)


def _draw_line(x: float, bottom: float, top: float) -> None:
    """A white line with dark sides, to be seen over any texture."""
    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    shader.bind()
    for half, color in ((2.0, (0.0, 0.0, 0.0, 1.0)), (1.0, (1.0, 1.0, 1.0, 1.0))):
        places = ((x - half, bottom), (x + half, bottom), (x + half, top), (x - half, top))
        shader.uniform_float("color", color)
        batch_for_shader(shader, "TRI_FAN", {"pos": places}).draw(shader)


class DISTILL_GT_split(Gizmo):
    """The line between two results."""

    bl_idname = "DISTILL_GT_split"

    def draw(self, _context: Context) -> None:
        """The line is drawn with the picture."""

    def test_select(self, context: Context, location: tuple[int, int]) -> int:
        left, bottom, right, top = corners(context.region)
        x = left + (right - left) * context.window_manager.distill_split
        return 0 if abs(location[0] - x) < GRAB_PIXELS and bottom <= location[1] <= top else -1

    def invoke(self, _context: Context, _event: Event) -> set[str]:
        return {"RUNNING_MODAL"}

    def exit(self, _context: Context, _cancel: bool) -> None:
        windows.redraw_soon()  # the panel shows the place of the line, too

    def modal(self, context: Context, event: Event, _tweak: set[str]) -> set[str]:
        left, _bottom, right, _top = corners(context.region)
        context.window_manager.distill_split = (event.mouse_region_x - left) / max(1.0, right - left)
        context.area.tag_redraw()
        return {"RUNNING_MODAL"}


class DISTILL_GGT_split(GizmoGroup):
    """Makes the line between two results draggable."""

    bl_idname = "DISTILL_GGT_split"
    bl_label = "Line between Two Results"
    bl_space_type = "IMAGE_EDITOR"
    bl_region_type = "WINDOW"
    bl_options = {"PERSISTENT", "SHOW_MODAL_ALL"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return is_shown(context)

    def setup(self, _context: Context) -> None:
        self.gizmos.new(DISTILL_GT_split.bl_idname).use_draw_modal = True


_handle: Any = None


def start() -> None:
    """Begins to draw comparisons. Called when the add-on is enabled; not in background mode, which has no GPU."""
    global _handle
    if not bpy.app.background:
        _handle = bpy.types.SpaceImageEditor.draw_handler_add(_draw, (), "WINDOW", "POST_PIXEL")


def stop() -> None:
    """Called when the add-on is disabled."""
    global _handle
    if _handle is not None:
        bpy.types.SpaceImageEditor.draw_handler_remove(_handle, "WINDOW")
        _handle = None
    _textures.clear()


classes = (DISTILL_GT_split, DISTILL_GGT_split)
