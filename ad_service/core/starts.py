"""What a canvas starts from: random swatch pixels of the right label, or a quilt of swatch pieces.

Both are *source maps*: for each cell of the canvas the cell of the swatch that it shows. `paint` makes the picture of
one; what is painted through the same map (colours, other channels of the material) fits together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.canvas import Shape, pad
from ad_service.core.labels import check, used

BAND = 64
"""Rows of cells that are painted at once."""


@dataclass(frozen=True)
class Swatch:
    """What a quilt is cut from: features (C, h, w), and labels (h, w) or None for one material.

    `periods` (2, 2), rows (down, right) in cells, are those of a regular swatch whose sums are the torus' sides.
    """

    features: Tensor
    labels: Tensor | None = None
    periods: Tensor | None = None


@dataclass(frozen=True)
class QuiltOptions:
    """`block` is the side of the largest piece in cells, `overlap` the band in which two pieces are cut to fit.

    `tolerance` is how much worse than the best match a piece may be and still be drawn; `reuse` the price of taking
    the same place of the swatch again; `mends` how many pieces are laid over the worst borders, as a multiple of the
    pieces of the first pass; `label_price` what a cell of the wrong label costs,
    and `phase_price` a piece of a regular swatch that is one cell out of step.
    """

    block: int = 32
    overlap: int = 8
    tolerance: float = 0.02
    reuse: float = 0.1
    mends: float = 20.0
    label_price: float = 4.0
    phase_price: float = 0.5


def fill(swatch: Swatch, shape: Shape, layout: Tensor | None, generator: torch.Generator) -> Tensor:
    """A source map (H, W) of random cells, each of the label that the layout has there.

    A source map holds flat indices y * w + x into the swatch's cells.
    """
    if layout is None or swatch.labels is None:
        cells = swatch.features.shape[1] * swatch.features.shape[2]
        return torch.randint(cells, (shape.height, shape.width), generator=generator)
    check(layout, swatch.labels)
    out = torch.zeros(shape.height, shape.width, dtype=torch.long)
    flat = swatch.labels.flatten()
    for label in used(layout):
        where = layout == label
        pool = (flat == label).nonzero()[:, 0]
        out[where] = pool[torch.randint(len(pool), (int(where.sum()),), generator=generator)]
    return out


def looks(picture: Tensor, cell: int, most: int = 12) -> Tensor:
    """What a quilt compares: the leading principal components (most, h, w) of a picture's cell x cell blocks."""
    blocks = F.pixel_unshuffle(picture[None], cell)[0]
    flat = blocks.flatten(1).t()
    flat = flat - flat.mean(0)
    basis = torch.linalg.eigh(flat.t() @ flat)[1].flip(1)[:, :most]
    return (flat @ basis).t().reshape(-1, *blocks.shape[1:])


def paint(source: Tensor, picture: Tensor, cell: int, tiles: tuple[bool, bool]) -> Tensor:
    """The picture (C, H * cell, W * cell) of a source map (H, W) of cell x cell pixels of a picture (C, h, w).

    Around each pixel lie the middles of four cells. Where they come from one place of the swatch it is copied;
    along a border they are blended, so that a cut runs smoothly over the corners of cells.
    """
    H, W = source.shape
    out = torch.empty(picture.shape[0], H * cell, W * cell)
    for top in range(0, H, BAND):
        rows = torch.arange(top, min(top + BAND, H))
        out[:, top * cell : top * cell + len(rows) * cell] = _paint_rows(rows, source, picture, cell, tiles)
    return out


