"""Undo of pixels that the add-on writes into the maps.

Blender's undo restores datablocks and the pixels of its own strokes, but not pixels that Python wrote. A map is
nevertheless changed in place, since screens, the canvas and the undo steps of strokes refer to its datablock. The scene
stores which of our changes its map shows, undo reverts that, and a handler then writes the pixels that belong to it:
those that the change began with after an undo, those that it ended with after a redo. Strokes in between are Blender's.

The undo of the first stroke after a change is wrong, however: Blender stores a stroke from where the stroke before it
ended, so that the change is lost in the tiles of the stroke. The handler finds such tiles and writes the change again.
"""

from __future__ import annotations

import itertools
import uuid
from collections import OrderedDict
from dataclasses import dataclass

import bpy
import numpy as np
from bpy.app.handlers import persistent
from bpy.types import Image, Scene

from . import image_editors, image_io, properties

MAX_BYTES = 1 << 29
"""Memory for the pixels of all steps. The oldest are dropped first; undo then leaves the map as it is."""
TILE = 64
"""Side in pixels of the tiles in which Blender stores strokes, counted from the lower left corner."""


@dataclass(frozen=True)
class Runs:
    """A picture (height, width) of packed colors with alpha as runs of equal pixels: `values` (n,) and `ends` (n,).

    A picture of mostly different pixels, such as a gray swatch, is kept as it is: all its pixels and no ends.
    """

    shape: tuple[int, ...]
    values: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, packed: np.ndarray) -> Runs:
        flat = packed.ravel()
        changes = flat[1:] != flat[:-1]
        if int(np.count_nonzero(changes)) > flat.size // 3:
            return cls(packed.shape, flat.copy(), np.empty(0, np.int32))
        ends = np.append(np.flatnonzero(changes), flat.size - 1).astype(np.int32)
        return cls(packed.shape, flat[ends], ends)

    def packed(self) -> np.ndarray:
        flat = np.repeat(self.values, np.diff(self.ends, prepend=-1)) if len(self.ends) else self.values
        return flat.reshape(self.shape)

    def equals(self, other: Runs) -> bool:
        """Whether it is the same picture."""
        return (
            self.shape == other.shape
            and np.array_equal(self.values, other.values)
            and np.array_equal(self.ends, other.ends)
        )

    @property
    def nbytes(self) -> int:
        return int(self.values.nbytes + self.ends.nbytes)


class History:
    """The pixels of each map at its changes.

    Attributes:
        left, entered: by image and step, the pixels when the step was left, and when it was entered.
        stroked: the pixels at the end of the last stroke before the step was entered, if there was one.
        shown: the step that each image shows.
    """

    def __init__(self) -> None:
        self.left: OrderedDict[tuple[int, str], Runs] = OrderedDict()
        self.entered: OrderedDict[tuple[int, str], Runs] = OrderedDict()
        self.stroked: dict[tuple[int, str], Runs] = {}
        self.shown: dict[int, str] = {}
        self._prefix = uuid.uuid4().hex[:8]
        self._numbers = itertools.count(1)

    def record(self, scene: Scene, picture: str, before: np.ndarray, after: np.ndarray) -> None:
        """Records a change of a map from packed pixels (height, width) to others, and begins a new step.

        Not on a thread: Blender 4.2 as a module crashed when one ended its work while an undo step was pushed.
        """
        image = getattr(scene.distill, f"image_{picture}").session_uid
        old = getattr(scene.distill, f"step_{picture}")
        step = f"{self._prefix} {next(self._numbers)}"
        setattr(scene.distill, f"step_{picture}", step)
        self.shown[image] = step
        self.left[image, old] = Runs.of(before)
        entered = self.entered.get((image, old))
        if entered is None or not entered.equals(self.left[image, old]):
            self.stroked[image, step] = self.left[image, old]
        elif (image, old) in self.stroked:
            self.stroked[image, step] = self.stroked[image, old]
        self.entered[image, step] = Runs.of(after)
        while sum(r.nbytes for r in (*self.left.values(), *self.entered.values())) > MAX_BYTES and len(self.left) > 1:
            self.left.popitem(last=False)
            self.stroked.pop(self.entered.popitem(last=False)[0], None)

    def restore(self, scene: Scene, picture: str, undone: bool) -> None:
        """Writes the pixels of the step that the scene is in after undo or redo, if the image shows another step."""
        image = getattr(scene.distill, f"image_{picture}")
        if image is None or image.library is not None:
            return
        step = getattr(scene.distill, f"step_{picture}")
        if self.shown.get(image.session_uid, step) == step:
            if undone and _is_painted():
                self._restore_under_stroke(image, step)
            return
        runs = (self.left if undone else self.entered).get((image.session_uid, step))
        if runs is not None and runs.shape == tuple(image.size)[::-1]:
            image_io.write_packed(image, runs.packed())
        self.shown[image.session_uid] = step

    def _restore_under_stroke(self, image: Image, step: str) -> None:
        """Writes a step's pixels again if the undo of a stroke has replaced tiles of them by those before the step."""
        after, before = self.entered.get((image.session_uid, step)), self.stroked.get((image.session_uid, step))
        if after is None or before is None or not after.shape == before.shape == tuple(image.size)[::-1]:
            return
        now, entered = image_io.pixels_of(image, "map").view("<u4")[..., 0], after.packed()
        lost = _tiles(now != entered)
        if lost.any() and not (lost & _tiles(now != before.packed())).any():
            image_io.write_packed(image, entered)


