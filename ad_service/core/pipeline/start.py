"""What the canvas starts from: noise, random swatch pixels, a quilt of swatch pieces, or a content.

Each start is a generator that yields the fraction done and returns a Start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core import labels
from ad_service.core.backbone import codec
from ad_service.core.canvas import Shape
from ad_service.core.materials.follow import SourceMap
from ad_service.core.pipeline.options import PipelineOptions
from ad_service.core.pipeline.task import Task
from ad_service.core.quilting import source_maps
from ad_service.core.quilting.cuts import visible_cuts
from ad_service.core.quilting.patch_attention import attend_patches
from ad_service.core.quilting.quilt import QuiltOptions, guide_of, quilt
from ad_service.core.steps import translate


@dataclass(frozen=True)
class Start:
    """The canvas at the beginning.

    Attributes:
        canvas: latents (C, H, W).
        is_picture: whether the canvas shows a picture, whose structure a content loss can keep; noise does not.
        source: where its pixels come from; None for noise and for a content.
        change_mask: (H, W) in [0, 1], for a quilt how near each latent is to a visible cut; None: all may change.
        shown: (n, 2) random pixels (y, x) of the exemplar that a quilt shows.
    """

    canvas: Tensor
    is_picture: bool = True
    source: SourceMap | None = None
    change_mask: Tensor | None = None
    shown: Tensor | None = None


Making = Generator[float, None, Start]


def noise(task: Task) -> Making:
    """Gaussian noise."""
    yield from ()
    shape = task.constraints.shape
    canvas = torch.randn(len(task.latents), shape.height, shape.width, generator=task.generator)
    return Start(canvas, is_picture=False)


def fill(task: Task) -> Making:
    """Random swatch pixels, each of the label that the layout has there."""
    yield from ()
    grid = _grid(task, task.options.cell)
    source = source_maps.random_source_map(grid.swatch, grid.shape, grid.layout, task.generator)
    return _start_of(task, grid, source)


def quilted(task: Task) -> Making:
    """A quilt of swatch pieces."""
    grid = _grid(task, _quilt_cell(task.exemplar.color, task.options))
    options = _quilt_options(min(grid.picture.shape[1:]) // grid.cell, grid.swatch.periods, task.options)
    source = yield from quilt(grid.swatch, grid.shape, grid.layout, task.generator, options)
    return _start_of_quilt(task, grid, source, options)


def novel(task: Task, novelty: float) -> Making:
    """A quilt of which the share `novelty` in (0, 1] is replaced by new texture, the visible cuts first."""
    cell = _quilt_cell(task.exemplar.color, task.options)
    fine = _grid(task, cell // 2)
    kept: Tensor | None = None
    if novelty < 1:
        grid = _grid(task, cell)
        options = _quilt_options(min(grid.picture.shape[1:]) // cell, grid.swatch.periods, task.options)
        source = yield from translate(
            quilt(grid.swatch, grid.shape, grid.layout, task.generator, options), lambda fraction: fraction / 2
        )
        free = _free_cells(source, grid, novelty, options, task)
        kept = _halved(source.masked_fill(free, -1), grid.columns, fine.columns)
        kept = kept[: fine.shape.height, : fine.shape.width]
    begun = 0.0 if kept is None else 0.5
    source = yield from translate(
        attend_patches(
            fine.swatch, fine.picture, fine.shape, fine.layout, task.generator, task.options.patch_attention, kept
        ),
        lambda fraction: begun + (1 - begun) * fraction,
    )
    return _start_of_quilt(task, fine, source, task.options.quilt)


STARTS: dict[str, Callable[[Task], Making]] = {"noise": noise, "fill": fill, "quilt": quilted}
"""The starts of a synthesis by their names in a request."""


def content(task: Task, picture: Tensor) -> Making:
    """The latents of a content (3, H * factor, W * factor)."""
    yield from ()
    return Start(codec.encode_canvas(task.model, picture, task.constraints.shape))


def guided_quilt(task: Task, picture: Tensor, weight: float) -> Making:
    """A quilt with the light and dark of a content (3, H * factor, W * factor), for a content weight."""
    grid = _grid(task, task.options.cell)
    options = replace(task.options.guided, guide_price=task.options.guided.guide_price * weight)
    guide = guide_of(picture, grid.picture, grid.cell, grid.tiles)
    source = yield from quilt(grid.swatch, grid.shape, grid.layout, task.generator, options, guide)
    return _start_of_quilt(task, grid, source, options)


# ---------------------------------------------------------------------------------------------- cells


@dataclass(frozen=True)
class _Grid:
    """Exemplar and canvas in cells: `picture` (3, h * cell, w * cell), and the canvas' shape and layout in cells."""

    cell: int
    picture: Tensor
    swatch: source_maps.Swatch
    shape: Shape
    layout: Tensor | None

    @property
    def tiles(self) -> tuple[bool, bool]:
        return self.shape.tile_y, self.shape.tile_x

    @property
    def columns(self) -> int:
        return self.picture.shape[2] // self.cell


