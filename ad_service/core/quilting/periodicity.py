"""Regular swatches on a torus: stretch the swatch a little, so that an integer number of its periods fits the canvas.

A pattern that repeats by two vectors (a lattice: paving, weave) closes on a torus only if both sides of the torus are
integer combinations of them; one that repeats by a single vector (rows: courses of bricks, planks, stripes) only if an
integer number of rows lies along each side. A paving of 59.6 pixels a stone on 512 pixels leaves 0.6 of a stone over,
which no cut can hide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, product

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.correlation import overlap_correlation
from ad_service.core.steps import checkpoint


@dataclass(frozen=True)
class PeriodicityOptions:
    """Thresholds of the search for periods and of the stretch that fits them to a canvas.

    They were set on ten photographs of 512 pixels (basket, paving, wicker, feathers, discs, mud, beans, ivy, water,
    paint) and on 60 drawn walls: basket, pavings and bricks are distinguished from chance in all photographs; 4 of the
    walls get another lattice or twice the period.

    Attributes:
        largest_side: pixels along the longer side of a picture above which it is shrunk first; a 6-megapixel swatch
            then costs as much as one of 1024 pixels.
        nearest_lag: pixels that a period has at least.
        peak_correlation: correlation that a lag must reach to be taken as a period.
        lattice_peaks: how many of the highest peaks are tried as periods of a lattice.
        lattice_contrast: how much higher the correlation at one point of a lattice must be than half way to the next.
            The mean of n points needs 1 / sqrt(n) of it, as any mean. With the mean contrast alone (0.05 to 0.09) a
            brick wall got a false period of 34 pixels.
        min_lattice_contrast: lower bound of the above for any number of points.
        min_lattice_points: points of a lattice that must lie in the map of lags; a drifting basket weave has 7.
        row_correlation: mean correlation that the lags over a whole number of rows must have.
        chance_rise: how far the line means of the correlation of a random picture rise by chance, in grains per side.
            The grain is the shortest lag at which the correlation falls below 0.5.
        row_tolerance: of the lags whose rise is at least this part of the greatest, the shortest is the period.
        max_change: largest relative change of a length, or shear, that a swatch is given.
    """

    largest_side: int = 1024
    nearest_lag: int = 12
    peak_correlation: float = 0.15
    lattice_peaks: int = 24
    lattice_contrast: float = 0.35
    min_lattice_contrast: float = 0.09
    min_lattice_points: int = 6
    row_correlation: float = 0.1
    chance_rise: float = 11.0
    row_tolerance: float = 0.9
    max_change: float = 0.12


def autocorrelation(picture: Tensor) -> Tensor:
    """Autocorrelation in [-1, 1] of a picture (3, h, w) with its broad shading removed, for lags (down, right).

    Shape (h2 + 1, 2 * w2 + 1) with h2, w2 half the picture: lags 0 .. h2 down and -w2 .. w2 right.
    """
    h, w = picture.shape[1:]
    gray = picture.mean(0)[None, None]
    kernel = (min(h, w) // 8) * 2 + 1
    shading = F.pad(gray, (kernel // 2,) * 4, "reflect")
    for side in ((kernel, 1), (1, kernel)):
        shading = F.avg_pool2d(shading, side, 1)
    gray = gray - shading
    sums, energy = overlap_correlation(gray[0, 0] / gray.std().clamp_min(1e-6))
    full = sums / energy.clamp_min(1e-6).sqrt()
    return torch.cat([full[: h // 2 + 1, -(w // 2) :], full[: h // 2 + 1, : w // 2 + 1]], 1)


def find_periods(picture: Tensor, options: PeriodicityOptions = PeriodicityOptions()) -> Tensor | None:
    """The shortest clear periods of a picture (3, h, w) as rows (down, right) in pixels, or None if there are none.

    Shape (2, 2) for a lattice, (1, 2) for a picture that only repeats in rows: the period across them.
    """
    shrink = -(-max(picture.shape[1:]) // options.largest_side)
    if min(picture.shape[1:]) < shrink:  # a strip of which no pixel would be left
        return None
    correlation = autocorrelation(F.avg_pool2d(picture[None], shrink)[0])
    lattice = _find_lattice(correlation, options)
    periods = _find_rows(correlation, options) if lattice is None else lattice
    return None if periods is None else shrink * periods


# ---------------------------------------------------------------------------------------------- lattices


def _find_lattice(correlation: Tensor, options: PeriodicityOptions) -> Tensor | None:
    """The two shortest lags (2, 2) of the highest peaks of an autocorrelation that form a lattice, or None.

    Each is measured at its furthest clear multiple, so that it is known to a fraction of a pixel.
    """
    nearest, origin = options.nearest_lag, torch.tensor([0, correlation.shape[1] // 2])
    highest = F.max_pool2d(correlation[None, None], 2 * (nearest // 2) + 1, 1, nearest // 2)[0, 0]
    spots = ((correlation == highest) & (correlation > options.peak_correlation)).nonzero()
    spots = spots[(spots - origin).float().norm(dim=1) >= nearest]
    spots = spots[correlation[spots[:, 0], spots[:, 1]].argsort(descending=True)[: options.lattice_peaks]]
    lags = [_refined_lag(correlation, (spot - origin).float(), options.peak_correlation / 2) for spot in spots]
    near = F.max_pool2d(correlation[None, None], 9, 1, 4)[0, 0]
    pairs = [torch.stack(pair) for pair in combinations(lags, 2)]
    for pair in sorted(pairs, key=lambda pair: float(pair.norm(dim=1).sum())):
        checkpoint()
        area = abs(float(torch.linalg.det(pair)))
        if area > 0.4 * float(pair.norm(dim=1).prod()) and _is_lattice(near, pair, options):
            return pair
    return None


def _is_lattice(near: Tensor, periods: Tensor, options: PeriodicityOptions, reach: int = 6) -> bool:
    """Whether the correlation is higher at integer combinations of two periods than half way between them.

    In courses of bricks of unlike lengths any lag along a course has some peak, which means nothing. If one of the two
    periods is twice a shorter one, the half way is as high. `near` is the maximum of the correlation within 9 x 9 lags:
    5 x 5 and 13 x 13 distinguished fewer of the swatches.
    """
    height, middle = near.shape[0], near.shape[1] // 2
    counts = torch.cartesian_prod(*[torch.arange(-reach, reach + 1.0)] * 2)

    def heights(half: tuple[float, float] = (0, 0)) -> Tensor:
        lags = ((counts + torch.tensor(half)) @ periods).round().long()
        lags = lags[(lags[:, 0] >= 0) & (lags[:, 0] < height) & (lags[:, 1].abs() <= middle)]
        lags = lags[lags.float().norm(dim=1) >= float(periods.norm(dim=1).min()) / 4]  # all but the origin
        return near[lags[:, 0], lags[:, 1] + middle]

    count, mean = len(heights()), float(heights().mean())
    between = max(float(heights(half).mean()) for half in ((0.5, 0), (0, 0.5), (0.5, 0.5)))
    contrast = max(options.min_lattice_contrast, options.lattice_contrast / count**0.5)
    return count >= options.min_lattice_points and mean - between >= contrast


def _refined_lag(correlation: Tensor, lag: Tensor, threshold: float) -> Tensor:
    """A period (2,) from the furthest multiple of a lag near which the correlation still reaches `threshold`."""
    height, middle = correlation.shape[0], correlation.shape[1] // 2
    out = lag
    for n in range(2, 64):
        y, x = (out * n).round().long().tolist()
        if not (3 <= y < height - 3 or abs(y) < 3) or abs(x) > middle - 4:
            break
        top, left = max(y - 3, 0), x + middle - 3
        near = correlation[top : y + 4, left : left + 7]
        spot = int(near.argmax())
        if near.flatten()[spot] < threshold:
            break
        out = torch.tensor([top + spot // near.shape[1], left + spot % near.shape[1] - middle]).float() / n
    return out


# ---------------------------------------------------------------------------------------------- rows


def _find_rows(correlation: Tensor, options: PeriodicityOptions) -> Tensor | None:
    """The period (1, 2) of rows: the lag over which the correlation's mean along straight lines rises again, or None.

    A picture must show at least three rows.
    """
    nearest, side = options.nearest_lag, min(2 * correlation.shape[0], correlation.shape[1])
    if side // 3 <= nearest:
        return None
    unlike = (correlation < 0.5).nonzero() - torch.tensor([0, correlation.shape[1] // 2])
    if len(unlike) == 0:
        return None
    grain = float(unlike.float().norm(dim=1).min())
    best, found, end = max(options.peak_correlation, options.chance_rise * grain / side), None, side // 3
    for angle in torch.arange(0, 180, 1.5).tolist():
        checkpoint()
        profile = _profile(correlation, angle, sparse=2)
        rise = profile - profile.cummin(0).values
        highest = F.max_pool1d(profile[None, None], nearest + 1, 1, nearest // 2)[0, 0]
        peak = (profile == highest) & (profile > options.row_correlation)
        peak[:nearest] = False
        peak[end:] = False
        if bool(peak.any()) and float(rise[peak].max()) > best:
            best = float(rise[peak].max())
            first = int((peak & (rise >= options.row_tolerance * best)).nonzero()[0, 0])
            found = first, angle
    return None if found is None else _refined_rows(correlation, *found)


def _refined_rows(correlation: Tensor, period: int, angle: float) -> Tensor:
    """The period (1, 2) of rows near one that is known to a pixel and 1.5 degrees, from its furthest multiple."""
    best, found = -1.0, (float(period), angle)
    for fine in torch.arange(angle - 1.5, angle + 1.75, 0.25).tolist():
        checkpoint()
        profile, at, n = _profile(correlation, fine), period, 1
        while (next_ := round(at * (n + 1) / n)) + 3 < len(profile):  # each is searched where the last one points
            at, n = next_ - 3 + int(profile[next_ - 3 : next_ + 4].argmax()), n + 1
        if float(profile[at]) > best:
            best, found = float(profile[at]), (at / n, fine)
    length, fine = found
    return length * torch.tensor([[math.cos(math.radians(fine)), math.sin(math.radians(fine))]])


def _profile(correlation: Tensor, angle: float, sparse: int = 1) -> Tensor:
    """Means (n,) of a correlation over the lines at 0 .. n - 1 pixels from the origin.

    The lines are perpendicular to `angle`, in degrees from down to right; only every `sparse`th row and column counts.
    """
    height, middle = correlation.shape[0], correlation.shape[1] // 2
    reach = min(height - 1, middle)
    down, right = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    y, x = torch.arange(0.0, height, sparse)[:, None], torch.arange(-middle, middle + 1.0, sparse)[None, :]
    line = (down * y + right * x).abs().round().long()
    inside = (y.square() + x.square()) <= reach**2
    line, values = line[inside], correlation[::sparse, ::sparse][inside]
    lines = torch.bincount(line, minlength=reach + 1)
    total = torch.bincount(line, weights=values, minlength=reach + 1).float()
    return (total / lines.clamp_min(1))[: reach * 9 // 10]


# ---------------------------------------------------------------------------------------------- fitting to a torus


def fit_periods(
    periods: Tensor,
    height: int,
    width: int,
    tiles: tuple[bool, bool],
    options: PeriodicityOptions = PeriodicityOptions(),
) -> tuple[Tensor, Tensor] | None:
    """The matrix near the identity with which a pattern closes on a torus, and the periods after it.

    Args:
        periods: (1 or 2, 2), rows (down, right) in pixels, as from `find_periods`.
        height: of the torus in pixels.
        width: of the torus in pixels.
        tiles: whether y and x tile; only sides that tile are fitted.
        options: `max_change` limits the matrix.

    Returns:
        A matrix (2, 2) on (down, right) columns and the new periods; None if the change would be too large.
    """
    sides = [torch.tensor(side) for side, tile in (((height, 0.0), tiles[0]), ((0.0, width), tiles[1])) if tile]
    if not sides:
        return torch.eye(2), periods
    matrix = _fit_rows(periods[0], sides) if len(periods) == 1 else _fit_lattice(periods, sides)
    if matrix is None or float((matrix - torch.eye(2)).abs().max()) > options.max_change:
        return None
    if len(periods) == 2:
        return matrix, periods @ matrix.t()
    wave = torch.linalg.inv(matrix).t() @ _wave(periods[0])
    return matrix, _wave(wave)[None]


def _wave(period: Tensor) -> Tensor:
    """Rows per pixel (down, right) from the period (2,) across rows; the function is its own inverse."""
    return period / period.square().sum()


def _fit_rows(period: Tensor, sides: list[Tensor]) -> Tensor | None:
    """The smallest change after which an integer number of rows lies along each side."""
    wave = wanted = _wave(period)
    for side in sides:
        length = side.sum()
        wanted = torch.where(side > 0, torch.round(wave * length) / length, wanted)
    if float(wanted.norm()) < 1e-6:
        return None
    return torch.eye(2) + torch.outer(wanted, wave - wanted) / wanted.square().sum()


def _fit_lattice(vectors: Tensor, sides: list[Tensor]) -> Tensor | None:
    """The change that moves the integer combinations of two periods that are nearest to the sides onto the sides."""
    reached = []
    for side in sides:
        counts = torch.linalg.solve(vectors.t(), side).round()
        around = [counts + torch.tensor([i, j]) for i, j in product((-1.0, 0.0, 1.0), repeat=2)]
        sums = [n @ vectors for n in around]
        reached.append(min(sums, key=lambda v: float((v - side).norm())))
    if len(reached) == 1:  # stretch along the side and shear towards it, leave the other axis
        axis = 0 if float(sides[0][0]) > 0 else 1
        matrix = torch.eye(2)
        other = 1 - axis
        if abs(float(reached[0][axis])) < 1:
            return None
        matrix[axis, axis] = sides[0][axis] / reached[0][axis]
        matrix[other, axis] = -reached[0][other] / reached[0][axis]
        return matrix
    have = torch.stack(reached, 1)
    if abs(float(torch.linalg.det(have))) < 1:
        return None
    return torch.stack(sides, 1) @ torch.linalg.inv(have)


def warp(picture: Tensor, matrix: Tensor, mode: str = "bicubic") -> Tensor:
    """A picture (C, h, w) transformed by a matrix (2, 2) on (down, right), cropped to its known pixels.

    The result is as large as the sides become, less a rim of at most an eighth; unknown pixels that a larger crop
    would have to remove are reflected. `mode` is that of torch's grid_sample.
    """
    h, w = picture.shape[1:]
    H, W = round(h * float(matrix[0, 0])), round(w * float(matrix[1, 1]))
    rows, columns = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    center = torch.tensor([H / 2, W / 2])[:, None]
    from_ = torch.linalg.inv(matrix) @ (torch.stack([rows.flatten(), columns.flatten()]) - center)
    y, x = from_[0].view(H, W) / (h / 2), from_[1].view(H, W) / (w / 2)
    known = (y.abs() <= 1) & (x.abs() <= 1)
    top, left = 0, 0
    while top < H // 8 and not bool(known[top : H - top, left : W - left].all()):
        top, left = top + 1, left + 1
    out = F.grid_sample(picture[None], torch.stack([x, y], -1)[None], mode, "reflection", align_corners=False)[0]
    return out[:, top : H - top, left : W - left]