def _is_painted() -> bool:
    """Whether a stroke may be undone: in Texture Paint, or with an Image Editor in paint mode."""
    return bpy.context.mode == "PAINT_TEXTURE" or bool(image_editors.painted())


def _tiles(places: np.ndarray) -> np.ndarray:
    """Which of Blender's tiles (rows, columns) contain one of the places (height, width), top row first."""
    height, width = places.shape
    padded = np.zeros((-(-height // TILE) * TILE, -(-width // TILE) * TILE), bool)
    padded[-height:, :width] = places
    tiles: np.ndarray = np.any(padded.reshape(len(padded) // TILE, TILE, -1, TILE), axis=(1, 3))
    return tiles


_history = History()


def write(scene: Scene, picture: str, before: np.ndarray, after: np.ndarray) -> Image:
    """Changes a map in place from packed colors with alpha (height, width) to others.

    Returns its image: a new one if pixels cannot be written into the old one, or the size is another.
    """
    image = getattr(scene.distill, f"image_{picture}")
    if image.library is not None or image.is_float or image.channels != 4 or before.shape != after.shape:
        pixels = np.ascontiguousarray(after).view(np.uint8).reshape(*after.shape, 4)
        image = image_io.new_image(image.name, image_io.encode_png(pixels[..., :3]))
        setattr(scene.distill, f"image_{picture}", image)
        return image
    _history.record(scene, picture, before, after)
    image_io.write_packed(image, after)
    return image


def _restore(undone: bool) -> None:
    for scene in bpy.data.scenes:
        for picture in properties.LABEL_MAPS:
            _history.restore(scene, picture, undone)


@persistent
def _on_undo(*_args: object) -> None:
    _restore(undone=True)


@persistent
def _on_redo(*_args: object) -> None:
    _restore(undone=False)


@persistent
def _on_load(*_args: object) -> None:
    global _history
    _history = History()


def start() -> None:
    """Begin to follow undo. Called when the add-on is enabled."""
    _on_load()
    bpy.app.handlers.undo_post.append(_on_undo)
    bpy.app.handlers.redo_post.append(_on_redo)
    bpy.app.handlers.load_post.append(_on_load)


def stop() -> None:
    """Called when the add-on is disabled."""
    bpy.app.handlers.load_post.remove(_on_load)
    bpy.app.handlers.redo_post.remove(_on_redo)
    bpy.app.handlers.undo_post.remove(_on_undo)
