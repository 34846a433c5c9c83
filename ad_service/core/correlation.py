"""Correlation of a picture with itself, computed by FFT (Wiener-Khinchin)."""

from __future__ import annotations

import torch
from torch import Tensor


def overlap_correlation(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Unnormalized autocorrelation of a gray picture (h, w) at every lag, over the pixels that both copies have.

    Returns:
        Two tensors (2h, 2w), indexed by lag (down, right), negative lags wrapped to the end as in an FFT: the sum of
        products, and the product of the energies (sums of squares) of both copies inside their overlap. The first
        over the root of the second is the normalized correlation in [-1, 1]. FFT rounding can make the second
        slightly negative where it should be 0; callers clamp it.
    """
    size = (2 * picture.shape[0], 2 * picture.shape[1])  # zero padding: no lag wraps around
    values, squares, ones = (torch.fft.rfft2(x, s=size) for x in (picture, picture**2, torch.ones_like(picture)))

    def correlate(a: Tensor, b: Tensor) -> Tensor:
        sums: Tensor = torch.fft.irfft2(a.conj() * b, s=size)
        return sums

    return correlate(values, values), correlate(squares, ones) * correlate(ones, squares)
