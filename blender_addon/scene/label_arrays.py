"""Label maps as arrays: labels of pixels by color, flat colors, edges on a torus, flood fill. No bpy.

Colors of whole pictures are packed into one number each and looked up in a table of all 2^24 colors, since a distance
is needed only for each distinct color, not for each pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Color = tuple[int, int, int]


@dataclass(frozen=True)
class LabelOptions:
    """Thresholds, as Euclidean RGB distances (0 to 255 a channel) where nothing else is said.

    Attributes:
        ramp_distance: a color nearer than this to the line between two regions' colors is the edge of a soft stroke.
            Blender's soft strokes are within 2 of it, edges of a JPEG of quality 75 within 30 for 99% of the pixels.
        max_other_share: share of the pixels that may be off those lines in a map whose soft pixels are snapped.
        max_flat_colors: colors that `flat_colors` returns at most.
        min_flat_share: fraction of the pixels that a flat color must have.
        cluster_side: largest side of the copy of a picture that is clustered by color.
        edge_band: part of a side over which `meet_edges` may move a boundary.
        path_rows: rows in which its path is looked for; it is interpolated between them in a larger map.
    """

    ramp_distance: float = 30.0
    max_other_share: float = 0.002
    max_flat_colors: int = 12
    min_flat_share: float = 0.005
    cluster_side: int = 768
    edge_band: float = 1 / 8
    path_rows: int = 512


DEFAULTS = LabelOptions()


def pack(pixels: np.ndarray) -> np.ndarray:
    """Colors (...) as uint32, red in the lowest byte, of uint8 pixels (..., 3 or 4); without alpha."""
    if pixels.shape[-1] == 4 and pixels.strides[-1] == 1:
        return pixels.view("<u4")[..., 0] & 0xFFFFFF
    wide = pixels.astype(np.uint32)
    return wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16


def unpack(packed: np.ndarray) -> np.ndarray:
    """Pixels (..., 3) uint8 of packed colors."""
    return np.stack([packed & 255, packed >> 8 & 255, packed >> 16 & 255], -1).astype(np.uint8)


def distinct_colors(packed: np.ndarray) -> np.ndarray:
    """The distinct packed colors (n,) of a picture, in ascending order."""
    seen = np.zeros(1 << 24, bool)
    seen[packed] = True
    return np.flatnonzero(seen).astype(np.uint32)


def look_up(packed: np.ndarray, distinct: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value (...) of each packed color, given the values (n,) of all distinct ones (n,)."""
    table = np.empty(1 << 24, values.dtype)
    table[distinct] = values
    return table[packed]


def nearest_labels(pixels: np.ndarray, colors: Sequence[Color], reach: float = np.inf) -> np.ndarray:
    """Labels (...) of pixels (..., 3 or 4): the index of the nearest color, the first of equals; -1 beyond `reach`."""
    best = np.full(pixels.shape[:-1], np.nextafter(np.float32(reach**2), np.float32(np.inf)), np.float32)
    labels = np.full(pixels.shape[:-1], -1, np.int16)
    for index, color in enumerate(colors):
        distance = ((pixels[..., :3].astype(np.float32) - np.array(color, np.float32)) ** 2).sum(-1)
        closer = distance < best
        labels[closer], best[closer] = index, distance[closer]
    return labels


def near_ramp(pixels: np.ndarray, colors: Sequence[Color], reach: float = DEFAULTS.ramp_distance) -> np.ndarray:
    """Whether each pixel (n, 3) is within `reach` of the line between two of the colors: the edge of a soft stroke."""
    values = pixels.astype(np.float32)
    near = np.zeros(len(values), bool)
    palette = np.array(colors, np.float32)
    for i, start in enumerate(palette):
        for end in palette[:i]:
            ray = end - start
            along = ((values - start) @ ray / max(float(ray @ ray), 1.0)).clip(0, 1)
            near |= ((start + along[:, None] * ray - values) ** 2).sum(-1) <= reach**2
    return near


