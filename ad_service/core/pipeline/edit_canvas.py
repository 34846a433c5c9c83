"""The canvas of an edit: a picture with its maps, most of which is fixed, filled window by window.

Time and memory depend on the area that is filled: only a window around each part of it is copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.pictures.gradients import BlendOptions, close_steps
from ad_service.core.pipeline.transform import Channel, renormalize
from ad_service.core.quilting.cuts import CutOptions, Floats, Ints, Mask
from ad_service.core.quilting.fill import UNUSABLE, FillOptions, Hole, fill

Labels: TypeAlias = npt.NDArray[np.int64]

BLENDED = ("color", "height")
"""Kinds of channel whose pieces meet without a step of tone. Others keep the values that the material has."""


class NothingToFillFrom(ValueError):
    """So little of the picture is left outside the area that no piece of it can be copied."""


@dataclass(frozen=True)
class EditOptions:
    """Sizes in pixels.

    Attributes:
        side: of the squares into which a large area is divided. Each takes 560 x 560 pixels of context.
        overlap: how far neighboring squares reach over each other, so that the cut between them is found, too.
        margin: of the context around a square; wider where the context has little that can be shown.
        least_source: pixels along the side of a square of the least that must be left to fill from.
        source_share: usable pixels of a context, as a multiple of the empty ones in it.
        reach: how far the model may change what is near a visible cut.
        feather: how far inside the area the model's colors reach their full weight.
        spot: of the squares around visible cuts that a model redraws which keeps its start.
        least_visible: mean visibility of the cuts within 9 x 9 pixels for which the model is run.
        misfit: pixels by which a regular picture may miss a whole number of its periods without a note.
        slanted: part of a period's length that it must have along an axis to count for it.
        fill: costs of the pieces; `blend`, of the steps between them; `cuts`, when a cut is visible.
    """

    side: int = 256
    overlap: int = 24
    margin: int = 128
    least_source: int = 32
    source_share: float = 2.0
    reach: int = 12
    feather: int = 4
    spot: int = 160
    misfit: float = 3.0
    slanted: float = 0.7
    least_visible: float = 0.5
    fill: FillOptions = field(default_factory=FillOptions)
    blend: BlendOptions = field(default_factory=BlendOptions)
    cuts: CutOptions = field(default_factory=CutOptions)


@dataclass(frozen=True)
class Sources:
    """More pixels to copy beside those of the canvas: channels (C, h, w) by name, and their labels (h, w)."""

    channels: Mapping[str, Channel]
    labels: Labels


@dataclass
class EditCanvas:
    """A picture that is being edited.

    Attributes:
        channels: by name, among them `color`, each (C, H, W); changed in place.
        labels: (H, W), the label of each pixel that may be copied; UNUSABLE for others.
        empty: (H, W), what has to be filled; nothing at the end.
        free: (H, W), what may change: `empty`, and what may be replaced where that hides a seam.
        wanted: (H, W), the label that each free pixel must get.
        tiles: whether y and x of the result tile.
        joined: whether the last and the first line of the picture belong together already, along y and x.
        more: more pixels to copy.
        source: (H, W), where each pixel comes from: y * W + x, or H * W + y * w + x in `more`.
        visible: (H, W) in [0, 1], how visible the cuts at each pixel are.
    """

    channels: dict[str, Channel]
    labels: Labels
    empty: Mask
    free: Mask
    wanted: Labels
    tiles: tuple[bool, bool]
    joined: tuple[bool, bool]
    more: Sources | None = None
    source: Ints = field(init=False)
    visible: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.source = np.arange(self.empty.size).reshape(self.empty.shape)
        self.visible = np.zeros(self.empty.shape, np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.empty.shape
        return height, width

    @property
    def moved(self) -> Mask:
        """Where (H, W) another pixel is shown than the picture's own."""
        moved: Mask = self.source != np.arange(self.source.size).reshape(self.source.shape)
        return moved

    @property
    def color(self) -> Tensor:
        return self.channels["color"].pixels


@dataclass(frozen=True)
class Window:
    """Rows (h,) and columns (w,) of a canvas, wrapped; whether each axis is a whole torus; and a mask of its middle.

    `middle` (h, w) are the pixels for which the window was made; the others are their context.
    """

    rows: Ints
    columns: Ints
    tiles: tuple[bool, bool]
    middle: Mask

    @property
    def at(self) -> tuple[Ints, Ints]:
        return self.rows[:, None], self.columns[None, :]


