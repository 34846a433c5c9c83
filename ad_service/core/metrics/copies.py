"""Copies and repetition: how much of a result is taken verbatim from the swatch, and how much it repeats itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ad_service.core.correlation import overlap_correlation


@dataclass(frozen=True)
class CopyOptions:
    """How `copy_share` searches for copies.

    Attributes:
        piece: side of a piece in pixels.
        min_correlation: normalized cross-correlation from which a piece is a copy.
        max_pieces: pieces that are looked up, fewer in a swatch of more than 2^20 pixels (at least 64).
        min_contrast: pieces with a standard deviation below this part of the swatch's match anything; left out.
        candidates: places of each band that are compared pixel by pixel, the best by their coarse features.
        band_rows: rows of the swatch searched together; a 6-megapixel swatch in one band took 4.8 GB.
    """

    piece: int = 32
    min_correlation: float = 0.95
    max_pieces: int = 256
    min_contrast: float = 0.1
    candidates: int = 8
    band_rows: int = 256


def copy_share(result: Tensor, swatch: Tensor, options: CopyOptions = CopyOptions()) -> float:
    """The share, 0 to 1, of square pieces of a result (3, H, W) that are found pixel by pixel in the swatch (3, h, w).

    A piece is a copy if some place of the swatch correlates with it by at least `options.min_correlation` (normalized
    cross-correlation over its pixels and channels, its mean color removed). Pieces lie on an even grid. They are first
    searched by coarse features and then pixel by pixel at the best places of each band of rows. A photograph holds few
    of its own pieces twice: `copy_share` of one half of the swatch against the other is more than 0 only for smooth or
    very regular pictures. 0 if either picture is smaller than a piece.
    """
    size = options.piece
    if min(*result.shape[1:], *swatch.shape[1:]) < size:
        return 0.0
    result, swatch = result.float(), swatch.float()
    pieces = _pieces(result, swatch, options)
    if len(pieces) == 0:
        return 0.0
    cell = max(1, size // 8)
    coarse = F.avg_pool2d(pieces, cell).flatten(1)
    found = torch.zeros(len(pieces), dtype=torch.bool)
    for top in range(0, swatch.shape[1] - size + 1, options.band_rows):
        band = swatch[:, top : top + options.band_rows + size - 1]
        features = _coarse_patches(band, size, cell)
        width = features.shape[2]
        features = features.flatten(1)  # (3 * 8 * 8, places)
        for i in (~found).nonzero()[:, 0].split(32):
            places = (coarse[i] @ features).topk(min(options.candidates, features.shape[1])).indices
            for k, candidates in zip(i.tolist(), places.tolist(), strict=True):
                correlations = (_correlation(pieces[k], band, *divmod(place, width)) for place in candidates)
                found[k] = any(value >= options.min_correlation for value in correlations)
    return float(found.float().mean())


def _pieces(result: Tensor, swatch: Tensor, options: CopyOptions) -> Tensor:
    """Pieces (n, 3, size, size) of a result on an even grid, their mean color removed, without the plain ones."""
    size = options.piece
    count = max(64, options.max_pieces * 2**20 // max(2**20, swatch.shape[1] * swatch.shape[2]))
    spots = even_grid(result.shape[1] - size, result.shape[2] - size, count)
    pieces = torch.stack([result[:, y : y + size, x : x + size] for y, x in spots])
    pieces = pieces - pieces.mean((2, 3), keepdim=True)
    contrast = float(swatch.flatten(1).var(1).mean().sqrt())
    return pieces[pieces.square().mean((1, 2, 3)).sqrt() > max(options.min_contrast * contrast, 0.01)]


def even_grid(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """Rows and columns of at most `count` places on an even grid over 0..height by 0..width."""
    n = max(2, math.isqrt(count))
    return sorted({(i * height // (n - 1), j * width // (n - 1)) for i in range(n) for j in range(n)})


def _coarse_patches(swatch: Tensor, size: int, cell: int) -> Tensor:
    """At each place (h, w) the unit-length coarse features of the patch that starts there, its mean color removed."""
    x = F.avg_pool2d(swatch[None].float(), cell, 1)[0]
    n = size // cell
    height, width = swatch.shape[1] - size + 1, swatch.shape[2] - size + 1
    features = torch.stack(
        [x[:, i * cell : i * cell + height, j * cell : j * cell + width] for i in range(n) for j in range(n)], 1
    )
    features = features - features.mean(1, keepdim=True)
    features = rearrange(features, "c n h w -> (c n) h w")
    unit: Tensor = features / features.norm(dim=0).clamp_min(1e-6)
    return unit


def _correlation(piece: Tensor, swatch: Tensor, y: int, x: int) -> float:
    """Normalized correlation of a piece with the patch of the swatch at (y, x)."""
    size = piece.shape[1]
    other = swatch[:, y : y + size, x : x + size].float()
    other = other - other.mean((1, 2), keepdim=True)
    return float((piece * other).sum() / (piece.norm() * other.norm()).clamp_min(1e-9))


@dataclass(frozen=True)
class Repetition:
    """The strongest repetition: its correlation in [-1, 1], and its lag (down, right) in pixels."""

    peak: float
    lag: tuple[int, int]


def repetition(image: Tensor, nearest: int = 8, largest: int = 1024) -> Repetition:
    """The strongest peak of the autocorrelation of a picture's (3, H, W) luminance away from the center.

    The luminance is freed of its trend (a quadratic in x and y); lags go up to half the picture. A peak is a local
    maximum at least `nearest` pixels from the center. The peak is 1 for exact repetition; compare a result with its
    swatch, since some materials repeat by nature. A picture of more than `largest` pixels a side is first shrunk by an
    integer factor; lags are given in the picture's own pixels.
    """
    shrink = -(-max(image.shape[1:]) // largest)
    gray = _detrended(F.avg_pool2d(image[None], shrink)[0].double().mean(0))
    h, w = gray.shape
    sums, energy = overlap_correlation(gray)
    value = sums / energy.clamp_min(0).sqrt().clamp_min(1e-9 * float(gray.square().sum()) + 1e-12)
    value = torch.fft.fftshift(value)[h // 2 : h + h // 2 + 1, w // 2 : w + w // 2 + 1]  # (lags down, lags right)
    down = torch.arange(value.shape[0], device=value.device) - (h - h // 2)
    right = torch.arange(value.shape[1], device=value.device) - (w - w // 2)
    far = down[:, None].square() + right[None, :].square() >= nearest**2
    top = F.max_pool2d(value[None, None], 7, 1, 3)[0, 0] == value
    candidates = torch.where(far & top, value, -1.0)
    best = int(candidates.argmax())
    y, x = best // value.shape[1], best % value.shape[1]
    return Repetition(float(candidates.max()), (int(down[y]) * shrink, int(right[x]) * shrink))


def _detrended(gray: Tensor) -> Tensor:
    """A picture (h, w) minus its least-squares quadratic."""
    h, w = gray.shape
    y = torch.linspace(-1, 1, h, dtype=gray.dtype, device=gray.device)[:, None].expand(h, w)
    x = torch.linspace(-1, 1, w, dtype=gray.dtype, device=gray.device)[None, :].expand(h, w)
    basis = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y]).flatten(1)
    normal, moments = basis @ basis.T, basis @ gray.flatten()
    # two rows or columns do not determine a quadratic
    weights: Tensor = torch.linalg.solve(normal, moments) if min(h, w) > 2 else torch.linalg.pinv(normal) @ moments
    return gray - (weights @ basis).view(h, w)