def opaque(colors: Sequence[Color]) -> np.ndarray:
    """Packed colors (n,) with full alpha in the highest byte."""
    return pack(np.array(colors, np.uint8).reshape(-1, 3)) | np.uint32(255 << 24)


def muted_gray(pixels: np.ndarray) -> np.ndarray:
    """Gray levels (height, width) uint8 from 40 to 218 of uint8 pixels (height, width, 3 or 4), by their luminance."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    gray = np.empty(pixels.shape[:2], np.uint8)
    for row in range(0, len(pixels), 16):  # a few rows fit into the processor's cache
        gray[row : row + 16] = pixels[row : row + 16, :, :3] @ weights * 0.7 + 40
    return gray


def flat_colors(pixels: np.ndarray, options: LabelOptions = DEFAULTS) -> list[Color]:
    """The flat colors of a label map, the most frequent first, without those of blurred edges and noise."""
    flat = pixels[..., :3].reshape(-1, 3)
    cells = flat.astype(np.int64) // 32 @ np.array([64, 8, 1])
    counts = np.bincount(cells, minlength=512)
    colors: list[Color] = []
    for cell in np.argsort(counts)[::-1]:
        if counts[cell] < options.min_flat_share * len(flat) or len(colors) == options.max_flat_colors:
            break
        red, green, blue = (int(v) for v in np.median(flat[cells == cell], axis=0).round())
        if all(max(abs(red - r), abs(green - g), abs(blue - b)) > 48 for r, g, b in colors):
            colors.append((red, green, blue))
    return colors


def cluster_by_color(pixels: np.ndarray, count: int, options: LabelOptions = DEFAULTS) -> np.ndarray:
    """Label (h, w) of each pixel of a copy of at most `options.cluster_side` by k-means of blurred colors.

    Label 0 is the largest.
    """
    coarse = -(-max(pixels.shape[:2]) // options.cluster_side)
    pixels = pixels[::coarse, ::coarse]
    step = max(1, min(pixels.shape[:2]) // 128)
    color = _blurred(pixels[..., :3].astype(np.float32), step)
    small = color[::step, ::step].reshape(-1, 3)
    order = np.argsort(small.sum(-1))
    centers = small[order[((np.arange(count) + 0.5) / count * len(order)).astype(int)]]
    for _ in range(25):
        nearest = ((small[:, None] - centers) ** 2).sum(-1).argmin(-1)
        means = [small[nearest == k].mean(0) if (nearest == k).any() else centers[k] for k in range(count)]
        if np.array_equal(means, centers):
            break
        centers = np.stack(means)
    centers = centers[np.argsort(np.bincount(nearest, minlength=count))[::-1]]
    return nearest_labels(color, [tuple(c) for c in centers])


def _blurred(picture: np.ndarray, radius: int) -> np.ndarray:
    """A box blur of (height, width, channels) with a radius in pixels."""
    for axis in (0, 1):
        padding = [(radius + 1, radius) if a == axis else (0, 0) for a in range(picture.ndim)]
        sums = np.pad(picture, padding, mode="edge").cumsum(axis, dtype=np.float64)
        length = picture.shape[axis]
        upper = np.take(sums, range(2 * radius + 1, 2 * radius + 1 + length), axis)
        picture = ((upper - np.take(sums, range(length), axis)) / (2 * radius + 1)).astype(np.float32)
    return picture


# ---------------------------------------------------------------------------------------------- areas and edges


def connected(labels: np.ndarray, row: int, column: int, tiles: tuple[bool, bool] = (False, False)) -> np.ndarray:
    """The area (height, width) of equal labels that contains a pixel, by edges; over the borders that tile (y, x).

    Runs of equal labels in the rows are joined where they touch, each with the lowest number among its neighbors.
    """
    begins = np.ones(labels.shape, bool)
    begins[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = (np.cumsum(begins, dtype=np.int32) - 1).reshape(labels.shape)
    touching = (begins[:-1] | begins[1:]) & (labels[:-1] == labels[1:])
    first, second = [run[:-1][touching]], [run[1:][touching]]
    opposite = ((run[0], run[-1], labels[0] == labels[-1]), (run[:, 0], run[:, -1], labels[:, 0] == labels[:, -1]))
    for tile, (begin, end, same) in zip(tiles, opposite, strict=True):
        if tile:
            first.append(begin[same])
            second.append(end[same])
    a, b = np.concatenate(first), np.concatenate(second)
    lowest = np.arange(int(run[-1, -1]) + 1)
    while (lowest[a] != lowest[b]).any():
        low = np.minimum(lowest[a], lowest[b])
        np.minimum.at(lowest, lowest[a], low)
        np.minimum.at(lowest, lowest[b], low)
        while (lowest[lowest] != lowest).any():
            lowest = lowest[lowest]
    return (lowest == lowest[run[row, column]])[run]


def edge_differences(labels: np.ndarray) -> tuple[float, float]:
    """The share of the rows of a map whose first and last row's labels differ (y), and of its columns (x)."""
    return float((labels[0] != labels[-1]).mean()), float((labels[:, 0] != labels[:, -1]).mean())


