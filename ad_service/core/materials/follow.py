"""The other channels of a material follow the base color: each is painted through the source map of its quilt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ad_service.core.quilting import source_maps


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
        y, x = (torch.arange(n * self.cell) for n in self.cells.shape)
        source = self.cells[y // self.cell][:, x // self.cell]
        rows = source // self.columns * self.cell + (y % self.cell)[:, None]
        columns = source % self.columns * self.cell + (x % self.cell)[None, :]
        return self._placed(torch.stack([rows, columns]), height, width)

    def paint(self, channel: Tensor, height: int, width: int) -> Tensor:
        """A channel (C, h, w) of the exemplar as it lies on the result, (C, height, width), in register with the color.

        Cells are blended along cuts as the color's are.
        """
        rows = channel.shape[1] // self.cell * self.cell
        picture = channel[:, :rows, : self.columns * self.cell]
        return self._placed(source_maps.paint(self.cells, picture, self.cell, self.tiles), height, width)

    def _placed(self, picture: Tensor, height: int, width: int) -> Tensor:
        return picture[:, :height, :width].roll((-self.shift[0], -self.shift[1]), (1, 2))
