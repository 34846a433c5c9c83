"""Steps with results: the gallery, undo of a result in Texture Paint, comparing two in the Image Editor."""

from __future__ import annotations

import time
from typing import Any

import bpy
import numpy as np

from blender_addon.link.records import JobRecord
from blender_addon.scene import image_io, mapping, materials, result_nodes, results, session, windows
from blender_addon.ui import split_view
from blender_addon.ui.panels import results as panel
from tests.addon import scenes
from tests.window import interface, screen
from tests.window.interface import Steps, area, drag, operate, redo, report, screenshot, show_tab, stroke, undo, within
from tests.window.steps.painting import colors_in, maps, paint


def arrive(seed: int, size: int = 64, apply: bool = True, picture: int | None = None) -> JobRecord:
    """A result arrives as from the service, as one undo step. `picture`: the number of its pixels, else the seed."""
    picture = seed if picture is None else picture
    session.pump()
    title = session.current().free_title(f"bricks {size} x {size}, seed {seed}")
    record = JobRecord(f"job {seed}", "synthesize", title, {"seed": seed}, session.current().document)
    record.state, record.sources = "succeeded", {"swatch": "bricks"}
    material = bpy.context.active_object.active_material
    if apply:
        record.materials = {materials.ensure_id(material): material.name}
    session.current().records[record.job] = record
    pixels = np.random.default_rng(picture).integers(0, 255, (size, size, 3), dtype=np.uint8) // 2 + picture * 40 % 128
    bpy.context.window_manager.distill_result = record.job
    results.import_result(record, {"image": image_io.encode_png(pixels.astype(np.uint8))})
    windows.push_undo(f"Import {title}")
    return record


def check(when: str, image: Any) -> None:
    mode, shown = bpy.context.active_object.mode, area("IMAGE_EDITOR").spaces.active.image
    assert mode == "TEXTURE_PAINT", f"{when}: {mode}"
    assert shown is not None and shown.name == image, f"{when}: the Image Editor shows {shown}"


def undo_in_texture_paint() -> Steps:
    """Results that arrive in Texture Paint are undone and done again there; the Image Editor keeps its image."""
    view = area("VIEW_3D")
    with within(view):
        first, second, _ = maps()
    name = results.image_of(arrive(1).job).name
    operate("object.mode_set", view, mode="TEXTURE_PAINT")
    yield 0.5
    yield from paint("layout", "MODEL", 1)
    operate("distill.show_result", view, job="job 1")
    yield 1.0
    yield from stroke(view, 30)
    for seed in (2, 3):
        arrive(seed)
        yield 0.5
    check("before undo", name)
    for seed in (3, 2):
        yield from undo(view)
        yield 0.5
        assert results.image_of(f"job {seed}") is None
        check(f"result {seed} undone", name)
    assert colors_in("layout") == {first, second}
    yield from undo(view)
    check("stroke undone", name)
    assert colors_in("layout") == {first}
    for _ in range(3):
        yield from redo(view)
        yield 0.3
        check("redo", name)
    assert results.image_of("job 3") is not None
    yield from undo(view)
    check("undone again", name)


def undo_after_a_mode_without_undo_step() -> Steps:
    """The same where the state before the result is of Object Mode, as when a script has entered Texture Paint."""
    view = area("VIEW_3D")
    with within(view):
        maps()
        bpy.ops.object.mode_set(mode="TEXTURE_PAINT")
    yield 0.5
    arrive(1)
    yield 0.5
    yield from undo(view)
    yield 0.5
    assert results.image_of("job 1") is None
    assert bpy.context.active_object.mode == "TEXTURE_PAINT", bpy.context.active_object.mode
    yield from undo(view)
    yield from redo(view)
    yield from redo(view)
    yield 0.5
    assert results.image_of("job 1") is not None


