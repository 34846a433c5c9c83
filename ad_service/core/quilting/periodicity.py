"""Regular swatches on a torus: stretch the swatch a little, so that whole periods of its pattern fit the canvas.

A pattern that repeats by two vectors (a lattice: paving, weave) closes on a torus only if the torus' own two sides are
sums of them; one that repeats by a single vector (rows: courses of bricks, planks, stripes), if a whole number of rows
lies along each side. A paving of 59.6 pixels a stone on 512 pixels leaves 0.6 of a stone over, which no cut can hide.
"""

from __future__ import annotations

import math
from itertools import combinations, product

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = 1024
"""Pixels along the longer side of a picture above which it is shrunk before periods are looked for."""

CLEAR = 0.15
"""Correlation that a lag must reach to be taken as a period."""

STANDS_OUT = 0.35
"""How much higher the correlation at one point of a lattice would have to be than half way to the next.

The mean of n points has to be as much higher over the root of n, as with any mean.
"""

LEAST = 0.09
"""How much higher it has to be however many points there are."""

FEWEST = 6
"""Points of a lattice that must lie in the map of lags."""

CHANCE = 11.0
"""How far the means of a random picture's correlation rise by chance, over the size of its grain as part of its side.

The grain is the shortest lag at which the correlation falls below a half.
"""

HIGH = 0.1
"""Mean correlation that the lags over a whole number of rows must have."""

MOST = 0.12
"""Greatest change of a length, or shear, that a swatch is given."""


