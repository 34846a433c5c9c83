"""The network that estimates relief and roughness from colors: a small U-Net on features, circular where they tile.

It works at a quarter of the picture's resolution. What it can say about finer detail is how much of the luminance's
detail belongs to the relief, so finer detail is luminance times that gain.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tiles = tuple[bool, bool]
"""Whether y and x of a picture tile."""

CELL = 4
"""Pixels along the side of a cell of the finest level."""
CHANNELS = (32, 64, 128, 128)
"""At 1/4, 1/8, 1/16 and 1/32 of the picture's resolution."""
GRID = CELL * 2 ** (len(CHANNELS) - 1)
"""Sides of the network's input are multiples of this."""
FEATURES = 17
LIMIT = 4.0
"""Features further from their mean, in deviations, are cut off: the network saw hardly any."""
CONTEXT = 48
"""Numbers that describe the whole picture."""
DEPTH_UNIT = 0.25
"""A level's output of 1 is this many of its cells high, so that all levels start with slopes of the same order."""
FIRST_GAIN = 0.2
"""Of the luminance on the height before training: bright is high."""
CONTRAST_FLOOR = 0.05
"""Deviation of the logarithm of the luminance below which contrast is not raised to the usual one."""
LUMINANCE = (0.299, 0.587, 0.114)


def pad(x: Tensor, n: int, tiles: Tiles, edge: str = "constant") -> Tensor:
    """Pad by n on each side: circular along an axis that tiles, else with zeros or what `edge` says."""
    y_mode, x_mode = ("circular" if t else edge for t in tiles)
    return F.pad(F.pad(x, (0, 0, n, n), y_mode), (n, n, 0, 0), x_mode)


def enlarge(x: Tensor, tiles: Tiles) -> Tensor:
    """Twice the size, bilinear; across the edge where an axis tiles."""
    if not any(tiles):
        return F.interpolate(x, scale_factor=2.0, mode="bilinear")
    return F.interpolate(pad(x, 1, tiles, "replicate"), scale_factor=2.0, mode="bilinear")[:, :, 2:-2, 2:-2]


def log_luminance(color: Tensor) -> Tensor:
    """(B, 3, h, w) in [0, 1] -> (B, 1, h, w), natural logarithm; black is -3."""
    luminance = (color * color.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)
    return (luminance + 0.05).log()


def around(x: Tensor, doublings: int, tiles: Tiles) -> Tensor:
    """Local mean over about 2^(doublings + 1) pixels."""
    x = F.avg_pool2d(x, 2**doublings)
    for _ in range(doublings):
        x = enlarge(x, tiles)
    return x


def smooth(x: Tensor, tiles: Tiles) -> Tensor:
    """Blur (1, 4, 6, 4, 1) / 16 along both axes, a standard deviation of one pixel."""
    weight = x.new_tensor([1, 4, 6, 4, 1]) / 16
    channels = x.shape[1]
    x = pad(x, 2, tiles, "replicate")
    x = F.conv2d(x, weight.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)
    return F.conv2d(x, weight.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)


def curvature(x: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor]:
    """Smallest and largest eigenvalue of the Hessian: ridges and valleys in any direction. (B, 1, h, w)."""
    p = pad(x, 1, tiles, "replicate")
    center = p[..., 1:-1, 1:-1]
    xx = p[..., 1:-1, 2:] - 2 * center + p[..., 1:-1, :-2]
    yy = p[..., 2:, 1:-1] - 2 * center + p[..., :-2, 1:-1]
    xy = (p[..., 2:, 2:] - p[..., 2:, :-2] - p[..., :-2, 2:] + p[..., :-2, :-2]) / 4
    middle, half = (xx + yy) / 2, (((xx - yy) / 2).square() + xy.square()).sqrt()
    return middle - half, middle + half