def split_view_is_dragged() -> Steps:
    """The Image Editor shows one result on each side of a line that follows the mouse."""
    view = area("VIEW_3D")
    yield from show_tab(view)
    a, b = arrive(1), arrive(2)
    bpy.context.window_manager.distill_result = a.job
    operate("distill.compare", view, job=b.job)
    operate("distill.compare_split", view)
    yield 3.0
    editor = area("IMAGE_EDITOR")
    place = interface.region(editor)
    with within(editor):
        left, bottom, right, top = split_view.corners(place)
    sizes = (right - left, place.width, place.height)
    assert right - left > 0.5 * min(place.width, place.height), f"the picture does not fill the editor: {sizes}"
    assert view.width > editor.width, "the 3D View keeps the larger part"
    screenshot("split")
    middle = round(place.y + (bottom + top) / 2)
    start, end = round(place.x + (left + right) / 2), round(place.x + left + (right - left) * 0.2)
    yield from drag((start, middle), (end, middle))
    split = bpy.context.window_manager.distill_split
    assert abs(split - 0.2) < 0.02, split
    screenshot("dragged")
    operate("distill.compare_split", view)
    yield 0.5
    screenshot("one")


def split_view_looks_like_the_editor() -> Steps:
    """Two results with the same pixels look alike on both sides of the line: hard pixels of the same colors."""
    view = area("VIEW_3D")
    yield from show_tab(view)
    a, b = arrive(1), arrive(2, picture=1)
    bpy.context.window_manager.distill_result = a.job
    operate("distill.show_result", view, job=a.job)
    operate("distill.compare", view, job=b.job)
    operate("distill.compare_split", view)
    bpy.context.window_manager.distill_split = 0.25
    yield 3.0
    place = interface.region(area("IMAGE_EDITOR"))
    with within(area("IMAGE_EDITOR")):
        left, bottom, right, top = split_view.corners(place)
    assert (right - left) / 64 > 3, "the pixels are too small to tell"
    compared = screen.pixels()
    operate("distill.compare_split", view)
    yield 2.0
    alone = screen.pixels()
    parts = (np.arange(64) + 0.5) / 64  # the middle of each pixel
    rows = np.round(len(alone) - 1 - place.y - bottom - parts * (top - bottom)).astype(int)
    columns = np.round(place.x + left + parts[20:] * (right - left)).astype(int)  # right of the line
    differs = np.abs(compared[np.ix_(rows, columns)].astype(int) - alone[np.ix_(rows, columns)]).max(-1)
    assert alone[np.ix_(rows, columns)].std() > 10, "there is no picture"
    assert differs.max() <= 6, f"colors differ by {differs.max()} levels"  # Blender's conversions: by 4


def gallery_of_two_hundred() -> Steps:
    """The gallery with 200 results: how long its section takes to draw, and what it looks like."""
    view = area("VIEW_3D")
    yield from show_tab(view)
    with within(view):
        for seed in range(200):
            arrive(seed, 32, apply=seed == 199)
    bpy.ops.distill.favorite(job="job 195")
    times: list[float] = []
    draw = panel.Results.draw

    def timed(self: Any, context: Any) -> None:
        begin = time.thread_time()
        draw(self, context)
        times.append(time.thread_time() - begin)

    panel.Results.draw = timed
    for _ in range(12):
        interface.region(view, "UI").tag_redraw()
        yield 0.3
    panel.Results.draw = draw
    report("draw_ms", 1000 * sorted(times)[len(times) // 2])
    screenshot("gallery")
    with within(view, "UI"):
        assert bpy.ops.distill.delete_unused("INVOKE_DEFAULT", True) == {"RUNNING_MODAL"}, "it asks first"
    yield 1.0
    screenshot("delete_unused")
    yield from interface.press("ESC", interface.middle(view))
    assert len(results.all_results()) == 200


def projections_on_a_model() -> Steps:
    """A monkey without a UV map gets a box projection; it is then triplanar, with a normal map."""
    view = area("VIEW_3D")
    yield from show_tab(view)
    with within(view):
        bpy.ops.object.delete()
        bpy.ops.mesh.primitive_monkey_add()
    thing = bpy.context.active_object
    thing.data.uv_layers.remove(thing.data.uv_layers[0])
    material = materials.ensure_material(thing, "Monkey")
    arrive(1)
    assert result_nodes.projection_of(result_nodes.connected_frame(material)) == "BOX"
    view.spaces.active.shading.type = "MATERIAL"
    yield 8.0
    screenshot("box")
    operate("distill.projection", view, projection="TRIPLANAR")
    mapping.set_tile_width(material, mapping.surface_of(thing), 0.5)
    yield 8.0
    screenshot("triplanar")
    assert scenes.base_color_node(material).type == "GROUP"