def meet_edges(labels: np.ndarray, tiles: tuple[bool, bool], options: LabelOptions = DEFAULTS) -> np.ndarray:
    """The map with opposite edges alike along the axes that tile (y, x).

    A band at the end of each axis changes from the map to a mirror image of the beginning, along the path that crosses
    the fewest differences (after Efros and Freeman 2001). Where everything differs, the path meanders.
    """
    labels = labels.copy()
    if tiles[1]:
        _meet_right(labels, tiles[0], options)
    if tiles[0]:
        _meet_right(labels.T, tiles[1], options)
    return labels


def _meet_right(labels: np.ndarray, closed: bool, options: LabelOptions) -> None:
    """Changes the right edge of a map in place."""
    height, width = labels.shape
    band = max(2, int(width * options.edge_band))
    old, new = labels[:, -band:], labels[:, :band][:, ::-1]
    coarse = -(-height // options.path_rows)
    differs = (old != new)[::coarse, ::coarse]
    path = _cheapest_path(differs + 0.5 * _meander(*differs.shape), closed) * coarse
    cut = np.interp(np.arange(height), np.arange(len(path)) * coarse, path)
    labels[:, -band:] = np.where(np.arange(band) > cut[:, None], new, old)
    labels[:, -1] = labels[:, 0]


def _meander(height: int, width: int) -> np.ndarray:
    """Smooth noise (height, width) in [0, 1], periodic down the rows; always the same."""
    rng = np.random.default_rng(0)
    y, x = np.arange(height)[:, None] / height, np.arange(width)[None, :] / height
    waves = rng.integers(2, 13, (12, 2))
    phases = rng.uniform(0, 2 * np.pi, 12)
    total = sum(np.cos(2 * np.pi * (a * y + b * x) + p) for (a, b), p in zip(waves, phases, strict=True))
    return (np.asarray(total) / 12 + 1) / 2


def _cheapest_path(cost: np.ndarray, closed: bool) -> np.ndarray:
    """The column (height,) in each row of the cheapest path from top to bottom that moves by at most one column a row.

    A closed path ends next to where it began.
    """
    start = None
    if closed:  # the middle of a path over two turns shows where a closed one passes
        height = len(cost)
        start = int(_cheapest_path(np.concatenate([cost, cost]), False)[height])
    total = cost[0].copy()
    if start is not None:
        total[np.arange(len(total)) != start] = np.inf
    steps = np.empty(cost.shape, np.int8)
    near = np.full((3, cost.shape[1]), np.inf)
    for row in range(len(cost)):
        near[0, 1:], near[1], near[2, :-1] = total[:-1], total, total[1:]
        if row:
            choice = near.argmin(0)
            total = near[choice, np.arange(len(total))] + cost[row]
            steps[row] = choice - 1
    path = np.empty(len(cost), np.int64)
    path[-1] = int(total.argmin()) if start is None else start
    if start is not None and not np.isfinite(total[start]):
        path[-1] = int(total.argmin())
    for row in range(len(cost) - 1, 0, -1):
        path[row - 1] = path[row] + steps[row][path[row]]
    return path
