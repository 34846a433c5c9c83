"""States of the add-on for pictures: each function of STATES leaves the window as it is to be seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import addon_utils
import bpy
import numpy as np
from mathutils import Vector

from blender_addon.scene import image_io, painting, session
from tests.window import interface
from tests.window.interface import Steps, area, operate, region, screenshot, show_tab, stroke, until, window, within
from tests.window.steps.jobs import until_imported
from tests.window.steps.painting import paint
from tests.window.steps.panels import widen

SIDEBAR = 300
"""Width of the sidebars in pixels."""


@dataclass(frozen=True)
class State:
    """A picture of the window.

    Attributes:
        steps: a function of steps that gets to the state, in a window with the editors.
        sections: labels of the sections that are open.
        editors: the kinds of the areas: the 3D View, and one to the left of it.
        tab: the kind of the area that shows the tab.
        left: part of the width that a second editor has.
        theme, language, scale: of Blender's interface.
    """

    steps: Callable[[], Steps]
    sections: tuple[str, ...]
    editors: tuple[str, ...] = ("VIEW_3D",)
    tab: str = "VIEW_3D"
    left: float = 0.5
    theme: str = "dark"
    language: str = "en_US"
    scale: float = 1.0


# ---------------------------------------------------------------------------------------------- what is shown


def plane(repeats: int = 2) -> None:
    """A plane in the place of the cube, on which a texture repeats, seen from the front and above."""
    bpy.ops.object.select_all(action="SELECT")
    bpy.ops.object.delete()
    bpy.ops.mesh.primitive_plane_add(size=4)
    bpy.context.active_object.data.materials.append(bpy.data.materials["Material"])
    for layer in bpy.context.active_object.data.uv_layers[0].data:
        layer.uv *= repeats
    view = area("VIEW_3D").spaces.active
    view.overlay.show_floor = view.overlay.show_axis_x = view.overlay.show_axis_y = False
    view.region_3d.view_distance = 7.0
    view.region_3d.view_location = view.region_3d.view_rotation @ Vector((1.7, 0, 0))  # beside the sidebar


CORNERS = "120,60 1840,330 1840,1290 120,1440"
"""Where a rectangle of the wall lies in the photograph: x and y from the top left, clockwise from there."""


def photograph() -> Any:
    """The example's cobbles as a phone would see them from the side, 2000 x 1500 pixels. Made here, so CC0."""
    bpy.ops.distill.example()
    settings = bpy.context.scene.distill
    wall = image_io.pixels_of(settings.image_swatch, "swatch")[..., :3].astype(np.float32)
    corners = np.array([corner.split(",") for corner in CORNERS.split()], float)
    square = np.array([(30, 30), (418, 30), (418, 300), (30, 300)], float)
    rows = []
    for (x, y), (u, v) in zip(corners, square, strict=True):  # the homography from the photograph to the wall
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    matrix = np.append(np.linalg.solve(np.array(rows), square.ravel()), 1).reshape(3, 3)
    y, x = np.mgrid[:1500, :2000]
    places = np.stack([x, y, np.ones_like(x)], -1) @ matrix.T
    places = np.abs((places[..., :2] / places[..., 2:] + 446) % 892 - 446)  # mirrored beyond the edges of the swatch
    left, part = places.astype(int), (places % 1).astype(np.float32)[..., None]
    u, v = left[..., 0], left[..., 1]
    top = wall[v, u] * (1 - part[:, :, 0]) + wall[v, u + 1] * part[:, :, 0]
    low = wall[v + 1, u] * (1 - part[:, :, 0]) + wall[v + 1, u + 1] * part[:, :, 0]
    pixels = (top * (1 - part[:, :, 1]) + low * part[:, :, 1]) * np.linspace(1.1, 0.75, 2000)[:, None]
    settings.use_layout = False
    settings.image_swatch = image_io.new_image("wall.png", image_io.encode_png(pixels.clip(0, 255).astype(np.uint8)))
    return settings.image_swatch


