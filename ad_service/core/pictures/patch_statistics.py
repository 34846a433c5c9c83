"""The last pass in pixels: gives a result the patch statistics of its swatch, grain and contrast above all.

Sliced optimal transport of 7x7 patches (Pitié et al. 2007; as a texture loss: arXiv 2006.07229, 2203.11862): along
random directions of patch space the result's values are moved to the swatch's quantiles. Directions are drawn within
bands of the swatch's principal components, so that fine grain, which has little energy, counts as much as broad
shading. The quantiles are those of the whole picture and the moves are local: the picture is worked on in bands of
rows, on the torus, and no border can come of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ad_service.core.canvas import around
from ad_service.core.labels import used

SIDE = 7
QUANTILES = 128
CELLS = 256
SAMPLES = 16384
ALIKE, OTHER = 0.15, 0.3
"""Distances of tones, in standard deviations of the swatch's: as good as none, and those of another material."""
BAND = 128
"""Rows of the picture that are worked on at once."""


@dataclass(frozen=True)
class Passes:
    """How much is done: iterations at half and at full size, directions drawn from each band, and damping."""

    half: int = 6
    full: int = 8
    directions: int = 6
    damping: float = 0.5
    bands: tuple[int, ...] = (0, 6, 24, 72, 147)


def match_patch_statistics(
    image: Tensor,
    swatch: Tensor,
    tiles: tuple[bool, bool],
    maps: tuple[Tensor | None, Tensor | None],
    generator: torch.Generator,
    passes: Passes | None = None,
    device: torch.device | None = None,
    shown: Tensor | None = None,
) -> Iterator[float]:
    """Work on image (H, W, 3) uint8 in place, towards swatch (3, h, w) in [0, 1]; yields the fraction done.

    `tiles` says whether y and x tile. `maps`, a layout (H, W) and regions (h, w), match label by label. The pictures
    are on the host; `device` does the work, a band at a time. `shown` (n, 2), places (y, x) of the swatch, says what of
    it the picture shows, and counts for half of the goal at least: a picture is not bent to materials that it lacks.
    """
    layout, regions = maps
    passes = passes or Passes()
    picture = image.permute(2, 0, 1).float() / 255
    total = passes.half + passes.full
    device = device or torch.device("cpu")
    if passes.half and min(picture.shape[1:]) >= 8 * SIDE:
        small = _halve(picture)
        before = small.clone()
        half = None if shown is None else shown // 2
        goal = _Goal(_halve(swatch), None if regions is None else regions[::2, ::2], passes, generator, device, half)
        for k in range(passes.half):
            goal.approach(small, None if layout is None else layout[::2, ::2], tiles, generator)
            yield (k + 1) / total
        _add_doubled(picture, small - before, tiles)
        del small, before
    goal = _Goal(swatch, regions, passes, generator, device, shown)
    for k in range(passes.full):
        goal.approach(picture, layout, tiles, generator)
        yield (passes.half + k + 1) / total
    for y in range(0, len(image), BAND):
        image[y : y + BAND] = (picture[:, y : y + BAND] * 255).round().byte().permute(1, 2, 0)


