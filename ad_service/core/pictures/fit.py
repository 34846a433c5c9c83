"""Fit: which part of a swatch a job uses, and at what scale, so that the result shows about a dozen of its parts.

numpy only, no torch: see `grain`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ad_service.core.pictures.grain import Floats, Grain, GrainOptions, Pixels, log_luminance, measure_grain, shrunk

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FitOptions:
    """What a fitted swatch is like.

    Set on photographs enlarged to 12 megapixels and on materials tiled to 12 megapixels, at results of 512 pixels.

    Attributes:
        parts: of the swatch that the result shows.
        few_parts: below this many at the scale 1 a swatch that is small enough as it is is scaled down.
        least_grain: pixels in the result that a part has at least where larger and weaker structure is shown too.
        broad: how many times larger than the parts that structure must be.
        least_part: pixels in the result that a part has at least.
        small: pixels of a swatch, as a multiple of the result's, up to which it is not scaled unless it
            shows few parts.
        budget: pixels of the used part after scaling, as a multiple of the result's. A paving of 12 megapixels takes
            76 s of one core at 3.0 and 55 s at 1.5, which shows too few stones for new arrangements of them; the same
            paving as a swatch of 512 x 512 takes 41 s.
        least_side: shorter side of the used part after scaling, as a multiple of the result's shorter side.
        sharp_detail: wavelength in pixels of the finest detail after scaling, to which a soft photograph that is larger
            than the budget is scaled down.
        few_periods: with fewer along the result's shorter side, the scale is reduced until whole ones lie there. So few
            close on a torus only if they are stretched, often more than they may be: a paving of 146 pixels on 512 (3.5
            stones) was quilted from pieces of stones; of 126 (4 stones), from whole ones.
        positions: places along each axis at which a part of the swatch is tried.
        evenness: how much the even lighting of that part counts beside being typical.
        least_label: that part shows each region on at least this part of the share that the region has of the whole.
        grain: how the parts are measured.
    """

    parts: float = 12.0
    few_parts: float = 3.0
    least_grain: float = 10.0
    broad: float = 2.5
    least_part: float = 24.0
    small: float = 1.5
    budget: float = 3.0
    least_side: float = 0.75
    sharp_detail: float = 4.0
    few_periods: float = 6.0
    positions: int = 17
    evenness: float = 2.0
    least_label: float = 0.25
    grain: GrainOptions = field(default_factory=GrainOptions)


@dataclass(frozen=True)
class Fit:
    """The rectangle of a picture that is used, in its pixels, the scale, and how many parts the result then shows."""

    left: int
    top: int
    width: int
    height: int
    scale: float
    parts: float


def fit(
    pixels: Pixels,
    height: int,
    width: int,
    regions: Labels | None = None,
    options: FitOptions = FitOptions(),
    measure: Callable[[Pixels, GrainOptions], Grain] = measure_grain,
) -> Fit:
    """The part and the scale of a picture (h, w, 3) uint8 for a result of height x width.

    The scale is at most 1. `regions` (any size) are labels over the picture, all of which stay in the part. `measure`
    returns what `measure_grain` does.
    """
    h, w = pixels.shape[:2]
    grain = measure(pixels, options.grain)
    part = shown_part(grain, height, width, options)
    scale = _scale(grain, part, (h, w), (height, width), options)
    area = options.budget * height * width / scale**2
    used_h = min(h, max(math.isqrt(int(area)), int(area / w)))
    used_w = min(w, int(area / used_h))
    top, left = _best_place(pixels, used_h, used_w, regions, options)
    if top is None or left is None:
        top, left, used_h, used_w = 0, 0, h, w
    return Fit(left, top, used_w, used_h, scale, height * width / (part * scale) ** 2)


def shown_part(grain: Grain, height: int, width: int, options: FitOptions = FitOptions()) -> float:
    """The side in pixels of what counts as one part for a result of height x width.

    That is the larger structure of a picture whose grain stays visible when that structure is shown.
    """
    if grain.structure < options.broad * grain.part:
        return grain.part
    return max(grain.part, min(grain.structure, grain.part * _wanted(height, width, options) / options.least_grain))


def _wanted(height: int, width: int, options: FitOptions) -> float:
    """The side of a part in a result that shows as many as it should."""
    return math.sqrt(height * width / options.parts)


def _scale(grain: Grain, part: float, size: tuple[int, int], result: tuple[int, int], options: FitOptions) -> float:
    shorter, pixels = min(size), size[0] * size[1]
    budget = options.budget * result[0] * result[1]
    if pixels <= options.small * result[0] * result[1]:
        few = result[0] * result[1] / part**2 < options.few_parts
        if not few or (grain.kind == "spectrum" and part > shorter / 2):
            return 1.0
    least = max(options.least_side * min(result) / shorter, options.least_part / part)
    scale = max(_wanted(*result, options) / part, least)
    if pixels * min(1.0, scale) ** 2 > budget:
        scale = max(min(scale, options.sharp_detail / grain.detail), math.sqrt(budget / pixels), least)
    scale = min(1.0, scale)
    if grain.period is None:
        return scale
    periods = min(result) / (scale * grain.period)
    closed = scale * periods / math.ceil(periods - 0.05)
    return closed if periods < options.few_periods and closed >= least else scale


# ---------------------------------------------------------------------------------------------- the place


def _best_place(
    pixels: Pixels, height: int, width: int, regions: Labels | None, options: FitOptions
) -> tuple[int, int] | tuple[None, None]:
    """Top and left of the most typical and most evenly lit height x width part; None if it would lose a region."""
    h, w = pixels.shape[:2]
    if (height, width) == (h, w):
        return 0, 0
    step = -(-max(h, w) // options.grain.thumbnail)
    thumbnail = shrunk(pixels, step)
    rows, columns = thumbnail.shape[:2]
    side_y, side_x = min(rows, max(2, height // step)), min(columns, max(2, width // step))
    tops, lefts = (
        np.unique(np.linspace(0, n - side, options.positions).round().astype(int))
        for n, side in ((rows, side_y), (columns, side_x))
    )
    light = log_luminance(thumbnail)
    edges = np.abs(np.diff(light, axis=0, prepend=light[:1])) + np.abs(np.diff(light, axis=1, prepend=light[:, :1]))
    red, green, blue = np.moveaxis(thumbnail / 255, 2, 0)

    def means(layer: Floats, dy: int = 0, dx: int = 0, part_y: int = side_y, part_x: int = side_x) -> Floats:
        sums = np.pad(layer, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        y, x = tops[:, None] + dy, lefts[None] + dx
        total = sums[y + part_y, x + part_x] - sums[y, x + part_x] - sums[y + part_y, x] + sums[y, x]
        mean: Floats = total / (part_y * part_x)
        return mean

    layers = [means(layer) for layer in (light, light**2, red - green, blue - green)]
    cost = sum(np.abs(m - np.median(m)) / (float(m.std()) + 1e-6) for m in layers)
    sharpness = means(edges)
    cost = cost + np.maximum(0, np.median(sharpness) - sharpness) / (float(sharpness.std()) + 1e-6)
    half_y, half_x = side_y // 2, side_x // 2
    slope = np.abs(means(light, 0, 0, half_y, side_x) - means(light, half_y, 0, half_y, side_x))
    slope += np.abs(means(light, 0, 0, side_y, half_x) - means(light, 0, half_x, side_y, half_x))
    cost = cost + options.evenness * slope / max(float(slope.std()), 0.03)  # 0.03: chance in an evenly lit picture
    if regions is not None:
        there = regions[np.ix_(*(np.arange(n) * m // n for n, m in zip((rows, columns), regions.shape, strict=True)))]
        for label in np.unique(regions):
            layer = (there == label).astype(np.float64)
            cost = cost + 1e6 * (means(layer) <= options.least_label * float(layer.mean()))
        if float(cost.min()) >= 1e6:
            return None, None
    y, x = np.unravel_index(int(cost.argmin()), cost.shape)
    return min(int(tops[y]) * step, h - height), min(int(lefts[x]) * step, w - width)
