"""Resamples a photograph: straightens what four corners show, and removes the distortion of the lens. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ad_service.worker.image_files import DeepPixels
from ad_service.worker.maps import Floats, of_floats, to_floats
from blender_addon import wire
from blender_addon.wire import geometry
from blender_addon.wire.geometry import Point, Quad

CELL = 32
"""Pixels along a cell of the mesh. Inside a cell the map is bilinear; at 32 it is off by less than 0.05 pixels."""
SMOOTH = 1.3
"""Pixels of the photograph for one of the result, above which the result is computed larger and averaged."""
MAX_OVERSAMPLING = 4


def straighten(pixels: DeepPixels, corners: Quad, lens: float, role: wire.Role = "color") -> DeepPixels:
    """The rectangle of the scene that has these corners in a photograph (h, w, C), see `geometry.straighten`.

    Colors and data are resampled bicubically and antialiased, normals turn with the surface, labels keep their colors.
    """
    size = float(pixels.shape[1]), float(pixels.shape[0])
    straight = geometry.straighten(corners, size, lens)
    return _resample(
        pixels,
        straight.width,
        straight.height,
        lambda point: geometry.to_photograph(point, straight, size, lens),
        role,
    )


def undistort(
    pixels: DeepPixels, crop: tuple[int, int, int, int] | None, lens: float, role: wire.Role = "color"
) -> DeepPixels:
    """A photograph (h, w, C) without the distortion of its lens: the part of it that a crop shows, or all.

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
        role,
    )


def _resample(
    pixels: DeepPixels, width: int, height: int, source: Callable[[Point], Point], role: wire.Role
) -> DeepPixels:
    """A picture width x height whose point p shows the point source(p) of a photograph (h, w, C)."""
    xs, ys = (np.unique(np.append(np.arange(0, side, CELL), side)) for side in (width, height))
    points = np.array([[source((float(x), float(y))) for x in xs] for y in ys])  # (rows, columns, 2)
    across = np.linalg.norm(np.diff(points, axis=1), axis=2) / np.diff(xs)[None]
    down = np.linalg.norm(np.diff(points, axis=0), axis=2) / np.diff(ys)[:, None]
    by = (1, 1) if role == "labels" else (_oversampling(float(across.max())), _oversampling(float(down.max())))
    rim = 2 + math.ceil(max(0.0, -points.min(), *(points.max((0, 1)) - [pixels.shape[1], pixels.shape[0]])))
    at = points + rim
    mesh = [
        (
            (int(xs[j]) * by[0], int(ys[i]) * by[1], int(xs[j + 1]) * by[0], int(ys[i + 1]) * by[1]),
            (*at[i, j], *at[i + 1, j], *at[i + 1, j + 1], *at[i, j + 1]),
        )
        for i in range(len(ys) - 1)
        for j in range(len(xs) - 1)
    ]
    how = Image.Resampling.NEAREST if role == "labels" else Image.Resampling.BICUBIC

    def resampled(channels: DeepPixels | Floats) -> Any:
        rims = ((rim, rim), (rim, rim), (0, 0))[: channels.ndim]
        photograph = Image.fromarray(np.pad(channels, rims, "edge"))
        large = photograph.transform((width * by[0], height * by[1]), Image.Transform.MESH, mesh, how)
        return np.asarray(large if by == (1, 1) else large.reduce(by))

    if pixels.shape[2] == 3 and pixels.dtype == np.uint8 and role != "normal":
        return resampled(pixels)  # type: ignore[no-any-return]
    values: Floats = np.stack([resampled(channel) for channel in np.moveaxis(to_floats(pixels), 2, 0)], 2)
    if role == "normal":
        values = _turned(values, np.gradient(points, xs, axis=1), np.gradient(points, ys, axis=0))
    return of_floats(values, pixels.dtype, role)


def _turned(normals: Floats, along_x: npt.NDArray[np.float64], along_y: npt.NDArray[np.float64]) -> Floats:
    """OpenGL normals (h, w, 3) as (n + 1) / 2 whose surface was moved, with its places in the photograph (x, y).

    `along_x` and `along_y` (rows, columns, 2) are the derivatives of these places on a mesh over the normals. Heights
    grow with the surface, so that the derivatives are divided by the root of their determinant.
    """
    h, w = normals.shape[:2]
    size = np.sqrt(np.abs(along_x[..., 0] * along_y[..., 1] - along_x[..., 1] * along_y[..., 0])).clip(1e-6)
    xx, xy, yx, yy = (
        np.asarray(Image.fromarray((part / size).astype(np.float32)).resize((w, h), Image.Resampling.BILINEAR))
        for part in (along_x[..., 0], along_x[..., 1], along_y[..., 0], along_y[..., 1])
    )
    x, y, z = np.moveaxis(normals * 2 - 1, 2, 0)
    z = z.clip(1e-3)
    right, down = -x / z, y / z
    turned = np.stack([-(xx * right + xy * down), yx * right + yy * down, np.ones_like(z)], 2)
    lengths: Floats = np.linalg.norm(turned, axis=2, keepdims=True)
    return turned / lengths / 2 + 0.5


def _oversampling(length: float) -> int:
    """How many times larger an axis is computed, by the pixels of the photograph in one of the result."""
    return 1 if length <= SMOOTH else min(MAX_OVERSAMPLING, math.ceil(length))
