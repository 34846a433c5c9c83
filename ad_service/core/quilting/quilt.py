"""Quilts: pieces of a swatch laid on a canvas and cut where the borders are least visible.

Image quilting (Efros and Freeman 2001) on a torus and per label, with the cuts and the refinement of graph-cut textures
(Kwatra et al. 2003): a piece that is laid over others takes exactly those cells that make all borders together
cheapest, a minimum cut of the grid of cells. With a guide, pieces are laid where they have its light and dark.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.canvas import Shape, pad
from ad_service.core.labels import used
from ad_service.core.quilting.cuts import Borders, Floats, Ints, Mask
from ad_service.core.quilting.sheets import Sheet, box_sum, sheet_starts
from ad_service.core.quilting.source_maps import Swatch, gather, random_source_map


@dataclass(frozen=True)
class Guide:
    """The tones that a canvas should have, and those of the swatch.

    Texture transfer (Efros and Freeman 2001, section 4), where the tone is the blurred luminance.

    Attributes:
        canvas: the wanted tone (H, W) of each cell of the canvas.
        swatch: the tone (h, w) of each cell of the swatch.
    """

    canvas: Tensor
    swatch: Tensor


def guide_of(content: Tensor, picture: Tensor, cell: int, tiles: tuple[bool, bool]) -> Guide:
    """The guide of a content (3, H * cell, W * cell) for a swatch's picture (3, h * cell, w * cell).

    The histogram of the content's tones is matched to that of the swatch's; cells of equal tone keep equal tones.
    """
    canvas, swatch = _tones(content, cell, tiles), _tones(picture, cell, (False, False))
    ordered, theirs = canvas.flatten().sort().values, swatch.flatten().sort().values
    rank = (torch.searchsorted(ordered, canvas) + torch.searchsorted(ordered, canvas, right=True)) / (2 * len(ordered))
    return Guide(theirs[(rank * (len(theirs) - 1)).round().long()], swatch)


def _tones(picture: Tensor, cell: int, tiles: tuple[bool, bool]) -> Tensor:
    """The luminance of a picture (3, h * cell, w * cell) in cells (h, w), blurred over five of them."""
    tones = F.avg_pool2d(picture.mean(0)[None, None], cell)
    for _ in range(2):
        tones = F.avg_pool2d(pad(tones, 1, tiles), 3, 1)
    return tones[0, 0]


@dataclass(frozen=True)
class QuiltOptions:
    """Sizes in cells, and the costs of a quilt as multiples of the swatch's variance or contrast.

    Where a number is given, it was measured at 512 pixels on photographs (beans, wicker, feathers, discs, paving, ...).

    Attributes:
        block: side of a piece. 24 repeats less and 56 cuts fewer beans; 32 is between both.
        overlap: width of the band in which a piece has to match what is already laid.
        tolerance: how much worse than the best match a piece may be and still be drawn.
        reuse_cost: cost of taking the same place of the swatch again. 1.0 repeats less at twice the border cost.
        refinements: pieces laid over the worst borders, as a multiple of the pieces of the first pass. 60 instead of
            20 lowers the border cost by 5 %.
        label_price: cost of a cell with the wrong label.
        phase_price: cost of a piece of a regular swatch that is one cell out of step.
        contrast_floor: part of the swatch's variance that is added to the contrast by which a border is divided, for
            places without any. Without division, cuts hide in plain places and plain blobs spread; with 0.03 to 0.1
            the patch distance falls from 0.016 to 0.006 (feathers) and from 0.035 to 0.012 (discs).
        repeat_cost: cost of a cell in a cut for each time that its place of the swatch is shown, relative to the
            average. 0.03 lowers the unused part of the swatch from 0.42 to 0.37; 0.1 doubles the border cost.
        guide_price: cost of a tone that is off by the standard deviation of the swatch's tones.
        largest_piece: side of the largest piece that may be laid in refinement.
        sheet: side of the parts of a large swatch in one of which each piece is searched. The border cost of a swatch
            of 256 cells is 0.053, with sheets of 240 0.056, with sheets of 160 0.084.
        refine_area: side of the areas that are refined one after the other, so that time is linear in the canvas.
        coarse: side of the squares among which a bad border is drawn.
    """

    block: int = 32
    overlap: int = 8
    tolerance: float = 0.02
    reuse_cost: float = 0.1
    refinements: float = 20.0
    label_price: float = 4.0
    phase_price: float = 0.5
    contrast_floor: float = 0.1
    repeat_cost: float = 0.03
    guide_price: float = 2.0
    largest_piece: int = 96
    sheet: int = 256
    refine_area: int = 128
    coarse: int = 4


def quilt(
    swatch: Swatch,
    shape: Shape,
    layout: Tensor | None,
    generator: torch.Generator,
    options: QuiltOptions,
    guide: Guide | None = None,
) -> Generator[float, None, Tensor]:
    """Lay pieces of the swatch on the canvas, then refine the worst borders.

    Args:
        swatch: what the pieces are cut from.
        shape: of the canvas, in cells.
        layout: labels (H, W) of the canvas, or None; every cell gets its label.
        generator: of all random choices.
        options: sizes and costs.
        guide: wanted tones of the canvas, or None.

    Yields:
        The fraction done. torch runs on one thread only between two yields, never while the generator is suspended.

    Returns:
        A source map (H, W).

    Raises LabelError for a label of the layout that no cell of the swatch has.
    """
    padded = replace(
        shape,
        height=shape.height + (0 if shape.tile_y else options.block),
        width=shape.width + (0 if shape.tile_x else options.block),
    )
    margin = (0, padded.width - shape.width, 0, padded.height - shape.height)
    roll = [
        int(torch.randint(n, (1,), generator=generator)) if tile else 0
        for n, tile in ((shape.height, shape.tile_y), (shape.width, shape.tile_x))
    ]  # on a torus the laying starts, and closes, at a random place

    def placed(picture: Tensor) -> Tensor:
        return F.pad(picture[None, None].float(), margin, "replicate")[0, 0].roll((-roll[0], -roll[1]), (0, 1))

    if layout is not None:
        layout = placed(layout).long()
    if guide is not None:
        guide = replace(guide, canvas=placed(guide.canvas))
    with _one_thread():
        work = _Quilt(swatch, padded, layout, generator, options, guide)
    fractions = work.run()
    while True:
        with _one_thread():
            fraction = next(fractions, None)
        if fraction is None:
            return torch.from_numpy(work.source).roll((roll[0], roll[1]), (0, 1))[: shape.height, : shape.width]
        yield fraction


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: for thousands of small operations, distributing them takes longer than doing them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Quilt:
    """The canvas of a quilt being made: a source map, and which of its cells are laid."""

    def __init__(
        self,
        swatch: Swatch,
        shape: Shape,
        layout: Tensor | None,
        generator: torch.Generator,
        options: QuiltOptions,
        guide: Guide | None = None,
    ) -> None:
        self.features = swatch.features.float()
        self.h, self.w = self.features.shape[1:]
        self.spread = float(self.features.var((1, 2)).sum())
        self.periods = swatch.periods
        self.shape = shape
        self.labels = None if layout is None or swatch.labels is None else swatch.labels.flatten().numpy()
        self.layout = layout
        if guide is not None:
            guide = Guide(
                *((tone / guide.swatch.std().clamp_min(1e-6)).float() for tone in (guide.canvas, guide.swatch))
            )
            self.tones: Floats = guide.swatch.flatten().numpy()
        self.guide = guide
        self.generator = generator
        self.options = options
        self.borders = Borders(self.features, options.contrast_floor)
        self.source: Ints = np.zeros((shape.height, shape.width), np.int64)
        self.laid: Mask = np.zeros((shape.height, shape.width), np.bool_)
        self.usage: Floats = np.zeros(self.h * self.w, np.float32)  # how often a cell is shown, over the average
        self.share = self.h * self.w / (shape.height * shape.width)
        self.block = min(options.block, self.h, self.w, shape.height, shape.width)
        labels = None if self.labels is None else swatch.labels
        tones = None if guide is None else guide.swatch
        tops, lefts = (sheet_starts(n, options.sheet, options.largest_piece) for n in (self.h, self.w))
        self.sheets = [Sheet(y, x, options.sheet, self.features, labels, tones) for y in tops for x in lefts]

    def run(self) -> Iterator[float]:
        """Lay pieces, smaller and smaller ones where a layout leaves gaps, then refine; yields the fraction done."""
        sizes = [self.block]
        while self.layout is not None and sizes[-1] > 4:
            sizes.append(sizes[-1] // 2)
        for i, size in enumerate(sizes):
            overlap = max(1, min(self.options.overlap, size // 2))
            spots = self._grid(size, overlap)
            for j, (y, x) in enumerate(spots):
                self._lay(y, x, size, overlap)
                yield 0.4 * (i + j / len(spots)) / len(sizes)
        self._fill_gaps()
        yield from self._refine()
        yield 1.0

    def _grid(self, size: int, overlap: int) -> list[tuple[int, int]]:
        """Corners (y, x) of the fewest pieces with at least this overlap that cover the canvas evenly."""
        step = size - overlap
        ny, nx = -(-self.shape.height // step), -(-self.shape.width // step)
        return [
            (round(i * self.shape.height / ny), round(j * self.shape.width / nx)) for i in range(ny) for j in range(nx)
        ]

    def _cells(self, y: int, x: int, height: int, width: int) -> tuple[Ints, Ints]:
        """Row (height, 1) and column (1, width) indices of a rectangle of the canvas, wrapped."""
        rows = (np.arange(height) + y) % self.shape.height
        columns = (np.arange(width) + x) % self.shape.width
        return rows[:, None], columns[None, :]

    # ------------------------------------------------------------------ choosing a piece

    def _draw(self, y: int, x: int, old: Ints, fit: Mask, wanted: Tensor | None) -> Ints:
        """A piece (b, b) of the swatch to lay at (y, x) that matches the cells `old` (b, b) where `fit` is set."""
        size, sheet = len(fit), self._sheet(wanted)
        error = self._mismatch(sheet, y, x, old, fit, wanted)
        bound = error.min() * (1 + self.options.tolerance) + 1e-6 * self.spread
        good = (error <= bound).flatten().nonzero()[:, 0]
        pick = int(good[torch.randint(len(good), (1,), generator=self.generator)])
        top, left = sheet.top + pick // error.shape[1], sheet.left + pick % error.shape[1]
        piece: Ints = (top + np.arange(size))[:, None] * self.w + left + np.arange(size)[None, :]
        return piece

    def _mismatch(self, sheet: Sheet, y: int, x: int, old: Ints, fit: Mask, wanted: Tensor | None) -> Tensor:
        """The cost (places down, places right) of the piece at each place of a sheet, if it is laid at (y, x)."""
        size, weight = len(fit), torch.from_numpy(fit).float()
        target = gather(torch.from_numpy(old), self.features)
        error = sheet.correlate(sheet.energy, weight)
        error -= 2 * sheet.correlate(sheet.features, target * weight)
        error = (error + (target.square() * weight).sum()).clamp_min(0) / weight.sum().clamp_min(1)
        if wanted is not None:
            right = torch.zeros_like(error)
            for label in used(wanted):
                if label in sheet.labels:
                    right += sheet.correlate(sheet.labels[label], (wanted == label).float())
            error += self.options.label_price * self.spread * (1 - right / size**2).clamp_min(0)
        if self.guide is not None and sheet.tones is not None:
            tone = self.guide.canvas[self._cells(y, x, size, size)]
            off = box_sum(sheet.of(self.guide.swatch).square(), size) - 2 * sheet.correlate(sheet.tones, tone)
            error += self.options.guide_price * self.spread * (off + tone.square().sum()).clamp_min(0) / size**2
        if self.periods is not None:
            error += self.options.phase_price * self.spread * self._out_of_step(y - sheet.top, x - sheet.left, error)
        usage = sheet.of(torch.from_numpy(self.usage).view(self.h, self.w))
        error += self.options.reuse_cost * self.spread * box_sum(usage, size) / size**2
        return error

    def _sheet(self, wanted: Tensor | None) -> Sheet:
        """A random sheet in which to search a piece, of those that have the label that is wanted most."""
        sheets = self.sheets
        if wanted is not None and len(sheets) > 1:
            label = int(torch.bincount(wanted.flatten().long()).argmax())
            sheets = [sheet for sheet in sheets if label in sheet.labels]
        if len(sheets) == 1:
            return sheets[0]
        return sheets[int(torch.randint(len(sheets), (1,), generator=self.generator))]

    def _out_of_step(self, y: int, x: int, places: Tensor) -> Tensor:
        """Squared distance in cells from each place (h, w) to the nearest one in step with the canvas at (y, x)."""
        assert self.periods is not None
        rows, columns = torch.arange(places.shape[0]) - y, torch.arange(places.shape[1]) - x
        apart = torch.stack(torch.meshgrid(rows.float(), columns.float(), indexing="ij"), -1)
        counts = apart @ torch.linalg.pinv(self.periods)
        return ((counts - counts.round()) @ self.periods).square().sum(-1)

    # ------------------------------------------------------------------ laying and refining

    def _lay(self, y: int, x: int, size: int, overlap: int) -> None:
        """Lay a piece if some of its cells are empty; along its sides it has to match the cells that are laid."""
        cells = self._cells(y, x, size, size)
        laid = self.laid[cells]
        if laid.all():
            return
        old = self.source[cells]
        new = self._draw(y, x, old, laid, self._wanted(cells))
        frame = _frame(size, 1) & laid
        price = self._price(cells, old, new)
        take = self.borders.cut(old, new, laid, frame | self._forbidden(cells, new), price)
        self._put(cells, take, new)

    def _refine(self) -> Iterator[float]:
        """Lay pieces over the worst borders, area by area in rounds with shifted areas; yields the fraction done."""
        height, width, side = self.shape.height, self.shape.width, self.options.refine_area
        rounds = 1 if max(height, width) <= side else 4
        ny, nx = -(-height // side), -(-width // side)
        pieces = len(self._grid(self.block, max(1, self.block // 4))) * self.options.refinements
        each = max(1, round(pieces / (rounds * ny * nx)))
        for i in range(rounds):
            dy, dx = (int(torch.randint(n, (1,), generator=self.generator)) for n in (height, width))
            for j in range(ny * nx):
                y, x = j // nx * height // ny, j % nx * width // nx
                area = (y + dy, x + dx, -(-height // ny), -(-width // nx))
                for k in range(each):
                    if k % 16 == 0:
                        coarse = _coarse(self.border_cost(*area), self.options.coarse)
                        yield 0.4 + 0.6 * ((i * ny * nx + j) * each + k) / (rounds * ny * nx * each)
                        if float(coarse.max()) == 0:
                            break
                    self._refine_once(coarse, area)

    def border_cost(self, y: int, x: int, height: int, width: int) -> Tensor:
        """The cost (height, width) of each cell of an area: its borders with its neighbors, and its tone."""
        shown = self.source[self._cells(y - 1, x - 1, height + 2, width + 2)]
        cost = self.borders.of_cells(shown)[1:-1, 1:-1]
        return torch.from_numpy(cost + self._tone_cost(self._cells(y, x, height, width), shown[1:-1, 1:-1]))

    def _refine_once(self, coarse: Tensor, area: tuple[int, int, int, int]) -> None:
        """Lay a piece over a random bad border of an area, and keep the cells of it that lower the cost.

        `coarse` has the mean border costs of the squares of the area; those under the piece are lowered, so that
        others come first until all are computed again.
        """
        largest = min(self.block * 3 // 2, self.h, self.w, self.shape.height, self.shape.width)
        size = int(torch.randint(min(largest, max(2, self.block // 2)), largest + 1, (1,), generator=self.generator))
        spot = int(torch.multinomial(coarse.flatten() + 1e-12, 1, generator=self.generator))
        row, column = divmod(spot, coarse.shape[1])
        y, x = (
            start + self.options.coarse * index - size // 2
            for start, index in zip(area[:2], (row, column), strict=True)
        )
        for start, length, tile in (
            (y % self.shape.height, self.shape.height, self.shape.tile_y),
            (x % self.shape.width, self.shape.width, self.shape.tile_x),
        ):
            if not tile and start > length - size:
                return
        cells = self._cells(y, x, size, size)
        old = self.source[cells]
        rim = max(1, min(self.options.overlap, size // 3))
        new = self._draw(y, x, old, _frame(size, rim), self._wanted(cells))
        price, all_laid = self._price(cells, old, new), np.ones_like(old, np.bool_)
        take = self.borders.cut(old, new, all_laid, _frame(size, 1) | self._forbidden(cells, new), price)
        refined = np.where(take, new, old)
        if self.borders.sum(refined) + float(price[take].sum()) < self.borders.sum(old):
            self._put(cells, take, new)
        reach = size // (2 * self.options.coarse)
        coarse[max(row - reach, 0) : row + reach, max(column - reach, 0) : column + reach] *= 0.1

    def _wanted(self, cells: tuple[Ints, Ints]) -> Tensor | None:
        """The labels of the layout at some cells."""
        return None if self.layout is None or self.labels is None else self.layout[cells]

    def _forbidden(self, cells: tuple[Ints, Ints], new: Ints) -> Mask:
        """Where a piece has another label than the layout."""
        if self.layout is None or self.labels is None:
            return np.zeros(new.shape, np.bool_)
        wrong: Mask = self.labels[new] != self.layout[cells].numpy()
        return wrong

    def _price(self, cells: tuple[Ints, Ints], old: Ints, new: Ints) -> Floats:
        """The price of each cell of a piece: how much more often it is used, and further off in tone, than the old."""
        used_more = self.options.repeat_cost * (self.usage[new] - self.usage[old])
        price: Floats = used_more + self._tone_cost(cells, new) - self._tone_cost(cells, old)
        return price

    def _tone_cost(self, cells: tuple[Ints, Ints], shown: Ints) -> Floats:
        """The cost of cells of the canvas for the difference of their tones from the guide's."""
        if self.guide is None:
            return np.zeros(shown.shape, np.float32)
        off: Floats = np.square(self.tones[shown] - self.guide.canvas[cells].numpy())
        return self.options.guide_price * off

    def _put(self, cells: tuple[Ints, Ints], take: Mask, new: Ints) -> None:
        old, laid = self.source[cells], self.laid[cells]
        np.add.at(self.usage, new[take], self.share)
        np.subtract.at(self.usage, old[take & laid], self.share)
        self.source[cells] = np.where(take, new, old)
        self.laid[cells] = laid | take

    def _fill_gaps(self) -> None:
        """Give cells that no piece of the right label reached a random cell of that label."""
        if self.layout is not None and self.labels is not None and not self.laid.all():
            swatch = Swatch(self.features, torch.from_numpy(self.labels).view(self.h, self.w))
            any_cell = random_source_map(swatch, self.shape, self.layout, self.generator).numpy()
            self.source = np.where(self.laid, self.source, any_cell)
            self.laid[:] = True


def _frame(size: int, rim: int) -> Mask:
    """The outer `rim` cells of a square."""
    frame = np.ones((size, size), np.bool_)
    frame[rim : size - rim, rim : size - rim] = False
    return frame


def _coarse(cost: Tensor, side: int) -> Tensor:
    """The mean costs of squares of `side` cells of an area (h, w)."""
    h, w = cost.shape
    padded = F.pad(cost, (0, -w % side, 0, -h % side))
    return F.avg_pool2d(padded[None, None], side)[0, 0]
