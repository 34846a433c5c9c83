"""Steps that run jobs: to the end, canceled, during a stroke, with a service that is killed, across two Blenders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpy

from blender_addon.scene import image_io, session
from tests.addon import scenes
from tests.window import interface
from tests.window.interface import Steps, area, operate, redo, report, screenshot, show_tab, stroke, undo, until, within
from tests.window.steps.painting import colors_in, maps, paint


def newest() -> Any:
    """The newest job of the open file."""
    return session.current().of_this_file()[0]


def submit(width: int = 128, height: int = 64, **parameters: Any) -> None:
    """Submits a job, as the button in the sidebar of the largest area does."""
    scenes.small_output(width, height, **parameters)
    operate("distill.run", interface.editor())


def until_job(condition: Callable[[Any], Any], seconds: float = 60.0) -> Steps:
    """Waits until a condition on the newest job is true; fails after `seconds`."""
    try:
        yield from until(lambda: condition(newest()), seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {newest()}") from None


def until_imported(seconds: float = 60.0) -> Steps:
    yield from until(lambda: newest().imported or newest().state in ("failed", "canceled"), seconds)
    assert newest().state == "succeeded", (newest().state, newest().sentence)


def result() -> Any:
    """The image of the newest result."""
    return bpy.data.images[bpy.context.scene.distill.last_result]


def shown_by_material() -> Any:
    """The image that the base color of the active material shows."""
    node = scenes.base_color_node(bpy.context.active_object.active_material)
    return node.image if node is not None else None


def run_cancel_and_finish() -> Steps:
    """A job is canceled while it runs; the next one shows progress and a preview, and is connected to the material."""
    yield from show_tab(area("VIEW_3D"))
    scenes.swatch()
    submit()
    yield from until_job(lambda job: job.state == "running")
    bpy.ops.distill.cancel()
    yield from until_job(lambda job: job.state == "canceled")
    submit(seed=3)
    current = session.current()
    yield from until(lambda: current.preview_icon(newest().job) and 0 < newest().fraction < 1)
    screenshot("running")
    yield from until_imported()
    assert tuple(result().size) == (128, 64)
    assert shown_by_material() == result()
    report("states", [record.state for record in current.of_this_file()])


def undo_and_redo_of_a_result() -> Steps:
    """One undo takes a result away, and the next the material's change before it; redo brings both back."""
    view = area("VIEW_3D")
    scenes.swatch()
    material = bpy.context.active_object.active_material.name
    bpy.context.active_object.location.x = 0.5
    with within(view):
        bpy.ops.ed.undo_push(message="Move")
    submit()
    yield from until_imported()
    name = result().name
    yield from undo(view)
    assert name not in bpy.data.images
    assert shown_by_material() is None
    yield from undo(view)
    assert bpy.context.active_object.location.x == 0.0
    yield from redo(view)
    yield from redo(view)
    assert bpy.data.images[name].packed_file is not None
    assert bpy.context.active_object.active_material.name == material
    assert shown_by_material().name == name
    assert bpy.context.active_object.location.x == 0.5


def result_during_a_stroke() -> Steps:
    """A result that arrives during a stroke waits for its end; then each of both is one undo step."""
    view = area("VIEW_3D")
    with within(view):
        first, second, _ = maps()
    yield from paint("layout", "MODEL", 1)
    current = session.current()

    def hold() -> Steps:
        submit()
        yield from until_job(lambda _: current.downloaded)
        yield 0.5
        assert not newest().imported, "the result was imported during the stroke"

    x, y = interface.middle(view)
    yield from interface.drag((x - 15, y), (x + 15, y), hold)
    yield from until_imported()
    name = result().name
    assert colors_in("layout") == {first, second}
    yield from undo(view)
    assert name not in bpy.data.images
    assert colors_in("layout") == {first, second}
    yield from undo(view)
    assert colors_in("layout") == {first}
    yield from redo(view)
    yield from redo(view)
    assert name in bpy.data.images
    assert colors_in("layout") == {first, second}


def submit_and_wait_for_a_killed_service() -> Steps:
    """A job whose service is killed and started again by the test arrives without a click."""
    yield from show_tab(area("VIEW_3D"))
    scenes.swatch()
    submit()
    yield from until(lambda: newest().state == "running" and newest().fraction > 0)
    report("running")
    message = newest().message
    yield from until(lambda: newest().message != message and "Step" not in newest().message)
    report("lost", newest().message)
    screenshot("lost")
    yield from until_imported(90.0)
    assert shown_by_material() == result()


def submit_paint_save_and_quit(path: str) -> Steps:
    """Two jobs run and the layout has an unsaved stroke when the file is saved."""
    view = area("VIEW_3D")
    with within(view):
        maps()
    yield from paint("layout", "MODEL", 1)
    yield from stroke(view, 30)
    bpy.context.scene.distill.variations = 2
    submit()
    yield from until(lambda: all(record.request for record in session.current().of_this_file()))
    with within(view):
        bpy.ops.wm.save_as_mainfile(filepath=path)
    assert all(record.active for record in session.current().of_this_file()), "the jobs ended before Blender"
    report("colors", sorted(colors_in("layout")))


def open_and_wait(path: str) -> Steps:
    """The jobs of a file arrive after it was opened, and its layout is as it was painted."""
    yield from show_tab(area("VIEW_3D"))
    bpy.ops.wm.open_mainfile(filepath=path)
    yield 1.0
    records = session.current().of_this_file()
    assert len(records) == 2
    yield from until(lambda: all(record.imported for record in records), 60.0)
    report("seeds", sorted(record.seed for record in records))
    report("colors", sorted(colors_in("layout")))
    assert all(image_io.pixels_of(bpy.data.images[name], name).any() for name in (result().name,))
    yield 0.1


def run_the_real_engine() -> Steps:
    """A job of 128 x 128 pixels without a test engine."""
    yield from show_tab(area("VIEW_3D"))
    scenes.swatch()
    submit(128, 128, preset="draft")
    yield from until_imported(120.0)
    report("size", list(result().size))
    screenshot("real")
