"""States of the add-on for pictures: each function of STATES leaves the window as it is to be seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from blender_addon.scene import image_io, session
from tests.window import interface
from tests.window.interface import Steps, area, operate, screenshot, show_tab, stroke, until, window, within
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
        editors: the kinds of the areas, from the right to the left; the first one fills the window.
        theme, language, scale: of Blender's interface.
    """

    steps: Callable[[], Steps]
    sections: tuple[str, ...]
    editors: tuple[str, ...] = ("VIEW_3D",)
    theme: str = "dark"
    language: str = "en_US"
    scale: float = 1.0


# ---------------------------------------------------------------------------------------------- what is shown


def plane() -> None:
    """A plane in the place of the cube, seen from the front and above."""
    bpy.ops.object.select_all(action="SELECT")
    bpy.ops.object.delete()
    bpy.ops.mesh.primitive_plane_add(size=4)
    plane = bpy.context.active_object
    plane.data.materials.append(bpy.data.materials["Material"])
    for layer in plane.data.uv_layers[0].data:
        layer.uv *= 2
    view = area("VIEW_3D").spaces.active
    view.overlay.show_floor = view.overlay.show_axis_x = view.overlay.show_axis_y = False
    view.region_3d.view_distance = 7.0


def photograph(width: int = 2000, height: int = 1500) -> Any:
    """A picture of a wall of the example's cobbles as a phone would see it from the side; made here, so CC0."""
    bpy.ops.distill.example()
    wall = image_io.pixels_of(bpy.context.scene.distill.image_swatch, "swatch")[:200, :, :3]
    wall = np.concatenate([wall, wall[:, ::-1]], 1)
    wall = np.tile(np.concatenate([wall, wall[::-1]], 0), (3, 2, 1))
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    depth = 1 / (1.35 - 0.7 * x)
    u, v = 1.35 * x * depth * 0.48, 0.5 + (y - 0.5) * depth
    shade = (1.1 - 0.35 * x)[..., None]
    pixels = wall[(v * 1100).astype(int) % len(wall), (u * 1400).astype(int) % wall.shape[1]] * shade
    image = image_io.new_image("wall.png", image_io.encode_png(pixels.clip(0, 255).astype(np.uint8)))
    bpy.context.scene.distill.image_swatch = image
    return image


def shown_in_editor(image: Any) -> Steps:
    editor = area("IMAGE_EDITOR")
    editor.spaces.active.image = image
    with within(editor):
        bpy.ops.image.view_all(fit_view=True)
    yield 0.5


def connected() -> Steps:
    """The service answers."""
    yield from until(lambda: session.current().status is not None)


def small(side: int = 256, **parameters: Any) -> None:
    group = bpy.context.scene.distill.parameters_synthesize
    for name, value in {"width": side, "height": side, **parameters}.items():
        setattr(group, name, value)


# ---------------------------------------------------------------------------------------------- states


def first_run() -> Steps:
    yield 1.0


def example() -> Steps:
    plane()
    operate("distill.example", area("VIEW_3D"))
    yield 2.0


def fitted() -> Steps:
    yield from connected()
    yield from shown_in_editor(photograph())
    yield 4.0


def straightening() -> Steps:
    """The tool runs, with its corners on the wall."""
    yield from connected()
    image = photograph()
    yield from shown_in_editor(image)
    operate_modal("distill.straighten_swatch", area("IMAGE_EDITOR"))
    yield 1.0


def operate_modal(name: str, place: Any) -> None:
    module, function = name.split(".")
    with within(place):
        getattr(getattr(bpy.ops, module), function)("INVOKE_DEFAULT")


def painting_the_layout() -> Steps:
    yield from connected()
    plane()
    operate("distill.example", area("VIEW_3D"))
    small(512)
    yield from paint("layout", "EDITOR", 1)
    yield from shown_in_editor(bpy.context.scene.distill.image_layout)
    yield from stroke(area("IMAGE_EDITOR"), 120, up=60)
    yield from paint("layout", "MODEL", 1)
    yield from stroke(area("VIEW_3D"), 120)


def running() -> Steps:
    yield from connected()
    plane()
    operate("distill.example", area("VIEW_3D"))
    small(512, preset="standard")
    bpy.context.scene.distill.variations = 2
    operate("distill.run", area("VIEW_3D"))
    current = session.current()
    yield from until(lambda: any(current.preview_icon(r.job) and r.fraction > 0.3 for r in current.of_this_file()), 200)
    yield 0.5


def result() -> Steps:
    yield from connected()
    plane()
    operate("distill.example", area("VIEW_3D"))
    small(512)
    operate("distill.run", area("VIEW_3D"))
    yield from until_imported(250.0)
    area("VIEW_3D").spaces.active.shading.type = "MATERIAL"
    bpy.context.window_manager.distill_show_metrics = True
    yield from shown_in_editor(bpy.context.scene.distill.image_layout)
    yield 5.0


def preferences() -> Steps:
    yield from connected()
    operate("distill.preferences", area("VIEW_3D"))
    yield 2.0


TWO = ("VIEW_3D", "IMAGE_EDITOR")
STATES = {
    "first_run": State(first_run, ("Input", "Output", "Run", "Results", "Service")),
    "example": State(example, ("Input", "Regions and Layout", "Run"), TWO),
    "fitted": State(fitted, ("Input", "Output", "Run"), TWO),
    "straightening": State(straightening, ("Input", "Run"), TWO),
    "painting": State(painting_the_layout, ("Regions and Layout", "Run"), TWO),
    "running": State(running, ("Input", "Run", "Results"), TWO),
    "result": State(result, ("Input", "Run", "Results"), TWO),
    "shader_editor": State(example, ("Input", "Run", "Results"), ("VIEW_3D", "NODE_EDITOR")),
    "preferences": State(preferences, ("Input",)),
    "painting_light": State(painting_the_layout, ("Regions and Layout", "Run"), TWO, theme="light"),
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
    for number, kind in enumerate(state.editors[1:]):
        interface.split(area("VIEW_3D"), kind, 1 / (len(state.editors) - number))
    for place in window().screen.areas:
        yield from show_tab(place)
        yield from widen(place, SIDEBAR)
        place.spaces.active.show_region_toolbar = False
    view.ui_scale = state.scale
    yield from state.steps()
    x, y = window().width // 2, 2
    window().event_simulate("MOUSEMOVE", "NOTHING", x=x, y=y)  # so that no button is highlighted
    yield 1.5
    screenshot(name)
