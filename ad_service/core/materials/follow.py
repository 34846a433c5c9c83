"""The other maps of a material follow its color: painted from where each place of the finished color came from."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ad_service.core.materials.correspondence import Labels, LookupOptions, look_up
from ad_service.core.materials.paint import paint
from ad_service.core.pipeline.transform import Channel
from ad_service.core.pixels import to_uint8, to_uint16
from ad_service.core.steps import translate


@dataclass(frozen=True)
class SourceMap:
    """The cell of the exemplar that each cell of a result was copied from, by a quilt or a random fill.

    Attributes:
        cells: flat indices (h, w) into the exemplar's cells.
        cell: pixels along the side of a cell.
        columns: cells in a row of the exemplar.
        tiles: whether y and x of the result tile.
        shift: pixels (down, right) by which the result was rolled back afterwards.
    """

    cells: Tensor
    cell: int
    columns: int
    tiles: tuple[bool, bool]
    shift: tuple[int, int] = (0, 0)

    def pixels(self, height: int, width: int) -> Tensor:
        """int64 (2, height, width): row and column of the exemplar's pixel that lies at each pixel of the result."""
        return self.places(1)[:, :height, :width].roll((-self.shift[0], -self.shift[1]), (1, 2))

    def places(self, cell: int) -> Tensor:
        """int64 (2, h, w): the exemplar's pixel at the corner of each cell of this side; `shift` is not applied."""
        y, x = (torch.arange(0, n * self.cell, cell) for n in self.cells.shape)
        source = self.cells[y // self.cell][:, x // self.cell]
        rows = source // self.columns * self.cell + (y % self.cell)[:, None]
        columns = source % self.columns * self.cell + (x % self.cell)[None, :]
        return torch.stack([rows, columns])


def follow(
    color: Tensor,
    exemplar: Tensor,
    channels: Mapping[str, Channel],
    tiles: tuple[bool, bool],
    generator: torch.Generator,
    source: SourceMap | None = None,
    labels: Labels | None = None,
    options: LookupOptions | None = None,
) -> Generator[float, None, dict[str, Tensor]]:
    """The channels of an exemplar as they lie on a finished color, (H, W, C) uint8 or uint16 by name.

    Args:
        color: the finished picture (3, H, W) in [0, 1].
        exemplar: its color (3, h, w) in [0, 1]; the channels have its size.
        tiles: whether y and x of the picture tile.
        generator: of the search.
        source: what the picture was made of, if it is known; places that the color no longer shows are looked up.
        labels: a layout and regions that the places agree with, or None.

    Yields:
        The fraction done.
    """
    options, (height, width) = options or LookupOptions(), color.shape[1:]
    cell = options.cell if height % options.cell == 0 and width % options.cell == 0 else 1
    options = replace(options, cell=cell)
    known = None if source is None else source.places(cell)[:, : height // cell, : width // cell]
    work = look_up(color, exemplar, tiles, generator, known, labels, options)
    correspondence = yield from translate(work, lambda done: 0.7 * done)
    out = {}
    for i, (name, channel) in enumerate(channels.items()):
        yield 0.7 + 0.3 * i / len(channels)
        out[name] = (to_uint8 if channel.bits == 8 else to_uint16)(paint(channel, correspondence, color))
    return out
