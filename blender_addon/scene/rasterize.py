"""Triangles of a UV map as labels of pixels. No bpy."""

from __future__ import annotations

import numpy as np

MAX_POINTS = 1 << 21
"""Most pixels that are tested together, which limits memory."""
GAP_PIXELS = 4
"""Width of the gaps between triangles that are filled, so that no pixel of a filtered texture shows them."""
MAX_SUBDIVISIONS = 6
"""How often a triangle whose corners have different labels is divided at most."""
SMALLEST_SIDE = 2.0
"""Side in pixels below which a triangle is not divided."""


def rasterize(corners: np.ndarray, labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Labels (height, width), top row first, of triangles; -1 where there are none. Positions wrap around.

    A pixel whose middle lies in a triangle has its label, another pixel that a triangle touches as well if it has none,
    and then those within GAP_PIXELS of one.

    Args:
        corners: UV coordinates (n, 3, 2), v from the bottom.
        labels: of the triangles (n,), at least 0.
        shape: rows and columns.
    """
    height, width = shape
    points = np.stack([corners[..., 0] * width, (1 - corners[..., 1]) * height], -1).astype(np.float64)
    inside, touched = (np.full(shape, -1, np.int16) for _ in range(2))
    low, high = np.floor(points.min(1) - 0.5).astype(int), np.ceil(points.max(1) + 0.5).astype(int)
    side = 1 << np.ceil(np.log2((high - low).max(1).clip(1))).astype(int) if len(points) else np.zeros(0, int)
    for size in np.unique(side):
        chosen = np.flatnonzero(side == size)
        rows_at_once = max(1, min(size, MAX_POINTS // size))
        count = max(1, MAX_POINTS // (size * rows_at_once))
        for begin in range(0, len(chosen), count):
            some = chosen[begin : begin + count]
            for top in range(0, size, rows_at_once):
                _draw(
                    points[some], labels[some], low[some], (top, min(size, top + rows_at_once), size), inside, touched
                )
    return _without_gaps(np.where(inside >= 0, inside, touched))


def _draw(
    points: np.ndarray,
    labels: np.ndarray,
    low: np.ndarray,
    box: tuple[int, int, int],
    inside: np.ndarray,
    touched: np.ndarray,
) -> None:
    """Draws triangles (n, 3, 2) into both maps: the rows `box[0]` to `box[1]` from `low` on, `box[2]` columns."""
    top, bottom, size = box
    x = low[:, 0, None, None] + np.arange(size)[None, None, :]
    y = low[:, 1, None, None] + np.arange(top, bottom)[None, :, None]
    a, b, c = points[:, 0], points[:, 1], points[:, 2]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    sign = np.where(area < 0, -1.0, 1.0)[:, None, None]
    hit = np.ones(np.broadcast_shapes(x.shape, y.shape), bool)
    near = np.ones_like(hit)
    for start, end in ((a, b), (b, c), (c, a)):
        dx, dy = ((end - start)[:, i, None, None] for i in (0, 1))
        edge = sign * (dx * (y + 0.5 - start[:, 1, None, None]) - dy * (x + 0.5 - start[:, 0, None, None]))
        hit &= edge >= 0
        near &= edge >= -0.5 * (abs(dx) + abs(dy))
    for axis, at in ((0, x), (1, y)):  # beyond its corners a thin triangle touches nothing
        near &= (at + 1 >= points[..., axis].min(1)[:, None, None]) & (at <= points[..., axis].max(1)[:, None, None])
    hit &= (area != 0)[:, None, None]
    height, width = inside.shape
    for mask, out in ((hit, inside), (near, touched)):
        n, j, i = np.nonzero(mask)
        out[y[n, j, 0] % height, x[n, 0, i] % width] = labels[n]


def _without_gaps(labels: np.ndarray) -> np.ndarray:
    """Fills pixels without a label from their neighbors, over the borders too."""
    for _ in range(GAP_PIXELS):
        empty = labels < 0
        if not empty.any() or empty.all():
            break
        best = labels.copy()
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            neighbor = np.roll(labels, step, axis)
            best = np.where(best < 0, neighbor, best)
        labels = best
    return labels


def by_weight(corners: np.ndarray, weights: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (m, 3, 2) and their labels (m,) from weights at their corners (n, 3, k): the label is the heaviest.

    Triangles whose corners have different labels are divided into four until they are small.
    """
    done_corners, done_labels = [], []
    scale = np.array([shape[1], shape[0]])
    for depth in range(MAX_SUBDIVISIONS + 1):
        labels = weights.argmax(-1)
        sides = abs(np.roll(corners, 1, 1) - corners) * scale
        divided = (labels != labels[:, :1]).any(1) & (sides.max((1, 2)) > SMALLEST_SIDE)
        divided &= depth < MAX_SUBDIVISIONS
        done_corners.append(corners[~divided])
        done_labels.append(weights[~divided].sum(1).argmax(-1))
        corners, weights = _quarters(corners[divided]), _quarters(weights[divided])
    return np.concatenate(done_corners), np.concatenate(done_labels)


def _quarters(values: np.ndarray) -> np.ndarray:
    """Each triangle's values (n, 3, d) for the four triangles between its corners and the middles of its sides."""
    a, b, c = values[:, 0], values[:, 1], values[:, 2]
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    return np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
