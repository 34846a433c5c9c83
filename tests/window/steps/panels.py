"""Steps that draw every section of the tab, in every editor, in states of the panel and settings of Blender."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import bpy

from blender_addon.scene import properties, session
from tests.addon import scenes
from tests.window import interface
from tests.window.interface import Steps, area, region, report, screenshot, show_tab, until, window, within
from tests.window.steps.jobs import newest, submit
from tests.window.steps.painting import maps

NARROW, WIDE = 170, 420
"""Widths of the sidebar in pixels, at scale 1."""


def is_shown(panel: Any, place: Any) -> bool:
    """Whether a section is shown in an area."""
    with within(place, "UI"):
        return panel.bl_space_type == place.type and (not hasattr(panel, "poll") or panel.poll(bpy.context))


@contextmanager
def counted_drawing() -> Iterator[set[str]]:
    """Collects the ids of the sections that are drawn."""
    drawn: set[str] = set()
    originals = {name: panel.draw for name, panel in interface.sections().items()}

    def counted(name: str) -> Callable[[Any, Any], None]:
        def draw(self: Any, context: Any) -> None:
            originals[name](self, context)
            drawn.add(name)

        return draw

    for name, panel in interface.sections().items():
        panel.draw = counted(name)
    try:
        yield drawn
    finally:
        for name, panel in interface.sections().items():
            panel.draw = originals[name]


def widen(place: Any, width: int) -> Steps:
    """Drags the edge of an area's sidebar until it has a width, in pixels. Sets the interface scale to 1."""
    bpy.context.preferences.view.ui_scale = 1.0
    yield 0.3
    sidebar = region(place, "UI")
    for margin in (7, 0, 7, 0):  # a sidebar that lies over the editor has a transparent margin
        edge, y = sidebar.x + margin, sidebar.y + sidebar.height - 40  # beside the first section
        yield from interface.drag((edge, y), (edge + sidebar.width - width, y))
        if abs(sidebar.width - width) < 10:
            return
    raise AssertionError(f"the sidebar is {sidebar.width} pixels wide, not {width}")


def without_a_swatch() -> Steps:
    settings = bpy.context.scene.distill
    settings.kind, settings.use_layout = "synthesize", False
    for name in properties.PICTURES:
        setattr(settings, f"image_{name}", None)
    settings.regions.clear()
    yield 0.0


def with_maps() -> Steps:
    maps()
    yield 0.0


def running() -> Steps:
    submit()
    yield from until(lambda: session.current().preview_icon(newest().job))


def waiting() -> Steps:
    submit(seed=1)
    yield from until(lambda: newest().state == "queued")


def with_results() -> Steps:
    yield from until(lambda: all(record.imported for record in session.current().of_this_file()), 200.0)
    bpy.context.window_manager.distill_show_metrics = True


def restyle() -> Steps:
    scenes.content()
    yield 0.0


STATES = (without_a_swatch, with_maps, running, waiting, with_results, restyle)
SETTINGS = {NARROW: ((1.0, "dark"), (2.0, "light")), WIDE: ((2.0, "dark"), (1.0, "light"))}
"""The scale of the interface and the theme, for each width."""


def draw_everywhere(kind: str) -> Steps:
    """Draws the tab in a kind of editor, in all states and settings."""
    interface.open_sections()
    with within(area("VIEW_3D")):
        bpy.ops.screen.screen_full_area()
    yield 0.3
    (place,) = window().screen.areas
    interface.show(place, kind)
    yield from show_tab(place)
    view = bpy.context.preferences.view
    for width, settings in SETTINGS.items():
        if kind != "NODE_EDITOR":  # Blender 4.3.2 aborts when the sidebar of a Shader Editor is resized
            yield from widen(place, width)
        for state in STATES:
            yield from state()
            for view.ui_scale, theme in settings:
                interface.use_theme(theme)
                yield from draw(place)
                screenshot(f"{state.__name__}-{width}-{view.ui_scale:g}")
    report("editors", sorted({panel.bl_space_type for panel in interface.sections().values()}))


def draw(place: Any) -> Steps:
    """Draws the tab in an area; fails if a section that is shown there is not drawn to its end."""
    expected = {name for name, panel in interface.sections().items() if is_shown(panel, place)}
    end = time.monotonic() + 10.0
    with counted_drawing() as drawn:
        region(place, "UI").tag_redraw()
        while not expected <= drawn and time.monotonic() < end:
            yield 0.05
    assert expected <= drawn, f"not drawn: {sorted(expected - drawn)}"
