"""What the tools draw over the picture in the Image Editor. Points are pixels of the region, from its bottom left."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import blf
import bpy
import gpu
from bpy.types import Area, Image, Region
from gpu_extras.batch import batch_for_shader

from ..scene.frames import CornersFrame, CropFrame
from ..wire import geometry
from ..wire.geometry import Point

Color = tuple[float, float, float, float]
WHITE, BLACK, SHADE = (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.8), (0.0, 0.0, 0.0, 0.6)
FAINT, HELD, WRONG = (1.0, 1.0, 1.0, 0.45), (1.0, 0.62, 0.1, 1.0), (1.0, 0.25, 0.2, 1.0)
PREVIEW_SIDE = 220
"""Longest side of the small straightened picture, in pixels at an interface scale of 1."""
PREVIEW_CELLS = 24
"""The small straightened picture is drawn with this many quadrilaterals along each side."""


class View:
    """Where the pixels of a picture lie in the region of an Image Editor."""

    def __init__(self, region: Region, size: Sequence[int]) -> None:
        self.region, self.width, self.height = region, size[0], size[1]

    def to_region(self, point: Point) -> Point:
        """A pixel position of the picture, from its top left corner, in the region."""
        (x0, y0), (x1, y1) = (self.region.view2d.view_to_region(v, v, clip=False) for v in (0.0, 1.0))
        return x0 + (x1 - x0) * point[0] / self.width, y1 - (y1 - y0) * point[1] / self.height

    def to_picture(self, x: float, y: float) -> Point:
        """The reverse."""
        u, v = self.region.view2d.region_to_view(x, y)
        return u * self.width, (1.0 - v) * self.height

    def pixels(self, distance: float) -> float:
        """Pixels of the picture in a distance in the region."""
        return abs(self.to_picture(distance, 0.0)[0] - self.to_picture(0.0, 0.0)[0])


# ---------------------------------------------------------------------------------------------- the tools


def draw_crop(view: View, frame: CropFrame, hover: str) -> None:
    """The rectangle, bright, with handles; the rest of the picture is shaded."""
    whole, box = _corners_of(view, frame.whole), _corners_of(view, frame.box)
    (x0, y0), (x3, y3) = whole[3], whole[1]
    (x1, y1), (x2, y2) = box[3], box[1]
    for left, bottom, right, top in ((x0, y0, x3, y1), (x0, y2, x3, y3), (x0, y1, x1, y2), (x2, y1, x3, y2)):
        _fill([(left, bottom), (right, bottom), (right, top), (left, top)], SHADE)
    for part in (1 / 3, 2 / 3):
        x, y = x1 + (x2 - x1) * part, y1 + (y2 - y1) * part
        _line([(x, y1), (x, y2)], FAINT, 1.0)
        _line([(x1, y), (x2, y)], FAINT, 1.0)
    _outline([*box, box[0]])
    active = frame.handle or hover
    for name, point in frame.handles().items():
        _handle(view.to_region(point), HELD if name == active else WHITE)


def draw_corners(view: View, frame: CornersFrame, lens: float, hover: Sequence[int]) -> None:
    """The four corners with the grid of the rectangle that they show, curved by the lens."""
    problem = frame.problem(lens)
    color = WRONG if problem else WHITE
    if not problem:
        lines = geometry.grid(frame.corners, frame.size, lens, cells=6, points=24 if lens else 1)
        rim = {0, 6, 7, 13}
        for number, line in enumerate(lines):
            points = [view.to_region(point) for point in line]
            if number in rim:
                _outline(points)
            else:
                _line(points, FAINT, 1.0)
    else:
        _outline([view.to_region(point) for point in (*frame.corners, frame.corners[0])], color)
    for number, corner in enumerate(frame.corners):
        _handle(view.to_region(corner), HELD if number in (frame.held or hover) else color)


def draw_straightened(view: View, image: Image, frame: CornersFrame, lens: float, pointer: Point) -> None:
    """A small straightened picture in the top right corner of the region; in the left one if the pointer is there."""
    if frame.problem(lens):
        return
    found = geometry.straighten(frame.corners, frame.size, lens)
    scale = _scale()
    free, margin = free_width(bpy.context.area, view.region), 16 * scale
    factor = min(PREVIEW_SIDE * scale, 0.35 * free) / max(found.width, found.height)
    width, height = found.width * factor, found.height * factor
    left, top = free - width - margin, view.region.height - 40 * scale
    if pointer[0] > left - margin and pointer[1] > top - height - margin:
        left = margin
    steps = [i / PREVIEW_CELLS for i in range(PREVIEW_CELLS + 1)]
    positions, textures = [], []
    for t in steps:
        for s in steps:
            x, y = geometry.to_photograph((s * found.width, t * found.height), found, frame.size, lens)
            positions.append((left + s * width, top - t * height))
            textures.append((x / frame.size[0], 1.0 - y / frame.size[1]))
    corners = [(left, top), (left + width, top), (left + width, top - height), (left, top - height)]
    _outline([*corners, corners[0]])
    draw_picture(image, positions, textures, PREVIEW_CELLS)


def draw_split(view: View, before: Image, x: float) -> None:
    """A picture over the left part of the one that the editor shows, up to x, with a line and the two words."""
    (left, top), (right, _) = view.to_region((0, 0)), view.to_region((view.width, 0))
    bottom = view.to_region((0, view.height))[1]
    x = min(max(x, left), right)
    part = (x - left) / max(1.0, right - left)
    positions = [(left, top), (x, top), (left, bottom), (x, bottom)]
    draw_picture(before, positions, [(0.0, 1.0), (part, 1.0), (0.0, 0.0), (part, 0.0)], 1)
    _line([(x, bottom), (x, top)], BLACK, 4.0)
    _line([(x, bottom), (x, top)], WHITE, 2.0)
    height = min(top, view.region.height - 40 * _scale()) - 24 * _scale()
    draw_text("Before", x - 12 * _scale(), height, align_right=True)
    draw_text("After", x + 12 * _scale(), height)


# ---------------------------------------------------------------------------------------------- primitives


def draw_picture(image: Image, positions: Sequence[Point], textures: Sequence[Point], cells: int) -> None:
    """An image on a mesh of cells x cells quadrilaterals, given by rows of points in the region and in the texture."""
    row = cells + 1
    first = [y * row + x for y in range(cells) for x in range(cells)]
    triangles = [t for i in first for t in ((i, i + 1, i + row), (i + 1, i + row + 1, i + row))]
    shader = _picture_shader()
    content = {"pos": [(x, y, 0.0) for x, y in positions], "texCoord": list(textures)}
    batch = batch_for_shader(shader, "TRIS", content, indices=triangles)
    shader.bind()
    shader.uniform_sampler("image", gpu.texture.from_image(image))
    shader.uniform_float("data", float(image.colorspace_settings.is_data))
    shader.uniform_float("matrix", gpu.matrix.get_projection_matrix() @ gpu.matrix.get_model_view_matrix())
    batch.draw(shader)


@functools.cache
def _picture_shader() -> Any:
    """Draws an image as the Image Editor does.

    The region's buffer takes linear colors. Textures of images are linear; those of data are shown as they are, in
    sRGB. Blender 4.2 has no built-in shader for that.
    """
    between = gpu.types.GPUStageInterfaceInfo("distill_picture")
    between.smooth("VEC2", "uv")
    info = gpu.types.GPUShaderCreateInfo()
    info.push_constant("MAT4", "matrix")
    info.push_constant("FLOAT", "data")
    info.sampler(0, "FLOAT_2D", "image")
    info.vertex_in(0, "VEC3", "pos")
    info.vertex_in(1, "VEC2", "texCoord")
    info.vertex_out(between)
    info.fragment_out(0, "VEC4", "color")
    info.vertex_source("void main() { uv = texCoord; gl_Position = matrix * vec4(pos, 1.0); }")
    info.fragment_source(
        "void main() {"
        "  vec3 c = max(texture(image, uv).rgb, vec3(0.0));"
        "  vec3 high = pow((c + 0.055) / 1.055, vec3(2.4));"
        "  vec3 decoded = mix(c / 12.92, high, step(vec3(0.04045), c));"
        "  color = vec4(mix(c, decoded, data), 1.0);"
        "}"
    )
    return gpu.shader.create_from_info(info)


def draw_text(text: str, x: float, y: float, align_right: bool = False) -> None:
    """White letters with a shadow."""
    blf.size(0, 13 * _scale())
    blf.color(0, *WHITE)
    blf.enable(0, blf.SHADOW)
    blf.shadow(0, 5, 0.0, 0.0, 0.0, 1.0)
    blf.position(0, x - blf.dimensions(0, text)[0] if align_right else x, y, 0)
    blf.draw(0, text)
    blf.disable(0, blf.SHADOW)


def _corners_of(view: View, box: Sequence[float]) -> list[Point]:
    """Top left, top right, bottom right, bottom left of a box of the picture, in the region."""
    left, top, right, bottom = box
    return [view.to_region(point) for point in ((left, top), (right, top), (right, bottom), (left, bottom))]


def _outline(points: Sequence[Point], color: Color = WHITE) -> None:
    """A line that is seen on any picture."""
    _line(points, BLACK, 4.0)
    _line(points, color, 2.0)


def _handle(point: Point, color: Color) -> None:
    """A small square."""
    for half, fill in ((6.0, BLACK), (4.5, color)):
        h = half * _scale()
        x, y = point
        _fill([(x - h, y - h), (x + h, y - h), (x + h, y + h), (x - h, y + h)], fill)


def _line(points: Sequence[Point], color: Color, width: float) -> None:
    shader = gpu.shader.from_builtin("POLYLINE_UNIFORM_COLOR")
    shader.bind()
    shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
    shader.uniform_float("lineWidth", width * _scale())
    shader.uniform_float("color", color)
    _with_blending(batch_for_shader(shader, "LINE_STRIP", {"pos": [(x, y, 0.0) for x, y in points]}).draw, shader)


def _fill(points: Sequence[Point], color: Color) -> None:
    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    shader.bind()
    shader.uniform_float("color", color)
    content = {"pos": [(x, y, 0.0) for x, y in points]}
    _with_blending(batch_for_shader(shader, "TRIS", content, indices=[(0, 1, 2), (0, 2, 3)]).draw, shader)


def _with_blending(draw: Callable[[Any], None], shader: Any) -> None:
    gpu.state.blend_set("ALPHA")
    draw(shader)
    gpu.state.blend_set("NONE")


def _scale() -> float:
    return float(bpy.context.preferences.system.ui_scale)


def free_width(area: Area, region: Region) -> float:
    """The width of the region up to the sidebar that lies over it."""
    others: Iterable[Region] = (r for r in area.regions if r.type == "UI" and r.width > 1)
    over = [r.x - region.x for r in others if region.x < r.x < region.x + region.width]
    return min(over, default=region.width)
