"""Blender's interface as an artist uses it: areas, mouse, keys, the sidebar's tab, screenshots. Runs inside Blender.

A function of steps is a generator that yields the seconds until it continues; Blender draws and handles events then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from tests.window import screen

Steps = Iterator[float]

folder = Path()
"""Where reports and screenshots go; inside.py sets it."""


def report(name: str, value: Any = True) -> None:
    """Reports a value to the process that started Blender."""
    with (folder / "reports.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps([name, value]) + "\n")


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Steps:
    """Waits until a condition is true; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition was not true within {seconds:g} s"
        yield 0.05


# ---------------------------------------------------------------------------------------------- areas


def window() -> Any:
    return bpy.context.window_manager.windows[0]


def area(kind: str) -> Any:
    """The largest area of a kind, such as VIEW_3D."""
    return max((a for a in window().screen.areas if a.type == kind), key=lambda a: a.width * a.height)


def editor() -> Any:
    """The largest area."""
    return max(window().screen.areas, key=lambda a: a.width * a.height)


def region(place: Any, kind: str = "WINDOW") -> Any:
    return next(r for r in place.regions if r.type == kind)


def within(place: Any, kind: str = "WINDOW") -> Any:
    """A context in which operators work as if the mouse were in that area."""
    return bpy.context.temp_override(window=window(), area=place, region=region(place, kind))


def middle(place: Any) -> tuple[int, int]:
    """The window's coordinates of the middle of an area."""
    shown = region(place)
    return shown.x + shown.width // 2, shown.y + shown.height // 2


def show_tab(place: Any, tab: str = "Distill") -> Steps:
    """Opens the sidebar of an area with a tab."""
    place.spaces.active.show_region_ui = True
    sidebar = region(place, "UI")

    def is_shown() -> bool:
        try:
            sidebar.active_panel_category = tab
        except (AttributeError, TypeError):  # not drawn yet
            return False
        return sidebar.active_panel_category == tab

    yield from until(is_shown)
    yield 0.6
    sidebar.active_panel_category = tab  # the first drawing chooses the first tab
    yield 0.6


def split(place: Any, kind: str, factor: float = 0.5) -> Any:
    """Splits an area; its left part, of `factor` of the width, shows a kind of editor (see `show`) and is returned."""
    areas = set(window().screen.areas)
    with within(place):
        bpy.ops.screen.area_split(direction="VERTICAL", factor=factor)
    (new,) = set(window().screen.areas) - areas
    left = new if factor <= 0.5 else place  # Blender makes the smaller part new, and sets its place later
    show(left, kind)
    return left


def show(place: Any, kind: str) -> None:
    """Shows a kind of editor in an area; a NODE_EDITOR is a Shader Editor."""
    place.ui_type = {"NODE_EDITOR": "ShaderNodeTree"}.get(kind, kind)


def close_others(kind: str) -> None:
    """Closes the areas of other kinds, so that the area of a kind fills the window."""
    for place in [a for a in window().screen.areas if a.type != kind]:
        with within(place):
            bpy.ops.screen.area_close()


def sections() -> dict[str, Any]:
    """The panels of the tab by their ids, in their order."""
    from blender_addon.ui import panels

    return {cls.bl_idname: cls for cls in panels.classes if getattr(cls, "bl_category", "") == "Distill"}


def open_sections(labels: Collection[str] | None = None) -> None:
    """Sets which sections of the tab are open when they are first drawn, all by default; before `show_tab`."""
    for panel in reversed(sections().values()):
        bpy.utils.unregister_class(panel)
    for panel in sections().values():
        closed = set() if labels is None or panel.bl_label in labels else {"DEFAULT_CLOSED"}
        panel.bl_options = set(getattr(panel, "bl_options", ())) - {"DEFAULT_CLOSED"} | closed
        bpy.utils.register_class(panel)


def use_theme(name: str) -> None:
    """Blender's own theme, `dark` or `light`."""
    folders = [Path(folder) for folder in bpy.utils.preset_paths("interface_theme")]
    wanted = f"blender{name}.xml"
    file = next(f for folder in folders for f in folder.iterdir() if f.name.replace("_", "").lower() == wanted)
    bpy.ops.script.execute_preset(filepath=str(file), menu_idname="USERPREF_MT_interface_theme_presets")


def operate(name: str, place: Any, **settings: Any) -> None:
    """Runs an operator such as `distill.clean` as its button in the sidebar of an area does: with an undo step."""
    module, function = name.split(".")
    with within(place, "UI"):
        done = getattr(getattr(bpy.ops, module), function)("INVOKE_DEFAULT", True, **settings)
    assert done == {"FINISHED"}, f"{name}: {done}"


# ---------------------------------------------------------------------------------------------- mouse and keys


def press(key: str, at: tuple[int, int], **modifiers: bool) -> Steps:
    """Presses a key, or a mouse button, at window coordinates."""
    x, y = at
    window().event_simulate("MOUSEMOVE", "NOTHING", x=x, y=y)
    yield 0.15
    window().event_simulate(key, "PRESS", x=x, y=y, **modifiers)
    yield 0.05
    window().event_simulate(key, "RELEASE", x=x, y=y, **modifiers)
    yield 0.4


def drag(start: tuple[int, int], end: tuple[int, int], hold: Callable[[], Steps] | None = None) -> Steps:
    """Drags with the left mouse button; `hold` runs in the middle of it."""
    (x, y), (to_x, to_y) = start, end
    window().event_simulate("MOUSEMOVE", "NOTHING", x=x, y=y)
    yield 0.2
    window().event_simulate("LEFTMOUSE", "PRESS", x=x, y=y)
    for step in range(1, 11):
        yield 0.03
        at = {"x": x + (to_x - x) * step // 10, "y": y + (to_y - y) * step // 10}
        window().event_simulate("MOUSEMOVE", "NOTHING", **at)
        if step == 5 and hold is not None:
            yield from hold()
    yield 0.1
    window().event_simulate("LEFTMOUSE", "RELEASE", x=to_x, y=to_y)
    yield 0.5


def stroke(place: Any, length: int = 60, up: int = 0) -> Steps:
    """A stroke of `length` pixels to the right across the middle of an area, `up` pixels above it."""
    x, y = middle(place)
    yield from drag((x - length // 2, y + up), (x + length // 2, y + up))


def undo(place: Any) -> Steps:
    """Ctrl Z, with the mouse in an area."""
    yield from press("Z", middle(place), ctrl=True)


def redo(place: Any) -> Steps:
    """Shift Ctrl Z, with the mouse in an area."""
    yield from press("Z", middle(place), ctrl=True, shift=True)


# ---------------------------------------------------------------------------------------------- screenshots


def screenshot(name: str, box: Sequence[int] = ()) -> Path:
    """A PNG of the screen in the folder of the reports, or of a box: left, bottom, right, top in pixels."""
    from blender_addon.scene import image_io

    shown = screen.pixels()
    if box:
        left, bottom, right, top = box
        shown = shown[len(shown) - top : len(shown) - bottom, left:right]
    path = folder / f"{name}.png"
    path.write_bytes(image_io.encode_png(np.ascontiguousarray(shown)))
    return path