def features(color: Tensor, tiles: Tiles) -> Tensor:
    """What the network reads of a picture: color, luminance evened at two sizes, grain, chroma, thin lines, saturation.

    (B, 3, h, w) in [0, 1] -> (B, FEATURES, h / 4, w / 4).
    """
    small = F.avg_pool2d(color, CELL)
    log = log_luminance(color)
    spread = (log.var((1, 2, 3), keepdim=True) + CONTRAST_FLOOR**2).sqrt()
    evened = []
    for doublings in (3, 5):
        detail = log - around(log, doublings, tiles)
        evened.append(detail / (around(detail * detail, doublings, tiles) + 0.03**2).sqrt())
    chroma = torch.cat([color[:, :1] - color[:, 1:2], color[:, 2:] - (color[:, :1] + color[:, 1:2]) / 2], 1)
    chroma = F.avg_pool2d(chroma, CELL)
    own_chroma = (chroma - chroma.mean((2, 3), keepdim=True)) / (chroma.var((2, 3), keepdim=True) + 0.02**2).sqrt()
    half = F.avg_pool2d(log, 2)
    grain = [log - enlarge(half, tiles), half - enlarge(F.avg_pool2d(half, 2), tiles)]
    energy = [F.avg_pool2d(band.square(), CELL // (1 + i)) for i, band in enumerate(grain)]
    ridge, valley = curvature(smooth(evened[0], tiles), tiles)
    return torch.cat(
        [
            2 * small - 1,
            F.avg_pool2d((log - log.mean((2, 3), keepdim=True)) / spread, CELL),
            *(F.avg_pool2d(e, CELL) for e in evened),
            -F.max_pool2d(-evened[0], CELL),
            F.max_pool2d(evened[0], CELL),
            *((e + 1e-6).log() / 4 + 2 for e in energy),
            *((smooth(e, tiles) + 1e-6).log() / 4 + 2 for e in energy),
            own_chroma,
            -F.max_pool2d(-ridge, CELL),
            F.max_pool2d(valley, CELL),
            (small.amax(1, keepdim=True) - small.amin(1, keepdim=True)) / (small.amax(1, keepdim=True) + 0.05),
        ],
        1,
    )


class Conv(nn.Module):
    """A 3x3 convolution that keeps the size, batch norm and, unless it ends a block, SiLU."""

    def __init__(self, inputs: int, outputs: int, active: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.active = active

    def forward(self, x: Tensor, tiles: Tiles) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        y = F.conv2d(pad(x, 1, tiles), self.conv.weight) if any(tiles) else self.conv(x)
        y = self.norm(y)
        return F.silu(y) if self.active else y


class Block(nn.Module):
    """Two convolutions beside a shortcut; the context scales and shifts the channels between them."""

    def __init__(self, inputs: int, outputs: int, context: bool = False) -> None:
        super().__init__()
        self.first = Conv(inputs, outputs)
        self.second = Conv(outputs, outputs, active=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.context = nn.Linear(CONTEXT, 2 * outputs) if context else None

    def forward(self, x: Tensor, tiles: Tiles, context: Tensor | None = None) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w); context is (B, CONTEXT)."""
        y = self.first(x, tiles)
        if self.context is not None and context is not None:
            scale, shift = self.context(context)[:, :, None, None].chunk(2, 1)
            y = y * (1 + scale) + shift
        return F.silu(self.second(y, tiles) + self.shortcut(x))


class MapsNetwork(nn.Module):
    """Estimates height and roughness from features. Each level adds its part of both, coarse to fine.

    A part is an amount, and a gain on the luminance's band: dark is deep, or the reverse, by how much and where.
    """

    def __init__(self) -> None:
        super().__init__()
        upward = CHANNELS[::-1]
        self.norm = nn.BatchNorm2d(FEATURES)
        self.stem = Block(FEATURES, CHANNELS[0])
        self.down = nn.ModuleList(Block(a, b) for a, b in pairwise(CHANNELS))
        self.describe = nn.Sequential(nn.Linear(2 * FEATURES + 2 * CHANNELS[-1], CONTEXT), nn.SiLU(), nn.Dropout(0.2))
        self.bottom = Block(upward[0], upward[0], context=True)
        self.lift = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(upward))
        self.up = nn.ModuleList(Block(c, c, context=True) for c in upward[1:])
        heads = [nn.Conv2d(c, 4, 1) for c in upward]
        self.heads = nn.ModuleList(heads)
        for head in heads:
            nn.init.normal_(head.weight, std=0.01)
            head.bias = nn.Parameter(torch.tensor([0.0, 0.0, FIRST_GAIN, 0.0]))

    def forward(self, x: Tensor, tiles: Tiles = (False, False)) -> tuple[Tensor, Tensor, Tensor]:
        """Height, roughness and the gain of finer detail.

        Args:
            x: (B, FEATURES, h, w) `features` of pictures; h and w are multiples of GRID / CELL.
            tiles: whether y and x of the pictures tile.

        Returns:
            height (B, 1, h, w) in pixels of the picture, up to a constant; roughness (B, 1, h, w) in [0, 1]; the gain
            (B, 1, h, w) of the luminance's finest band here on the height.
        """
        bands = pyramid(x[:, 3:4], len(CHANNELS), tiles)
        x = self.norm(x).clamp(-LIMIT, LIMIT)
        seen = [x.mean((2, 3)), x.var((2, 3)).add(1e-4).sqrt()]
        x = self.stem(x, tiles)
        levels = [x]
        for block in self.down:
            x = block(F.avg_pool2d(x, 2), tiles)
            levels.append(x)
        seen += [x.mean((2, 3)), x.amax((2, 3))]
        context = self.describe(torch.cat(seen, 1).clamp(-LIMIT, LIMIT))
        x = self.bottom(x, tiles, context)
        cell = float(GRID)
        head = self.heads[0](x).float()
        maps = part(head, bands[-1], cell)
        for i, block in enumerate(self.up):
            x = F.interpolate(self.lift[i](x), scale_factor=2.0) + levels[-2 - i]
            x = block(x, tiles, context)
            cell /= 2
            head = self.heads[i + 1](x).float()
            maps = enlarge(maps, tiles) + part(head, bands[-2 - i], cell)
        return maps[:, :1], maps[:, 1:].sigmoid(), DEPTH_UNIT * cell * head[:, 2:3]


def part(head: Tensor, band: Tensor, cell: float) -> Tensor:
    """What a level adds to height (pixels) and roughness (logits): an amount, and a gain on the luminance's band.

    Args:
        head: (B, 4, h, w) amounts and gains of height and roughness.
        band: (B, 1, h, w) of the luminance.
        cell: pixels along the side of the level's cells.
    """
    amount, gain = head.chunk(2, 1)
    maps = amount + gain * band
    return torch.cat([DEPTH_UNIT * cell * maps[:, :1], maps[:, 1:]], 1)


def pyramid(x: Tensor, levels: int, tiles: Tiles) -> list[Tensor]:
    """Laplacian pyramid (B, 1, h, w), (B, 1, h / 2, w / 2), ...; the last one has mean 0."""
    bands = []
    for _ in range(levels - 1):
        low = F.avg_pool2d(x, 2)
        bands.append(x - enlarge(low, tiles))
        x = low
    return [*bands, x - x.mean((2, 3), keepdim=True)]
