"""Resamples a photograph: straightens what four corners show, and removes the distortion of the lens. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from ad_service.worker.image_files import Pixels
from blender_addon.wire import geometry
from blender_addon.wire.geometry import Point, Quad

CELL = 32
"""Pixels along a cell of the mesh. Inside a cell the map is bilinear; at 32 it is off by less than 0.05 pixels."""
SMOOTH = 1.3
"""Pixels of the photograph for one of the result, above which the result is computed larger and averaged."""
MAX_OVERSAMPLING = 4


def straighten(pixels: Pixels, corners: Quad, lens: float, *, labels: bool = False) -> Pixels:
    """The rectangle of the scene that has these corners in a photograph (h, w, 3) uint8, see `geometry.straighten`.

    Colors are resampled bicubically and antialiased; labels keep their colors.
    """
    size = float(pixels.shape[1]), float(pixels.shape[0])
    straight = geometry.straighten(corners, size, lens)
    return _resample(
        pixels,
        straight.width,
        straight.height,
        lambda point: geometry.to_photograph(point, straight, size, lens),
        labels,
    )


def undistort(pixels: Pixels, crop: tuple[int, int, int, int] | None, lens: float, *, labels: bool = False) -> Pixels:
    """A photograph (h, w, 3) uint8 without the distortion of its lens: the part of it that a crop shows, or all.

    The sides of the result go through the middles of the crop's sides, as far as the photograph reaches.
    """
    size = float(pixels.shape[1]), float(pixels.shape[0])
    left, top, width, height = geometry.undistorted_frame(lens, size)
    right, bottom = left + width, top + height
    if crop is not None:
        x, y = crop[0] + crop[2] / 2, crop[1] + crop[3] / 2
        left = max(left, geometry.undistort((crop[0], y), lens, size)[0])
        right = min(right, geometry.undistort((crop[0] + crop[2], y), lens, size)[0])
        top = max(top, geometry.undistort((x, crop[1]), lens, size)[1])
        bottom = min(bottom, geometry.undistort((x, crop[1] + crop[3]), lens, size)[1])
    return _resample(
        pixels,
        max(1, round(right - left)),
        max(1, round(bottom - top)),
        lambda point: geometry.distort((point[0] + left, point[1] + top), lens, size),
        labels,
    )


def _resample(pixels: Pixels, width: int, height: int, source: Callable[[Point], Point], labels: bool) -> Pixels:
    """A picture width x height whose point p shows the point source(p) of a photograph (h, w, 3)."""
    xs, ys = (np.unique(np.append(np.arange(0, side, CELL), side)) for side in (width, height))
    points = np.array([[source((float(x), float(y))) for x in xs] for y in ys])  # (rows, columns, 2)
    across = np.linalg.norm(np.diff(points, axis=1), axis=2) / np.diff(xs)[None]
    down = np.linalg.norm(np.diff(points, axis=0), axis=2) / np.diff(ys)[:, None]
    by = (1, 1) if labels else (_oversampling(float(across.max())), _oversampling(float(down.max())))
    rim = 2 + math.ceil(max(0.0, -points.min(), *(points.max((0, 1)) - [pixels.shape[1], pixels.shape[0]])))
    photograph = Image.fromarray(np.pad(pixels, ((rim, rim), (rim, rim), (0, 0)), "edge"))
    at = points + rim
    mesh = [
        (
            (int(xs[j]) * by[0], int(ys[i]) * by[1], int(xs[j + 1]) * by[0], int(ys[i + 1]) * by[1]),
            (*at[i, j], *at[i + 1, j], *at[i + 1, j + 1], *at[i, j + 1]),
        )
        for i in range(len(ys) - 1)
        for j in range(len(xs) - 1)
    ]
    how = Image.Resampling.NEAREST if labels else Image.Resampling.BICUBIC
    large = photograph.transform((width * by[0], height * by[1]), Image.Transform.MESH, mesh, how)
    return np.asarray(large if by == (1, 1) else large.reduce(by))


def _oversampling(length: float) -> int:
    """How many times larger an axis is computed, for so many pixels of the photograph in one of the result."""
    return 1 if length <= SMOOTH else min(MAX_OVERSAMPLING, math.ceil(length))
