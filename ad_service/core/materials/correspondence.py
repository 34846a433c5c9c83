"""Which place of the exemplar each place of a finished color shows, so that other maps of the material can follow it.

A quilt knows where its pixels came from. Where the model or the last pass changed them, and everywhere after a start
from noise, the place is looked up in the finished color: PatchMatch (Barnes et al. 2009) on a grid of small cells, with
all cells tried at once, from the best matches of a coarse grid, and with a preference for places that continue their
neighbors'.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ad_service.core.canvas import around
from ad_service.core.steps import checkpoint


@dataclass(frozen=True)
class LookupOptions:
    """How places are looked up.

    Attributes:
        cell: pixels along the side of a cell, all of which continue one place of the exemplar.
        side: pixels along the side of a compared patch.
        components: principal components of the patches that are compared.
        context: pixels along the side of the squares, averaged, whose patches are compared as well if there is no
            source map: what a place is part of, a brick or its joint, says more than its grain.
        context_weight: of these, relative to the fine patches.
        changed: distance from which a source map's place is looked up; two random patches have a distance of 2.
        better: part of the distance below which another place is taken.
        rounds: of propagation and random search.
        jumps: cells from which places are propagated.
        coherence: cost of a place that is `reach` pixels or more from continuing all four neighbors.
        reach: see above.
        label_cost: cost of a place of another label.
        coarse: cells between those that are looked up in the whole exemplar at the beginning.
        coarse_places: places of the exemplar that these are compared with.
        samples: patches from which the components are found.
        chunk: cells whose candidates are compared at once, and rows of features that are computed at once.
    """

    cell: int = 2
    side: int = 7
    components: int = 12
    context: int = 4
    context_weight: float = 0.5
    changed: float = 0.15
    better: float = 0.6
    rounds: int = 3
    jumps: tuple[int, ...] = (8, 3, 1)
    coherence: float = 0.1
    reach: int = 4
    label_cost: float = 4.0
    coarse: int = 8
    coarse_places: int = 1 << 13
    samples: int = 1 << 14
    chunk: tuple[int, int] = (1 << 17, 256)


@dataclass(frozen=True)
class Correspondence:
    """For each cell of a picture the pixel of the exemplar at its upper left corner.

    Attributes:
        places: int64 (2, h, w), row and column; the cell's other pixels show those that follow in the exemplar.
        cell: pixels along the side of a cell.
        tiles: whether y and x of the picture tile.
        looked_up: share of the cells whose place was looked up in the color.
    """

    places: Tensor
    cell: int
    tiles: tuple[bool, bool]
    looked_up: float = 0.0


@dataclass(frozen=True)
class Labels:
    """A layout (H, W) over a picture and regions (h, w) over the exemplar: places are looked up in their own region."""

    layout: Tensor
    regions: Tensor


def look_up(
    picture: Tensor,
    exemplar: Tensor,
    tiles: tuple[bool, bool],
    generator: torch.Generator,
    known: Tensor | None = None,
    labels: Labels | None = None,
    options: LookupOptions = LookupOptions(),
) -> Generator[float, None, Correspondence]:
    """The place of the exemplar (3, h, w) that each cell of a finished picture (3, H, W) shows, both in [0, 1].

    Args:
        tiles: whether y and x of the picture tile.
        generator: of the random search.
        known: places (2, H / cell, W / cell) as in `Correspondence`, which stay where the color still shows them.
        labels: a layout and regions that the places have to agree with, or None.

    Yields:
        The fraction done.
    """
    search = _Search(picture, exemplar, tiles, labels, known is None, options)
    yield 0.2
    places = search.coarse_places() if known is None else known.clone()
    costs = search.costs(places)
    cells = (costs.flatten() > (-1.0 if known is None else options.changed)).nonzero()[:, 0]
    for done in search.improve(places, costs, cells, generator, keeps=known is not None):
        yield 0.2 + 0.8 * done
    return Correspondence(places, options.cell, tiles, len(cells) / costs.numel())


class _Search:
    """Patches of a picture's cells and of an exemplar, and the search for the best places."""

    def __init__(
        self,
        picture: Tensor,
        exemplar: Tensor,
        tiles: tuple[bool, bool],
        labels: Labels | None,
        with_context: bool,
        options: LookupOptions,
    ) -> None:
        self.options, self.tiles = options, tiles
        self.height, self.width = exemplar.shape[1:]
        self.grid = picture.shape[1] // options.cell, picture.shape[2] // options.cell
        fine = _components(exemplar, options.components, options)
        self.ours = _projected(picture, fine, tiles, options.cell, options)
        self.theirs = _projected(exemplar, fine, (False, False), 1, options)
        if with_context:
            self._add_context(picture, exemplar)
        self.layout = self.regions = None
        if labels is not None:
            rows, columns = (torch.arange(n) * options.cell + options.cell // 2 for n in self.grid)
            self.layout = labels.layout[rows][:, columns].flatten()
            self.regions = labels.regions.flatten()

    def _add_context(self, picture: Tensor, exemplar: Tensor) -> None:
        step, weight = self.options.context, self.options.context_weight**0.5
        small = [F.avg_pool2d(p[None], step, ceil_mode=True, count_include_pad=False)[0] for p in (picture, exemplar)]
        if min(min(p.shape[1:]) for p in small) < 2 * self.options.side:
            return
        coarse = _components(small[1], self.options.components // 2, self.options)
        for name, p, tiles, stride, size in (
            ("ours", small[0], self.tiles, self.options.cell, self.grid),
            ("theirs", small[1], (False, False), 1, (self.height, self.width)),
        ):
            values = _projected(p, coarse, tiles, 1, self.options)
            rows, columns = (torch.arange(n) * stride // step for n in size)
            index = (rows[:, None] * p.shape[2] + columns[None, :]).flatten()
            setattr(self, name, torch.cat([getattr(self, name), values[index] * weight], 1))

    def coarse_places(self) -> Tensor:
        """The best places of every `coarse`th cell among evenly spaced places of the exemplar, continued between."""
        o = self.options
        rows, columns = (torch.arange(n) for n in self.grid)
        spots_y, spots_x = (torch.arange(min(o.coarse // 2, n - 1), n, o.coarse) for n in self.grid)
        step = max(1, round((self.height * self.width / o.coarse_places) ** 0.5))
        y, x = (torch.arange(step // 2, n, step) for n in (self.height, self.width))
        places = (y[:, None] * self.width + x[None, :]).flatten()
        theirs = self.theirs[places].float()
        spots = (spots_y[:, None] * self.grid[1] + spots_x[None, :]).flatten()
        best = torch.empty(len(spots), dtype=torch.long)
        for part in torch.arange(len(spots)).split(4096):
            checkpoint()
            distance = torch.cdist(self.ours[spots[part]].float(), theirs).square()
            if self.layout is not None and self.regions is not None:
                distance += o.label_cost * (self.layout[spots[part]][:, None] != self.regions[places][None, :])
            best[part] = places[distance.argmin(1)]
        best = best.view(len(spots_y), len(spots_x))
        near_y, near_x = ((n // o.coarse).clamp_max(m - 1) for n, m in ((rows, len(spots_y)), (columns, len(spots_x))))
        found = best[near_y][:, near_x]
        down = (rows - spots_y[near_y]) * o.cell
        right = (columns - spots_x[near_x]) * o.cell
        return torch.stack(
            [
                (found // self.width + down[:, None]).clamp(0, self.height - 1),
                (found % self.width + right[None, :]).clamp(0, self.width - 1),
            ]
        )

    def costs(self, places: Tensor) -> Tensor:
        """The distances (h, w) of all cells to their places, without coherence."""
        cells = torch.arange(self.grid[0] * self.grid[1])
        y, x = places.flatten(1)
        return torch.cat([self._cost(part, y[part], x[part]) for part in cells.split(self.options.chunk[0])]).view(
            self.grid
        )

    def improve(
        self, places: Tensor, costs: Tensor, cells: Tensor, generator: torch.Generator, *, keeps: bool
    ) -> Iterator[float]:
        """Look for better places of some cells (n,), in place; yields the fraction done.

        With `keeps` a cell keeps its place unless another one is clearly better.
        """
        o = self.options
        flat, cost = places.flatten(1), costs.flatten()
        before = cost.clone()
        old = flat[:, cells].clone()
        for i in range(o.rounds):
            for jump in o.jumps:
                for direction in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                    for part in cells.split(o.chunk[0]):
                        self._try(
                            flat, cost, part, *self._continued(flat, part, direction[0] * jump, direction[1] * jump)
                        )
            radius = max(self.height, self.width) / 2
            while radius >= 1:
                for part in cells.split(o.chunk[0]):
                    move = (torch.rand(2, len(part), generator=generator) * 2 - 1) * radius
                    self._try(flat, cost, part, *(flat[:, part] + move.round().long()))
                radius /= 3
            yield 0.7 * (i + 1) / o.rounds
        if keeps:
            worse = cost[cells] > o.better * before[cells]
            flat[:, cells] = torch.where(worse, old, flat[:, cells])
            cost[cells] = torch.where(worse, before[cells], cost[cells])
        for i in range(o.rounds):
            self._cohere(flat, cost, cells)
            yield 0.7 + 0.3 * (i + 1) / o.rounds

    def _try(self, flat: Tensor, cost: Tensor, cells: Tensor, y: Tensor, x: Tensor) -> None:
        """Move cells (n,) to the places (y, x) where these are better."""
        checkpoint()
        y, x = y.clamp(0, self.height - 1), x.clamp(0, self.width - 1)
        new = self._cost(cells, y, x)
        better = new < cost[cells]
        chosen = cells[better]
        cost[chosen] = new[better]
        flat[0, chosen], flat[1, chosen] = y[better], x[better]

    def _cohere(self, flat: Tensor, cost: Tensor, cells: Tensor) -> None:
        """Let cells continue their neighbors' places where that costs less than it gains, one color of a board each."""
        row, column = cells // self.grid[1], cells % self.grid[1]
        directions = ((0, 1), (0, -1), (1, 0), (-1, 0))
        for parity in (0, 1):
            for part in cells[(row + column) % 2 == parity].split(self.options.chunk[0]):
                checkpoint()
                continued = [torch.stack(self._continued(flat, part, dy, dx)) for dy, dx in directions]
                options = [flat[:, part], *(c.clamp_min(0) for c in continued)]
                best_cost, best = torch.full((len(part),), torch.inf), flat[:, part]
                for i, place in enumerate(options):
                    y, x = place[0].clamp(0, self.height - 1), place[1].clamp(0, self.width - 1)
                    data = cost[part] if i == 0 else self._cost(part, y, x)
                    off = sum(
                        ((c - torch.stack([y, x])).abs().amax(0).float() / self.options.reach).clamp_max(1)
                        for c in continued
                    )
                    total = data + self.options.coherence / 4 * off
                    better = total < best_cost
                    best_cost = torch.where(better, total, best_cost)
                    best = torch.where(better, torch.stack([y, x]), best)
                flat[:, part] = best
                cost[part] = self._cost(part, best[0], best[1])

    def _continued(self, flat: Tensor, cells: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
        """The places (y, x) of cells (n,) that continue those of the cells `down` and `right` of them."""
        there, moved = [], []
        for axis, (place, step) in enumerate(((cells // self.grid[1], down), (cells % self.grid[1], right))):
            length = self.grid[axis]
            inside = (place + step) % length if self.tiles[axis] else (place + step).clamp(0, length - 1)
            there.append(inside)
            moved.append(self.options.cell * (step if self.tiles[axis] else inside - place))
        index = there[0] * self.grid[1] + there[1]
        return flat[0, index] - moved[0], flat[1, index] - moved[1]

    def _cost(self, cells: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """The distances (n,) of cells to places (y, x) inside the exemplar."""
        place = y * self.width + x
        distance = (self.ours[cells].float() - self.theirs[place].float()).square().sum(1)
        if self.layout is not None and self.regions is not None:
            distance += self.options.label_cost * (self.layout[cells] != self.regions[place])
        return distance


def _components(picture: Tensor, count: int, options: LookupOptions) -> Tensor:
    """Filters (count, 3, side, side) onto the principal components of a picture's patches, which have variance 1."""
    side = options.side
    step = max(1, round((picture.shape[1] * picture.shape[2] / options.samples) ** 0.5))
    patches = F.unfold(picture[None], side, stride=step)[0].t()
    patches = patches - patches.mean(0)
    values, vectors = torch.linalg.eigh(patches.t() @ patches / len(patches))
    kept = vectors.flip(1)[:, :count] / values.flip(0)[:count].clamp_min(0).sum().clamp_min(1e-9).sqrt()
    return rearrange(kept, "(c h w) k -> k c h w", c=3, h=side)


def _projected(
    picture: Tensor, filters: Tensor, tiles: tuple[bool, bool], stride: int, options: LookupOptions
) -> Tensor:
    """The components (h * w, k), half precision, of the patches around every `stride`th pixel of a picture."""
    margin, (H, W) = options.side // 2, picture.shape[1:]
    columns = around(0, W, margin, W, tiles[1])
    out = []
    for y in range(0, H, options.chunk[1]):
        checkpoint()
        band = picture[:, around(y, min(options.chunk[1], H - y), margin, H, tiles[0])][:, :, columns]
        values = F.conv2d(band[None], filters, stride=stride)[0]
        out.append(values.flatten(1).t().half())
    return torch.cat(out)
