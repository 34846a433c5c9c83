"""Sheets: square parts of a swatch in which pieces are searched by FFT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.labels import used


class Sheet:
    """A square part of the swatch in which pieces are searched by FFT.

    Each piece is searched in one sheet, so that it costs the same in a swatch of any size.
    """

    def __init__(
        self, top: int, left: int, side: int, features: Tensor, labels: Tensor | None, tones: Tensor | None
    ) -> None:
        self.top, self.left, self.side = top, left, side
        here = self.of(features)
        self.h, self.w = here.shape[1:]
        self.features, self.energy = self._spectrum(here), self._spectrum(here.square().sum(0))
        self.tones = None if tones is None else self._spectrum(self.of(tones))
        self.labels: dict[int, Tensor] = {}
        if labels is not None:
            own = self.of(labels)
            self.labels = {i: self._spectrum((own == i).float()) for i in used(own)}

    def of(self, picture: Tensor) -> Tensor:
        """The sheet's part of a picture (..., h, w) of the swatch."""
        return picture[..., self.top : self.top + self.side, self.left : self.left + self.side]

    def _spectrum(self, picture: Tensor) -> Tensor:
        return torch.fft.rfft2(picture, s=(self.h, self.w))

    def correlate(self, spectrum: Tensor, piece: Tensor) -> Tensor:
        """Sums of products of a piece (..., b, b) and the picture of a spectrum, for each place of the piece."""
        product = spectrum * self._spectrum(piece).conj()
        if product.ndim == 3:
            product = product.sum(0)
        full = torch.fft.irfft2(product, s=(self.h, self.w))
        return full[: self.h - piece.shape[-2] + 1, : self.w - piece.shape[-1] + 1].clone()


def sheet_starts(length: int, side: int, largest_piece: int) -> list[int]:
    """First cells of sheets of `side` cells along `length` cells, so that every piece lies entirely in one of them."""
    if length <= side:
        return [0]
    count = -(-(length - side) // (side - largest_piece)) + 1
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def box_sum(picture: Tensor, size: int) -> Tensor:
    """Sums over all size x size boxes that lie inside a picture (h, w), from its integral image."""
    total = F.pad(picture.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    return (total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]).float()
