"""Steps that count how often Blender draws its editors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import bpy

from tests.addon import scenes
from tests.window.interface import Steps, area, report, show_tab, split, until
from tests.window.steps.jobs import newest, submit, until_imported

IDLE_SECONDS = 4.0
SPACES = {"VIEW_3D": bpy.types.SpaceView3D, "IMAGE_EDITOR": bpy.types.SpaceImageEditor}


@contextmanager
def counted_redraws() -> Iterator[dict[str, int]]:
    """Counts how often the regions of the editors are drawn: `VIEW_3D WINDOW`, `VIEW_3D UI` and so on."""
    counts = {f"{space} {region}": 0 for space in SPACES for region in ("WINDOW", "UI")}

    def count(name: str) -> None:
        counts[name] += 1

    handlers = []
    for name in counts:
        space, region = name.split()
        handlers.append((space, region, SPACES[space].draw_handler_add(count, (name,), region, "POST_PIXEL")))
    try:
        yield counts
    finally:
        for space, region, handler in handlers:
            SPACES[space].draw_handler_remove(handler, region)


def while_a_job_runs() -> Steps:
    """A job runs while the mouse rests; no result is connected, since that changes the material."""
    split(area("VIEW_3D"), "IMAGE_EDITOR")
    for kind in SPACES:
        yield from show_tab(area(kind))
    scenes.swatch()
    bpy.context.scene.distill.use_at_once = False
    submit()
    yield from until_imported()
    yield 3.0  # Blender refines the picture in the viewport for a while
    with counted_redraws() as idle:
        yield IDLE_SECONDS
    report("idle", dict(idle))
    submit()
    yield from until(lambda: newest().state == "running")  # the button itself redraws the editors once
    running: dict[str, int] = {}
    with counted_redraws() as counts:
        while newest().state == "running":  # and so does the undo step of the result
            running = dict(counts)
            yield 0.05
    report("running", running)
    yield from until_imported()