def fill_canvas(
    canvas: EditCanvas, generator: torch.Generator, options: EditOptions
) -> Generator[float, None, list[Window]]:
    """Fill what is empty and hide seams in what is free; returns the windows in which that was done.

    Yields the fraction done. Raises NothingToFillFrom.
    """
    if canvas.more is None and int((canvas.labels != UNUSABLE).sum()) < options.least_source**2:
        raise NothingToFillFrom(
            f"only {int((canvas.labels != UNUSABLE).sum()):,} pixels are left to fill from; at least "
            f"{options.least_source**2:,} are needed"
        )
    rest, done, made = list(rectangles(canvas.free, canvas.tiles, options.side)), 0, []
    total = len(rest)
    while rest:  # what is surrounded most comes first
        known = [_known_share(canvas, rectangle, options) for rectangle in rest]
        window = window_around(canvas, rest.pop(int(np.argmax(known))), options)
        made.append(window)
        for fraction in _fill_window(canvas, window, generator, options):
            yield (done + fraction) / total
        done += 1
    return made


# ---------------------------------------------------------------------------------------------- windows

Rectangle: TypeAlias = tuple[int, int, int, int]
"""First row, first column, height, width; it may reach over the edge of a torus."""


def rectangles(area: Mask, tiles: tuple[bool, bool], side: int, cell: int = 32) -> Iterator[Rectangle]:
    """Rectangles of at most side x side pixels that contain an area (H, W), found for each connected part of it."""
    H, W = area.shape
    rows, columns = -(-H // cell), -(-W // cell)
    padded = np.pad(area, ((0, rows * cell - H), (0, columns * cell - W)))
    coarse: Mask = np.asarray(padded.reshape(rows, cell, columns, cell).any((1, 3)))
    seen = np.zeros_like(coarse)
    for first in np.argwhere(coarse).tolist():
        if seen[tuple(first)]:
            continue
        part, queue = [], deque([tuple(first)])
        seen[tuple(first)] = True
        while queue:
            y, x = queue.popleft()  # counted on over the edges
            part.append((y, x))
            for near in ((y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
                inside = all(tile or 0 <= i < n for i, n, tile in zip(near, coarse.shape, tiles, strict=True))
                at = near[0] % rows, near[1] % columns
                if inside and coarse[at] and not seen[at]:
                    seen[at] = True
                    queue.append(near)
        yield from _divided(padded, np.array(part) * cell, cell, side, (H, W), tiles)


def _divided(
    area: Mask, part: Ints, cell: int, side: int, size: tuple[int, int], tiles: tuple[bool, bool]
) -> Iterator[Rectangle]:
    """The rectangle around the cells (n, 2) of a part, divided evenly; empty ones are left out."""
    spans = []
    for axis in (0, 1):
        first, last = int(part[:, axis].min()), int(part[:, axis].max()) + cell
        if last - first >= size[axis]:
            first, last = 0, size[axis]
        if not tiles[axis]:
            last = min(last, size[axis])
        count = -(-(last - first) // side)
        ends = [first + round(i * (last - first) / count) for i in range(count + 1)]
        spans.append(list(pairwise(ends)))
    for top, bottom in spans[0]:
        for left, right in spans[1]:
            rows, columns = np.arange(top, bottom) % size[0], np.arange(left, right) % size[1]
            if area[rows[:, None], columns].any():
                yield top, left, bottom - top, right - left


def visible_spots(canvas: EditCanvas, options: EditOptions) -> Iterator[Window]:
    """Small windows around the cuts that show."""
    mean = F.avg_pool2d(torch.from_numpy(canvas.visible)[None, None], 9, 1, 4)[0, 0].numpy()
    for rectangle in rectangles(mean > options.least_visible, canvas.tiles, options.spot):
        inner = _grown(canvas, rectangle, options.reach)
        rows, columns, tiles = _grown(canvas, rectangle, 4 * options.reach)
        yield Window(rows, columns, tiles, _inside(rows, columns, inner))


def _inside(rows: Ints, columns: Ints, inner: tuple[Ints, Ints, tuple[bool, bool]]) -> Mask:
    """Where rows and columns are both among the inner ones, (h, w)."""
    inside: Mask = np.isin(rows, inner[0])[:, None] & np.isin(columns, inner[1])[None, :]
    return inside


def window_around(canvas: EditCanvas, rectangle: Rectangle, options: EditOptions) -> Window:
    """The window of a rectangle, with as much context as it needs to be filled from."""
    inner = _grown(canvas, rectangle, options.overlap)
    empty = canvas.empty[inner[0][:, None], inner[1]].sum()
    needed = max((4 * options.least_source) ** 2, options.source_share * float(empty))
    margin = options.margin
    while True:
        rows, columns, tiles = _grown(canvas, rectangle, options.overlap + margin)
        usable = (canvas.labels[rows[:, None], columns] != UNUSABLE).sum()
        if usable >= needed or canvas.more is not None or (len(rows), len(columns)) == canvas.shape:
            break
        margin += margin // 2
    return Window(rows, columns, tiles, _inside(rows, columns, inner))


def _grown(canvas: EditCanvas, rectangle: Rectangle, margin: int) -> tuple[Ints, Ints, tuple[bool, bool]]:
    """Rows and columns of a rectangle with a margin, and which of both are a whole torus."""
    axes, whole = [], []
    for first, length, total, tile in zip(rectangle[:2], rectangle[2:], canvas.shape, canvas.tiles, strict=True):
        index = np.arange(first - margin, first + length + margin)
        if tile:
            axes.append(np.arange(total) if len(index) >= total else index % total)
        else:
            axes.append(index[(index >= 0) & (index < total)])
        whole.append(tile and len(axes[-1]) == total)
    return axes[0], axes[1], (whole[0], whole[1])


def _known_share(canvas: EditCanvas, rectangle: Rectangle, options: EditOptions) -> float:
    rows, columns, _ = _grown(canvas, rectangle, options.overlap)
    return 1 - float(canvas.empty[rows[:, None], columns].mean())


# ---------------------------------------------------------------------------------------------- one window


@dataclass(frozen=True)
class _Atlas:
    """What a window copies from: itself, with a gap where its lines do not belong together, and more pixels beside it.

    Attributes:
        origin: (h, w), the place of each pixel in `EditCanvas.source`; -1 for none.
        own: flat indices (h, w) of the window's own pixels.
        labels: (h, w).
    """

    origin: Ints
    own: Ints
    labels: Labels


def _atlas(canvas: EditCanvas, window: Window) -> _Atlas:
    H, W = canvas.shape
    places: list[Ints] = []
    for axis, index in enumerate((window.rows, window.columns)):
        breaks = np.flatnonzero(np.diff(index) != 1) + 1
        places.append(index if canvas.joined[axis] else np.insert(index, breaks, -1))
    rows, columns = places
    inside = (rows >= 0)[:, None] & (columns >= 0)[None, :]
    origin = np.where(inside, rows[:, None] * W + columns, -1)
    labels = np.where(inside, canvas.labels[rows[:, None], columns], UNUSABLE)
    if canvas.more is not None:
        h, w = canvas.more.labels.shape
        there = H * W + np.arange(h * w).reshape(h, w)
        height = max(h, len(rows))
        origin = np.concatenate(
            [_padded(origin, height, -1), np.full((height, 1), -1, np.int64), _padded(there, height, -1)], 1
        )
        labels = np.concatenate(
            [
                _padded(labels, height, UNUSABLE),
                np.full((height, 1), UNUSABLE, np.int64),
                _padded(canvas.more.labels, height, UNUSABLE),
            ],
            1,
        )
    own = (np.flatnonzero(rows >= 0)[:, None] * origin.shape[1] + np.flatnonzero(columns >= 0)[None, :]).astype(
        np.int64
    )
    return _Atlas(origin, own, labels)


def _padded(values: Ints, height: int, value: int) -> Ints:
    return np.pad(values, ((0, height - len(values)), (0, 0)), constant_values=value)


def _picture(canvas: EditCanvas, name: str, origin: Ints) -> Tensor:
    """The pixels (C, h, w) of a channel at the places of an atlas; 0 in gaps."""
    H, W = canvas.shape
    flat = canvas.channels[name].pixels.flatten(1)
    place = torch.from_numpy(origin)
    out = flat[:, place.clamp(0, H * W - 1).flatten()].view(len(flat), *origin.shape)
    if canvas.more is not None:
        theirs = canvas.more.channels[name].pixels.flatten(1)
        beyond = (place - H * W).clamp_min(0).flatten()
        out = torch.where(place < H * W, out, theirs[:, beyond].view(len(theirs), *origin.shape))
    return torch.where(place >= 0, out, torch.zeros(()))


def _filled(canvas: EditCanvas, origin: Ints) -> Mask:
    """Where (h, w) an atlas has pixels."""
    inside = (origin >= 0) & (origin < canvas.empty.size)
    filled: Mask = (origin >= 0) & ~(inside & canvas.empty.ravel()[origin.clip(0, canvas.empty.size - 1)])
    return filled


def _extrapolated(picture: Tensor, filled: Mask) -> Tensor:
    """A picture (C, h, w) with the mean of its filled neighbors in pixels that are not, whose content is unknown."""
    known = torch.from_numpy(filled)[None, None].float()
    around = F.avg_pool2d(F.pad(torch.cat([picture[None] * known, known], 1), (1, 1, 1, 1)), 3, 1)[0]
    return torch.where(known[0] > 0, picture, around[:-1] / around[-1:].clamp_min(1e-6))


def _fill_window(
    canvas: EditCanvas, window: Window, generator: torch.Generator, options: EditOptions
) -> Generator[float, None, None]:
    """Fill one window and write it into the canvas."""
    atlas, at = _atlas(canvas, window), window.at
    free = canvas.free[at] & window.middle
    empty = canvas.empty[at]
    filled = _filled(canvas, atlas.origin)
    pictures = {name: _extrapolated(_picture(canvas, name, atlas.origin), filled) for name in canvas.channels}
    hole = Hole(pictures["color"], atlas.labels, atlas.own, empty, free, canvas.wanted[at], window.tiles)
    shown, cost = yield from fill(hole, generator, options.fill)
    changed = (shown != atlas.own) | (empty & free)
    if not changed.any():
        return
    canvas.visible[at] = np.where(free, np.clip(cost / options.cuts.visible_cost, 0, 1), canvas.visible[at])
    new_source = canvas.source[at]
    origin = atlas.origin.ravel()[shown]
    known = origin.clip(0, canvas.source.size - 1)
    through = np.where(origin < canvas.source.size, canvas.source.ravel()[known], origin)
    canvas.source[at] = np.where(changed, through, new_source)
    for name, channel in canvas.channels.items():
        flat = pictures[name].flatten(1)
        painted = flat[:, torch.from_numpy(shown.ravel())].view(len(flat), *shown.shape)
        mask = changed
        if channel.kind in BLENDED:
            known = free | ~empty
            masks, labels = (free, known, filled), canvas.wanted[at]
            painted, mask = _blended(painted, pictures[name], shown, masks, labels, window.tiles, options), free
        elif channel.kind == "normal":
            painted = torch.where(torch.from_numpy(changed), renormalize(painted), painted)
        old = channel.pixels[:, torch.from_numpy(at[0]), torch.from_numpy(at[1])]
        channel.pixels[:, torch.from_numpy(at[0]), torch.from_numpy(at[1])] = torch.where(
            torch.from_numpy(mask), painted, old
        )
    canvas.empty[at] &= ~free


def _blended(
    painted: Tensor,
    picture: Tensor,
    shown: Ints,
    masks: tuple[Mask, Mask, Mask],
    labels: Labels,
    tiles: tuple[bool, bool],
    options: EditOptions,
) -> Tensor:
    """Pieces (C, h, w) copied from a picture (C, H, W) through `shown`, without steps between them.

    `masks` are where the result may change and where it has pixels, both (h, w), and where the picture has, (H, W).
    Between different labels (h, w) a step stays.
    """
    rows, columns = (
        slice(None) if tile else _around(np.asarray(masks[0].any(1 - axis))) for axis, tile in enumerate(tiles)
    )
    shown, part, labels = shown[rows, columns], painted[:, rows, columns], labels[rows, columns]
    free, known = (mask[rows, columns] for mask in masks[:2])
    filled = torch.from_numpy(masks[2].astype(np.float32))[None]
    height, width = picture.shape[1:]
    y, x = shown // width, shown % width

    def value(of: Tensor, y: Ints, x: Ints) -> Tensor:
        place = y.clip(0, height - 1) * width + x.clip(0, width - 1)
        return of.flatten(1)[:, torch.from_numpy(place.ravel())].view(len(of), *shown.shape)

    wanted, cuts, counted = [], [], []
    for axis, (dy, dx) in enumerate(((1, 0), (0, 1))):  # the mean of how both pieces go on, as far as they do
        next_y, next_x = np.roll(y, -1, axis), np.roll(x, -1, axis)
        after, before = value(filled, y + dy, x + dx), value(filled, next_y - dy, next_x - dx)
        change = (value(picture, y + dy, x + dx) - part) * after
        change += (part.roll(-1, axis + 1) - value(picture, next_y - dy, next_x - dx)) * before
        wanted.append(change / (after + before).clamp_min(1))
        counted.append(torch.from_numpy(known & np.roll(known, -1, axis) & (labels == np.roll(labels, -1, axis))))
        cuts.append(torch.from_numpy((next_y != y + dy) | (next_x != x + dx)))
    out = painted.clone()
    out[:, rows, columns] = close_steps(
        part,
        (wanted[0], wanted[1]),
        (cuts[0], cuts[1]),
        torch.from_numpy(free),
        (counted[0], counted[1]),
        tiles,
        options.blend,
    )
    return out


def _around(lines: Mask, multiple: int = 16) -> slice:
    """The lines that are set with one more at each side, and then up to a multiple where there is room."""
    first, last = max(int(lines.argmax()) - 1, 0), min(len(lines), len(lines) - int(lines[::-1].argmax()) + 1)
    length = min(-(-(last - first) // multiple) * multiple, len(lines) // multiple * multiple)
    first = max(0, min(first, len(lines) - length))
    return slice(first, max(last, first + length))