def shown_in_editor(image: Any) -> Steps:
    """The Image Editor shows the whole image, beside its sidebar."""
    editor = area("IMAGE_EDITOR")
    editor.spaces.active.image = image
    place, sidebar = region(editor), region(editor, "UI").width if editor.spaces.active.show_region_ui else 0
    zoom = 0.85 * min((place.width - sidebar) / image.size[0], place.height / image.size[1])
    with within(editor):
        bpy.ops.image.view_all(fit_view=True)
        bpy.ops.image.view_zoom_ratio(ratio=zoom)
        bpy.ops.image.view_pan(offset=(sidebar / 2 / zoom, 0))
    yield 0.5


def connected() -> Steps:
    """The service answers."""
    yield from until(lambda: session.current().status is not None)


# ---------------------------------------------------------------------------------------------- states


def first_run() -> Steps:
    yield 1.0


def example() -> Steps:
    yield from connected()
    plane()
    operate("distill.example", area("VIEW_3D"))
    yield from shown_in_editor(bpy.context.scene.distill.image_swatch)
    yield 4.0


def shader_editor() -> Steps:
    yield from connected()
    plane()
    operate("distill.example", area("NODE_EDITOR"))
    with within(area("NODE_EDITOR")):
        bpy.ops.node.view_all()
    yield 4.0


def fitted() -> Steps:
    yield from connected()
    yield from shown_in_editor(photograph())
    yield 4.0


def straightening() -> Steps:
    """The tool runs, with its corners on the wall."""
    yield from connected()
    yield from shown_in_editor(photograph())
    bpy.context.scene.distill.parameters_synthesize.corners = CORNERS
    with within(area("IMAGE_EDITOR")):
        bpy.ops.distill.straighten_swatch("INVOKE_DEFAULT")
    yield 2.0


def painting_the_maps() -> Steps:
    """A stroke on the model, and one on the swatch's map, which shows the swatch through it."""
    yield from connected()
    plane(1)
    operate("distill.example", area("VIEW_3D"))
    settings = bpy.context.scene.distill
    settings.parameters_synthesize.width = settings.parameters_synthesize.height = 512
    bpy.context.window_manager.distill_overlay = True
    yield from paint("layout", "MODEL", 0)
    painting.unified_settings(bpy.context).size = 25
    yield from stroke(area("VIEW_3D"), 80, up=-60)
    yield from paint("regions", "EDITOR", 0)
    yield from shown_in_editor(settings.image_regions)
    painting.unified_settings(bpy.context).size = 25
    yield from stroke(area("IMAGE_EDITOR"), 150, up=-150)


def running() -> Steps:
    yield from connected()
    plane()
    operate("distill.example", area("VIEW_3D"))
    bpy.context.scene.distill.variations = 2
    yield from shown_in_editor(bpy.context.scene.distill.image_layout)
    operate("distill.run", area("VIEW_3D"))
    current = session.current()
    yield from until(lambda: any(current.preview_icon(r.job) and r.fraction > 0.3 for r in current.of_this_file()), 200)
    yield 0.5


def result() -> Steps:
    yield from connected()
    plane()
    operate("distill.example", area("VIEW_3D"))
    operate("distill.run", area("VIEW_3D"))
    yield from until_imported(800.0)
    area("VIEW_3D").spaces.active.shading.type = "MATERIAL"
    bpy.context.window_manager.distill_show_metrics = True
    yield from shown_in_editor(bpy.context.scene.distill.image_layout)
    yield 5.0


def gallery() -> Steps:
    """Results with four seeds, of which one is a favorite; the first one is on the plane."""
    yield from finished(variations=4)
    chosen = session.current().of_this_file()[-1].job
    bpy.ops.distill.favorite(job=chosen)
    bpy.context.window_manager.distill_result = chosen
    operate("distill.show_result", area("VIEW_3D"), job=chosen)
    yield 6.0


def comparing() -> Steps:
    """Two results in the Image Editor, on the two sides of a line."""
    yield from finished(variations=2)
    second, first = session.current().of_this_file()
    bpy.context.window_manager.distill_result = first.job
    operate("distill.compare", area("VIEW_3D"), job=second.job)
    operate("distill.compare_split", area("VIEW_3D"))
    yield 6.0


def finished(variations: int) -> Steps:
    """Small results of the example, on a plane."""
    yield from connected()
    plane()
    operate("distill.example", area("VIEW_3D"))
    settings = bpy.context.scene.distill
    settings.variations = variations
    settings.parameters_synthesize.preset = "draft"
    settings.parameters_synthesize.width = settings.parameters_synthesize.height = 256
    yield from arrived()