def _grid(task: Task, cell: int) -> _Grid:
    exemplar, shape = task.exemplar, task.constraints.shape
    h, w = (side // cell for side in exemplar.color.shape[1:])
    picture = exemplar.color[:, : h * cell, : w * cell]
    factor = task.model.family.factor
    cells = replace(shape, height=shape.height * factor // cell, width=shape.width * factor // cell)
    regions = None if exemplar.maps is None else labels.condense(exemplar.maps.regions, h, w)
    periods = None if exemplar.periods is None else exemplar.periods / cell
    swatch = source_maps.Swatch(source_maps.patch_features(picture, cell), regions, periods)
    layout = task.constraints.layout
    layout = None if layout is None else labels.resize(layout, cells.height, cells.width)
    return _Grid(cell, picture, swatch, cells, layout)


def _quilt_cell(color: Tensor, options: PipelineOptions) -> int:
    """Pixels along the side of a quilt's cells: more in a large swatch (3, h, w), whose parts are usually large."""
    return options.cell if min(color.shape[1:]) <= options.large_swatch else 2 * options.cell


def _quilt_options(side: int, periods: Tensor | None, options: PipelineOptions) -> QuiltOptions:
    """Pieces a quarter of the swatch's side in cells, within limits, since its parts grow with it.

    Those of a regular swatch overlap by a whole period.
    """
    block = max(8, min(side // 3, max(32, side // 4), options.quilt.largest_piece * 2 // 3))
    overlap = max(2, block // 4)
    if periods is not None:
        overlap = max(overlap, min(block // 2, int(periods.norm(dim=1).min()) + 2))
    return replace(options.quilt, block=block, overlap=overlap)


def _free_cells(source: Tensor, grid: _Grid, novelty: float, options: QuiltOptions, task: Task) -> Tensor:
    """Where a quilt (H, W) is replaced: the share `novelty` of its cells, patches of some size around visible cuts.

    Between cuts that are equally visible a smooth random field decides.
    """
    near = visible_cuts(source, grid.swatch, options.contrast_floor, task.options.change_reach, grid.tiles)
    noise = torch.randn(source.shape, generator=task.generator)
    score = _blurred(near, task.options.novel_patch) + _blurred(noise, task.options.novel_patch)
    free = score.flatten().argsort(descending=True)[: round(novelty * score.numel())]
    return torch.zeros(score.numel(), dtype=torch.bool).index_fill_(0, free, True).view(source.shape)


def _blurred(field: Tensor, reach: int) -> Tensor:
    """A field (H, W) on the torus blurred over `reach` cells, with mean 0 and variance 1."""
    H, W = field.shape
    frequency = torch.fft.fftfreq(H)[:, None].square() + torch.fft.rfftfreq(W)[None, :].square()
    smooth = torch.fft.irfft2(torch.fft.rfft2(field) * torch.exp(-2 * (math.pi * reach) ** 2 * frequency), s=(H, W))
    return (smooth - smooth.mean()) / smooth.std().clamp_min(1e-9)


def _halved(source: Tensor, columns: int, fine_columns: int) -> Tensor:
    """A source map (H, W) in cells of half the size, (2 H, 2 W); -1 stays -1."""
    inner_y, inner_x = torch.arange(2 * source.shape[0]) % 2, torch.arange(2 * source.shape[1]) % 2
    large = source.repeat_interleave(2, 0).repeat_interleave(2, 1)
    y, x = large // columns * 2 + inner_y[:, None], large % columns * 2 + inner_x[None, :]
    return torch.where(large < 0, large, y * fine_columns + x)


def _start_of_quilt(task: Task, grid: _Grid, source: Tensor, options: QuiltOptions) -> Start:
    """A quilt as a start, and where it may change if the family keeps the rest."""
    drawn = source.flatten()[torch.randint(source.numel(), (task.options.shown_places,), generator=task.generator)]
    start = _start_of(task, grid, source)
    if not task.model.family.keeps_start:
        return start
    near = visible_cuts(source, grid.swatch, options.contrast_floor, task.options.change_reach, grid.tiles)
    shape = task.constraints.shape
    mask = F.adaptive_max_pool2d(near[None, None], (shape.height, shape.width))[0, 0]
    shown = grid.cell * torch.stack([drawn // grid.columns, drawn % grid.columns], 1)
    return replace(start, change_mask=mask, shown=shown)


def _start_of(task: Task, grid: _Grid, source: Tensor) -> Start:
    picture = source_maps.paint(source, grid.picture, grid.cell, grid.tiles)
    canvas = codec.encode_canvas(task.model, picture, task.constraints.shape)
    return Start(canvas, source=SourceMap(source, grid.cell, grid.columns, grid.tiles))
