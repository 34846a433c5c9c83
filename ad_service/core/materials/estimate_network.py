"""The network that estimates a relief and a roughness from colors: a convolutional U-Net that can be circular."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tiles = tuple[bool, bool]
"""Whether y and x of a picture tile."""

GRID = 32
"""Sides of the network's input are multiples of this."""
CHANNELS = (32, 48, 96, 160, 192)
"""At 1/2, 1/4, 1/8, 1/16 and 1/32 of the picture's resolution."""
CONTEXT = 64
"""Numbers that describe the whole picture."""
DEPTH_UNIT = 0.25
"""A level's output of 1 is this many of its cells high, so that all levels start with slopes of the same order."""
LUMINANCE = (0.299, 0.587, 0.114)


def pad(x: Tensor, n: int, tiles: Tiles) -> Tensor:
    """Pad by n on each side: circular along an axis that tiles, else with zeros."""
    y_mode, x_mode = ("circular" if t else "constant" for t in tiles)
    return F.pad(F.pad(x, (0, 0, n, n), y_mode), (n, n, 0, 0), x_mode)


def enlarge(x: Tensor, tiles: Tiles) -> Tensor:
    """Twice the size, bilinear; across the edge where an axis tiles."""
    if not any(tiles):
        return F.interpolate(x, scale_factor=2.0, mode="bilinear")
    y_mode, x_mode = ("circular" if t else "replicate" for t in tiles)
    x = F.pad(F.pad(x, (0, 0, 1, 1), y_mode), (1, 1, 0, 0), x_mode)
    return F.interpolate(x, scale_factor=2.0, mode="bilinear")[:, :, 2:-2, 2:-2]


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
    """Estimates height in pixels and roughness from color. Each level adds its part of both, coarse to fine.

    The normal is the slope of the height (`core.materials.estimate`), so the two agree.
    """

    def __init__(self) -> None:
        super().__init__()
        half, *deeper = CHANNELS
        self.stem = Conv(4 * 4, half)
        self.down = nn.ModuleList(Block(a, b) for a, b in zip(CHANNELS, deeper, strict=False))
        self.bottom = Block(CHANNELS[-1], CHANNELS[-1])
        self.describe = nn.Sequential(nn.Linear(sum(CHANNELS[-2:]), CONTEXT), nn.SiLU(), nn.Dropout(0.1))
        upward = CHANNELS[::-1]
        self.lift = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(upward, upward[1:], strict=False))
        self.up = nn.ModuleList(Block(c, c, context=True) for c in upward[1:-1])
        self.top = Conv(half, half)
        self.heads = nn.ModuleList(nn.Conv2d(c, 2, 1) for c in reversed(deeper))
        self.full = nn.Conv2d(half, 8, 1)
        for head in (*self.heads, self.full):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

    def forward(self, color: Tensor, tiles: Tiles = (False, False)) -> tuple[Tensor, Tensor]:
        """Height and roughness of colors.

        Args:
            color: (B, 3, h, w) in [0, 1], sRGB; h and w are multiples of GRID.
            tiles: whether y and x of the pictures tile.

        Returns:
            height (B, 1, h, w) in pixels, up to a constant; roughness (B, 1, h, w) in [0, 1].
        """
        x = self.stem(inputs(color, tiles), tiles)
        levels = [x]
        for block in self.down:
            x = block(F.avg_pool2d(x, 2), tiles)
            levels.append(x)
        x = self.bottom(x, tiles)
        context = self.describe(torch.cat([levels[-2].mean((2, 3)), x.mean((2, 3))], 1))
        cell = float(GRID)
        maps = self._part(self.heads[0], x, cell)
        for i, block in enumerate(self.up):
            x = F.interpolate(self.lift[i](x), scale_factor=2.0) + levels[-2 - i]
            x = block(x, tiles, context)
            cell /= 2
            maps = enlarge(maps, tiles) + self._part(self.heads[i + 1], x, cell)
        x = self.top(F.interpolate(self.lift[-1](x), scale_factor=2.0) + levels[0], tiles)
        maps = enlarge(enlarge(maps, tiles), tiles) + F.pixel_shuffle(self._part(self.full, x, 1.0), 2)
        return maps[:, :1], maps[:, 1:].sigmoid()

    def _part(self, head: nn.Module, x: Tensor, cell: float) -> Tensor:
        """A level's height (pixels) and roughness (logits), the first half and the second half of the channels."""
        height, roughness = head(x).float().chunk(2, 1)
        return torch.cat([DEPTH_UNIT * cell * height, roughness], 1)


def inputs(color: Tensor, tiles: Tiles) -> Tensor:
    """What the network reads: color and luminance with local contrast evened out, 2x2 pixels as channels.

    (B, 3, h, w) in [0, 1] -> (B, 16, h / 2, w / 2).
    """
    luminance = (color * color.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)
    log = (luminance + 0.05).log()
    detail = log - spread(log, tiles)
    even = detail / (spread(detail * detail, tiles) + 0.03**2).sqrt()
    return F.pixel_unshuffle(torch.cat([2 * color - 1, 0.5 * even], 1), 2)


def spread(x: Tensor, tiles: Tiles) -> Tensor:
    """Local mean over about 32 pixels."""
    x = F.avg_pool2d(x, 16)
    for _ in range(4):
        x = enlarge(x, tiles)
    return x
