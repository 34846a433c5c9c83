"""New texture from noise by attention between patches: source maps that are not made of whole pieces of the swatch.

The best denoiser that sees a patch alone averages the patches of the swatch, weighted by their likelihood given the
noisy one (Kamb and Ganguli 2024, arXiv 2412.20292): attention whose queries are the patches of the canvas, and whose
keys and values are those of the swatch. Here it runs coarse to fine and without noise in between, each query reading
its best key alone (Granot et al. 2022, arXiv 2103.15545): overlapping patches vote for the next canvas. Distances are
divided by how near any query comes to a key, so that all keys are read about equally often; otherwise plain places
spread until the canvas consists of them. Last, each cell of half the size takes the best continuation of its
neighbors (Ashikhmin 2001).
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ad_service.core import labels
from ad_service.core.canvas import Shape, pad
from ad_service.core.quilting.source_maps import Swatch, gather, random_source_map
from ad_service.core.steps import checkpoint

TORUS = (True, True)


@dataclass(frozen=True)
class PatchAttentionOptions:
    """Sizes and passes, measured at 512 pixels on photographs (beans, paving, basket, feathers, mud, ...).

    Attributes:
        scales: sides of the squares of cells that one cell of a level stands for, coarsest first.
        sides: cells of a level along the side of its patches; odd.
        passes: of attention on each level.
        mixed_blocks: side of the squares of a chessboard on the last level, in cells. Its two colors read different
            halves of the swatch, so that no large piece is copied: copies 0.04 to 0.12 instead of 0.23 to 0.36.
        components: principal components of a patch that are compared.
        completeness: added to the divisor of distances, as a part of the patches' variance. Without division the patch
            distance of beans was 0.036, with it 0.005; the halves of the swatch are 0.0075 apart.
        max_keys: most keys; of a larger swatch a random part of its patches is read.
        min_keys: fewest keys of a half of the swatch; a smaller swatch is read as a whole.
        scores_at_once: scores that are computed together; limits memory, does not change results.
        fine_side, fine_passes, fine_components: of the last correction.
    """

    scales: tuple[int, ...] = (8, 4, 2)
    sides: tuple[int, ...] = (7, 7, 7)
    passes: tuple[int, ...] = (12, 8, 4)
    mixed_blocks: int = 8
    components: int = 24
    completeness: float = 0.01
    max_keys: int = 1 << 14
    min_keys: int = 256
    scores_at_once: int = 1 << 24
    fine_side: int = 5
    fine_passes: int = 3
    fine_components: int = 16


def attend_patches(
    swatch: Swatch,
    picture: Tensor,
    shape: Shape,
    layout: Tensor | None,
    generator: torch.Generator,
    options: PatchAttentionOptions = PatchAttentionOptions(),
    kept: Tensor | None = None,
) -> Generator[float, None, Tensor]:
    """A new arrangement of the swatch from noise. It tiles along both axes, also where that is not needed.

    Args:
        swatch: labels (h, w) and periods in cells; the features are not read.
        picture: the swatch (3, h * cell, w * cell).
        shape: of the canvas, in cells.
        layout: labels (H, W) of the canvas, or None.
        generator: of the noise.
        options: sizes and passes.
        kept: source map (H, W) of cells that stay, -1 where the canvas is free; None: all of it is.

    Yields:
        The fraction done.

    Returns:
        A source map (H, W): for each cell the one of the swatch that its query reads.

    Raises LabelError for a label of the layout that no cell of the swatch has.
    """
    cells = F.avg_pool2d(picture[None], picture.shape[1] // swatch.features.shape[1])[0]
    if layout is not None and swatch.labels is not None:
        labels.check(layout, swatch.labels)
    levels = [
        level
        for scale, side in zip(options.scales, options.sides, strict=True)
        if (level := _level(swatch, cells, shape, layout, kept, scale, side, options)) is not None
    ]
    passes = options.passes[len(options.scales) - len(levels) :]
    total = sum(n * 4**i for i, n in enumerate(passes))
    done = 0
    source: Tensor | None = None
    for i, (level, count) in enumerate(zip(levels, passes, strict=True)):
        source = level.random(generator) if source is None else level.enlarged(source, levels[i - 1])
        reading = level.reading(generator, mixed=level is levels[-1])
        shown = gather(source, level.picture)
        for k in range(count):
            source = level.attend(shown, reading)
            done += 4**i
            yield 0.95 * done / total
            if k + 1 < count:
                shown = level.vote(source)
    side = min(options.fine_side, (min(cells.shape[1:]) - 1) // 2 * 2 + 1)
    finest = _Level(cells, shape, swatch.labels, layout, kept, 1, side, options)
    source = finest.random(generator) if source is None else finest.enlarged(source, levels[-1])
    for _ in range(options.fine_passes):
        source = finest.continued(source, generator)
    yield 1.0
    return source


def _level(
    swatch: Swatch,
    cells: Tensor,
    shape: Shape,
    layout: Tensor | None,
    kept: Tensor | None,
    scale: int,
    side: int,
    options: PatchAttentionOptions,
) -> _Level | None:
    """The level whose cells stand for `scale` x `scale` cells; None if the swatch is too small or loses a label."""
    picture = F.avg_pool2d(cells[None], scale)[0] if min(cells.shape[1:]) >= scale else cells[:, :0]
    h, w = picture.shape[1:]
    if min(h, w) < 2 * side:
        return None
    small = replace(shape, height=-(-shape.height // scale), width=-(-shape.width // scale))
    regions = None if swatch.labels is None else labels.condense(swatch.labels, h, w)
    if layout is not None and regions is not None:
        layout = labels.resize(layout, small.height, small.width)
        if set(labels.used(layout)) - set(labels.used(regions)):
            return None
    if kept is not None:
        kept = kept[::scale, ::scale]
        columns = cells.shape[2]
        y, x = (kept // columns // scale).clamp(max=h - 1), (kept % columns // scale).clamp(max=w - 1)
        kept = torch.where(kept < 0, kept, y * w + x)
    periods = None if swatch.periods is None else swatch.periods / scale
    return _Level(picture, small, regions, layout, kept, scale, side, options, periods)


Parts = list[tuple[Tensor, Tensor]]
"""The places (n,) of some queries, and which cells (h, w) of the swatch they may read."""

Reading = list[tuple[Tensor, Tensor, Tensor]]
"""For each label: the places (n,) of its queries, its keys (m, components), and the places (m,) of the keys."""


class _Level:
    """The canvas and the swatch (3, h, w) at one scale. Source maps hold flat indices into the h * w cells."""

    def __init__(
        self,
        picture: Tensor,
        shape: Shape,
        regions: Tensor | None,
        layout: Tensor | None,
        kept: Tensor | None,
        scale: int,
        side: int,
        options: PatchAttentionOptions,
        periods: Tensor | None = None,
    ) -> None:
        self.picture, self.shape, self.scale, self.side, self.options = picture, shape, scale, side, options
        self.h, self.w = picture.shape[1:]
        self.regions = None if layout is None else regions
        self.layout = None if regions is None else layout
        self.kept, self.periods = kept, periods

    def random(self, generator: torch.Generator) -> Tensor:
        """Random cells, each with the label of the layout; in step with the canvas if the swatch is regular."""
        swatch = Swatch(self.picture, self.regions)
        source = random_source_map(swatch, self.shape, self.layout, generator)
        if self.periods is not None and self.layout is None:
            source = self._in_step(source, generator)
        return self._with_kept(source)

    def _in_step(self, source: Tensor, generator: torch.Generator) -> Tensor:
        """The cells moved by less than a period, so that all are in step with the canvas."""
        assert self.periods is not None
        H, W = source.shape
        y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
        out = source
        inside = torch.zeros(H, W, dtype=torch.bool)
        for _ in range(8):  # those that left the swatch are drawn again
            drawn = torch.randint(self.h * self.w, (H, W), generator=generator)
            apart = torch.stack([drawn // self.w - y, drawn % self.w - x], -1).float()
            counts = apart @ torch.linalg.pinv(self.periods)
            moved = apart - (counts - counts.round()) @ self.periods
            to_y, to_x = (moved[..., 0] + y).round().long(), (moved[..., 1] + x).round().long()
            good = (to_y >= 0) & (to_y < self.h) & (to_x >= 0) & (to_x < self.w) & ~inside
            out, inside = torch.where(good, to_y * self.w + to_x, out), inside | good
        return out

    def enlarged(self, source: Tensor, coarser: _Level) -> Tensor:
        """A source map of a coarser level at this one's size."""
        n = coarser.scale // self.scale
        inner_y, inner_x = torch.arange(self.shape.height) % n, torch.arange(self.shape.width) % n
        large = source.repeat_interleave(n, 0).repeat_interleave(n, 1)[: self.shape.height, : self.shape.width]
        y = (large // coarser.w * n + inner_y[:, None]).clamp(max=self.h - 1)
        x = (large % coarser.w * n + inner_x[None, :]).clamp(max=self.w - 1)
        return self._with_kept(y * self.w + x)

    def reading(self, generator: torch.Generator, mixed: bool = False) -> Reading:
        """Which keys each query may read: those of its label, whose patches lie inside the swatch if there are any."""
        self.components = _principal_components(self.picture, self.side, self.options.components, generator)
        keys = self._project(self.picture, (False, False), self.components)
        r = self.side // 2
        inside = torch.zeros(self.h, self.w, dtype=torch.bool)
        inside[r : self.h - r, r : self.w - r] = True
        if self.layout is None or self.regions is None:
            parts = [(torch.arange(self.shape.height * self.shape.width), inside)]
        else:
            parts = []
            for label in labels.used(self.layout):
                having = self.regions == label
                both = having & inside
                parts.append(((self.layout.flatten() == label).nonzero()[:, 0], both if bool(both.any()) else having))
        reading = []
        for queries, allowed in self._mixed(parts, generator) if mixed else parts:
            places = allowed.flatten().nonzero()[:, 0]
            if len(places) > self.options.max_keys:
                places = places[torch.randperm(len(places), generator=generator)[: self.options.max_keys]]
            reading.append((queries, keys[places], places))
        return reading

    def _mixed(self, parts: Parts, generator: torch.Generator) -> Parts:
        """Each part in two: alternate squares of the canvas, and random halves of the swatch made of squares."""
        n = self.options.mixed_blocks
        rows, columns = torch.arange(self.shape.height) // n, torch.arange(self.shape.width) // n
        odd = ((rows[:, None] + columns[None, :]) % 2 == 1).flatten()
        squares = torch.rand(-(-self.h // n), -(-self.w // n), generator=generator) < 0.5
        half = squares.repeat_interleave(n, 0).repeat_interleave(n, 1)[: self.h, : self.w]
        out = []
        for queries, allowed in parts:
            halves = allowed & half, allowed & ~half
            if min(int(some.sum()) for some in halves) < self.options.min_keys:
                out.append((queries, allowed))
            else:
                out += [(queries[odd[queries]], halves[0]), (queries[~odd[queries]], halves[1])]
        return out

    def attend(self, shown: Tensor, reading: Reading) -> Tensor:
        """The source map of the keys that the queries of a canvas (3, H, W) read."""
        queries = self._project(shown, TORUS, self.components)
        source = torch.empty(len(queries), dtype=torch.long)
        for places, keys, origins in reading:
            source[places] = origins[self._best_keys(queries[places], keys)]
        return self._with_kept(source.view(self.shape.height, self.shape.width))

    def _best_keys(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The index (n,) of the key that each query (n, d) reads."""
        rows = max(1, self.options.scores_at_once // len(keys))
        lengths = keys.square().sum(1)
        floor = self.options.completeness * float(keys.var(0, correction=0).sum()) + 1e-12

        def distances(part: Tensor) -> Tensor:
            checkpoint()
            d = torch.addmm(lengths[None], part, keys.t(), alpha=-2)
            return d.add_(part.square().sum(1, keepdim=True)).clamp_min_(0)

        nearest = torch.stack([distances(part).amin(0) for part in queries.split(rows)]).amin(0)
        weight = 1 / (nearest + floor)
        return torch.cat([distances(part).mul_(weight).argmin(1) for part in queries.split(rows)])

    def vote(self, source: Tensor) -> Tensor:
        """The canvas (3, H, W) on which each cell is the weighted mean of the patches read around it."""
        r = self.side // 2
        total, weights = torch.zeros(3, *source.shape), 0.0
        y, x = source // self.w, source % self.w
        for dy, dx in product(range(-r, r + 1), repeat=2):
            weight = math.exp(-(dy * dy + dx * dx) / (2 * (self.side / 4) ** 2))
            total += weight * gather(self._beside(y, x, dy, dx), self.picture)
            weights += weight
        return total / weights

    def continued(self, source: Tensor, generator: torch.Generator) -> Tensor:
        """Each cell takes the best of the cells that continue its own and its eight neighbors' places."""
        components = _principal_components(self.picture, self.side, self.options.fine_components, generator)
        keys = self._project(self.picture, (False, False), components)
        for i, j in ((0, 0), (1, 1), (0, 1), (1, 0)):
            checkpoint()
            shown = gather(source, self.picture)
            queries = self._project(shown, TORUS, components).view(*source.shape, -1)[i::2, j::2]
            y, x = source // self.w, source % self.w
            best, least = source[i::2, j::2], torch.full(queries.shape[:2], torch.inf)
            for dy, dx in product((0, 1, -1), repeat=2):
                place = self._beside(y, x, dy, dx)[i::2, j::2]
                distance = (keys[place] - queries).square().sum(-1)
                if self.layout is not None and self.regions is not None:
                    wrong = self.regions.flatten()[place] != self.layout[i::2, j::2]
                    distance = distance.masked_fill(wrong, torch.inf)
                nearer = distance < least
                best, least = torch.where(nearer, place, best), torch.where(nearer, distance, least)
            source = source.clone()
            source[i::2, j::2] = best
            source = self._with_kept(source)
        return source

    def _beside(self, y: Tensor, x: Tensor, dy: int, dx: int) -> Tensor:
        """The place that continues, at each cell of the torus, the place (y, x) of the cell `dy`, `dx` before it."""
        down, right = y.roll((dy, dx), (0, 1)) + dy, x.roll((dy, dx), (0, 1)) + dx
        return down.clamp(0, self.h - 1) * self.w + right.clamp(0, self.w - 1)

    def _with_kept(self, source: Tensor) -> Tensor:
        return source if self.kept is None else torch.where(self.kept < 0, source, self.kept)

    def _project(self, picture: Tensor, tiles: tuple[bool, bool], components: tuple[Tensor, Tensor]) -> Tensor:
        """The components (H * W, d) of the patches around all cells of a picture (3, H, W)."""
        basis, mean = components
        filters = rearrange(basis, "(c h w) d -> d c h w", c=3, h=self.side)
        values = F.conv2d(pad(picture[None], self.side // 2, tiles), filters)[0].flatten(1).t()
        return (values - mean @ basis).contiguous()


def _principal_components(
    picture: Tensor, side: int, count: int, generator: torch.Generator, samples: int = 1 << 14
) -> tuple[Tensor, Tensor]:
    """The leading components (3 * side^2, count) of the patches of a picture (3, h, w), and their mean (3 * side^2,).

    They are estimated from random patches.
    """
    h, w = picture.shape[1:]
    y, x = (torch.randint(max(1, n - side + 1), (samples,), generator=generator) for n in (h, w))
    offset = torch.arange(side)
    rows, columns = y[:, None, None] + offset[None, :, None], x[:, None, None] + offset[None, None, :]
    patches = rearrange(picture[:, rows.clamp(max=h - 1), columns.clamp(max=w - 1)], "c n h w -> n (c h w)")
    mean = patches.mean(0)
    centered = patches - mean
    basis: Tensor = torch.linalg.eigh(centered.t() @ centered)[1].flip(1)[:, :count]
    return basis.contiguous(), mean
