"""Quilts: pieces of a swatch laid on a canvas and cut where nobody sees it.

Image quilting (Efros and Freeman 2001) on a torus and per label, with the cuts and the refinement of graph-cut textures
(Kwatra et al. 2003): a piece that is laid over others takes exactly those cells that make all borders together
cheapest, a minimum cut of the grid of cells. With a guide, pieces are laid where they have its light and dark.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.canvas import Shape, pad
from ad_service.core.labels import used
from ad_service.core.quilting.cuts import Borders, Floats, Ints, Mask
from ad_service.core.quilting.source_maps import Swatch, gather, random_source_map

REGION = 128
"""Cells along the side of the areas that are mended one after the other, so that time grows with the canvas' area."""

SHEET = 256
"""Cells along the side of the parts of a large swatch, in one of which each piece is looked for."""

LARGEST = 96
"""Cells along the side of the largest piece."""

COARSE = 4
"""Cells along the side of the squares among which a bad border is looked for."""


@dataclass(frozen=True)
class Guide:
    """The tone that each cell of a canvas (H, W) should have, and the one that each of the swatch's (h, w) has.

    Texture transfer (Efros and Freeman 2001, section 4), where the tone is the blurred luminance.
    """

    canvas: Tensor
    swatch: Tensor


def guide_of(content: Tensor, picture: Tensor, cell: int, tiles: tuple[bool, bool]) -> Guide:
    """The guide of a content (3, H * cell, W * cell) for a swatch's picture (3, h * cell, w * cell).

    Its light and dark are those of the swatch: histograms are matched, and cells of one tone stay of one tone.
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

    Args:
        block: side of a piece.
        overlap: width of the band in which a piece has to match what is already laid.
        tolerance: how much worse than the best match a piece may be and still be drawn.
        reuse_cost: cost of taking the same place of the swatch again.
        refinements: pieces laid over the worst borders, as a multiple of the pieces of the first pass.
        label_price: cost of a cell with the wrong label.
        phase_price: cost of a piece of a regular swatch that is one cell out of step.
        contrast_floor: part of the swatch's variance that is added to the contrast by which a border is divided, for
            places without any.
        repeat_cost: cost of a cell in a cut for each time that its place of the swatch is shown, relative to the
            average.
        guide_price: cost of a tone that is off by the standard deviation of the swatch's tones.
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


def quilt(
    swatch: Swatch,
    shape: Shape,
    layout: Tensor | None,
    generator: torch.Generator,
    options: QuiltOptions,
    guide: Guide | None = None,
) -> Generator[float, None, Tensor]:
    """Lay pieces of the swatch on the canvas, then mend the worst borders. Yields the part done, returns a source map.

    With a layout (H, W) every cell has its label.
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
    ]  # a torus has no first piece: the laying begins, and closes, anywhere

    def placed(picture: Tensor) -> Tensor:
        return F.pad(picture[None, None].float(), margin, "replicate")[0, 0].roll((-roll[0], -roll[1]), (0, 1))

    if layout is not None:
        layout = placed(layout).long()
    if guide is not None:
        guide = replace(guide, canvas=placed(guide.canvas))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # thousands of small operations: handing them round takes longer than doing them
    try:
        work = _Quilt(swatch, padded, layout, generator, options, guide)
        yield from work.run()
        return torch.from_numpy(work.source).roll((roll[0], roll[1]), (0, 1))[: shape.height, : shape.width]
    finally:
        torch.set_num_threads(threads)


