"""Makes the example swatch: cobbles and moss, modeled from noise and rendered by Cycles, without a photograph.

Run with a Python that has bpy: `python make_swatch.py [FOLDER]`. Writes cobbles.png, the swatch, its maps
cobbles_normal.png (OpenGL), cobbles_height.png and cobbles_roughness.png, its region map of stone and moss,
cobbles_regions.png, and a layout in their colors, cobbles_layout.png. All are CC0.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SIDE = 448  # pixels of the swatch
LAYOUT_SIDE = 512
HEIGHTS = (-0.02, 0.14)  # the heights that are black and white in the height map
STONE_ROUGHNESS, MOSS_ROUGHNESS = 0.55, 0.95
EDGE = 1.06  # the ground reaches from -EDGE to EDGE, the camera sees -1 to 1
GRID = 1200  # vertices of the ground along a side
STONES = 10  # cobbles along a side of the picture
LEAVES = 150_000
STONE_COLOR, MOSS_COLOR = (214, 120, 60), (60, 160, 80)  # of the region map


def noise(rng: np.random.Generator, x: Array, y: Array, cells: float, octaves: int = 4) -> Array:
    """Fractal value noise, about -1 to 1, smooth between the points of a random grid."""
    total = np.zeros_like(x)
    for octave in range(octaves):
        grid = rng.uniform(-1, 1, (256, 256)).astype(np.float32)
        u, v = (np.mod((a + EDGE) / 2 * cells * 2**octave, 256) for a in (x, y))
        i, j = u.astype(int) % 256, v.astype(int) % 256
        a, b = (t * t * (3 - 2 * t) for t in (u - np.floor(u), v - np.floor(v)))
        i1, j1 = (i + 1) % 256, (j + 1) % 256
        top = grid[j, i] * (1 - a) + grid[j, i1] * a
        low = grid[j1, i] * (1 - a) + grid[j1, i1] * a
        total += 0.5**octave * (top * (1 - b) + low * b)
    return total


def smoothstep(low: float, high: float, a: Array) -> Array:
    t = np.clip((a - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def cobbles(x: Array, y: Array) -> tuple[Array, Array]:
    """Distance to the joint, in stones, and the number of the stone under each point."""
    rng = np.random.default_rng(5)
    u = (x + 0.05 * noise(rng, x, y, 6, 3) + EDGE) * STONES / 2
    v = (y + 0.05 * noise(rng, x, y, 6, 3) + EDGE) * STONES / 2
    jitter = rng.uniform(-0.3, 0.3, (2, 64, 64)).astype(np.float32)
    first = np.full(x.shape, 9, np.float32)
    second, stone = first.copy(), np.zeros(x.shape, np.int32)
    for dy in (-1, 0, 1, 2):
        for dx in (-1, 0, 1):
            i, j = np.floor(u).astype(int) + dx, np.floor(v).astype(int) + dy
            px, py = jitter[:, j % 64, i % 64]
            d = (np.abs(i + 0.5 + px - u) ** 2.6 + np.abs(j + 0.5 * (i % 2) + py - v) ** 2.6) ** (1 / 2.6)
            closer = d < first
            second = np.where(closer, first, np.minimum(second, d))
            stone = np.where(closer, (j % 64) * 64 + i % 64, stone)
            first = np.where(closer, d, first)
    return second - first, stone


def moss_amount(x: Array, y: Array, joint: Array) -> Array:
    """Amount of moss, 0 to 1: wide patches, and at their edges along the joints."""
    rng = np.random.default_rng(40)
    patches = noise(rng, x, y, 2.2, 3) + 0.12 * noise(rng, x, y, 40, 3)
    return smoothstep(-0.12, 0.12, patches - 0.35 * np.clip(joint - 0.25, -0.25, 0.5))


def ground(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Height, color (N, 3, linear) and moss at the points."""
    rng = np.random.default_rng(8)
    joint, stone = cobbles(x, y)
    own = rng.random((4096, 5)).astype(np.float32)[stone]
    s = np.clip((joint - 0.05) / (0.3 + 0.2 * own[..., 0]), 0, 1)
    dome = np.sqrt(1 - (1 - s) ** 2)
    rough, pits = noise(rng, x, y, 26, 5), noise(rng, x, y, 90, 3)
    stones = dome * (0.055 + 0.03 * own[..., 1]) + s * (0.007 * rough + 0.004 * pits)
    soil = 0.012 * noise(rng, x, y, 50, 4)
    moss = moss_amount(x, y, joint)
    cushion = 0.05 + 0.022 * noise(rng, x, y, 14, 2) + 0.010 * noise(rng, x, y, 60, 2)
    height = np.maximum(stones, soil) * (1 - 0.7 * moss) + moss * cushion

    gray = 0.15 + 0.16 * own[..., 2] + 0.05 * noise(rng, x, y, 10, 4) + 0.05 * rough + 0.06 * pits
    warm = 0.16 * (own[..., 3] - 0.45) + 0.05 * noise(rng, x, y, 5, 3)
    color = np.clip(gray, 0.03, 0.6)[..., None] * np.stack([1.06 + warm, 1 + 0 * warm, 0.93 - warm], -1)
    lichen = smoothstep(0.55, 0.75, noise(rng, x, y, 22, 4)) * s * (own[..., 4] > 0.6)
    color = color * (1 - 0.6 * lichen[..., None]) + 0.6 * lichen[..., None] * np.array([0.42, 0.42, 0.33])
    earth = (0.045 + 0.02 * noise(rng, x, y, 80, 3))[..., None] * np.array([1.2, 0.95, 0.7])
    bare = smoothstep(0.02, 0.14, joint)[..., None]
    color = earth * (1 - bare) + color * bare
    green = (0.05 + 0.02 * noise(rng, x, y, 30, 3))[..., None] * np.array([0.75, 1.0, 0.25])
    return height, color * (1 - moss[..., None]) + green * moss[..., None], moss


