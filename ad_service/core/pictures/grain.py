"""The size of the parts of a material (stones, bricks, leaves, threads) in its picture. numpy only, no torch.

A plan measures a swatch in a process without torch, and the job measures it again by the same code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

GrainKind = Literal["lattice", "rows", "spectrum"]
"""How the size was found: from two periods, from the distance of rows, or from the spectrum of an irregular picture."""


@dataclass(frozen=True)
class GrainOptions:
    """Thresholds of `measure_grain`.

    Set by eye on ten photographs and 50 materials (stones, bricks, roofs, planks, leaves, soil, concrete, cloth): a
    square of a dozen parts was cut out of each, and shows 4 to 40 of what one would call its parts in all but four.

    Attributes:
        thumbnail: pixels along the longer side of the reduced picture that is measured.
        window, windows: side in pixels of the windows at full size that show details finer than the thumbnail's, and
            how many of them lie along each axis.
        band: width of a band of wavelengths in octaves (standard deviation of its weight).
        part_energy: a part is as large as the longest wavelength with this share of the strongest band's energy.
        structure_energy: the same for structure that is weaker than its grain: flagstones under sand.
        sharp_energy: the same for the finest detail that the picture shows.
        thumbnail_limit: reduced pixels below which a wavelength is measured in the windows.
        nearest_lag: reduced pixels that a period has at least.
        peak_correlation, lattice_peaks, lattice_contrast, min_lattice_contrast, min_lattice_points, row_correlation,
        chance_rise, row_tolerance: as in `quilting.periodicity.PeriodicityOptions`, which finds periods to a fraction
            of a pixel; here a tenth is enough.
        least_odd: correlation at odd multiples of a lattice's periods, as a share of that at even ones, at least.
        most_doubled: how many times larger a lattice may be that is preferred for that reason.
        most_lattice: a lattice's cell that is more times as large as the spectrum's part may be that of a material that
            was tiled to a large picture, with many stones in a cell; the part is then taken between the two.
        row_length: parts in rows are this many rows long, for example bricks.
    """

    thumbnail: int = 512
    window: int = 320
    windows: int = 3
    band: float = 0.35
    part_energy: float = 0.35
    structure_energy: float = 0.12
    sharp_energy: float = 0.05
    thumbnail_limit: float = 6.0
    nearest_lag: int = 8
    peak_correlation: float = 0.15
    lattice_peaks: int = 24
    lattice_contrast: float = 0.35
    min_lattice_contrast: float = 0.09
    min_lattice_points: int = 6
    row_correlation: float = 0.1
    chance_rise: float = 11.0
    row_tolerance: float = 0.9
    least_odd: float = 0.6
    most_doubled: float = 2.2
    most_lattice: float = 6.0
    row_length: float = 1.4


@dataclass(frozen=True)
class Grain:
    """What a picture's parts measure.

    Attributes:
        part: side of a square in pixels that is as large as one part.
        structure: the same for weaker and larger structure; as large as `part` if there is none.
        detail: wavelength in pixels of the finest detail, at least 2.
        kind: how `part` was found.
        period: side of a square in pixels that is as large as a lattice's cell, or the distance of rows; None if there
            is neither.
    """

    part: float
    structure: float
    detail: float
    kind: GrainKind
    period: float | None = None


def measure_grain(pixels: Pixels, options: GrainOptions = GrainOptions()) -> Grain:
    """The size of the parts in a picture (h, w, 3) uint8, whose sides have at least 32 pixels."""
    step = -(-max(pixels.shape[:2]) // options.thumbnail)
    thumbnail = log_luminance(shrunk(pixels, step))
    flat = _without_lighting(thumbnail)
    coarse = {length * step: energy for length, energy in _bands(flat, options).items()}
    limit = options.thumbnail_limit * step if step > 1 else 0.0
    bands = {length: energy for length, energy in coarse.items() if length >= limit}
    if step > 1:
        fine = [_bands(window - window.mean(), options) for window in _windows(pixels, options)]
        bands |= {length: float(np.median([b[length] for b in fine])) for length in fine[0] if length < limit}
    lengths = sorted(bands)
    energies = np.array([bands[length] for length in lengths])
    strongest = float(energies.max())
    if strongest < 1e-9:  # one flat color
        side = float(min(pixels.shape[:2]))
        return Grain(side, side, 2.0, "spectrum")
    detail = lengths[int(np.argmax(energies >= options.sharp_energy * strongest))]
    part = _longest(lengths, energies, options.part_energy)
    found = _period(thumbnail, options)
    if found is None:
        return Grain(part, _longest(lengths, energies, options.structure_energy), detail, "spectrum")
    period, kind = found[0] * step, found[1]
    if kind == "rows":
        part = max(period * options.row_length, part)
        return Grain(part, part, detail, kind, period)
    of_spectrum = _longest(sorted(coarse), np.array([coarse[length] for length in sorted(coarse)]), options.part_energy)
    part = period
    if part > options.most_lattice * of_spectrum:
        part = math.sqrt(part * 2 * of_spectrum)
    return Grain(part, part, detail, kind, period)


def log_luminance(pixels: npt.NDArray[np.uint8] | Floats) -> Floats:
    """The logarithm (h, w) of the mean of the channels of (h, w, 3) in 0..255, with black at a finite value."""
    return np.log(pixels.mean(2, dtype=np.float64) / 255 + 0.02)


def shrunk(pixels: Pixels, step: int) -> Floats:
    """Means (h // step, w // step, 3) over squares of step x step pixels, in 0..255."""
    h, w = pixels.shape[0] // step, pixels.shape[1] // step
    rows = pixels[: h * step, : w * step].reshape(h, step, w * step * 3).sum(1, dtype=np.uint32)
    sums = rows.reshape(h, w, step, 3).sum(2, dtype=np.float64)
    means: Floats = sums / (step * step)
    return means


# ---------------------------------------------------------------------------------------------- the spectrum


def _windows(pixels: Pixels, options: GrainOptions) -> list[Floats]:
    """Log luminance of windows at full size, evenly placed."""
    h, w = pixels.shape[:2]
    side = min(options.window, h, w)
    tops, lefts = (np.linspace(0, n - side, options.windows + 2).astype(int)[1:-1] for n in (h, w))
    return [log_luminance(pixels[top : top + side, left : left + side]) for top in tops for left in lefts]


def _without_lighting(picture: Floats, degree: int = 3, grid: int = 32) -> Floats:
    """A picture (h, w) less the cubic polynomial of the position that fits it best, as in `lighting`."""
    cells = [np.array_split(np.arange(n), min(grid, n)) for n in picture.shape]
    means = np.array([[picture[y[0] : y[-1] + 1, x[0] : x[-1] + 1].mean() for x in cells[1]] for y in cells[0]])
    places = [(np.arange(n) + 0.5) / n * 2 - 1 for n in picture.shape]
    middle = [np.array([place[c].mean() for c in cell]) for place, cell in zip(places, cells, strict=True)]
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    terms = np.stack([(middle[0][:, None] ** i * middle[1][None] ** j).ravel() for i, j in powers], 1)
    fit = np.linalg.lstsq(terms, means.ravel(), rcond=None)[0]
    shade = sum(c * places[0][:, None] ** i * places[1][None] ** j for c, (i, j) in zip(fit, powers, strict=True))
    flat: Floats = picture - shade
    return flat


def _bands(picture: Floats, options: GrainOptions) -> dict[float, float]:
    """The variance of a picture (h, w) in bands of half an octave, by wavelength: from 2 pixels to half its side."""
    h, w = picture.shape
    fade = np.hanning(h + 2)[1:-1, None] * np.hanning(w + 2)[None, 1:-1]
    faded = (picture - (picture * fade).sum() / fade.sum()) * fade
    power = np.abs(np.fft.rfft2(faded)) ** 2 / (h * w * np.square(fade).sum())
    power[:, 1:] *= 2
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
    octave = -np.log2(np.maximum(frequency, 1e-9))
    lengths = 2 ** np.arange(1.0, math.log2(min(h, w) / 2) + 0.01, 0.5)
    weigh = [np.exp(-np.square((octave - math.log2(length)) / options.band) / 2) for length in lengths]
    return {float(length): float((power * weight).sum()) for length, weight in zip(lengths, weigh, strict=True)}


def _longest(lengths: list[float], energies: Floats, share: float) -> float:
    """The longest wavelength whose energy reaches a share of the strongest, interpolated between two bands."""
    relative = energies / max(float(energies.max()), 1e-12)
    last = int(np.nonzero(relative >= share)[0].max())
    if last + 1 == len(lengths):
        return lengths[last]
    t = float((relative[last] - share) / (relative[last] - relative[last + 1]))
    return lengths[last] * (lengths[last + 1] / lengths[last]) ** t


# ---------------------------------------------------------------------------------------------- periods


def _period(thumbnail: Floats, options: GrainOptions) -> tuple[float, GrainKind] | None:
    """The side of a square as large as a lattice's cell, or the distance of rows, in pixels of a thumbnail (h, w)."""
    relief = thumbnail - _blurred(thumbnail, min(thumbnail.shape) // 4)
    if float(relief.std()) < 1e-6:
        return None
    correlation = _autocorrelation(relief / relief.std())
    cell = _lattice_cell(correlation, options)
    if cell is not None:
        return cell, "lattice"
    distance = _row_distance(correlation, options)
    return None if distance is None else (float(distance), "rows")


def _blurred(picture: Floats, side: int) -> Floats:
    """Means of a picture (h, w) over squares, reflected at its rim."""
    reach = max(1, side // 2)
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (reach + 1, reach)
        sums = np.cumsum(np.pad(picture, pad, "reflect"), axis)
        ends = [np.take(sums, np.arange(picture.shape[axis]) + start, axis) for start in (0, 2 * reach + 1)]
        picture = (ends[1] - ends[0]) / (2 * reach + 1)
    return picture


def _autocorrelation(picture: Floats) -> Floats:
    """As `core.quilting.periodicity.autocorrelation`: lags 0 .. h / 2 down and -w / 2 .. w / 2 right."""
    h, w = picture.shape
    size = (2 * h, 2 * w)
    values, squares, ones = (np.fft.rfft2(x, size) for x in (picture, picture**2, np.ones_like(picture)))
    energy = np.fft.irfft2(squares.conj() * ones, size) * np.fft.irfft2(ones.conj() * squares, size)
    full = np.fft.irfft2(values.conj() * values, size) / np.sqrt(np.maximum(energy, 1e-6))
    return np.concatenate([full[: h // 2 + 1, -(w // 2) :], full[: h // 2 + 1, : w // 2 + 1]], 1)


def _highest(values: Floats, side: int) -> Floats:
    """The maximum of values (n,) or (h, w) over windows of an odd side."""
    for axis in range(values.ndim):
        pad = [(0, 0)] * values.ndim
        pad[axis] = (side // 2, side // 2)
        padded = np.pad(values, pad, constant_values=-np.inf)
        values = np.lib.stride_tricks.sliding_window_view(padded, side, axis).max(-1)
    return values


def _lattice_cell(correlation: Floats, options: GrainOptions) -> float | None:
    """The root of the area that the two shortest periods span, or None if the picture is no lattice."""
    middle = correlation.shape[1] // 2
    peaks = (correlation == _highest(correlation, options.nearest_lag | 1)) & (correlation > options.peak_correlation)
    lags = np.argwhere(peaks) - [0, middle]
    lags = lags[np.hypot(*lags.T) >= options.nearest_lag]
    order = np.argsort(-correlation[lags[:, 0], lags[:, 1] + middle], kind="stable")[: options.lattice_peaks]
    near, shortest = _highest(correlation, 9), None
    pairs = [np.stack(pair).astype(float) for pair in combinations(lags[order], 2)]
    for pair in sorted(pairs, key=lambda pair: float(np.hypot(*pair.T).sum())):
        area = abs(float(np.linalg.det(pair)))
        if area > 0.4 * float(np.hypot(*pair.T).prod()) and _is_lattice(near, pair, options):
            shortest = shortest or math.sqrt(area)
            if math.sqrt(area) > options.most_doubled * shortest:
                return shortest
            if _is_whole(near, pair, options):
                return math.sqrt(area)
    return shortest


def _is_lattice(near: Floats, periods: Floats, options: GrainOptions, reach: int = 6) -> bool:
    """Whether the correlation is higher at integer combinations of two periods than half way between them."""
    counts = _counts(reach)
    points = _heights(near, periods, counts)
    if len(points) < options.min_lattice_points:
        return False
    between = max(float(_heights(near, periods, counts + half).mean()) for half in ((0.5, 0), (0, 0.5), (0.5, 0.5)))
    contrast = max(options.min_lattice_contrast, options.lattice_contrast / len(points) ** 0.5)
    return float(points.mean()) - between >= contrast


def _is_whole(near: Floats, periods: Floats, options: GrainOptions, reach: int = 6) -> bool:
    """Whether the correlation is about as high at odd combinations of two periods as at even ones.

    It is not at halves of the periods of straight joints, which correlate along themselves at any lag.
    """
    counts = _counts(reach)
    classes = [_heights(near, periods, counts[(counts % 2 == odd).all(1)]) for odd in ((0, 0), (0, 1), (1, 0), (1, 1))]
    even, *others = (float(heights.mean()) if len(heights) else 0.0 for heights in classes)
    return min(others) >= options.least_odd * even


def _counts(reach: int) -> Floats:
    """All pairs of integers from -reach to reach, (n, 2)."""
    return np.stack(np.meshgrid(*[np.arange(-reach, reach + 1.0)] * 2, indexing="ij"), -1).reshape(-1, 2)


def _heights(near: Floats, periods: Floats, counts: Floats) -> Floats:
    """The correlation at the combinations of two periods that lie in its map, without the origin."""
    height, middle = near.shape[0], near.shape[1] // 2
    lags = np.rint(counts @ periods).astype(int)
    inside = (lags[:, 0] >= 0) & (lags[:, 0] < height) & (np.abs(lags[:, 1]) <= middle)
    lags = lags[inside & (np.hypot(*lags.T) >= float(np.hypot(*periods.T).min()) / 4)]
    return near[lags[:, 0], lags[:, 1] + middle]


def _row_distance(correlation: Floats, options: GrainOptions) -> int | None:
    """The lag over which the correlation's mean along straight lines rises again, or None."""
    height, middle = correlation.shape[0], correlation.shape[1] // 2
    nearest, reach = options.nearest_lag, min(height - 1, middle)
    side = min(2 * height, correlation.shape[1])
    y, x = np.mgrid[0:height:2, -middle : middle + 1 : 2]
    inside = np.hypot(y, x) <= reach
    y, x, values = y[inside], x[inside], correlation[::2, ::2][inside]
    unlike = np.argwhere(correlation < 0.5) - [0, middle]
    if len(unlike) == 0:
        return None
    best, found = max(options.peak_correlation, options.chance_rise * float(np.hypot(*unlike.T).min()) / side), None
    for angle in np.radians(np.arange(0, 180, 3.0)):
        line = np.rint(np.abs(np.cos(angle) * y + np.sin(angle) * x)).astype(int)
        sums, count = np.bincount(line, values, reach + 1), np.bincount(line, minlength=reach + 1)
        profile = (sums / np.maximum(count, 1))[: reach * 9 // 10]
        rise = profile - np.minimum.accumulate(profile)
        peak = (profile == _highest(profile, nearest | 1)) & (profile > options.row_correlation)
        peak[:nearest] = peak[side // 3 :] = False
        if peak.any() and float(rise[peak].max()) > best:
            best = float(rise[peak].max())
            found = int(np.nonzero(peak & (rise >= options.row_tolerance * best))[0][0])
    return found
