"""Undo of pixels that the add-on writes into the maps.

Blender's undo restores datablocks and the pixels of its own strokes, but not pixels that Python wrote. A map is
nevertheless changed in place, since screens, the canvas and the undo steps of strokes refer to its datablock. The scene
stores which of our changes its map shows, undo reverts that, and a handler then writes the pixels that belong to it:
those that the change began with after an undo, those that it ended with after a redo. Strokes in between are Blender's.
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

from . import image_io, properties

MAX_BYTES = 1 << 29
"""Memory for the pixels of all steps. The oldest are dropped first; undo then leaves the map as it is."""


@dataclass(frozen=True)
class Runs:
    """A picture (height, width) of packed colors with alpha as runs of equal pixels: `values` (n,) and `ends` (n,)."""

    shape: tuple[int, ...]
    values: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, packed: np.ndarray) -> Runs:
        flat = packed.ravel()
        ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1).astype(np.int32)
        return cls(packed.shape, flat[ends], ends)

    def packed(self) -> np.ndarray:
        return np.repeat(self.values, np.diff(self.ends, prepend=-1)).reshape(self.shape)

    @property
    def nbytes(self) -> int:
        return int(self.values.nbytes + self.ends.nbytes)


class History:
    """The pixels of each map at its changes: by image and step, when the step was left and when it was entered."""

    def __init__(self) -> None:
        self.left: OrderedDict[tuple[int, str], Runs] = OrderedDict()
        self.entered: OrderedDict[tuple[int, str], Runs] = OrderedDict()
        self.shown: dict[int, str] = {}
        self._prefix = uuid.uuid4().hex[:8]
        self._numbers = itertools.count(1)

    def record(self, scene: Scene, picture: str, before: np.ndarray, after: np.ndarray) -> None:
        """Records a change of a map from packed pixels (height, width) to others, and begins a new step."""
        image = getattr(scene.distill, f"image_{picture}").session_uid
        self.left[image, getattr(scene.distill, f"step_{picture}")] = Runs.of(before)
        step = f"{self._prefix} {next(self._numbers)}"
        self.entered[image, step] = Runs.of(after)
        setattr(scene.distill, f"step_{picture}", step)
        self.shown[image] = step
        while sum(r.nbytes for r in (*self.left.values(), *self.entered.values())) > MAX_BYTES and len(self.left) > 1:
            self.left.popitem(last=False)
            self.entered.popitem(last=False)

    def restore(self, scene: Scene, picture: str, undone: bool) -> None:
        """Writes the pixels of the step that the scene is in after undo or redo, if the image shows another step."""
        image = getattr(scene.distill, f"image_{picture}")
        if image is None or image.library is not None:
            return
        step = getattr(scene.distill, f"step_{picture}")
        if self.shown.get(image.session_uid, step) == step:
            return
        runs = (self.left if undone else self.entered).get((image.session_uid, step))
        if runs is not None and runs.shape == tuple(image.size)[::-1]:
            image_io.write_packed(image, runs.packed())
        self.shown[image.session_uid] = step


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
