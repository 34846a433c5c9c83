"""The last pass in pixels: gives a result the patch statistics of its swatch, above all its grain and contrast.

Sliced optimal transport of 7x7 patches (Pitié et al. 2007; as a texture loss: arXiv 2006.07229, 2203.11862): along
random directions of patch space the result's values are moved to the swatch's quantiles. Directions are drawn within
bands of the swatch's principal components, so that fine grain, which has little energy, counts as much as broad
shading. The quantiles are those of the whole picture and the moves are local: the picture is processed in bands of
rows, on the torus, without seams between the bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ad_service.core.canvas import around
from ad_service.core.labels import used
from ad_service.core.pixels import from_uint8, to_uint8
from ad_service.core.steps import checkpoint

SIDE = 7
"""Pixels along the side of a patch, which has 3 * 7 * 7 = 147 values."""


@dataclass(frozen=True)
class PatchStatisticsOptions:
    """How much is done, and how finely.

    Attributes:
        half_iterations: iterations at half size.
        full_iterations: iterations at full size.
        directions: random directions drawn from each band of components in an iteration.
        damping: part of each move that is made.
        max_gain: a patch of d values moved along m directions goes d / m times as far, but at most this many times.
        components: limits of the bands of principal components, strongest first.
        samples: random patches from which quantiles are estimated.
        quantiles: per direction.
        cells: points between which the transport along a direction is linear.
        min_samples: patches of a label that both pictures must have; a label with fewer is left alone.
        same_tone: distance of the tones of the swatch and of its shown part, in standard deviations of the swatch's,
            up to which half of the goal is the whole swatch.
        other_tone: the same, from which the goal is the shown part alone. Between cobbles and moss without a layout a
            goal of the whole swatch gave white blotches on moss; on discs, where both are alike, half of each removed
            halos at a patch distance of 0.0079 instead of 0.0074.
        band_rows: rows of the picture processed together; limits memory.
    """

    half_iterations: int = 6
    full_iterations: int = 8
    directions: int = 6
    damping: float = 0.5
    max_gain: float = 8.0
    components: tuple[int, ...] = (0, 6, 24, 72, 147)
    samples: int = 16384
    quantiles: int = 128
    cells: int = 256
    min_samples: int = 64
    same_tone: float = 0.15
    other_tone: float = 0.3
    band_rows: int = 128


Tables: TypeAlias = dict[int | None, tuple[Tensor, Tensor]]
"""The quantiles (k, n) of the picture's and of the swatch's values, for each label, or for None without labels."""


def match_patch_statistics(
    image: Tensor,
    swatch: Tensor,
    tiles: tuple[bool, bool],
    maps: tuple[Tensor | None, Tensor | None],
    generator: torch.Generator,
    options: PatchStatisticsOptions = PatchStatisticsOptions(),
    device: torch.device | None = None,
    shown: Tensor | None = None,
) -> Iterator[float]:
    """Move the patch statistics of an image towards those of a swatch, in place.

    Args:
        image: (H, W, 3) uint8 on the host, changed in place.
        swatch: (3, h, w) in [0, 1] on the host.
        tiles: whether y and x tile.
        maps: a layout (H, W) and regions (h, w), to match label by label, or None and None.
        generator: of the random directions and patches.
        options: how much is done.
        device: where the work is done, a band of rows at a time; None for the CPU.
        shown: places (n, 2), (y, x) of the swatch, that the image shows. They count for at least half of the goal, so
            that the image is not moved towards materials that it lacks.

    Yields:
        The fraction done.
    """
    layout, regions = maps
    picture = from_uint8(image)
    total = options.half_iterations + options.full_iterations
    device = device or torch.device("cpu")
    if options.half_iterations and min(picture.shape[1:]) >= 8 * SIDE:
        small = _halve(picture)
        before = small.clone()
        half_regions = None if regions is None else regions[::2, ::2]
        half_layout = None if layout is None else layout[::2, ::2]
        half_shown = None if shown is None else shown // 2
        goal = _Goal(_halve(swatch), half_regions, options, generator, device, half_shown)
        for k in range(options.half_iterations):
            goal.approach(small, half_layout, tiles, generator)
            yield (k + 1) / total
        _add_doubled(picture, small - before, tiles, options.band_rows)
        del small, before
    goal = _Goal(swatch, regions, options, generator, device, shown)
    for k in range(options.full_iterations):
        goal.approach(picture, layout, tiles, generator)
        yield (options.half_iterations + k + 1) / total
    for y in range(0, len(image), options.band_rows):
        image[y : y + options.band_rows] = to_uint8(picture[:, y : y + options.band_rows])


def _add_doubled(picture: Tensor, change: Tensor, tiles: tuple[bool, bool], band_rows: int) -> None:
    """Add to a picture (3, H, W) a change (3, H / 2, W / 2) at twice its size, in place, and clamp it to [0, 1]."""
    H, W = picture.shape[1:]
    columns = around(0, change.shape[2], 2, change.shape[2], tiles[1])
    for y in range(0, H, band_rows):
        rows = around(y // 2, band_rows // 2, 2, change.shape[1], tiles[0])
        part = F.interpolate(change[:, rows][:, :, columns][None], scale_factor=2.0, mode="bilinear")[0]
        band = picture[:, y : y + band_rows]
        band.add_(part[:, 4 : 4 + band.shape[1], 4 : 4 + W]).clamp_(0, 1)


def _halve(picture: Tensor) -> Tensor:
    """A picture (3, h, w) at half its size, rounded up."""
    h, w = picture.shape[1:]
    return F.avg_pool2d(F.pad(picture[None], (0, w % 2, 0, h % 2), "replicate"), 2)[0]


class _Goal:
    """The patch statistics of a swatch (3, h, w) at one scale, with its labels (h, w) or None."""

    def __init__(
        self,
        swatch: Tensor,
        regions: Tensor | None,
        options: PatchStatisticsOptions,
        generator: torch.Generator,
        device: torch.device,
        shown: Tensor | None,
    ) -> None:
        self.options, self.device = options, device
        self.patches, self.labels = _patches(swatch, regions, (False, False), generator, options.samples)
        if shown is not None:
            patches, labels = _patches(swatch, regions, (False, False), generator, options.samples, shown)
            count = round(self._shown_part(patches) * len(patches))
            self.patches[:count] = patches[:count]
            if labels is not None and self.labels is not None:
                self.labels[:count] = labels[:count]
        centered = self.patches - self.patches.mean(0)
        self.basis = torch.linalg.eigh(centered.t() @ centered)[1].t().flip(0)  # strongest component first

    def approach(
        self, picture: Tensor, layout: Tensor | None, tiles: tuple[bool, bool], generator: torch.Generator
    ) -> None:
        """Move all patches of a picture (3, H, W) once along new directions, in place, band by band of rows."""
        bank, gain = self._directions(generator)
        patches, labels = _patches(picture, layout, tiles, generator, self.options.samples)
        tables = self._tables(patches, labels, bank)
        filters = rearrange(bank, "k (c h w) -> k c h w", c=3, h=SIDE).to(self.device)
        weights = filters * gain[:, None, None, None].to(self.device)
        margin, (H, W) = SIDE - 1, picture.shape[1:]
        columns = around(0, W, margin, W, tiles[1])
        label_columns = around(0, W, SIDE // 2, W, tiles[1])
        top = picture[:, around(0, 0, margin, H, tiles[0])[margin:]].clone()  # as it was, for the last band
        above = picture[:, around(0, 0, margin, H, tiles[0])[:margin]].clone()
        for y in range(0, H, self.options.band_rows):
            checkpoint()
            h = min(self.options.band_rows, H - y)
            below = picture[:, y + h : y + h + margin]
            missing = margin - below.shape[1]
            end = top[:, :missing] if tiles[0] else picture[:, -1:].expand(-1, missing, -1)
            band = torch.cat([above, picture[:, y : y + h], below, end], 1)
            above = band[:, h : h + margin]
            values = F.conv2d(band[None, :, :, columns].to(self.device), filters)[0]
            near = None
            if layout is not None:
                near = layout[around(y, h, SIDE // 2, H, tiles[0])][:, label_columns].to(self.device)
            moves = _moves(values, tables, near, self.options.cells)
            change = F.conv_transpose2d(moves[None], weights)[0]
            here = picture[:, y : y + h]
            here.add_(change[:, margin : margin + h, margin : margin + W].to(here.device)).clamp_(0, 1)

    def _directions(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random unit vectors (k, 147) within each band of components, and the step (k,) to take along each.

        A patch of d values that is moved along m of them goes d / m times as far, and SIDE * SIDE patches share each
        pixel.
        """
        rows, gains = [], []
        for low, high in pairwise(self.options.components):
            mix = torch.linalg.qr(torch.randn(high - low, self.options.directions, generator=generator))[0]
            rows.append(mix.t() @ self.basis[low:high])
            gains += [min((high - low) / mix.shape[1], self.options.max_gain)] * mix.shape[1]
        return torch.cat(rows), torch.tensor(gains) * self.options.damping / SIDE**2

    def _tables(self, patches: Tensor, labels: Tensor | None, bank: Tensor) -> Tables:
        """Quantiles of the values along `bank` (k, 147) for each label that both pictures have."""
        if labels is None or self.labels is None:
            return {None: self._pair(patches, self.patches, bank)}
        tables: Tables = {}
        for label in used(labels):
            ours, theirs = patches[labels == label], self.patches[self.labels == label]
            if min(len(ours), len(theirs)) >= self.options.min_samples:
                tables[label] = self._pair(ours, theirs, bank)
        return tables

    def _pair(self, ours: Tensor, theirs: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
        mine, other = (_quantiles(p @ bank.t(), self.options.quantiles).to(self.device) for p in (ours, theirs))
        return mine, other

    def _shown_part(self, shown: Tensor) -> float:
        """The part of the goal, 0.5 to 1, that is made of the shown patches (n, 147) instead of the whole swatch's.

        One half if they have the same tones in nearly the same proportions, all of it if they are another material.
        """
        some, all_ = (patches.unflatten(1, (3, -1)).mean(2) for patches in (shown, self.patches))  # a color per patch
        quantiles = self.options.quantiles
        difference = (_quantiles(some, quantiles) - _quantiles(all_, quantiles)).abs().mean()
        apart = float(difference / all_.std(0).mean().clamp_min(1e-6))
        same, other = self.options.same_tone, self.options.other_tone
        return min(max(0.5 + (apart - same) / (2 * (other - same)), 0.5), 1.0)


def _quantiles(values: Tensor, count: int) -> Tensor:
    """(n, k) -> (k, count) evenly spaced order statistics."""
    at = torch.linspace(0, len(values) - 1, count).round().long()
    return values.sort(0).values[at].t().contiguous()


def _moves(values: Tensor, tables: Tables, labels: Tensor | None, cells: int) -> Tensor:
    """How far each value (k, h, w) lies from its goal, by the label (h, w) of its patch's middle."""
    if None in tables or labels is None:
        return _transport(values, *tables[None], cells) - values
    out = torch.zeros_like(values)
    for label, table in tables.items():
        assert label is not None
        out = torch.where(labels == label, _transport(values, *table, cells) - values, out)
    return out


def _transport(values: Tensor, mine: Tensor, other: Tensor, cells: int) -> Tensor:
    """Values (k, h, w) moved from the quantiles `mine` (k, n) to `other` (k, n), linearly between even points."""
    low, high = mine[:, :1], mine[:, -1:]
    grid = torch.lerp(low, high, torch.linspace(0, 1, cells + 1, device=values.device))
    rank = (_ranks(mine, grid, right=False) + _ranks(mine, grid, right=True)) / 2  # equal values: their middle rank
    i = rank.long().clamp_max(mine.shape[1] - 2)
    table = torch.lerp(other.gather(1, i), other.gather(1, i + 1), rank - i)
    flat = values.flatten(1)
    place = ((flat - low) * (cells / (high - low).clamp_min(1e-6))).clamp_(0, cells - 1e-3)
    cell = place.long()
    start = table.gather(1, cell)
    return torch.lerp(start, table.gather(1, cell + 1), place - cell).view_as(values)


def _ranks(quantiles: Tensor, values: Tensor, *, right: bool) -> Tensor:
    """The fractional ranks (k, m) of values among quantiles (k, n), the first or the last one of equal quantiles."""
    i = torch.searchsorted(quantiles, values, right=right).clamp(1, quantiles.shape[1] - 1)
    below, above = quantiles.gather(1, i - 1), quantiles.gather(1, i)
    return i - 1 + ((values - below) / (above - below).clamp_min(1e-6)).clamp(0, 1)


def _patches(
    picture: Tensor,
    labels: Tensor | None,
    tiles: tuple[bool, bool],
    generator: torch.Generator,
    samples: int,
    places: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Random patches (n, 147) of a picture (3, H, W), only near `places` (m, 2) if given, and their middles' labels."""
    H, W = picture.shape[1:]
    count = min(samples, H * W)
    spans = [n if tile else n - SIDE + 1 for n, tile in zip((H, W), tiles, strict=True)]
    y, x = (torch.randint(span, (count,), generator=generator) for span in spans)
    if places is not None:
        near = places[torch.randint(len(places), (count,), generator=generator)]
        near = near + torch.randint(-SIDE, SIDE + 1, near.shape, generator=generator)
        y, x = (near[:, axis].clamp(0, span - 1) for axis, span in enumerate(spans))
    offset = torch.arange(SIDE)
    rows = (y[:, None, None] + offset[None, :, None]) % H
    columns = (x[:, None, None] + offset[None, None, :]) % W
    patches = rearrange(picture[:, rows, columns], "c n h w -> n (c h w)")
    middle = SIDE // 2
    return patches, None if labels is None else labels[(y + middle) % H, (x + middle) % W]