def _add_doubled(picture: Tensor, change: Tensor, tiles: tuple[bool, bool]) -> None:
    """Add to a picture (3, H, W) a change (3, H / 2, W / 2) at twice its size, in place, and keep it in [0, 1]."""
    H, W = picture.shape[1:]
    columns = around(0, change.shape[2], 2, change.shape[2], tiles[1])
    for y in range(0, H, BAND):
        rows = around(y // 2, BAND // 2, 2, change.shape[1], tiles[0])
        part = F.interpolate(change[:, rows][:, :, columns][None], scale_factor=2.0, mode="bilinear")[0]
        band = picture[:, y : y + BAND]
        band.add_(part[:, 4 : 4 + band.shape[1], 4 : 4 + W]).clamp_(0, 1)


def _halve(picture: Tensor) -> Tensor:
    """Half the size, rounded up."""
    h, w = picture.shape[1:]
    return F.avg_pool2d(F.pad(picture[None], (0, w % 2, 0, h % 2), "replicate"), 2)[0]


class _Goal:
    """The patch statistics of a swatch (3, h, w) at one scale, with its labels (h, w) or None."""

    def __init__(
        self,
        swatch: Tensor,
        regions: Tensor | None,
        passes: Passes,
        generator: torch.Generator,
        device: torch.device,
        shown: Tensor | None,
    ) -> None:
        self.passes, self.device = passes, device
        self.patches, self.labels = _patches(swatch, regions, (False, False), generator)
        if shown is not None:
            patches, labels = _patches(swatch, regions, (False, False), generator, shown)
            count = round(_share(patches, self.patches) * len(patches))
            self.patches[:count] = patches[:count]
            if labels is not None and self.labels is not None:
                self.labels[:count] = labels[:count]
        centred = self.patches - self.patches.mean(0)
        self.basis = torch.linalg.eigh(centred.t() @ centred)[1].t().flip(0)  # strongest component first

    def approach(
        self, picture: Tensor, layout: Tensor | None, tiles: tuple[bool, bool], generator: torch.Generator
    ) -> None:
        """Move all patches of a picture (3, H, W) once along fresh directions, in place, band by band of rows."""
        bank, gain = self._directions(generator)
        patches, labels = _patches(picture, layout, tiles, generator)
        tables = self._tables(patches, labels, bank)
        filters = rearrange(bank, "k (c h w) -> k c h w", c=3, h=SIDE).to(self.device)
        weights = filters * gain[:, None, None, None].to(self.device)
        margin, (H, W) = SIDE - 1, picture.shape[1:]
        columns = around(0, W, margin, W, tiles[1])
        top = picture[:, around(0, 0, margin, H, tiles[0])[margin:]].clone()  # as it was, for the last band
        above = picture[:, around(0, 0, margin, H, tiles[0])[:margin]].clone()
        for y in range(0, H, BAND):
            h = min(BAND, H - y)
            below = picture[:, y + h : y + h + margin]
            missing = margin - below.shape[1]
            end = top[:, :missing] if tiles[0] else picture[:, -1:].expand(-1, missing, -1)
            band = torch.cat([above, picture[:, y : y + h], below, end], 1)
            above = band[:, h : h + margin]
            values = F.conv2d(band[None, :, :, columns].to(self.device), filters)[0]
            near = None
            if layout is not None:
                rows = around(y, h, SIDE // 2, H, tiles[0])
                near = layout[rows][:, around(0, W, SIDE // 2, W, tiles[1])].to(self.device)
            change = F.conv_transpose2d(_moves(values, tables, near)[None], weights)[0]
            here = picture[:, y : y + h]
            here.add_(change[:, margin : margin + h, margin : margin + W].to(here.device)).clamp_(0, 1)

    def _directions(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random unit vectors (k, 147) within each band of components, and the step (k,) to take along each.

        A patch of d dimensions that is moved along m of them goes d / m times as far, and SIDE * SIDE patches share
        each pixel.
        """
        bands = list(zip(self.passes.bands, self.passes.bands[1:], strict=False))
        rows, gains = [], []
        for low, high in bands:
            mix = torch.linalg.qr(torch.randn(high - low, self.passes.directions, generator=generator))[0]
            rows.append(mix.t() @ self.basis[low:high])
            gains += [min((high - low) / mix.shape[1], 8.0)] * mix.shape[1]
        return torch.cat(rows), torch.tensor(gains) * self.passes.damping / SIDE**2

    def _tables(self, patches: Tensor, labels: Tensor | None, bank: Tensor) -> dict[int | None, tuple[Tensor, Tensor]]:
        """The quantiles (k, QUANTILES) of the picture's and of the swatch's values, for each label that both have."""
        if labels is None or self.labels is None:
            return {None: self._pair(patches, self.patches, bank)}
        tables: dict[int | None, tuple[Tensor, Tensor]] = {}
        for label in used(labels):
            ours, theirs = patches[labels == label], self.patches[self.labels == label]
            if min(len(ours), len(theirs)) >= 64:
                tables[label] = self._pair(ours, theirs, bank)
        return tables

    def _pair(self, ours: Tensor, theirs: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(_quantiles(patches @ bank.t()).to(self.device) for patches in (ours, theirs))  # type: ignore[return-value]


def _share(shown: Tensor, whole: Tensor) -> float:
    """How much a goal is made of the patches (n, 147) that a picture shows, the rest of the whole swatch's.

    A half where they have the same tones in nearly the same proportions, all of it where they are another material.
    """
    some, all_ = (patches.unflatten(1, (3, -1)).mean(2) for patches in (shown, whole))  # a colour for each patch
    apart = float((_quantiles(some) - _quantiles(all_)).abs().mean() / all_.std(0).mean().clamp_min(1e-6))
    return min(max(0.5 + (apart - ALIKE) / (2 * (OTHER - ALIKE)), 0.5), 1.0)


def _quantiles(values: Tensor) -> Tensor:
    """(n, k) -> (k, QUANTILES) evenly spaced order statistics."""
    at = torch.linspace(0, len(values) - 1, QUANTILES).round().long()
    return values.sort(0).values[at].t().contiguous()


def _moves(values: Tensor, tables: dict[int | None, tuple[Tensor, Tensor]], labels: Tensor | None) -> Tensor:
    """How far each value (k, h, w) lies from where it should be, by the label (h, w) of its patch's middle."""
    if None in tables or labels is None:
        return _transport(values, *tables[None]) - values
    out = torch.zeros_like(values)
    for label, table in tables.items():
        assert label is not None
        out = torch.where(labels == label, _transport(values, *table) - values, out)
    return out


def _transport(values: Tensor, mine: Tensor, other: Tensor) -> Tensor:
    """Values (k, h, w) from the quantiles `mine` (k, n) to the quantiles `other`, linear between CELLS even points."""
    low, high = mine[:, :1], mine[:, -1:]
    grid = torch.lerp(low, high, torch.linspace(0, 1, CELLS + 1, device=values.device))
    rank = (_ranks(mine, grid, right=False) + _ranks(mine, grid, right=True)) / 2  # equal values: their middle rank
    i = rank.long().clamp_max(mine.shape[1] - 2)
    table = torch.lerp(other.gather(1, i), other.gather(1, i + 1), rank - i)
    flat = values.flatten(1)
    place = ((flat - low) * (CELLS / (high - low).clamp_min(1e-6))).clamp_(0, CELLS - 1e-3)
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
    places: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Random patches (n, 147) of a picture (3, H, W), those near `places` alone if given, and their middles' labels."""
    H, W = picture.shape[1:]
    count = min(SAMPLES, H * W)
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
