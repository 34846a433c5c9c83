"""Lays out, synthesizes and renders a garden path, in a Blender without a window.

    python install.py demo                                                     also installs and starts everything
    blender -b --python-exit-code 1 --python demo.py -- --out DIR              in a Blender that has the add-on

Writes into DIR: path_texture.png, path_tiled.png (the texture twice in each direction), path_layout.png,
a folder with all maps of the texture, path_model.png (the model with them, rendered by Cycles) and path.blend.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import time
from pathlib import Path
from types import ModuleType

import bpy
import numpy as np

EXAMPLES = Path(__file__).resolve().parent
WAIT_SECONDS = 1800.0


# -- the add-on -----------------------------------------------------------------------------------------------------


def addon_package(extension: Path | None) -> str:
    """The name of the add-on's package in this Blender. Installs it from a zip first, if one is given."""
    if extension is not None:
        bpy.ops.extensions.package_install_files(
            filepath=str(extension), repo="user_default", enable_on_install=True, overwrite=True
        )
    found = [name for name in bpy.context.preferences.addons.keys() if name.endswith(".texture_distiller")]  # noqa: SIM118
    if not found:
        raise SystemExit("demo.py: this Blender has no Texture Distiller; run `python install.py blender` first")
    return found[0]


# -- the scene ------------------------------------------------------------------------------------------------------


def make_ground(rows: int = 240, columns: int = 160) -> bpy.types.Object:
    """A slab of uneven ground, 2 x 3 m, whose UV map repeats the texture 1.5 times along its length."""
    v, u = np.meshgrid(np.linspace(0, 1.5, rows), np.linspace(0, 1, columns), indexing="ij")
    x, y = (u - 0.5) * 2, v * 2 - 1.5
    z = 0.16 * np.cos(1.9 * x + 0.6) * np.sin(1.7 * y) + 0.10 * np.sin(2.3 * x * y) + 0.12 * np.abs(x) ** 3
    number = np.arange(rows * columns).reshape(rows, columns)
    faces = np.stack([number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]], -1).reshape(-1, 4)
    mesh = bpy.data.meshes.new("Ground")
    mesh.from_pydata(np.stack([x, y, z], -1).reshape(-1, 3).tolist(), [], faces.tolist())
    mesh.shade_smooth()
    layer = mesh.uv_layers.new(name="UVMap")
    layer.data.foreach_set("uv", np.stack([u, v], -1).reshape(-1, 2)[faces.ravel()].astype(np.float32).ravel())
    ground = bpy.data.objects.new("Ground", mesh)
    bpy.context.collection.objects.link(ground)
    rim = ground.modifiers.new("Thickness", "SOLIDIFY")
    rim.thickness, rim.material_offset_rim = 0.35, 1
    bpy.context.view_layer.objects.active = ground
    return ground


def make_material(name: str, color: tuple[float, float, float], picture: Path | None = None) -> bpy.types.Material:
    """A rough material with a color or a picture as its base color."""
    material = bpy.data.materials.new(name)
    if material.node_tree is None:
        material.use_nodes = True
    tree = material.node_tree
    shader = next(node for node in tree.nodes if node.type == "BSDF_PRINCIPLED")
    shader.inputs["Base Color"].default_value = (*color, 1)
    shader.inputs["Roughness"].default_value = 0.8
    if picture is not None:
        node = tree.nodes.new("ShaderNodeTexImage")
        node.image = bpy.data.images.load(str(picture))
        node.location = (-400, 200)
        tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    return material


def make_scene() -> None:
    """The ground with its material, a low sun, a pale sky and a camera."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    scene = bpy.context.scene
    ground = make_ground()
    ground.data.materials.append(make_material("Path", (0.5, 0.5, 0.5), EXAMPLES / "cobbles.png"))
    ground.data.materials.append(make_material("Earth", (0.05, 0.032, 0.02)))
    sun = bpy.data.objects.new("Sun", bpy.data.lights.new("Sun", "SUN"))
    sun.data.energy, sun.data.angle, sun.data.color = 3.0, 0.05, (1.0, 0.93, 0.83)
    sun.rotation_euler = (math.radians(48), 0, math.radians(-40))
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.location, camera.data.lens = (2.7, -3.6, 3.4), 51
    track = camera.constraints.new("TRACK_TO")
    track.target = ground
    for thing in (sun, camera):
        scene.collection.objects.link(thing)
    scene.camera = camera
    world = bpy.data.worlds.new("Sky")
    if world.node_tree is None:
        world.use_nodes = True
    background = next(node for node in world.node_tree.nodes if node.type == "BACKGROUND")
    background.inputs["Color"].default_value = (0.72, 0.80, 0.90, 1)
    background.inputs["Strength"].default_value = 0.6
    scene.world = world


# -- the job --------------------------------------------------------------------------------------------------------


def submit_job(size: int) -> None:
    """Loads the example with its regions and its layout, and submits the job."""
    bpy.ops.distill.example()
    output = bpy.context.scene.distill.parameters_synthesize
    output.width, output.height, output.seed = size, size, 7
    bpy.ops.distill.run()


def wait_for_result(session: ModuleType) -> None:
    """Handles events until the job has ended, and prints its progress; exits if it failed."""
    start = printed = time.monotonic()
    while session.current().busy():
        session.pump()
        time.sleep(0.1)
        if time.monotonic() - printed > 10:
            printed = time.monotonic()
            current = session.current()
            print("  " + "; ".join(map(current.progress_text, current.of_this_file())), flush=True)
        if printed - start > WAIT_SECONDS:
            raise SystemExit(f"demo.py: no result after {WAIT_SECONDS:g} seconds")
    errors = [record.sentence for record in session.current().of_this_file() if record.sentence]
    if errors or not bpy.context.scene.distill.last_result:
        raise SystemExit(f"demo.py: {' '.join(errors) or 'the job has no result'}")


# -- the results ---------------------------------------------------------------------------------------------------


def save_pictures(image_io: ModuleType, out: Path) -> None:
    """The texture, its 2x2 tiling, the layout and the maps of the texture as PNG files."""
    settings = bpy.context.scene.distill
    texture = image_io.pixels_of(bpy.data.images[settings.last_result], "result")[..., :3]
    layout = image_io.pixels_of(settings.image_layout, "layout")[..., :3]
    pictures = {"texture": texture, "tiled": np.tile(texture, (2, 2, 1)), "layout": layout}
    for name, pixels in pictures.items():
        (out / f"path_{name}.png").write_bytes(image_io.encode_png(pixels))
    bpy.ops.distill.export_set(directory=str(out))


def render(path: Path) -> None:
    """Renders the model with Cycles on the CPU."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = 32
    scene.cycles.use_denoising = True
    scene.view_settings.view_transform = "Standard"
    scene.render.resolution_x, scene.render.resolution_y = 640, 512
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def main() -> None:
    arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
    parser = argparse.ArgumentParser(prog="demo.py", description="Lay out, synthesize and render a garden path.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--size", type=int, default=512, help="side of the texture in pixels")
    parser.add_argument("--extension", type=Path, help="zip of the add-on, to be installed first")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)

    package = addon_package(given.extension)
    session, image_io = (importlib.import_module(f"{package}.scene.{name}") for name in ("session", "image_io"))
    make_scene()
    bpy.ops.distill.connect()
    submit_job(given.size)
    wait_for_result(session)
    save_pictures(image_io, given.out)
    render(given.out / "path_model.png")
    bpy.ops.file.pack_all()
    bpy.ops.wm.save_as_mainfile(filepath=str(given.out / "path.blend"))
    session.current().close()


if __name__ == "__main__":
    main()
