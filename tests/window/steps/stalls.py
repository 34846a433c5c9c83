"""Steps that measure how long the interface stands still around each action. Nothing here is asserted.

A timer that runs as often as possible shows the gaps between two turns of Blender's main loop. A profiler adds up the
processor time of the add-on's own functions in each gap, with what they call in Blender. The rest is the work of
Blender, such as drawing, which is slow with a software renderer, and of other processes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import bpy
import numpy as np

from blender_addon.scene import image_io, session
from tests.addon import scenes
from tests.window.interface import Steps, area, operate, report, show_tab, split, until, window
from tests.window.steps.jobs import newest

PACKAGE = str(Path(image_io.__file__).parents[1])
SETTLE_SECONDS = 2.0
"""How long the effects of an action are measured."""


class Gaps:
    """The gaps between turns of the main loop: seconds, and the add-on's processor seconds in it."""

    def __init__(self) -> None:
        self.gaps: list[tuple[float, float]] = []
        self.last = time.perf_counter()
        self.own = 0.0
        self.ended = False
        self._began: tuple[FrameType, float] | None = None

    def __enter__(self) -> Gaps:
        sys.setprofile(self._profile)
        bpy.app.timers.register(self._tick)
        return self

    def __exit__(self, *_error: object) -> None:
        self.ended = True
        sys.setprofile(None)

    def _tick(self) -> float | None:
        if self.ended:
            return None
        now = time.perf_counter()
        self.gaps.append((now - self.last, self.own))
        self.last, self.own = now, 0.0
        return 0.0

    def _profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Adds up the processor time between the call and the return of the outermost functions of the add-on."""
        if event == "call" and self._began is None and frame.f_code.co_filename.startswith(PACKAGE):
            self._began = frame, time.thread_time()
        elif event == "return" and self._began is not None and self._began[0] is frame:
            self.own += time.thread_time() - self._began[1]
            self._began = None

    def longest(self) -> dict[str, float]:
        """The longest gap in seconds, and the largest time in the add-on's functions within one gap."""
        return {"gap": max(gap for gap, _ in self.gaps), "own": max(own for _, own in self.gaps)}


def measured(name: str, action: Callable[[], Any], done: Callable[[], Any] = lambda: True) -> Steps:
    """Measures from an action to some time after it is done, and reports the longest stall."""
    with Gaps() as gaps:
        yield 0.2
        action()
        yield from until(done, 120.0)
        yield SETTLE_SECONDS
    report(name, gaps.longest())


def material_swatch(side: int) -> Any:
    """A swatch with noise, so that it neither compresses well nor has few colors."""
    noise = np.random.default_rng(0).integers(0, 60, (side, side, 3)).astype(np.uint8)
    noise[:, side // 2 :] += np.array([0, 120, 40], np.uint8)
    bpy.context.scene.distill.image_swatch = image_io.new_image("noise.png", image_io.encode_png(noise))


def every_action(side: int) -> Steps:
    """Measures each action with maps, swatch and result of `side` x `side` pixels."""
    view = area("VIEW_3D")
    yield from show_tab(view)
    yield 1.0
    yield from measured("idle", lambda: None)
    material_swatch(side)
    scenes.two_regions()
    bpy.context.scene.distill.use_layout = True
    yield 1.0
    yield from measured("Split by Color", lambda: operate("distill.region_map_new", view, method="COLOR"))
    yield from measured("New from Gray Swatch", lambda: operate("distill.region_map_new", view, method="OVER"))
    bpy.ops.distill.region_map_new(method="COLOR")
    large_layout(side)
    yield 1.0
    fill = {"picture": "layout", "region": 1, "box": (0.2, 0.2, 0.7, 0.6)}
    yield from measured("Fill", lambda: operate("distill.fill", view, **fill))
    soften_layout()
    yield from measured("Clean Up", lambda: operate("distill.clean", view, picture="layout"))
    paint = {"picture": "layout", "where": "MODEL"}
    yield from measured("Paint on Model", lambda: operate("distill.paint", view, **paint))
    split(view, "IMAGE_EDITOR").spaces.active.image = bpy.context.scene.distill.image_layout
    yield 1.0
    yield from measured("Blender alone: write pixels", write_pixels)
    yield from measured("Blender alone: pack", lambda: bpy.context.scene.distill.image_layout.pack())
    yield from measured("Undo", lambda: press_undo(view))
    scenes.small_output(side, side)
    current = session.current()

    def reached(state: str) -> Callable[[], bool]:
        return lambda: newest().state == state

    yield from measured("Synthesize", lambda: operate("distill.run", area("VIEW_3D")), reached("running"))
    yield from measured("Preview", lambda: None, lambda: current.preview_icon(newest().job))
    yield from measured("Result", lambda: None, lambda: newest().imported)
    path = str(Path(bpy.app.tempdir) / "stalls.blend")
    yield from measured("Save", lambda: bpy.ops.wm.save_as_mainfile(filepath=path, copy=True))


def large_layout(side: int) -> None:
    """A layout of two colors, larger than the ones that the add-on makes."""
    first = [int(c * 255 + 0.5) for c in bpy.context.scene.distill.regions[0].color]
    pixels = np.broadcast_to(np.array(first, np.uint8), (side, side, 3))
    bpy.context.scene.distill.image_layout = image_io.new_image(
        "Layout", image_io.encode_png(np.ascontiguousarray(pixels))
    )


def write_pixels() -> None:
    """Writes the pixels of the layout back, for what Blender needs for that without the add-on."""
    image = bpy.context.scene.distill.image_layout
    values = np.empty(len(image.pixels), np.float32)
    image.pixels.foreach_get(values)
    image.pixels.foreach_set(values)
    image.update()


def soften_layout() -> None:
    """Adds soft pixels to the layout, as a soft brush or a JPEG would."""
    image = bpy.context.scene.distill.image_layout
    values = np.empty(len(image.pixels), np.float32)
    image.pixels.foreach_get(values)
    values += np.random.default_rng(1).uniform(-0.02, 0.02, values.size).astype(np.float32)
    image.pixels.foreach_set(values)
    image.update()


def press_undo(view: Any) -> None:
    x, y = view.x + view.width // 2, view.y + view.height // 2
    window().event_simulate("MOUSEMOVE", "NOTHING", x=x, y=y)
    window().event_simulate("Z", "PRESS", x=x, y=y, ctrl=True)
    window().event_simulate("Z", "RELEASE", x=x, y=y, ctrl=True)
