"""How good a texture is, in numbers: seams, patch statistics, labels obeyed, verbatim copies, repetition.

All take pictures (3, H, W) in [0, 1] on any device and give the same number each time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

POINTS = 128  # label_agreement reads about so many points a side
LOOKED_AT = 256  # rows of a swatch that copy_share looks at together

# Seams --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edge:
    """One border of a picture against the ordinary borders between its neighbouring pixels.

    `difference` is the mean absolute difference over the border, `inside` the mean of the same over all inside
    borders, `low` and `high` their smallest and largest and `high99` their 99th percentile, `rank` the share of inside
    borders that differ less. All of [0, 1].
    """

    difference: float
    inside: float
    low: float
    high: float
    high99: float
    rank: float

    @property
    def ratio(self) -> float:
        """difference / inside: near 1 for a border like all others. 1 where nothing differs at all."""
        if self.inside == 0:
            return 1.0 if self.difference == 0 else math.inf
        return self.difference / self.inside

    @property
    def in_range(self) -> bool:
        """Whether the border is among the ordinary ones, and at most at their 99th percentile."""
        return self.low <= self.difference <= self.high99


@dataclass(frozen=True)
class AxisSeam:
    """The wrap-around border along one axis: between single pixels, and between bands of pixels at its two sides."""

    single: Edge
    band: Edge

    @property
    def in_range(self) -> bool:
        return self.single.in_range and self.band.in_range


@dataclass(frozen=True)
class Seam:
    """`y`: the bottom row against the top one. `x`: the right column against the left one."""

    y: AxisSeam
    x: AxisSeam


def seam(image: Tensor, band: int = 8) -> Seam:
    """How the picture (3, H, W) continues over its edges, against how it continues inside.

    A single border is the mean absolute difference of two neighbouring rows or columns; a band border that of the
    means of the `band` rows or columns at its two sides, which sees a step of tone that grain hides.
    """
    return Seam(*(seam_at(image, [0], axis, band)[0] for axis in (0, 1)))


def seam_at(image: Tensor, positions: Sequence[int], axis: int, band: int = 8) -> list[AxisSeam]:
    """The borders before the given rows (axis 0) or columns (axis 1); 0 is the wrap-around border.

    Each is held against all inside borders that are not among `positions`; a band border also not against those whose
    bands reach over one of them.
    """
    x = image if axis == 1 else image.transpose(1, 2)
    length = x.shape[2]
    if length < 4:
        raise ValueError(f"a seam needs at least 4 pixels along its axis: got {length}")
    band = max(1, min(band, length // 4))
    asked = {p % length for p in positions} | {0}
    parts = [_borders(part.double(), band) for part in x.split(256, 1)]
    singles, bands = torch.stack(parts).sum(0) / (x.shape[0] * x.shape[1])  # each (length,)
    far = [p for p in range(length) if all(min((p - a) % length, (a - p) % length) >= band for a in asked)]
    near = [p for p in range(length) if p not in asked]
    return [
        AxisSeam(_edge(singles[p % length], singles[near]), _edge(bands[p % length], bands[far or near]))
        for p in positions
    ]


def _borders(x: Tensor, band: int) -> Tensor:
    """Summed differences (2, length) over the border before each column of x (C, h, length): of pixels, of bands."""
    length = x.shape[2]
    single = (x - x.roll(1, 2)).abs().sum((0, 1))
    means = F.avg_pool1d(F.pad(x, (band, band), mode="circular"), band, 1)  # entry p is the mean of p-band .. p-1
    bands = (means[..., band : band + length] - means[..., :length]).abs().sum((0, 1))
    return torch.stack([single, bands])


def plainest_border(image: Tensor, axis: int, band: int = 8) -> int:
    """The row (axis 0) or column (axis 1) of a torus (H, W, 3) uint8 before which the border is nearest to the mean.

    Single borders and those of bands count alike; see `seam`.
    """
    lines = image.float().mean(2) if axis == 1 else image.float().mean(2).t()
    single = (lines - lines.roll(1, 1)).abs().mean(0)
    total = F.pad(lines, (band, band), mode="circular")
    means = F.avg_pool1d(total[None], min(band, lines.shape[1]), 1)[0]
    step = (means[:, band : band + lines.shape[1]] - means[:, : lines.shape[1]]).abs().mean(0)
    off = (single / single.mean().clamp_min(1e-9) - 1).abs() + (step / step.mean().clamp_min(1e-9) - 1).abs()
    return int(off.argmin())


def _edge(border: Tensor, inside: Tensor) -> Edge:
    return Edge(
        difference=float(border),
        inside=float(inside.mean()),
        low=float(inside.min()),
        high=float(inside.max()),
        high99=float(inside.quantile(0.99)),
        rank=float((inside < border).double().mean()),
    )


# Patch statistics ---------------------------------------------------------------------------------------------------


def patch_distance(
    a: Tensor, b: Tensor, seed: int = 0, patch: int = 7, projections: int = 64, most: int = 1 << 19, bins: int = 2048
) -> float:
    """Sliced Wasserstein distance of the patches of two pictures of any sizes, the mean over up to four scales.

    Scales are 1, 1/2, 1/4, 1/8, while both pictures keep more than 16 pixels a side. At each, all `patch` x `patch`
    RGB patches are projected on random unit vectors, and the 1-Wasserstein distance of the projections is averaged
    (Rabin et al. 2011; for textures Heitz et al. 2021, arXiv 2006.07229). In units of pixel value: 0 for a picture and
    itself, about 0.8 d where one is brighter by d all over. Each distance is the area between two cumulative
    histograms, which needs no equal counts and is exact to the width of a bin. Above `most` patches a scale, every
    nth row and column of patches is taken.
    """
    generator = torch.Generator().manual_seed(seed)
    total, scales = 0.0, 0
    while True:
        vectors = torch.randn(projections, 3, patch, patch, generator=generator)
        vectors = vectors / vectors.flatten(1).norm(dim=1)[:, None, None, None]
        total += _sliced(_project(a, vectors, most), _project(b, vectors, most), bins)
        scales += 1
        if scales == 4 or min(*a.shape[1:], *b.shape[1:]) // 2 <= 16:
            return total / scales
        a, b = F.avg_pool2d(a[None], 2)[0], F.avg_pool2d(b[None], 2)[0]


def _project(image: Tensor, vectors: Tensor, most: int) -> Tensor:
    """Projections (n, patches) of all patches, or of every nth where there are more than `most`."""
    stride = math.ceil(math.sqrt(image.shape[1] * image.shape[2] / most))
    return F.conv2d(image[None].float(), vectors.to(image.device), stride=stride)[0].flatten(1)


def _sliced(a: Tensor, b: Tensor, bins: int) -> float:
    """Mean 1-Wasserstein distance of the rows of a (n, i) and b (n, j)."""
    low = torch.minimum(a.amin(1), b.amin(1))[:, None]
    width = (torch.maximum(a.amax(1), b.amax(1))[:, None] - low).clamp_min(1e-12) / bins
    row = torch.arange(len(a), device=a.device)[:, None] * bins

    def cumulative(x: Tensor) -> Tensor:
        cell = ((x - low) / width).long().clamp_max(bins - 1) + row
        counts = torch.bincount(cell.flatten(), minlength=len(a) * bins).view(len(a), bins)
        return counts.double().cumsum(1) / x.shape[1]

    return float(((cumulative(a) - cumulative(b)).abs() * width).sum(1).mean())


def halves_distance(swatch: Tensor, seed: int = 0) -> float:
    """Patch distance of the swatch's left half to its right, and top to bottom, averaged.

    What the swatch differs from itself: a texture as near to the swatch as this could be another piece of it.
    """
    h, w = swatch.shape[1:]
    across = patch_distance(swatch[:, :, : w // 2], swatch[:, :, w - w // 2 :], seed)
    down = patch_distance(swatch[:, : h // 2], swatch[:, h - h // 2 :], seed)
    return (across + down) / 2


def sharpness(image: Tensor) -> float:
    """Root mean square of what a 3 x 3 binomial blur takes away from the picture: its finest grain, in pixel values.

    The patch distance hardly sees a slight blur, the eye does: a result's sharpness over the swatch's is 1 where both
    are as crisp, and falls with blur.
    """
    kernel = torch.tensor([1.0, 2.0, 1.0], device=image.device) / 4
    x = image.float()[:, None]
    blurred = F.conv2d(F.conv2d(x, kernel[None, None, None, :]), kernel[None, None, :, None])
    return float((x[:, :, 1:-1, 1:-1] - blurred).square().mean().sqrt())


def content_correlation(result: Tensor, content: Tensor, cells: int = 32) -> float:
    """How well a result (3, H, W) keeps the light and dark of its content (3, H, W): Pearson's correlation, -1 to 1.

    Both luminances are averaged over squares, `cells` along the shorter side, so that the grain of the material does
    not count. 0 where either is flat.
    """
    side = max(1, min(result.shape[1:]) // cells)
    a, b = (F.avg_pool2d(x.double().mean(0)[None], side).flatten() for x in (result, content))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12))


# Labels -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """How far a picture's materials lie where its layout says.

    `agreement` is the share of points read as the layout's label. `ceiling` is the same for the swatch and its regions,
    each point read by a classifier that saw nothing near it: how well the materials can be told apart at all. A result
    near the ceiling obeys its layout. `recall` is the agreement of each label, nan for one that is not used;
    `recall_ceiling` that of the swatch.
    """

    agreement: float
    ceiling: float
    recall: tuple[float, ...]
    recall_ceiling: tuple[float, ...]


def label_agreement(result: Tensor, layout: Tensor, swatch: Tensor, regions: Tensor, seed: int = 0) -> Agreement:
    """Read a result (3, H, W) with a classifier fitted to the swatch's regions (h, w), against its layout (H, W).

    Features are colour, contrast and gradients at up to four scales; the classifier is ridge regression on random
    Fourier features of them (Rahimi and Recht 2007), each label weighing the same, solved in closed form. Points lie on
    a grid of about 128 x 128. For the ceiling the swatch is parted in 4 x 4 blocks; each is read by a fit that leaves
    out the block and a band of an eighth of the picture around it.
    """
    count = int(max(layout.max(), regions.max())) + 1
    reach = min(swatch.shape[1:]) / 16
    sides = [side for side in (3, 7, 15, 31) if side == 3 or side - 1 <= reach]
    x, y, cell = _points(swatch, regions, sides)
    lift = _Lift(x, torch.Generator().manual_seed(seed))
    fit = _Fit(lift(x), y, cell, count)
    read = fit.read_unseen()
    u, wanted, _ = _points(result, layout, sides)
    got = (lift(u) @ fit.weights()).argmax(1)
    return Agreement(
        float((got == wanted).double().mean()),
        float((read == y).double().mean()),
        _recall(got, wanted, count),
        _recall(read, y, count),
    )


def _recall(got: Tensor, wanted: Tensor, count: int) -> tuple[float, ...]:
    return tuple(float((got[wanted == i] == i).double().mean()) for i in range(count))


def _points(image: Tensor, labels: Tensor, sides: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Features (n, F) and labels (n,) of a picture's grid points, and which of its 8 x 8 cells each lies in.

    A picture of more than 1024 x 1024 pixels is read in 8 x 8 pieces of 160, at the same scale and within their inner
    96 pixels.
    """
    h, w = labels.shape
    pieces = h * w > 1024**2 and min(h, w) > 160
    side_y, side_x, margin = (160, 160, 32) if pieces else (h, w, 0)
    step = 6 if pieces else max(1, round(math.sqrt(h * w) / POINTS))
    found = []
    for y, x in _even(h - side_y, w - side_x, 64) if pieces else [(0, 0)]:
        rows = torch.arange(margin + step // 2, side_y - margin, step, device=labels.device)[:, None]
        columns = torch.arange(margin + step // 2, side_x - margin, step, device=labels.device)[None, :]
        features = _features(image[:, y : y + side_y, x : x + side_x], sides)[:, rows, columns]
        cell = (rows + y) * 8 // h * 8 + (columns + x) * 8 // w
        found.append((features.flatten(1).T, labels[rows + y, columns + x].flatten(), cell.flatten()))
    return torch.cat([f for f, _, _ in found]), torch.cat([y for _, y, _ in found]), torch.cat([c for _, _, c in found])


def _features(image: Tensor, sides: Sequence[int]) -> Tensor:
    """Colour, its deviation, and gradients of the luminance around each pixel at each scale (9 * scales, H, W)."""
    x = image.float()
    grey = x.mean(0, keepdim=True)
    dy = F.pad(grey[:, 1:] - grey[:, :-1], (0, 0, 0, 1)).abs()
    dx = F.pad(grey[:, :, 1:] - grey[:, :, :-1], (0, 1)).abs()
    fine = torch.cat([x, x.square(), grey, dy, dx])
    out = []
    for side in sides:
        local = fine
        for _ in range(2):
            local = F.avg_pool2d(local[None], (side, 1), 1, (side // 2, 0), count_include_pad=False)[0]
            local = F.avg_pool2d(local[None], (1, side), 1, (0, side // 2), count_include_pad=False)[0]
        mean, square = local[:3], local[3:6]
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        out += [mean, deviation, local[6:7] - grey, local[7:].sqrt()]
    return torch.cat(out)


class _Lift:
    """Random Fourier features of a Gaussian kernel over standardised features, the features, and a constant."""

    def __init__(self, x: Tensor, generator: torch.Generator, size: int = 384) -> None:
        self.mean, self.std = x.mean(0), x.std(0).clamp_min(1e-6)
        width = math.sqrt(2 * x.shape[1])
        self.vectors = (torch.randn(x.shape[1], size, generator=generator) / width).to(x.device)
        self.phase = (torch.rand(size, generator=generator) * 2 * math.pi).to(x.device)

    def __call__(self, x: Tensor) -> Tensor:
        z = (x - self.mean) / self.std
        return torch.cat([torch.cos(z @ self.vectors + self.phase), 0.1 * z, torch.ones_like(z[:, :1])], 1).double()


class _Fit:
    """Ridge regression of labels y (n,) on features z (n, k), kept as sums over cells so that some can be left out."""

    def __init__(self, z: Tensor, y: Tensor, cell: Tensor, count: int, ridge: float = 3e-3) -> None:
        self.z, self.y, self.cell = z, y, cell
        hot = F.one_hot(y, count).double()
        totals = hot.sum(0)
        weight = (hot / totals.clamp_min(1)).sum(1, keepdim=True) * len(y) / (totals > 0).sum()
        groups = [(cell == i).nonzero()[:, 0] for i in range(64)]
        self.gram = torch.stack([z[g].T @ (z[g] * weight[g]) for g in groups])  # (64, k, k)
        self.target = torch.stack([z[g].T @ (weight[g] * hot[g]) for g in groups])  # (64, k, count)
        self.whole = self.gram.sum(0), self.target.sum(0)
        self.ridge = ridge * len(y) * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)

    def weights(self, without: Tensor | None = None) -> Tensor:
        """Weights (k, count) from all cells but those of `without` (64,)."""
        gram, target = self.whole
        if without is not None:
            gram, target = gram - self.gram[without].sum(0), target - self.target[without].sum(0)
        solution: Tensor = torch.linalg.solve(gram + self.ridge, target)
        return solution

    def read_unseen(self) -> Tensor:
        """The label (n,) of each point by a fit without its block of 2 x 2 cells and the cells around it."""
        read = torch.empty_like(self.y)
        row, column = torch.arange(64) // 8, torch.arange(64) % 8
        for y in range(0, 8, 2):
            for x in range(0, 8, 2):
                near = (row >= y - 1) & (row <= y + 2) & (column >= x - 1) & (column <= x + 2)
                held = (self.cell // 16 == y // 2) & (self.cell % 8 // 2 == x // 2)
                read[held] = (self.z[held] @ self.weights(near.to(self.z.device))).argmax(1)
        return read


# Copies and repetition ----------------------------------------------------------------------------------------------


def copy_share(result: Tensor, swatch: Tensor, size: int = 32, likeness: float = 0.95, most: int = 256) -> float:
    """The share of `size` x `size` pieces of a result that are found pixel by pixel in the swatch.

    A piece is a copy if some place of the swatch correlates with it by at least `likeness` (normalised
    cross-correlation over its pixels and channels, its mean colour removed). Up to `most` pieces on an even grid are
    looked up, fewer in a swatch of more than a million pixels, by their coarse look first and pixel by pixel at the
    eight best places of each band of rows. Pieces with nearly no contrast could be anywhere and are left out. 0 to 1; a
    photograph holds few of its own pieces twice: `copy_share` of one half of the swatch against the other is what
    chance gives, and more than 0 only for smooth or very regular pictures.
    """
    if min(*result.shape[1:], *swatch.shape[1:]) < size:
        return 0.0
    result, swatch = result.float(), swatch.float()
    contrast = float(swatch.flatten(1).var(1).mean().sqrt())
    most = max(64, most * 2**20 // max(2**20, swatch.shape[1] * swatch.shape[2]))
    spots = _even(result.shape[1] - size, result.shape[2] - size, most)
    pieces = torch.stack([result[:, y : y + size, x : x + size] for y, x in spots])  # (n, 3, size, size)
    pieces = pieces - pieces.mean((2, 3), keepdim=True)
    pieces = pieces[pieces.square().mean((1, 2, 3)).sqrt() > max(0.1 * contrast, 0.01)]
    if len(pieces) == 0:
        return 0.0
    cell = max(1, size // 8)
    asked = F.avg_pool2d(pieces, cell).flatten(1)
    found = torch.zeros(len(pieces), dtype=torch.bool)
    for top in range(0, swatch.shape[1] - size + 1, LOOKED_AT):
        band = swatch[:, top : top + LOOKED_AT + size - 1]
        look = _coarse_patches(band, size, cell)
        width = look.shape[2]
        look = look.flatten(1)  # (3 * 8 * 8, places)
        for i in (~found).nonzero()[:, 0].split(32):
            places = (asked[i] @ look).topk(min(8, look.shape[1])).indices
            for k, candidates in zip(i.tolist(), places.tolist(), strict=True):
                found[k] = any(_likeness(pieces[k], band, *divmod(place, width)) >= likeness for place in candidates)
    return float(found.float().mean())


def _even(height: int, width: int, most: int) -> list[tuple[int, int]]:
    """Rows and columns of at most `most` places on an even grid over 0..height by 0..width."""
    n = max(2, math.isqrt(most))
    return sorted({(i * height // (n - 1), j * width // (n - 1)) for i in range(n) for j in range(n)})


def _coarse_patches(swatch: Tensor, size: int, cell: int) -> Tensor:
    """At each place (h, w) the unit-length coarse look of the patch that begins there, its mean colour removed."""
    x = F.avg_pool2d(swatch[None].float(), cell, 1)[0]
    n = size // cell
    height, width = swatch.shape[1] - size + 1, swatch.shape[2] - size + 1
    look = torch.stack(
        [x[:, i * cell : i * cell + height, j * cell : j * cell + width] for i in range(n) for j in range(n)], 1
    )
    look = look - look.mean(1, keepdim=True)
    look = rearrange(look, "c n h w -> (c n) h w")
    unit: Tensor = look / look.norm(dim=0).clamp_min(1e-6)
    return unit


def _likeness(piece: Tensor, swatch: Tensor, y: int, x: int) -> float:
    size = piece.shape[1]
    other = swatch[:, y : y + size, x : x + size].float()
    other = other - other.mean((1, 2), keepdim=True)
    return float((piece * other).sum() / (piece.norm() * other.norm()).clamp_min(1e-9))


@dataclass(frozen=True)
class Repetition:
    """The strongest repetition: its correlation in [-1, 1], and its lag (down, right) in pixels."""

    peak: float
    lag: tuple[int, int]


def repetition(image: Tensor, nearest: int = 8) -> Repetition:
    """The strongest peak of the autocorrelation of the luminance away from the centre.

    The luminance is freed of its trend (a quadratic in x and y); the correlation at a lag is taken over the pixels that
    both have (zero-padded FFT, Wiener-Khinchin, normalised by the energy of the overlap), for lags up to half the
    picture. A peak is a local maximum at least `nearest` pixels from the centre. 1 for exact repetition; a result is
    held against the swatch's own, since a basket repeats by nature. A picture of more than 1024 pixels a side is first
    shrunk by a whole number, and lags are given in its own pixels.
    """
    shrink = -(-max(image.shape[1:]) // 1024)
    grey = _detrended(F.avg_pool2d(image[None], shrink)[0].double().mean(0))
    h, w = grey.shape
    ones = torch.ones_like(grey)
    size = (2 * h, 2 * w)
    f, f2, m = (torch.fft.rfft2(v, s=size) for v in (grey, grey.square(), ones))

    def correlate(a: Tensor, b: Tensor) -> Tensor:
        product: Tensor = torch.fft.irfft2(a.conj() * b, s=size)
        return product

    energy = correlate(m, f2).clamp_min(0) * correlate(f2, m).clamp_min(0)
    value = correlate(f, f) / energy.sqrt().clamp_min(1e-9 * float(grey.square().sum()) + 1e-12)
    value = torch.fft.fftshift(value)[h // 2 : h + h // 2 + 1, w // 2 : w + w // 2 + 1]  # (lags down, lags right)
    down = torch.arange(value.shape[0], device=value.device) - (h - h // 2)
    right = torch.arange(value.shape[1], device=value.device) - (w - w // 2)
    far = down[:, None].square() + right[None, :].square() >= nearest**2
    top = F.max_pool2d(value[None, None], 7, 1, 3)[0, 0] == value
    candidates = torch.where(far & top, value, -1.0)
    best = int(candidates.argmax())
    y, x = best // value.shape[1], best % value.shape[1]
    return Repetition(float(candidates.max()), (int(down[y]) * shrink, int(right[x]) * shrink))


def _detrended(grey: Tensor) -> Tensor:
    """A picture (h, w) less its least-squares quadratic."""
    h, w = grey.shape
    y = torch.linspace(-1, 1, h, dtype=grey.dtype, device=grey.device)[:, None].expand(h, w)
    x = torch.linspace(-1, 1, w, dtype=grey.dtype, device=grey.device)[None, :].expand(h, w)
    basis = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y]).flatten(1)
    weights: Tensor = torch.linalg.solve(basis @ basis.T, basis @ grey.flatten())
    return grey - (weights @ basis).view(h, w)