def arrived() -> Steps:
    """Runs, and waits for all results."""
    operate("distill.run", area("VIEW_3D"))
    current = session.current()
    yield from until(lambda: all(record.imported for record in current.of_this_file()), 800.0)
    area("VIEW_3D").spaces.active.shading.type = "MATERIAL"


def on_the_model() -> Steps:
    """The stones of the example with box projection on a monkey without a UV map."""
    yield from connected()
    plane()
    bpy.ops.object.delete()
    bpy.ops.mesh.primitive_monkey_add(size=4, rotation=(-0.2, 0, 0.6))
    monkey = bpy.context.active_object
    monkey.modifiers.new("Subdivision", "SUBSURF").levels = 2
    bpy.ops.object.shade_smooth()
    monkey.data.uv_layers.remove(monkey.data.uv_layers[0])
    monkey.data.materials.append(bpy.data.materials["Material"])
    operate("distill.example", area("VIEW_3D"))
    settings = bpy.context.scene.distill
    settings.use_layout = False
    group = settings.parameters_synthesize
    group.crop, group.width, group.height, group.preset = "170,0,278,200", 256, 256, "draft"
    yield from arrived()
    with within(area("VIEW_3D")):
        bpy.ops.distill.tile_width(width=2.0)
    yield 8.0


def preferences() -> Steps:
    """The preferences of the add-on, in an area of the window."""
    yield from connected()
    scripts = Path(bpy.utils.user_resource("SCRIPTS", path="addons", create=True))
    (scripts / "blender_addon").symlink_to(Path(image_io.__file__).parents[1])  # Blender lists installed add-ons only
    addon_utils.modules_refresh()
    interface.split(area("VIEW_3D"), "PREFERENCES", 0.5)
    bpy.context.preferences.active_section = "ADDONS"
    bpy.context.window_manager.addon_search = "Texture"
    bpy.ops.preferences.addon_expand(module="blender_addon")
    yield 3.0


TWO = ("VIEW_3D", "IMAGE_EDITOR")
STATES = {
    "first_run": State(first_run, ("Input", "Output", "Run", "Results", "Service")),
    "example": State(example, ("Input", "Regions and Layout", "Run"), TWO),
    "fitted": State(fitted, ("Input", "Output", "Run"), TWO, "IMAGE_EDITOR", 0.75),
    "straightening": State(straightening, ("Input", "Run"), TWO, "IMAGE_EDITOR", 0.75),
    "painting": State(painting_the_maps, ("Regions and Layout", "Run"), TWO),
    "running": State(running, ("Input", "Run", "Results"), TWO),
    "result": State(result, ("Input", "Run", "Results"), TWO),
    "gallery": State(gallery, ("Results",), TWO),
    "comparing": State(comparing, ("Results",), TWO),
    "on_the_model": State(on_the_model, ("Mapping", "Results")),
    "shader_editor": State(shader_editor, ("Input", "Run", "Results"), ("VIEW_3D", "NODE_EDITOR"), "NODE_EDITOR"),
    "preferences": State(preferences, ("Input",)),
    "painting_light": State(painting_the_maps, ("Regions and Layout", "Run"), TWO, theme="light"),
    "first_run_german": State(first_run, ("Input", "Output", "Run", "Results"), language="de_DE"),
    "first_run_large": State(first_run, ("Input", "Output", "Run"), scale=1.6),
}
"""The pictures by their names."""


def take(name: str) -> Steps:
    """Takes the picture of a state."""
    state = STATES[name]
    view = bpy.context.preferences.view
    view.language, view.use_translate_new_dataname = state.language, False
    interface.use_theme(state.theme)
    interface.open_sections(state.sections)
    interface.close_others("VIEW_3D")
    yield 0.5
    for kind in state.editors[1:]:
        interface.split(area("VIEW_3D"), kind, state.left)
    place = area(state.tab)
    yield from show_tab(place)
    yield from widen(place, SIDEBAR)
    for place in window().screen.areas:
        place.spaces.active.show_region_toolbar = False
    view.ui_scale = state.scale
    yield from state.steps()
    x, y = window().width // 2, 2
    window().event_simulate("MOUSEMOVE", "NOTHING", x=x, y=y)  # so that no button is highlighted
    yield 1.5
    screenshot(name)
