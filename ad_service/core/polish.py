"""The last pass in pixels: gives a result the patch statistics of its swatch, grain and contrast above all.

Sliced optimal transport of 7x7 patches (Pitié et al. 2007; as a texture loss: arXiv 2006.07229, 2203.11862): along
random directions of patch space the result's values are moved to the swatch's quantiles. Directions are drawn within
bands of the swatch's principal components, so that fine grain, which has little energy, counts as much as broad
shading. The quantiles are those of the whole picture and the moves are local: the picture is worked on in tiles of any
size, on the torus, and no border can come of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ad_service.core.labels import used

SIDE = 7
QUANTILES = 128
SAMPLES = 32768
TILE = 1024


@dataclass(frozen=True)
class Passes:
    """How much is done: iterations at half and at full size, directions drawn from each band, and damping."""

    half: int = 6
    full: int = 8
    directions: int = 6
    damping: float = 0.5
    bands: tuple[int, ...] = (0, 6, 24, 72, 147)


def polish(
    image: Tensor,
    swatch: Tensor,
    tiles: tuple[bool, bool],
    maps: tuple[Tensor | None, Tensor | None],
    generator: torch.Generator,
    passes: Passes | None = None,
) -> Iterator[float]:
    """Work on image (H, W, 3) uint8 in place, towards swatch (3, h, w) in [0, 1]; yields the fraction done.

    `tiles` says whether y and x tile. `maps`, a layout (H, W) and regions (h, w), match label by label.
    """
    layout, regions = maps
    passes = passes or Passes()
    picture = image.permute(2, 0, 1).float() / 255
    total = passes.half + passes.full
    for k in range(total):
        if k < passes.half:
            small = F.avg_pool2d(picture[None], 2)[0] if min(picture.shape[1:]) >= 4 * SIDE else picture
            move = _iteration(
                small, F.avg_pool2d(swatch[None], 2)[0], _half(layout), _half(regions), tiles, generator, passes
            )
            move = F.interpolate(
                _pad((move - small)[None], 2, tiles), scale_factor=2, mode="bilinear", align_corners=False
            )[0]
            picture = (picture + move[:, 4:-4, 4:-4]).clamp(0, 1)
        else:
            picture = _iteration(picture, swatch, layout, regions, tiles, generator, passes).clamp(0, 1)
        yield (k + 1) / total
    image.copy_((picture * 255).round().byte().permute(1, 2, 0))


def _half(labels: Tensor | None) -> Tensor | None:
    return None if labels is None else labels[::2, ::2]


def _iteration(
    picture: Tensor,
    swatch: Tensor,
    layout: Tensor | None,
    regions: Tensor | None,
    tiles: tuple[bool, bool],
    generator: torch.Generator,
    passes: Passes,
) -> Tensor:
    """One move of every patch of a picture (3, H, W) along fresh directions."""
    theirs, their_labels = _patches(swatch, regions, (False, False), generator)
    ours, our_labels = _patches(picture, layout, tiles, generator)
    basis = torch.linalg.svd(theirs - theirs.mean(0), full_matrices=False)[2]
    directions, gains = [], []
    for low, high in zip(passes.bands, passes.bands[1:], strict=False):
        mix = torch.linalg.qr(torch.randn(high - low, passes.directions, generator=generator))[0]
        directions.append(mix.t() @ basis[low:high])
        gains += [(high - low) / mix.shape[1]] * mix.shape[1]
    bank = torch.cat(directions)
    gain = torch.tensor(gains).clamp_max(8.0) * passes.damping / SIDE**2
    at = torch.linspace(0, 1, QUANTILES)
    tables = {}
    for label in [None] if our_labels is None or their_labels is None else used(our_labels):
        mine = ours if label is None else ours[our_labels == label]
        other = theirs if label is None else theirs[their_labels == label]
        if len(mine) >= 64 and len(other) >= 64:
            tables[label] = tuple(torch.quantile(u @ bank.t(), at, dim=0).t().contiguous() for u in (mine, other))
    out = picture.clone()
    pad = SIDE - 1
    padded = _pad(picture[None], pad, tiles)[0]
    for y in range(0, picture.shape[1], TILE):
        for x in range(0, picture.shape[2], TILE):
            h, w = min(TILE, picture.shape[1] - y), min(TILE, picture.shape[2] - x)
            patch = padded[:, y : y + h + 2 * pad, x : x + w + 2 * pad]
            values = F.conv2d(patch[None], rearrange(bank, "k (c h w) -> k c h w", c=3, h=SIDE))[0]
            move = torch.zeros_like(values)
            for label, (mine, other) in tables.items():
                moved = _transport(values, mine, other) - values
                if label is None or layout is None:
                    move = moved
                else:
                    near = _pad(layout[None, None].float(), SIDE // 2, tiles)[0, 0]
                    move = torch.where(near[y : y + h + pad, x : x + w + pad] == label, moved, move)
            weights = rearrange(bank * gain[:, None], "k (c h w) -> k c h w", c=3, h=SIDE)
            change = F.conv_transpose2d(move[None], weights)[0]
            out[:, y : y + h, x : x + w] += change[:, pad : pad + h, pad : pad + w]
    return out


def _transport(values: Tensor, mine: Tensor, other: Tensor) -> Tensor:
    """Values (k, h, w) from the quantiles `mine` (k, n) to the quantiles `other`, linear between them."""
    out = torch.empty_like(values)
    for k in range(len(values)):
        i = torch.bucketize(values[k], mine[k]).clamp(1, mine.shape[1] - 1)
        low, high = mine[k][i - 1], mine[k][i]
        share = ((values[k] - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
        out[k] = torch.lerp(other[k][i - 1], other[k][i], share)
    return out


def _pad(picture: Tensor, margin: int, tiles: tuple[bool, bool]) -> Tensor:
    """A picture (1, C, H, W) with a margin: wrapped along tiling axes, its edge repeated along others."""
    for sides, tile in (((0, 0, margin, margin), tiles[0]), ((margin, margin, 0, 0), tiles[1])):
        picture = F.pad(picture, sides, "circular" if tile else "replicate")
    return picture


def _patches(
    picture: Tensor, labels: Tensor | None, tiles: tuple[bool, bool], generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Random patches (n, 3 * 7 * 7) of a picture (3, H, W), and the labels of their middles (n,)."""
    H, W = picture.shape[1:]
    count = min(SAMPLES, H * W)
    spans = [n if tile else n - SIDE + 1 for n, tile in zip((H, W), tiles, strict=True)]
    y, x = (torch.randint(span, (count,), generator=generator) for span in spans)
    offset = torch.arange(SIDE)
    rows = (y[:, None, None] + offset[None, :, None]) % H
    columns = (x[:, None, None] + offset[None, None, :]) % W
    patches = rearrange(picture[:, rows, columns], "c n h w -> n (c h w)")
    middle = SIDE // 2
    return patches, None if labels is None else labels[(y + middle) % H, (x + middle) % W]