def _paint_rows(rows: Tensor, source: Tensor, picture: Tensor, cell: int, tiles: tuple[bool, bool]) -> Tensor:
    """The pixels of some rows of cells: (C, len(rows) * cell, W * cell)."""
    H, W = source.shape
    columns = picture.shape[2] // cell
    offset = torch.arange(cell)
    low = (offset < cell / 2).long()  # the upper left of the four cells is the one before, for the first half
    share = ((offset + 0.5) / cell + 0.5) % 1.0  # weight of the lower right one, along one axis
    out = torch.zeros(picture.shape[0], len(rows) * cell, W * cell)
    total = torch.zeros(out.shape[1:])
    for down in (0, 1):
        for right in (0, 1):
            near_rows, dy = _neighbours(rows, H, cell, down - low, tiles[0])
            near_columns, dx = _neighbours(torch.arange(W), W, cell, right - low, tiles[1])
            place = source[near_rows[:, None], near_columns[None, :]]
            y = (place // columns * cell + dy[:, None]).clamp(0, picture.shape[1] - 1)
            x = (place % columns * cell + dx[None, :]).clamp(0, picture.shape[2] - 1)
            wy, wx = (share if side else 1 - share for side in (down, right))
            weight = (wy.repeat(len(rows))[:, None] * wx.repeat(W)[None, :]) ** 2
            out += picture[:, y, x] * weight
            total += weight
    return out / total


def _neighbours(cells: Tensor, length: int, cell: int, step: Tensor, tile: bool) -> tuple[Tensor, Tensor]:
    """For each pixel of cells along an axis: the cell that is `step` (cell,) further, and the pixel counted from it."""
    index = cells.repeat_interleave(cell) + step.repeat(len(cells))
    inside = index % length if tile else index.clamp(0, length - 1)
    pixel = torch.arange(cell).repeat(len(cells)) - cell * step.repeat(len(cells))
    return inside, pixel + cell * (index - inside) * (not tile)


def borders(source: Tensor, columns: int, reach: int, tiles: tuple[bool, bool]) -> Tensor:
    """How near each cell (H, W) is to a cut: 1 at one, falling to 0 at `reach` cells.

    `columns` is the width of the swatch in cells.
    """
    cut = torch.zeros(source.shape, dtype=torch.bool)
    for dim, step in ((1, 1), (0, columns)):
        apart = source.roll(-1, dim) != source + step
        if not tiles[dim]:
            apart.select(dim, -1).fill_(False)
        cut |= apart | apart.roll(1, dim)
    near = cut.float()[None, None]
    for _ in range(reach):
        near = torch.maximum(near, F.max_pool2d(pad(near, 1, tiles), 3, 1) - 1 / reach)
    return near[0, 0].clamp(0, 1)


def show(source: Tensor, picture: Tensor) -> Tensor:
    """What a source map (H, W) shows of a picture with one value a cell (C, h, w): (C, H, W)."""
    return picture.flatten(1)[:, source.flatten()].view(picture.shape[0], *source.shape)


def quilt(
    swatch: Swatch, shape: Shape, layout: Tensor | None, generator: torch.Generator, options: QuiltOptions
) -> Iterator[tuple[float, Tensor]]:
    """Lay pieces of the swatch on the canvas, cut along least-error borders, then mend the worst borders.

    Image quilting (Efros and Freeman 2001) on a torus and per label, with the patch refinement of graph-cut textures
    (Kwatra et al. 2003). Yields (fraction done, source map); the last one is the result.
    """
    padded = replace(
        shape,
        height=shape.height + (0 if shape.tile_y else options.block),
        width=shape.width + (0 if shape.tile_x else options.block),
    )
    if layout is not None:
        layout = F.pad(
            layout[None, None].float(), (0, padded.width - shape.width, 0, padded.height - shape.height), "replicate"
        )[0, 0].long()
    roll = [
        int(torch.randint(n, (1,), generator=generator)) if tile else 0
        for n, tile in ((shape.height, shape.tile_y), (shape.width, shape.tile_x))
    ]  # a torus has no first piece: the laying begins, and closes, anywhere
    if layout is not None:
        layout = layout.roll((-roll[0], -roll[1]), (0, 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # thousands of small operations: handing them round takes longer than doing them
    try:
        work = _Quilt(swatch, padded, layout, generator, options)
        for fraction in work.run():
            yield fraction, work.source.roll((roll[0], roll[1]), (0, 1))[: shape.height, : shape.width]
    finally:
        torch.set_num_threads(threads)


class _Quilt:
    """The canvas of a quilt in the making: a source map, and which of its cells are laid."""

    def __init__(
        self, swatch: Swatch, shape: Shape, layout: Tensor | None, generator: torch.Generator, options: QuiltOptions
    ) -> None:
        self.features = swatch.features.float()
        self.h, self.w = self.features.shape[1:]
        self.flat = self.features.flatten(1).t().contiguous()  # (h w, C)
        self.feature_spectra = self._spectrum(self.features)
        self.energy_spectrum = self._spectrum(self.features.square().sum(0))
        self.spread = float(self.features.var((1, 2)).sum())
        self.labels = swatch.labels
        self.periods = swatch.periods
        self.shape = shape
        self.layout = layout if swatch.labels is not None else None
        self.label_spectra = {}
        if swatch.labels is not None and self.layout is not None:
            self.label_spectra = {i: self._spectrum((swatch.labels == i).float()) for i in used(self.layout)}
        self.generator = generator
        self.options = options
        self.source = torch.zeros(shape.height, shape.width, dtype=torch.long)
        self.laid = torch.zeros(shape.height, shape.width, dtype=torch.bool)
        self.used = torch.zeros(self.h, self.w)

    def run(self) -> Iterator[float]:
        side = min(self.options.block, self.h, self.w, self.shape.height, self.shape.width)
        sizes = [side]
        while self.layout is not None and sizes[-1] > 4:
            sizes.append(sizes[-1] // 2)
        for i, size in enumerate(sizes):
            overlap = max(1, min(self.options.overlap, size // 2))
            spots = self._grid(size, overlap)
            for j, (y, x) in enumerate(spots):
                self._lay(y, x, size, overlap)
                if j % 16 == 0:
                    yield 0.5 * (i + j / len(spots)) / len(sizes)
        self._fill_gaps()
        pieces = int(len(self._grid(side, max(1, side // 4))) * self.options.mends)
        for k in range(pieces):
            if k % 16 == 0:
                cost = self.border_cost()
                yield 0.5 + 0.5 * k / pieces
                if float(cost.max()) == 0:
                    break
            self._mend(cost, side)
        yield 1.0

    def _grid(self, size: int, overlap: int) -> list[tuple[int, int]]:
        step = size - overlap
        ny, nx = -(-self.shape.height // step), -(-self.shape.width // step)
        return [
            (round(i * self.shape.height / ny), round(j * self.shape.width / nx)) for i in range(ny) for j in range(nx)
        ]

    def _cells(self, y: int, x: int, size: int) -> tuple[Tensor, Tensor]:
        rows = (torch.arange(size) + y) % self.shape.height
        columns = (torch.arange(size) + x) % self.shape.width
        return rows[:, None], columns[None, :]

    def _spectrum(self, picture: Tensor) -> Tensor:
        return torch.fft.rfft2(picture, s=(self.h, self.w))

    def _correlate(self, swatch: Tensor, piece: Tensor, size: int) -> Tensor:
        """Sum of products of a piece and the swatch, for each place where the piece lies inside, from their spectra."""
        product = swatch * piece.conj()
        if product.ndim == 3:
            product = product.sum(0)
        full = torch.fft.irfft2(product, s=(self.h, self.w))
        return full[: self.h - size + 1, : self.w - size + 1].clone()

    def _draw(self, y: int, x: int, target: Tensor, mask: Tensor, wanted: Tensor | None) -> int:
        """The flat index of the top left cell of a piece that fits `target` (C, b, b) where `mask` (b, b) is set."""
        size = mask.shape[0]
        weight = mask.float()
        spectrum = self._spectrum(target * weight)
        error = self._correlate(self.energy_spectrum, self._spectrum(weight), size)
        error -= 2 * self._correlate(self.feature_spectra, spectrum, size)
        error = (error + (target.square() * weight).sum()).clamp_min(0) / weight.sum().clamp_min(1)
        if wanted is not None:
            right = torch.zeros_like(error)
            for label in used(wanted):
                here = self._spectrum((wanted == label).float())
                right += self._correlate(self.label_spectra[label], here, size)
            error += self.options.label_price * self.spread * (1 - right / size**2).clamp_min(0)
        if self.periods is not None:
            error += self.options.phase_price * self.spread * self._out_of_step(y, x, error)
        error += self.options.reuse * self.spread * _box_sum(self.used, size) / size**2
        bound = error.min() * (1 + self.options.tolerance) + 1e-6 * self.spread
        good = (error <= bound).flatten().nonzero()[:, 0]
        pick = int(good[torch.randint(len(good), (1,), generator=self.generator)])
        width = error.shape[1]
        return (pick // width) * self.w + pick % width

    def _out_of_step(self, y: int, x: int, places: Tensor) -> Tensor:
        """Squared cells from each place (h, w) of the swatch to the nearest one in step with the canvas at (y, x)."""
        assert self.periods is not None
        rows, columns = torch.arange(places.shape[0]) - y, torch.arange(places.shape[1]) - x
        apart = torch.stack(torch.meshgrid(rows.float(), columns.float(), indexing="ij"), -1)
        counts = apart @ torch.linalg.inv(self.periods)
        return ((counts - counts.round()) @ self.periods).square().sum(-1)

    def _lay(self, y: int, x: int, size: int, overlap: int) -> None:
        rows, columns = self._cells(y, x, size)
        laid = self.laid[rows, columns]
        if bool(laid.all()):
            return
        old = self.source[rows, columns]
        wanted = None if self.layout is None else self.layout[rows, columns]
        corner = self._draw(y, x, show(old, self.features), laid, wanted)
        new = self._piece(corner, size)
        take = self._cut(old, new, laid, overlap)
        if wanted is not None and self.labels is not None:
            take &= self.labels.flatten()[new] == wanted
        self._put(rows, columns, take, old, new)

    def _piece(self, corner: int, size: int) -> Tensor:
        return corner + torch.arange(size)[:, None] * self.w + torch.arange(size)[None, :]

    def _put(self, rows: Tensor, columns: Tensor, take: Tensor, old: Tensor, new: Tensor) -> None:
        self.source[rows, columns] = torch.where(take, new, old)
        self.laid[rows, columns] = self.laid[rows, columns] | take
        count = take.float().sum().item() / self.options.block**2
        self.used.view(-1)[new[take]] += count

    def _cut(self, old: Tensor, new: Tensor, laid: Tensor, overlap: int) -> Tensor:
        """Which cells of a piece (b, b) become the new one's: all but those outside the least-error cuts.

        Each side whose band is laid gets a cut of its own.
        """
        error = (self.flat[old] - self.flat[new]).square().sum(-1)
        error = torch.where(laid, error, torch.zeros(()))
        take = torch.ones_like(laid)
        for turns in range(4):
            e, known = torch.rot90(error, turns), torch.rot90(laid, turns)
            band = known[:, :overlap]
            if float(band.float().mean()) < 0.5:
                continue
            path = least_path(e[:, :overlap])
            side = torch.arange(e.shape[1])[None, :] >= path[:, None]
            take &= torch.rot90(side, -turns)
        return take | ~laid

    def border_cost(self) -> Tensor:
        """How badly each cell (H, W) fits its right and lower neighbours, given what they were cut from."""
        total = torch.zeros(self.shape.height, self.shape.width)
        for dim, step, inside in (
            (1, 1, self.source % self.w < self.w - 1),
            (0, self.w, self.source // self.w < self.h - 1),
        ):
            cost = self._misfit(self.source, torch.roll(self.source, -1, dim), step, inside)
            total += cost + torch.roll(cost, 1, dim)
        return total

    def _misfit(self, here: Tensor, there: Tensor, step: int, inside: Tensor) -> Tensor:
        """Between a cell and its neighbour: what should follow it against what does, and the other way round."""
        cut = (there != here + step) | ~inside  # past the swatch's edge nothing follows
        cost = torch.zeros(here.shape)
        if not bool(cut.any()):
            return cost
        a, b = here[cut], there[cut]
        onward = torch.where(inside[cut], a + step, a)
        back_ok = (b % self.w > 0) if step == 1 else (b >= self.w)
        backward = torch.where(back_ok, b - step, b)
        cost[cut] = (self.flat[onward] - self.flat[b]).square().sum(-1) + (
            self.flat[a] - self.flat[backward]
        ).square().sum(-1)
        return cost

    def _mend(self, cost: Tensor, side: int) -> None:
        """Lay a piece over a bad border, and keep it if the borders are better for it."""
        size = side if side < 8 else int(torch.randint(side // 2, side + 1, (1,), generator=self.generator))
        spot = int(torch.multinomial(_coarse(cost).flatten(), 1, generator=self.generator))
        coarse_width = -(-cost.shape[1] // 4)
        y, x = spot // coarse_width * 4 - size // 2, spot % coarse_width * 4 - size // 2
        rows, columns = self._cells(y, x, size)
        if not self.shape.tile_y and not 0 <= y <= self.shape.height - size:
            return
        if not self.shape.tile_x and not 0 <= x <= self.shape.width - size:
            return
        overlap = max(1, min(self.options.overlap, size // 3))
        ring = torch.ones(size, size, dtype=torch.bool)
        ring[overlap:-overlap, overlap:-overlap] = False
        old = self.source[rows, columns]
        wanted = None if self.layout is None else self.layout[rows, columns]
        corner = self._draw(y, x, show(old, self.features), ring, wanted)
        new = self._piece(corner, size)
        take = self._cut(old, new, ring, overlap)
        if wanted is not None and self.labels is not None:
            take &= self.labels.flatten()[new] == wanted
        outer_rows, outer_columns = self._cells(y - 1, x - 1, size + 2)
        before = self._patch_cost(outer_rows, outer_columns)
        self.source[rows, columns] = torch.where(take, new, old)
        if self._patch_cost(outer_rows, outer_columns) >= before:
            self.source[rows, columns] = old
        else:
            self._put(rows, columns, take, old, new)
            cost[rows, columns] = 1e-9

    def _patch_cost(self, rows: Tensor, columns: Tensor) -> float:
        patch = self.source[rows, columns]
        right = self._misfit(patch[:, :-1], patch[:, 1:], 1, patch[:, :-1] % self.w < self.w - 1)
        down = self._misfit(patch[:-1], patch[1:], self.w, patch[:-1] // self.w < self.h - 1)
        return float(right.sum() + down.sum())

    def _fill_gaps(self) -> None:
        """Cells that no piece of the right label reached take a random cell of it."""
        if self.layout is not None and not bool(self.laid.all()):
            swatch = Swatch(self.features, self.labels)
            self.source = torch.where(self.laid, self.source, fill(swatch, self.shape, self.layout, self.generator))
            self.laid[:] = True


def _coarse(cost: Tensor) -> Tensor:
    """Costs summed over 4 by 4 cells."""
    h, w = cost.shape
    padded = F.pad(cost, (0, -w % 4, 0, -h % 4))
    return F.avg_pool2d(padded[None, None], 4)[0, 0] + 1e-12


def _box_sum(picture: Tensor, size: int) -> Tensor:
    """Sums over all size x size boxes that lie inside a picture (h, w), from its integral image."""
    total = F.pad(picture.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    return (total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]).float()


def least_path(error: Tensor) -> Tensor:
    """The column in each row of the connected top-to-bottom path of least summed error through (rows, columns)."""
    total = error.numpy().copy()
    rows, columns = total.shape
    above = np.full(columns + 2, np.inf, total.dtype)
    for i in range(1, rows):
        above[1:-1] = total[i - 1]
        total[i] += np.minimum(np.minimum(above[:-2], above[1:-1]), above[2:])
    path = np.empty(rows, np.int64)
    path[-1] = total[-1].argmin()
    for i in range(rows - 2, -1, -1):
        left = max(path[i + 1] - 1, 0)
        path[i] = left + total[i, left : path[i + 1] + 2].argmin()
    return torch.from_numpy(path)
