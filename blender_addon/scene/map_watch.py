"""What the panel says about the maps, found shortly after each stroke: which regions they have, whether edges meet.

Reading a map takes time, so it is done by a timer once after each change, not by each drawing of the panel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import bpy
import bpy.utils.previews
import numpy as np
from bpy.app.handlers import persistent
from bpy.app.translations import pgettext_iface as tr
from bpy.types import Depsgraph, Image, Scene

from ..wire.errors import LocalError
from . import label_arrays, properties, regions, windows
from .label_arrays import Color

MAX_PIXELS = 2048 * 2048
"""Maps with more pixels are not watched, since reading them would be felt."""
THUMBNAIL_SIDE = 128
VISIBLE_EDGE = 0.02
"""Share of an edge from which a difference is worth a note: 20 of 1024 pixels. A border that meets itself crosses the
edge at a slant, which differs in a few pixels."""


@dataclass(frozen=True)
class MapFacts:
    """Attributes:

    shares: part of the pixels that each region has.
    soft: part of the pixels between two regions' colors, which a job snaps.
    other: part of the pixels with a color of no region, which a job refuses.
    edges: part of the top and the bottom edge that differ, and of the left and the right edge.
    """

    shares: tuple[float, ...]
    soft: float
    other: float
    edges: tuple[float, float]


_Key = tuple[int, int]
"""The session_uid of a scene and of an image: the regions of a map, and so what is found in it, are the scene's."""
_facts: dict[_Key, MapFacts] = {}
_read: dict[_Key, tuple[int, str]] = {}
"""What each map was when it was read: the number of its changes, and the step of the add-on's (`map_history`)."""
_changes: Counter[int] = Counter()
"""How often each image has changed."""
_icons: bpy.utils.previews.ImagePreviewCollection | None = None
"""Icons of maps by their keys. Not the images' own previews: Blender draws those in a thread, and frees them with undo,
so that writing into them can crash it."""


def facts(scene: Scene, image: Image | None) -> MapFacts | None:
    """What was last found in a map of a scene; None if it was not read yet."""
    return _facts.get(_key(scene, image)) if image is not None else None


def icon(scene: Scene, image: Image) -> int:
    """The icon that shows a map as it was last read; 0 if it was not read, or in background mode."""
    key = str(_key(scene, image))
    return int(_icons[key].icon_id) if _icons is not None and key in _icons else 0


def _key(scene: Scene, image: Image) -> _Key:
    return scene.session_uid, image.session_uid


def update(scene: Scene) -> bool:
    """Reads the maps of a scene that have changed; returns whether there were any."""
    found = False
    for picture in properties.LABEL_MAPS:
        image = getattr(scene.distill, f"image_{picture}")
        if image is None or not scene.distill.regions:
            continue
        key = _key(scene, image)
        state = _changes[image.session_uid], getattr(scene.distill, f"step_{picture}")
        if _read.get(key) == state:
            continue
        _read[key] = state
        if image.size[0] * image.size[1] > MAX_PIXELS:
            continue
        try:
            read = regions.read_map(scene, picture)
        except LocalError:
            _facts.pop(key, None)
            continue
        found = True
        labels = read.snapped
        _facts[key] = _facts_of(scene, read, labels)
        if not bpy.app.background:
            _draw_icon(str(key), regions.colors_of(scene), labels)
    return found


def _draw_icon(key: str, colors: Sequence[Color], labels: np.ndarray) -> None:
    """Draws the icon of a map: Blender does not update its own after strokes."""
    global _icons
    if _icons is None:
        _icons = bpy.utils.previews.new()
    height, width = labels.shape
    coarse = max(1, max(height, width) // THUMBNAIL_SIDE)
    small = labels[::-1][::coarse, ::coarse]
    pixels = np.ones((*small.shape, 4), np.float32)
    pixels[..., :3] = (np.array(colors, np.float32) / 255)[small]
    preview = _icons[key] if key in _icons else _icons.new(key)
    preview.image_size = small.shape[1], small.shape[0]
    preview.image_pixels_float.foreach_set(pixels.ravel())


def _facts_of(scene: Scene, found: regions.ReadMap, labels: np.ndarray) -> MapFacts:
    counts = np.array([np.count_nonzero(labels == region) for region in range(len(scene.distill.regions))])
    unknown = found.found < 0
    return MapFacts(
        tuple((counts / labels.size).tolist()),
        found.share(unknown & found.between),
        found.share(unknown & ~found.between),
        label_arrays.edge_differences(labels),
    )


def forget() -> None:
    """Lets every map be read again, for example after the colors of the regions have changed."""
    _read.clear()


def differing_edges(scene: Scene) -> list[str]:
    """The names of the opposite edges of the layout that differ although the texture tiles there."""
    found = facts(scene, scene.distill.image_layout)
    if found is None:
        return []
    tiles = properties.tiles(scene.distill)
    names = (tr("top and bottom"), tr("left and right"))
    return [name for name, tile, share in zip(names, tiles, found.edges, strict=True) if tile and share > VISIBLE_EDGE]


def unmapped_regions(scene: Scene) -> list[str]:
    """The names of the regions that the layout uses and the region map lacks."""
    layout, swatch = facts(scene, scene.distill.image_layout), facts(scene, scene.distill.image_regions)
    if layout is None or swatch is None:
        return []
    pairs = zip(scene.distill.regions, layout.shares, swatch.shares, strict=False)
    return [region.name for region, used, known in pairs if used > 0 and known == 0]


# ---------------------------------------------------------------------------------------------- called by Blender


def _on_timer() -> float:
    scene = bpy.context.scene
    if scene is not None and not windows.is_modal_operator_running() and update(scene):
        windows.redraw()
    return 0.4


@persistent
def _on_change(_scene: Scene, depsgraph: Depsgraph) -> None:
    for changed in depsgraph.updates:
        if isinstance(changed.id, Image):
            _changes[changed.id.original.session_uid] += 1


@persistent
def _on_undo(*_args: object) -> None:
    forget()


@persistent
def _on_load(*_args: object) -> None:
    _facts.clear()
    _read.clear()
    _changes.clear()
    if _icons is not None:
        _icons.clear()


_handlers = (
    (bpy.app.handlers.depsgraph_update_post, _on_change),
    (bpy.app.handlers.undo_post, _on_undo),
    (bpy.app.handlers.redo_post, _on_undo),
    (bpy.app.handlers.load_post, _on_load),
)


def start() -> None:
    """Begin to watch the maps. Called when the add-on is enabled."""
    for handlers, function in _handlers:
        handlers.append(function)
    if not bpy.app.background:
        bpy.app.timers.register(_on_timer, first_interval=0.5, persistent=True)


def stop() -> None:
    """Called when the add-on is disabled."""
    global _icons
    if _icons is not None:
        bpy.utils.previews.remove(_icons)
        _icons = None
    if bpy.app.timers.is_registered(_on_timer):
        bpy.app.timers.unregister(_on_timer)
    for handlers, function in _handlers:
        handlers.remove(function)
