"""Fills holes in a picture with pieces of it, cut where the borders are least visible.

A canvas is a source map of pixels, as in `quilt`, most of which is fixed. Pieces are laid over a hole from its border
inward, each where it matches best what lies around it (Kwatra et al. 2003, sub-patch matching), and more pieces are
laid over the worst borders. Fixed pixels never change, so that the border of the hole itself is matched, not cut.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ad_service.core.quilting.cuts import Borders, Floats, Ints, Mask
from ad_service.core.quilting.sheets import box_sum

UNUSABLE = 0
"""The label of pixels of a source that must not be shown; materials have the labels from 1."""


@dataclass(frozen=True)
class FillOptions:
    """Sizes in pixels, and costs as multiples of the source's variance or contrast.

    Attributes:
        block: side of a piece.
        smallest: side of the smallest piece, for gaps that larger ones of the right label leave.
        tolerance: how much worse than the best match a piece may be and still be drawn.
        refinements: pieces laid over the worst borders, as a multiple of the pieces that cover the free area.
        contrast_floor: see `QuiltOptions`.
        unusable_price: cost of a piece that consists of unusable pixels.
        reuse_cost: cost of showing the same part of the source again.
        change_price: cost of a pixel that is no longer itself, where the canvas had one.
        coarse: side of the squares among which a bad border is drawn.
    """

    block: int = 96
    smallest: int = 8
    tolerance: float = 0.02
    refinements: float = 6.0
    contrast_floor: float = 0.1
    unusable_price: float = 4.0
    reuse_cost: float = 0.1
    change_price: float = 0.002
    coarse: int = 8


@dataclass(frozen=True)
class Hole:
    """A canvas with a hole, and what may be shown in it.

    Attributes:
        features: (C, h, w) of the source, compared where pieces meet.
        labels: (h, w) of the source; UNUSABLE where it must not be shown.
        start: source map (H, W) of the canvas: flat indices into the h * w pixels; any number inside `empty`.
        empty: (H, W), where the canvas shows nothing yet. What is empty and not free stays empty.
        free: (H, W), where the canvas may change: to be filled, or to be replaced where that hides a seam.
        wanted: (H, W), the label that the canvas must have where it changes.
        tiles: whether y and x of the canvas tile.
    """

    features: Tensor
    labels: Ints
    start: Ints
    empty: Mask
    free: Mask
    wanted: Ints
    tiles: tuple[bool, bool]


def fill(hole: Hole, generator: torch.Generator, options: FillOptions) -> Generator[float, None, tuple[Ints, Floats]]:
    """A source map (H, W) like `hole.start` with the hole filled, and the cost (H, W) of each pixel's borders.

    Yields the fraction done.
    """
    work = _Fill(hole, generator, options)
    yield from work.lay()
    yield from work.refine()
    return work.source, work.cost()


class _Fill:
    def __init__(self, hole: Hole, generator: torch.Generator, options: FillOptions) -> None:
        self.hole, self.generator, self.options = hole, generator, options
        self.features = hole.features.float()
        self.h, self.w = self.features.shape[1:]
        self.H, self.W = hole.start.shape
        self.labels = hole.labels.ravel()
        self.spread = float(self.features.var((1, 2)).sum()) + 1e-9
        self.borders = Borders(self.features, options.contrast_floor)
        self.source, self.laid = hole.start.copy(), ~hole.empty
        self.own = hole.start
        self.usage: Floats = np.zeros(self.h * self.w, np.float32)
        self.padded = _smooth_length(self.h), _smooth_length(self.w)
        self.spectrum = self._spectrum(torch.cat([self.features.square().sum(0)[None], -2 * self.features]))
        used = np.unique(hole.wanted[hole.free])
        self.of_label = {i: self._spectrum(torch.from_numpy((hole.labels == i).astype(np.float32))) for i in used}
        self.block = min(options.block, self.h, self.w, self.H, self.W)

    # ------------------------------------------------------------------ laying

    def lay(self) -> Iterator[float]:
        """Lay pieces until nothing is empty, first where most is known, smaller and smaller ones where none fits."""
        total, size = max(1, int(self._to_fill().sum())), self.block
        tried = np.zeros((self.H, self.W), np.bool_)
        while self._to_fill().any():
            spot = self._spot(size, tried)
            if spot is None:
                if size <= self.options.smallest:
                    break
                size, tried = max(size // 2, self.options.smallest), np.zeros_like(tried)
                continue
            self._lay(*spot, size)
            tried[spot] = True
            yield 0.4 * (1 - int(self._to_fill().sum()) / total)
        self._fill_gaps()

    def _to_fill(self) -> Mask:
        return self.hole.free & ~self.laid

    def _spot(self, size: int, tried: Mask) -> tuple[int, int] | None:
        """The corner with the greatest product of known and of empty pixels under a piece; None if all were tried."""
        empty, known = self._boxes(self._to_fill(), size), self._boxes(self.laid, size)
        score = empty * (known + 1)
        score = np.where(tried[: score.shape[0], : score.shape[1]] | (empty == 0), -1, score)
        step = max(1, size // 8)
        best = int(score[::step, ::step].argmax())
        y, x = (step * i for i in divmod(best, score[::step, ::step].shape[1]))
        if score[y, x] < 0:
            best = int(score.argmax())
            y, x = divmod(best, score.shape[1])
        return (y, x) if score[y, x] >= 0 else None

    def _boxes(self, mask: Mask, size: int) -> Ints:
        """How many pixels of a mask lie under a piece at each corner: (H, W), or fewer where pieces must not wrap."""
        for axis, tile in enumerate(self.hole.tiles):
            if tile:
                mask = np.concatenate([mask, mask.take(range(size - 1), axis)], axis)
        total = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        counts: Ints = total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
        return counts

    def _lay(self, y: int, x: int, size: int) -> None:
        cells = self._cells(y, x, size)
        laid, old = self.laid[cells], self.source[cells]
        new = self._draw(cells, old, laid)
        kept = self._forbidden(cells, new) | (_frame(size) & laid)
        self._put(cells, self.borders.cut(old, new, laid, kept, self._price(cells, old, new)), new)

    def _fill_gaps(self) -> None:
        """Give pixels that no piece of the right label reached a random pixel of that label."""
        gaps = self._to_fill()
        for label in np.unique(self.hole.wanted[gaps]):
            pool, where = np.flatnonzero(self.labels == label), gaps & (self.hole.wanted == label)
            drawn = torch.randint(len(pool), (int(where.sum()),), generator=self.generator).numpy()
            self.source[where] = pool[drawn]
        self.laid |= gaps

    # ------------------------------------------------------------------ refining

    def refine(self) -> Iterator[float]:
        """Lay pieces of random sizes over random bad borders, and keep what lowers the cost of all borders."""
        count = round(self.options.refinements * max(1.0, self.hole.free.sum() / (self.block / 2) ** 2))
        for i in range(count):
            if i % 16 == 0:
                yield 0.4 + 0.6 * i / count
                cost = np.where(self.hole.free, self.cost(), 0)
                coarse = _coarse(cost, self.options.coarse)
                if coarse.max() <= 0:
                    break
            self._refine_once(coarse)
        yield 1.0

    def cost(self) -> Floats:
        """The cost (H, W) of each pixel with its neighbors, also over the edges of a torus."""
        rows, columns = (
            np.arange(-int(tile), n + int(tile)) % n for n, tile in zip((self.H, self.W), self.hole.tiles, strict=True)
        )
        cost = self.borders.of_cells(self.source[rows[:, None], columns])
        tile_y, tile_x = (int(tile) for tile in self.hole.tiles)
        return cost[tile_y : tile_y + self.H, tile_x : tile_x + self.W]

    def _refine_once(self, coarse: Floats) -> None:
        largest = min(self.block * 5 // 4, self.h, self.w, self.H, self.W)
        smallest = min(largest, max(self.options.smallest, self.block // 4))
        size = int(torch.randint(smallest, largest + 1, (1,), generator=self.generator))
        spot = int(torch.multinomial(torch.from_numpy(coarse).flatten() + 1e-12, 1, generator=self.generator))
        row, column = divmod(spot, coarse.shape[1])
        y, x = (self.options.coarse * i + self.options.coarse // 2 - size // 2 for i in (row, column))
        if not self.hole.tiles[0]:
            y = min(max(y, 0), self.H - size)
        if not self.hole.tiles[1]:
            x = min(max(x, 0), self.W - size)
        cells = self._cells(y, x, size)
        old, laid = self.source[cells], self.laid[cells]
        rim = (_frame(size, max(1, size // 4)) | ~self.hole.free[cells]) & laid
        new = self._draw(cells, old, rim)
        price = self._price(cells, old, new)
        take = self.borders.cut(old, new, laid, _frame(size) | self._forbidden(cells, new), price)
        refined = np.where(take, new, old)
        if self.borders.sum(refined) + float(price[take].sum()) < self.borders.sum(old):
            self._put(cells, take, new)
        reach = max(1, size // (4 * self.options.coarse))
        coarse[max(row - reach, 0) : row + reach, max(column - reach, 0) : column + reach] *= 0.1

    # ------------------------------------------------------------------ pieces

    def _cells(self, y: int, x: int, size: int) -> tuple[Ints, Ints]:
        rows, columns = (np.arange(size) + y) % self.H, (np.arange(size) + x) % self.W
        return rows[:, None], columns[None, :]

    def _draw(self, cells: tuple[Ints, Ints], old: Ints, fit: Mask) -> Ints:
        """A piece of the source that matches the pixels `old` (n, n) of the canvas where `fit` is set."""
        size, weight = len(fit), torch.from_numpy(fit).float()
        target = self.features.flatten(1)[:, torch.from_numpy(old.ravel())].view(-1, size, size)
        known = weight.sum().clamp_min(1)
        piece = self._spectrum(torch.cat([weight[None], target * weight]))
        spectrum = (self.spectrum * piece.conj()).sum(0) / known
        wanted, free = self.hole.wanted[cells], self.hole.free[cells]
        price = self.options.unusable_price * self.spread / max(1, free.sum())
        for label in np.unique(wanted[free]):
            here = torch.from_numpy(((wanted == label) & free).astype(np.float32))
            spectrum -= price * self.of_label[label] * self._spectrum(here).conj()
        error = torch.fft.irfft2(spectrum, s=self.padded)[: self.h - size + 1, : self.w - size + 1].clone()
        error += (target.square() * weight).sum() / known + self.options.unusable_price * self.spread
        usage = torch.from_numpy(self.usage).view(self.h, self.w)
        error += self.options.reuse_cost * self.spread * box_sum(usage, size) / size**2
        error = error.clamp_min(0)
        bound = error.min() * (1 + self.options.tolerance) + 1e-6 * self.spread
        good = (error <= bound).flatten().nonzero()[:, 0]
        pick = int(good[torch.randint(len(good), (1,), generator=self.generator)])
        top, left = divmod(pick, error.shape[1])
        found: Ints = (top + np.arange(size))[:, None] * self.w + left + np.arange(size)[None, :]
        return found

    def _spectrum(self, picture: Tensor) -> Tensor:
        """The spectrum of a picture (..., h, w) padded with zeros; rows of zeros are not transformed."""
        return torch.fft.fft(torch.fft.rfft(picture, self.padded[1]), self.padded[0], -2)

    def _forbidden(self, cells: tuple[Ints, Ints], new: Ints) -> Mask:
        """Where a piece must not be taken: outside the free area, or with another label than is wanted."""
        forbidden: Mask = ~self.hole.free[cells] | (self.labels[new] != self.hole.wanted[cells])
        return forbidden

    def _price(self, cells: tuple[Ints, Ints], old: Ints, new: Ints) -> Floats:
        own, could = self.own[cells], ~self.hole.empty[cells]
        price: Floats = self.options.change_price * could * ((new != own).astype(np.float32) - (old != own))
        return price

    def _put(self, cells: tuple[Ints, Ints], take: Mask, new: Ints) -> None:
        old, laid = self.source[cells], self.laid[cells]
        np.add.at(self.usage, new[take], 1.0)
        changed = take & laid & (old != self.own[cells])
        np.subtract.at(self.usage, old[changed], 1.0)
        self.source[cells] = np.where(take, new, old)
        self.laid[cells] = laid | take


def _smooth_length(length: int) -> int:
    """The smallest number from a length that has no prime factor above 5, which makes an FFT fast."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def _frame(size: int, rim: int = 1) -> Mask:
    """The outer `rim` pixels of a square."""
    frame = np.ones((size, size), np.bool_)
    frame[rim : size - rim, rim : size - rim] = False
    return frame


def _coarse(cost: Floats, side: int) -> Floats:
    """The mean costs of squares of `side` pixels of an area (h, w)."""
    h, w = (-(-n // side) * side for n in cost.shape)
    padded = np.pad(cost, ((0, h - cost.shape[0]), (0, w - cost.shape[1])))
    means: Floats = padded.reshape(h // side, side, w // side, side).mean((1, 3))
    return means