class _Quilt:
    """The canvas of a quilt in the making: a source map, and which of its cells are laid."""

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
        self.shown: Floats = np.zeros(self.h * self.w, np.float32)  # how often, over how often on average
        self.share = self.h * self.w / (shape.height * shape.width)
        self.block = min(options.block, self.h, self.w, shape.height, shape.width)
        labels = None if self.labels is None else swatch.labels
        tones = None if guide is None else guide.swatch
        self.sheets = [_Sheet(y, x, self.features, labels, tones) for y in _tops(self.h) for x in _tops(self.w)]

    def run(self) -> Iterator[float]:
        """Lay, with ever smaller pieces where a layout leaves gaps, then mend; yields the part done."""
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
        yield from self._mend_all()
        yield 1.0

    def _grid(self, size: int, overlap: int) -> list[tuple[int, int]]:
        step = size - overlap
        ny, nx = -(-self.shape.height // step), -(-self.shape.width // step)
        return [
            (round(i * self.shape.height / ny), round(j * self.shape.width / nx)) for i in range(ny) for j in range(nx)
        ]

    def _cells(self, y: int, x: int, height: int, width: int) -> tuple[Ints, Ints]:
        rows = (np.arange(height) + y) % self.shape.height
        columns = (np.arange(width) + x) % self.shape.width
        return rows[:, None], columns[None, :]

    # ------------------------------------------------------------------ which piece

    def _draw(self, y: int, x: int, old: Ints, fit: Mask, wanted: Tensor | None) -> Ints:
        """A piece (b, b) of the swatch to lay at (y, x) that fits what `old` (b, b) shows where `fit` (b, b) is set."""
        size, sheet = len(fit), self._sheet(wanted)
        weight = torch.from_numpy(fit).float()
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
            off = _box_sum(sheet.of(self.guide.swatch).square(), size) - 2 * sheet.correlate(sheet.tones, tone)
            error += self.options.guide_price * self.spread * (off + tone.square().sum()).clamp_min(0) / size**2
        if self.periods is not None:
            error += self.options.phase_price * self.spread * self._out_of_step(y - sheet.top, x - sheet.left, error)
        shown = sheet.of(torch.from_numpy(self.shown).view(self.h, self.w))
        error += self.options.reuse_cost * self.spread * _box_sum(shown, size) / size**2
        bound = error.min() * (1 + self.options.tolerance) + 1e-6 * self.spread
        good = (error <= bound).flatten().nonzero()[:, 0]
        pick = int(good[torch.randint(len(good), (1,), generator=self.generator)])
        top, left = sheet.top + pick // error.shape[1], sheet.left + pick % error.shape[1]
        piece: Ints = (top + np.arange(size))[:, None] * self.w + left + np.arange(size)[None, :]
        return piece

    def _sheet(self, wanted: Tensor | None) -> _Sheet:
        """The sheet to look for a piece in: any, or any that has the label that is wanted most."""
        sheets = self.sheets
        if wanted is not None and len(sheets) > 1:
            label = int(torch.bincount(wanted.flatten().long()).argmax())
            sheets = [sheet for sheet in sheets if label in sheet.labels]
        if len(sheets) == 1:
            return sheets[0]
        return sheets[int(torch.randint(len(sheets), (1,), generator=self.generator))]

    def _out_of_step(self, y: int, x: int, places: Tensor) -> Tensor:
        """Squared cells from each place (h, w) to the nearest one in step with the canvas at (y, x)."""
        assert self.periods is not None
        rows, columns = torch.arange(places.shape[0]) - y, torch.arange(places.shape[1]) - x
        apart = torch.stack(torch.meshgrid(rows.float(), columns.float(), indexing="ij"), -1)
        counts = apart @ torch.linalg.pinv(self.periods)
        return ((counts - counts.round()) @ self.periods).square().sum(-1)

    # ------------------------------------------------------------------ laying and mending

    def _lay(self, y: int, x: int, size: int, overlap: int) -> None:
        """Lay a piece where something is still bare; along its sides it has to fit what is laid there."""
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

    def _mend_all(self) -> Iterator[float]:
        """Lay pieces over the worst borders, area by area in rounds, the areas elsewhere each time."""
        height, width = self.shape.height, self.shape.width
        rounds = 1 if max(height, width) <= REGION else 4
        ny, nx = -(-height // REGION), -(-width // REGION)
        pieces = len(self._grid(self.block, max(1, self.block // 4))) * self.options.refinements
        each = max(1, round(pieces / (rounds * ny * nx)))
        for i in range(rounds):
            dy, dx = (int(torch.randint(n, (1,), generator=self.generator)) for n in (height, width))
            for j in range(ny * nx):
                y, x = j // nx * height // ny, j % nx * width // nx
                area = (y + dy, x + dx, -(-height // ny), -(-width // nx))
                for k in range(each):
                    if k % 16 == 0:
                        coarse = _coarse(self.border_cost(*area))
                        yield 0.4 + 0.6 * ((i * ny * nx + j) * each + k) / (rounds * ny * nx * each)
                        if float(coarse.max()) == 0:
                            break
                    self._mend(coarse, area)

    def border_cost(self, y: int, x: int, height: int, width: int) -> Tensor:
        """What each cell of an area (height, width) costs: its borders with its neighbours, and its tone."""
        shown = self.source[self._cells(y - 1, x - 1, height + 2, width + 2)]
        cost = self.borders.of_cells(shown)[1:-1, 1:-1]
        return torch.from_numpy(cost + self._off(self._cells(y, x, height, width), shown[1:-1, 1:-1]))

    def _mend(self, coarse: Tensor, area: tuple[int, int, int, int]) -> None:
        """Lay a piece over a bad border of an area, and keep of it what makes the borders better.

        `coarse` has the borders' cost in squares of COARSE cells.
        """
        most = min(self.block * 3 // 2, self.h, self.w, self.shape.height, self.shape.width)
        size = int(torch.randint(min(most, max(2, self.block // 2)), most + 1, (1,), generator=self.generator))
        spot = int(torch.multinomial(coarse.flatten() + 1e-12, 1, generator=self.generator))
        row, column = divmod(spot, coarse.shape[1])
        y, x = area[0] + COARSE * row - size // 2, area[1] + COARSE * column - size // 2
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
        mended = np.where(take, new, old)
        if self.borders.sum(mended) + float(price[take].sum()) < self.borders.sum(old):
            self._put(cells, take, new)
        reach = size // (2 * COARSE)  # others come first until all are looked at anew
        coarse[max(row - reach, 0) : row + reach, max(column - reach, 0) : column + reach] *= 0.1

    def _wanted(self, cells: tuple[Ints, Ints]) -> Tensor | None:
        return None if self.layout is None or self.labels is None else self.layout[cells]

    def _forbidden(self, cells: tuple[Ints, Ints], new: Ints) -> Mask:
        """Where a piece has another label than the layout."""
        if self.layout is None or self.labels is None:
            return np.zeros(new.shape, np.bool_)
        wrong: Mask = self.labels[new] != self.layout[cells].numpy()
        return wrong

    def _price(self, cells: tuple[Ints, Ints], old: Ints, new: Ints) -> Floats:
        """The price of each cell of a piece: how much more often it is shown, and further off in tone, than the old."""
        often = self.options.repeat_cost * (self.shown[new] - self.shown[old])
        price: Floats = often + self._off(cells, new) - self._off(cells, old)
        return price

    def _off(self, cells: tuple[Ints, Ints], shown: Ints) -> Floats:
        """What it costs that cells of the canvas show tones that are not the guide's."""
        if self.guide is None:
            return np.zeros(shown.shape, np.float32)
        off: Floats = np.square(self.tones[shown] - self.guide.canvas[cells].numpy())
        return self.options.guide_price * off

    def _put(self, cells: tuple[Ints, Ints], take: Mask, new: Ints) -> None:
        old, laid = self.source[cells], self.laid[cells]
        np.add.at(self.shown, new[take], self.share)
        np.subtract.at(self.shown, old[take & laid], self.share)
        self.source[cells] = np.where(take, new, old)
        self.laid[cells] = laid | take

    def _fill_gaps(self) -> None:
        """Cells that no piece of the right label reached take a random cell of it."""
        if self.layout is not None and self.labels is not None and not self.laid.all():
            swatch = Swatch(self.features, torch.from_numpy(self.labels).view(self.h, self.w))
            any_cell = random_source_map(swatch, self.shape, self.layout, self.generator).numpy()
            self.source = np.where(self.laid, self.source, any_cell)
            self.laid[:] = True


class _Sheet:
    """A part of the swatch in which pieces are looked for at once, by its spectra.

    Each piece is looked for in one sheet, so that it costs the same in a swatch of any size.
    """

    def __init__(self, top: int, left: int, features: Tensor, labels: Tensor | None, tones: Tensor | None) -> None:
        self.top, self.left = top, left
        here = self.of(features)
        self.h, self.w = here.shape[1:]
        self.features, self.energy = self._spectrum(here), self._spectrum(here.square().sum(0))
        self.tones = None if tones is None else self._spectrum(self.of(tones))
        self.labels: dict[int, Tensor] = {}
        if labels is not None:
            own = self.of(labels)
            self.labels = {i: self._spectrum((own == i).float()) for i in used(own)}

    def of(self, picture: Tensor) -> Tensor:
        """The sheet's part of a picture (..., h, w) of the whole swatch."""
        return picture[..., self.top : self.top + SHEET, self.left : self.left + SHEET]

    def _spectrum(self, picture: Tensor) -> Tensor:
        return torch.fft.rfft2(picture, s=(self.h, self.w))

    def correlate(self, spectrum: Tensor, piece: Tensor) -> Tensor:
        """Sums of products of a piece (..., b, b) and what has the spectrum, for each place where the piece lies."""
        product = spectrum * self._spectrum(piece).conj()
        if product.ndim == 3:
            product = product.sum(0)
        full = torch.fft.irfft2(product, s=(self.h, self.w))
        return full[: self.h - piece.shape[-2] + 1, : self.w - piece.shape[-1] + 1].clone()


def _tops(length: int) -> list[int]:
    """Where sheets begin along a side of the swatch, so that each piece lies whole in one of them."""
    if length <= SHEET:
        return [0]
    count = -(-(length - SHEET) // (SHEET - LARGEST)) + 1
    return [round(i * (length - SHEET) / (count - 1)) for i in range(count)]


def _frame(size: int, rim: int) -> Mask:
    """The outer `rim` cells of a square."""
    frame = np.ones((size, size), np.bool_)
    frame[rim : size - rim, rim : size - rim] = False
    return frame


def _coarse(cost: Tensor) -> Tensor:
    """The mean costs of squares of COARSE cells."""
    h, w = cost.shape
    padded = F.pad(cost, (0, -w % COARSE, 0, -h % COARSE))
    return F.avg_pool2d(padded[None, None], COARSE)[0, 0]


def _box_sum(picture: Tensor, size: int) -> Tensor:
    """Sums over all size x size boxes that lie inside a picture (h, w), from its integral image."""
    total = F.pad(picture.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    return (total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]).float()
