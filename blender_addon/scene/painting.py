"""Painting flat colors with Blender's own brushes: the brush, its color, and the editor to paint in.

Only this module knows the differences in brushes and paint settings between Blender 4.2 and 5.x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy
import numpy as np
from bpy.types import Brush, Context, Event, Image, Object
from bpy_extras import view3d_utils
from mathutils import Color, Vector
from mathutils.geometry import barycentric_transform, intersect_point_tri

from ..wire.colors import PALETTE
from . import image_editors, mesh_layout, properties

BRUSH = "Distill Region"
PAINT_SHARE = 0.5
"""Share of the 3D View's width that a new Image Editor for painting takes."""


def prepare(context: Context, color: Sequence[float]) -> None:
    """Activates a hard brush in a region's color, with paint settings that keep the color flat on a model."""
    paint = context.tool_settings.image_paint
    paint.dither = 0.0
    paint.interpolation = "CLOSEST"
    paint.use_normal_falloff = False
    wrap_strokes(context)
    _ensure_brush()
    _activate(context)
    set_color(context, color)


def wrap_strokes(context: Context) -> None:
    """Lets strokes in the Image Editor continue at the opposite edge of the layout along axes that tile."""
    settings, paint = context.scene.distill, context.tool_settings.image_paint
    editors = [area.spaces.active for _, area in image_editors.opened()]
    shown = [editor.image for editor in editors if editor.ui_mode == "PAINT"]
    is_layout = settings.image_layout in shown and settings.image_regions not in shown
    paint.tile_y, paint.tile_x = (is_layout and tile for tile in properties.tiles(settings))


def set_color(context: Context, color: Sequence[float]) -> None:
    """Sets the color (sRGB, 0 to 1) of the next strokes."""
    paint = context.tool_settings.image_paint
    unified = unified_settings(context)
    for owner in (unified, paint.brush, bpy.data.brushes.get(BRUSH)):
        if owner is not None:
            owner.color = as_stored(owner, color)
    unified.use_unified_color = True


def unified_settings(context: Context) -> bpy.types.UnifiedPaintSettings:
    """The settings that all brushes share: those of the image paint mode since 5.0, those of all modes before."""
    paint = context.tool_settings.image_paint
    return getattr(paint, "unified_paint_settings", None) or context.tool_settings.unified_paint_settings


def as_stored(owner: Brush | bpy.types.UnifiedPaintSettings, color: Sequence[float]) -> tuple[float, ...]:
    """An sRGB color as this owner stores it: linear since 5.0, sRGB before."""
    if owner.bl_rna.properties["color"].subtype == "COLOR_GAMMA":
        return tuple(color[:3])
    return tuple(Color(color[:3]).from_srgb_to_scene_linear())


def _ensure_brush() -> Brush:
    """The add-on's brush in this file; a new one if there is none."""
    brush = bpy.data.brushes.get(BRUSH) or bpy.data.brushes.new(BRUSH, mode="TEXTURE_PAINT")
    harden(brush)
    if not bpy.app.background and brush.preview is None:
        _draw_preview(brush)
    if brush.asset_data is None:
        brush.asset_mark()  # since 4.3 only an asset can become the active brush
    return brush


def _draw_preview(brush: Brush) -> None:
    """Gives the brush a picture in the asset shelf: a disc in the colors of two regions."""
    side = 128
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    pixels = np.zeros((side, side, 4), np.float32)
    pixels[..., :3] = np.where((x + y < 0)[..., None], *(np.array(c) / 255 for c in PALETTE[:2]))
    pixels[..., 3] = ((0.9 - np.hypot(x, y)) * side / 2).clip(0, 1)
    pixels[..., :3] *= pixels[..., 3:]
    preview = brush.preview_ensure()
    preview.image_size = side, side
    preview.image_pixels_float.foreach_set(pixels.ravel())


def harden(brush: Brush) -> None:
    """Full strength up to the edge, and no soft pixels."""
    brush.use_paint_antialiasing = False
    brush.strength = 1.0
    brush.blend = "MIX"
    brush.use_pressure_strength = False
    brush.use_alpha = True
    brush.stroke_method = "SPACE"
    brush.spacing = 10
    if hasattr(brush, "curve_distance_falloff_preset"):
        brush.curve_distance_falloff_preset = "CONSTANT"
    else:
        brush.curve_preset = "CONSTANT"


def _activate(context: Context) -> None:
    """Makes the add-on's brush the active one: at once before Blender 4.3, with a timer since then."""
    paint = context.tool_settings.image_paint
    brush = bpy.data.brushes[BRUSH]
    if bpy.app.version < (4, 3, 0):
        paint.brush = brush
    elif not bpy.app.background and paint.brush != brush:
        bpy.app.timers.register(_ActivateBrush(), first_interval=0.1)
    unified_settings(context).use_unified_strength = False