def autocorrelation(picture: Tensor) -> Tensor:
    """Autocorrelation in [-1, 1] of a picture (3, h, w) with its broad shading removed, for lags (down, right).

    Shape (h2 + 1, 2 * w2 + 1) with h2, w2 half the picture: lags 0 .. h2 down and -w2 .. w2 right.
    """
    h, w = picture.shape[1:]
    grey = picture.mean(0)[None, None]
    kernel = (min(h, w) // 8) * 2 + 1
    shading = F.pad(grey, (kernel // 2,) * 4, "reflect")
    for side in ((kernel, 1), (1, kernel)):
        shading = F.avg_pool2d(shading, side, 1)
    grey = grey - shading
    grey = grey[0, 0] / grey.std().clamp_min(1e-6)

    def correlate(a: Tensor, b: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(a, s=(2 * h, 2 * w)).conj() * torch.fft.rfft2(b, s=(2 * h, 2 * w))
        full = torch.fft.irfft2(spectrum, s=(2 * h, 2 * w))
        return torch.cat([full[: h // 2 + 1, -(w // 2) :], full[: h // 2 + 1, : w // 2 + 1]], 1)

    one = torch.ones_like(grey)
    return correlate(grey, grey) / (correlate(grey**2, one) * correlate(one, grey**2)).clamp_min(1e-6).sqrt()


def find_periods(picture: Tensor) -> Tensor | None:
    """The shortest clear periods of a picture (3, h, w) as rows (down, right) in pixels, or None for one without any.

    Two (2, 2) for a lattice, one (1, 2) across its rows for a picture that only repeats in rows.
    """
    shrink = -(-max(picture.shape[1:]) // LARGEST)
    map_ = autocorrelation(F.avg_pool2d(picture[None], shrink)[0])
    pair = _pair(map_)
    periods = _rows(map_) if pair is None else pair
    return None if periods is None else shrink * periods


def _pair(map_: Tensor, nearest: int = 12, most: int = 24) -> Tensor | None:
    """The two shortest lags (2, 2) of the map's `most` highest peaks that make a lattice, or None.

    Each is measured at its furthest clear multiple, so that it is known to a fraction of a pixel.
    """
    middle = map_.shape[1] // 2
    peak = (map_ == F.max_pool2d(map_[None, None], 2 * (nearest // 2) + 1, 1, nearest // 2)[0, 0]) & (map_ > CLEAR)
    spots = peak.nonzero()
    spots = spots[(spots - torch.tensor([0, middle])).float().norm(dim=1) >= nearest]
    spots = spots[map_[spots[:, 0], spots[:, 1]].argsort(descending=True)[:most]]
    lags = [_refine(map_, (spot - torch.tensor([0, middle])).float()) for spot in spots]
    near = F.max_pool2d(map_[None, None], 9, 1, 4)[0, 0]
    pairs = [torch.stack(pair) for pair in combinations(lags, 2)]
    for pair in sorted(pairs, key=lambda pair: float(pair.norm(dim=1).sum())):
        area = abs(float(torch.linalg.det(pair)))
        if area > 0.4 * float(pair.norm(dim=1).prod()) and _stands_out(near, pair):
            return pair
    return None


def _stands_out(near: Tensor, periods: Tensor, reach: int = 6) -> bool:
    """Whether the map is higher at sums of two periods than half way between them; `near` is its greatest within 9x9.

    In courses of unlike bricks any lag along a course has a peak somewhere, and it means nothing. Of two periods one of
    which is twice a shorter one, the half way is as high.
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
    return count >= FEWEST and mean - between >= max(LEAST, STANDS_OUT / count**0.5)


def _rows(map_: Tensor, nearest: int = 12, slack: float = 0.9) -> Tensor | None:
    """The period (1, 2) of rows: the lag over which the map's mean along straight lines rises again, or None.

    A picture shows at least three rows, or nothing can be said of them. Of lags that are nearly as clear the shortest
    counts.
    """
    side = min(2 * map_.shape[0], map_.shape[1])
    unlike = (map_ < 0.5).nonzero() - torch.tensor([0, map_.shape[1] // 2])
    if len(unlike) == 0:
        return None
    grain = float(unlike.float().norm(dim=1).min())
    best, found, most = max(CLEAR, CHANCE * grain / side), None, side // 3
    for angle in torch.arange(0, 180, 1.5).tolist():
        profile = _profile(map_, angle, sparse=2)
        rise = profile - profile.cummin(0).values
        peak = (profile == F.max_pool1d(profile[None, None], nearest + 1, 1, nearest // 2)[0, 0]) & (profile > HIGH)
        peak[:nearest] = False
        peak[most:] = False
        if bool(peak.any()) and float(rise[peak].max()) > best:
            best = float(rise[peak].max())
            first = int((peak & (rise >= slack * best)).nonzero()[0, 0])
            found = first, angle
    return None if found is None else _refined_rows(map_, *found)


def _refined_rows(map_: Tensor, period: int, angle: float) -> Tensor:
    """The period (1, 2) of rows near one that is known to a pixel and 1.5 degrees, from its furthest multiple."""
    best, found = -1.0, (float(period), angle)
    for fine in torch.arange(angle - 1.5, angle + 1.75, 0.25).tolist():
        profile, at, n = _profile(map_, fine), period, 1
        while (next_ := round(at * (n + 1) / n)) + 3 < len(profile):  # each is looked for where the last one points
            at, n = next_ - 3 + int(profile[next_ - 3 : next_ + 4].argmax()), n + 1
        if float(profile[at]) > best:
            best, found = float(profile[at]), (at / n, fine)
    length, fine = found
    return length * torch.tensor([[math.cos(math.radians(fine)), math.sin(math.radians(fine))]])


def _profile(map_: Tensor, angle: float, sparse: int = 1) -> Tensor:
    """The map's means (n,) over the lines at 0 .. n - 1 pixels from the origin, `angle` degrees from down to right.

    Of every `sparse`th row and column alone.
    """
    height, middle = map_.shape[0], map_.shape[1] // 2
    reach = min(height - 1, middle)
    down, right = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    y, x = torch.arange(0.0, height, sparse)[:, None], torch.arange(-middle, middle + 1.0, sparse)[None, :]
    line = (down * y + right * x).abs().round().long()
    inside = (y.square() + x.square()) <= reach**2
    line, values = line[inside], map_[::sparse, ::sparse][inside]
    lines = torch.bincount(line, minlength=reach + 1)
    total = torch.bincount(line, weights=values, minlength=reach + 1).float()
    return (total / lines.clamp_min(1))[: reach * 9 // 10]


def _refine(map_: Tensor, lag: Tensor) -> Tensor:
    """A period from the furthest of its multiples that is still a clear peak near where it should be."""
    height, middle = map_.shape[0], map_.shape[1] // 2
    out = lag
    for n in range(2, 64):
        y, x = (out * n).round().long().tolist()
        if not (3 <= y < height - 3 or abs(y) < 3) or abs(x) > middle - 4:
            break
        top, left = max(y - 3, 0), x + middle - 3
        near = map_[top : y + 4, left : left + 7]
        spot = int(near.argmax())
        if near.flatten()[spot] < CLEAR / 2:
            break
        out = torch.tensor([top + spot // near.shape[1], left + spot % near.shape[1] - middle]).float() / n
    return out


def fit_periods(periods: Tensor, height: int, width: int, tiles: tuple[bool, bool]) -> tuple[Tensor, Tensor] | None:
    """The matrix (2, 2) near the identity with which a pattern closes on the torus, and what its periods become.

    Acts on (down, right) columns. Only sides that tile ask for anything. None where the change would be too great.
    """
    sides = [torch.tensor(side) for side, tile in (((height, 0.0), tiles[0]), ((0.0, width), tiles[1])) if tile]
    if not sides:
        return torch.eye(2), periods
    matrix = _fit_rows(periods[0], sides) if len(periods) == 1 else _fit_lattice(periods, sides)
    if matrix is None or float((matrix - torch.eye(2)).abs().max()) > MOST:
        return None
    if len(periods) == 2:
        return matrix, periods @ matrix.t()
    wave = torch.linalg.inv(matrix).t() @ _wave(periods[0])
    return matrix, _wave(wave)[None]


def _wave(period: Tensor) -> Tensor:
    """Rows a pixel (down, right) from the period (2,) across rows, and back."""
    return period / period.square().sum()


def _fit_rows(period: Tensor, sides: list[Tensor]) -> Tensor | None:
    """The least change after which a whole number of rows lies along each side."""
    wave = wanted = _wave(period)
    for side in sides:
        length = side.sum()
        wanted = torch.where(side > 0, torch.round(wave * length) / length, wanted)
    if float(wanted.norm()) < 1e-6:
        return None
    return torch.eye(2) + torch.outer(wanted, wave - wanted) / wanted.square().sum()


def _fit_lattice(vectors: Tensor, sides: list[Tensor]) -> Tensor | None:
    """The change after which sums of two periods, the nearest to the sides, are the sides."""
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
    """A picture (C, h, w) moved by a matrix on (down, right), as large as its sides become, cut to what is known.

    `mode` is grid_sample's; what a deep cut would still leave unknown is reflected.
    """
    h, w = picture.shape[1:]
    H, W = round(h * float(matrix[0, 0])), round(w * float(matrix[1, 1]))
    rows, columns = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    centre = torch.tensor([H / 2, W / 2])[:, None]
    from_ = torch.linalg.inv(matrix) @ (torch.stack([rows.flatten(), columns.flatten()]) - centre)
    y, x = from_[0].view(H, W) / (h / 2), from_[1].view(H, W) / (w / 2)
    known = (y.abs() <= 1) & (x.abs() <= 1)
    top, left = 0, 0
    while top < H // 8 and not bool(known[top : H - top, left : W - left].all()):
        top, left = top + 1, left + 1
    out = F.grid_sample(picture[None], torch.stack([x, y], -1)[None], mode, "reflection", align_corners=False)[0]
    return out[:, top : H - top, left : W - left]