def mesh(name: str, points: Array, faces: NDArray[np.int32], colors: Array) -> None:
    """An object of polygons with `faces.shape[1]` corners, colored by its points, in the scene."""
    data = bpy.data.meshes.new(name)
    data.vertices.add(len(points))
    data.vertices.foreach_set("co", points.astype(np.float32).ravel())
    corners = faces.shape[1]
    data.loops.add(faces.size)
    data.loops.foreach_set("vertex_index", faces.astype(np.int32).ravel())
    data.polygons.add(len(faces))
    data.polygons.foreach_set("loop_start", np.arange(0, faces.size, corners, dtype=np.int32))
    data.update(calc_edges=True)
    data.shade_smooth()
    layer = data.color_attributes.new("color", "FLOAT_COLOR", "POINT")
    layer.data.foreach_set("color", np.c_[colors, np.ones(len(colors))].astype(np.float32).ravel())

    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    attribute = nodes.new("ShaderNodeVertexColor")
    attribute.layer_name = "color"
    links.new(attribute.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
    nodes["Principled BSDF"].inputs["Roughness"].default_value = 0.75
    data.materials.append(material)
    bpy.context.collection.objects.link(bpy.data.objects.new(name, data))


def add_ground() -> None:
    axis = np.linspace(-EDGE, EDGE, GRID, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    height, color, _ = ground(x, y)
    number = np.arange(GRID * GRID, dtype=np.int32).reshape(GRID, GRID)
    faces = np.stack([number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]], -1).reshape(-1, 4)
    mesh("ground", np.stack([x, y, height], -1).reshape(-1, 3), faces, color.reshape(-1, 3))


def add_leaves() -> None:
    """The moss: small bent blades where there is much of it."""
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-EDGE, EDGE, (2, LEAVES)).astype(np.float32)
    height, _, moss = ground(x, y)
    keep = rng.random(LEAVES) < moss**1.5
    x, y, height, moss = x[keep], y[keep], height[keep], moss[keep]
    n = len(x)
    turn, lean = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.3, 1.3, n)
    length = rng.uniform(0.010, 0.024, n) * (0.4 + 0.6 * moss)
    root = np.stack([x, y, height - 0.002], -1)
    way = np.stack([np.cos(turn) * np.sin(lean), np.sin(turn) * np.sin(lean), np.cos(lean)], -1)
    side = np.stack([-np.sin(turn), np.cos(turn), 0 * turn], -1) * (0.17 * length)[:, None]
    middle = root + way * (0.55 * length)[:, None]
    tip = root + way * length[:, None] - np.array([0, 0, 0.2]) * length[:, None]
    points = np.stack([root, middle + side, tip, middle - side], 1).reshape(-1, 3)
    faces = np.arange(4 * n, dtype=np.int32).reshape(-1, 4)
    tone = (rng.uniform(0.6, 1.5, n) * (1 + 0.35 * noise(rng, x, y, 9, 3)))[:, None]
    dry = (rng.random(n) < 0.06)[:, None]
    green = np.array([0.10, 0.165, 0.028]) * tone
    color = np.where(dry, np.array([0.20, 0.14, 0.06]) * tone, green)
    mesh("moss", points, faces, np.repeat(color, 4, axis=0))


def add_camera() -> None:
    """A view straight down, and what all renders have in common."""
    scene = bpy.context.scene
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.type, camera.data.ortho_scale = "ORTHO", 2.0
    camera.location = (0, 0, 3)
    bpy.context.collection.objects.link(camera)
    scene.camera = camera
    scene.render.engine = "CYCLES"
    scene.cycles.seed = 1
    scene.cycles.use_denoising = False
    scene.render.resolution_x = scene.render.resolution_y = SIDE
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.compression = 100