class _ActivateBrush:
    """A timer that makes the add-on's brush the active asset. The asset library has to load on its first use."""

    def __init__(self) -> None:
        self.tries = 20

    def __call__(self) -> float | None:
        self.tries -= 1
        brush, override = bpy.data.brushes.get(BRUSH), _paint_context()
        if brush is None or override is None or self.tries < 0:
            return None
        paint = override["window"].scene.tool_settings.image_paint
        with bpy.context.temp_override(**override):
            try:
                bpy.ops.brush.asset_activate(
                    asset_library_type="LOCAL", relative_asset_identifier=f"Brush/{brush.name}"
                )
            except RuntimeError:  # paint mode was left
                return None
        if paint.brush is None or paint.brush.name != brush.name:
            return 0.3
        brush.color = as_stored(brush, _srgb(unified_settings(bpy.context)))
        return None


def _srgb(owner: bpy.types.UnifiedPaintSettings) -> tuple[float, ...]:
    if owner.bl_rna.properties["color"].subtype == "COLOR_GAMMA":
        return tuple(owner.color)
    return tuple(Color(owner.color).from_scene_linear_to_srgb())


def _paint_context() -> dict[str, Any] | None:
    """The window, area and region of a paint mode, for a context override; an Image Editor comes first."""
    windows = bpy.context.window_manager.windows
    views = [(window, area) for window in windows for area in window.screen.areas if area.type == "VIEW_3D"]
    for window, area in image_editors.painted() + views:
        return {"window": window, "area": area, "region": next(r for r in area.regions if r.type == "WINDOW")}
    return None


# ---------------------------------------------------------------------------------------------- editors


def in_image_editor(context: Context, image: Image) -> bool:
    """Shows the image in an Image Editor in paint mode, a new one if none is open; False without a window."""
    area = image_editors.find_or_open(context, PAINT_SHARE)
    if area is None:
        return False
    space = area.spaces.active
    space.image = image
    space.ui_mode = "PAINT"
    space.show_repeat = False  # Show Result may have turned it on
    return True


def replace_canvas(context: Context, old: Image, new: Image) -> None:
    """Replaces an image in Image Editors and as the canvas of texture painting."""
    paint = context.tool_settings.image_paint
    if paint.canvas == old:
        paint.canvas = new
    for _, area in image_editors.opened():
        if area.spaces.active.image == old:
            area.spaces.active.image = new


def on_model(context: Context, image: Image) -> None:
    """Starts Texture Paint on the active object with the image as canvas; raises LocalError if it has no UV map."""
    thing: Object | None = context.active_object
    mesh_layout.uv_layer(thing).active = True  # strokes go through the active UV map, materials through this one
    paint = context.tool_settings.image_paint
    paint.mode = "IMAGE"
    paint.canvas = image
    if thing is not None and thing.mode != "TEXTURE_PAINT":
        bpy.ops.object.mode_set(mode="TEXTURE_PAINT")
    has_result = context.scene.distill.last_result in bpy.data.images
    here = [context.area] if context.area is not None and context.area.type == "VIEW_3D" else []
    for area in here or [a for a in (context.screen.areas if context.screen else ()) if a.type == "VIEW_3D"]:
        # Solid shows the canvas, Material Preview shows the texture under the overlay of the layout
        overlaid = has_result and context.window_manager.distill_overlay
        area.spaces.active.shading.type = "MATERIAL" if overlaid else "SOLID"


def place_under(context: Context, event: Event, picture: str) -> tuple[float, float] | None:
    """The point (u, v) in [0, 1) of a map under the mouse in an Image Editor or on the active object, or None."""
    at = Vector((event.mouse_region_x, event.mouse_region_y))
    if context.area is None or context.region is None:
        return None
    if context.area.type == "IMAGE_EDITOR":
        if context.space_data.image != getattr(context.scene.distill, f"image_{picture}"):
            return None
        u, v = context.region.view2d.region_to_view(*at)
        return (u % 1, v % 1)
    thing = context.active_object
    if context.area.type != "VIEW_3D" or thing is None or thing.type != "MESH":
        return None
    found = _uv_under(context, thing, at)
    return None if found is None else (found[0] % 1, found[1] % 1)


def _uv_under(context: Context, thing: Object, at: Vector) -> Vector | None:
    """The UV coordinates of the object at a position of the region, or None beside it."""
    evaluated = thing.evaluated_get(context.evaluated_depsgraph_get())
    inverse = evaluated.matrix_world.inverted()
    origin = view3d_utils.region_2d_to_origin_3d(context.region, context.region_data, at)
    direction = view3d_utils.region_2d_to_vector_3d(context.region, context.region_data, at)
    start = inverse @ origin
    hit, point, _, face = evaluated.ray_cast(start, (inverse @ (origin + direction) - start).normalized())
    layer = next((layer for layer in evaluated.data.uv_layers if layer.active_render), None)
    if not hit or layer is None:
        return None
    mesh = evaluated.data
    mesh.calc_loop_triangles()
    for triangle in mesh.loop_triangles:
        if triangle.polygon_index == face:
            corners = [mesh.vertices[v].co for v in triangle.vertices]
            if intersect_point_tri(point, *corners) is not None:
                uvs = [layer.uv[loop].vector.to_3d() for loop in triangle.loops]
                return barycentric_transform(point, *corners, *uvs).to_2d()
    return None