def photograph(path: Path) -> None:
    """Renders the swatch under an overcast sky with a low sun."""
    scene = bpy.context.scene
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy, sun.data.angle, sun.data.color = 3.2, 0.12, (1.0, 0.95, 0.88)
    sun.rotation_euler = (0.75, 0.25, 0.6)
    bpy.context.collection.objects.link(sun)
    world = bpy.data.worlds.new("sky")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.75, 0.86, 1.0, 1)
    world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0.9
    scene.world = world
    scene.cycles.samples = 128
    scene.view_settings.view_transform = "Standard"
    scene.render.image_settings.color_mode = "RGB"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def render_maps(folder: Path) -> None:
    """Renders the normals and the heights of what the swatch shows, from the same camera, without light."""
    scene = bpy.context.scene
    scene.view_settings.view_transform = "Raw"
    scene.cycles.samples = 32
    for name in ("normal", "height"):
        bpy.context.view_layer.material_override = _values_of(name)
        scene.render.image_settings.color_mode = "RGB" if name == "normal" else "BW"
        scene.render.filepath = str(folder / f"cobbles_{name}.png")
        bpy.ops.render.render(write_still=True)


def _values_of(name: str) -> bpy.types.Material:
    """A material that shines with its normals (0.5 + 0.5 n) or its height in HEIGHTS."""
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    geometry, light = tree.nodes.new("ShaderNodeNewGeometry"), tree.nodes.new("ShaderNodeEmission")
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    if name == "normal":
        encode = tree.nodes.new("ShaderNodeVectorMath")
        encode.operation = "MULTIPLY_ADD"
        encode.inputs[1].default_value = encode.inputs[2].default_value = (0.5, 0.5, 0.5)
        tree.links.new(geometry.outputs["Normal"], encode.inputs[0])
    else:
        parts, encode = tree.nodes.new("ShaderNodeSeparateXYZ"), tree.nodes.new("ShaderNodeMapRange")
        encode.inputs["From Min"].default_value, encode.inputs["From Max"].default_value = HEIGHTS
        tree.links.new(geometry.outputs["Position"], parts.inputs[0])
        tree.links.new(parts.outputs["Z"], encode.inputs["Value"])
    tree.links.new(encode.outputs[0], light.inputs["Color"])
    tree.links.new(light.outputs[0], output.inputs["Surface"])
    return material


def draw_roughness(path: Path) -> None:
    """Draws the roughness: that of stone, a little smoother where it is worn, and that of moss."""
    axis = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 - 1
    x, y = np.meshgrid(axis, axis)
    height, _, moss = ground(x, y)
    worn = smoothstep(0.04, 0.09, height) * 0.15
    stone = STONE_ROUGHNESS + 0.15 - worn + 0.06 * noise(np.random.default_rng(11), x, y, 26, 4)
    values = (stone * (1 - moss) + MOSS_ROUGHNESS * moss).clip(0, 1)
    image = bpy.data.images.new("roughness", SIDE, SIDE)
    pixels = np.repeat(values[..., None], 4, -1).astype(np.float32)
    pixels[..., 3] = 1
    image.pixels.foreach_set(pixels.ravel())
    save(image, path)


def draw_regions(path: Path) -> None:
    """Draws the region map: moss where its amount exceeds 0.5, otherwise stone."""
    axis = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 - 1
    x, y = np.meshgrid(axis, axis)
    _, _, moss = ground(x, y)
    for _ in range(3):  # a blur that removes parts of a few pixels
        moss = np.mean([np.roll(moss, (i, j), (0, 1)) for i in (-2, 0, 2) for j in (-2, 0, 2)], 0)
    save_labels(path, moss > 0.5)


def draw_layout(path: Path) -> None:
    """Draws the layout: stone on a winding path that tiles, moss beside it."""
    y, x = np.meshgrid(*[(np.arange(LAYOUT_SIDE) + 0.5) / LAYOUT_SIDE] * 2, indexing="ij")
    middle = 0.5 + 0.16 * np.sin(2 * np.pi * y) + 0.03 * np.sin(6 * np.pi * y + 1)
    width = 0.21 + 0.025 * np.sin(4 * np.pi * y + 2) + 0.012 * np.sin(14 * np.pi * y)
    save_labels(path, (np.abs(x - middle) > width)[::-1])


def save_labels(path: Path, moss: NDArray[np.bool_]) -> None:
    """Saves a label map (height, width), bottom row first."""
    colors = np.where(moss[..., None], np.array(MOSS_COLOR), np.array(STONE_COLOR)) / 255
    pixels = np.concatenate([colors, np.ones((*moss.shape, 1))], -1).astype(np.float32)
    image = bpy.data.images.new("labels", moss.shape[1], moss.shape[0])
    image.pixels.foreach_set(pixels.ravel())
    save(image, path)


def save(image: bpy.types.Image, path: Path) -> None:
    image.file_format = "PNG"
    image.filepath_raw = str(path)
    image.save()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    bpy.ops.wm.read_factory_settings(use_empty=True)
    add_ground()
    add_leaves()
    add_camera()
    draw_regions(folder / "cobbles_regions.png")
    draw_layout(folder / "cobbles_layout.png")
    draw_roughness(folder / "cobbles_roughness.png")
    photograph(folder / "cobbles.png")
    render_maps(folder)


if __name__ == "__main__":
    main()
