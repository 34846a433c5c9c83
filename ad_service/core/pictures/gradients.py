"""Steps of tone between pieces of a picture, closed by a smooth correction: gradient-domain blending."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.steps import checkpoint


@dataclass(frozen=True)
class BlendOptions:
    """How steps are closed.

    Attributes:
        structure: step in [0, 1] from which it is a structure that does not continue, which a correction would only
            smear over its surroundings; smaller ones count less the nearer they are to it. Set by eye on bricks,
            concrete and beans.
        fade: weight that pulls the correction to 0, per pixel.
        iterations: of conjugate gradients at each of the resolutions, at most.
        tolerance: part of the residual without a correction at which they end.
    """

    structure: float = 0.16
    fade: float = 1e-5
    iterations: int = 240
    tolerance: float = 1e-3


def close_steps(
    picture: Tensor,
    wanted: tuple[Tensor, Tensor],
    cuts: tuple[Tensor, Tensor],
    free: Tensor,
    counted: tuple[Tensor, Tensor],
    tiles: tuple[bool, bool],
    options: BlendOptions = BlendOptions(),
) -> Tensor:
    """A picture (C, h, w) plus a smooth correction inside `free` (h, w), so that its pieces meet without a step.

    Minimizes the squared difference of the picture's gradients from the wanted ones (Perez et al. 2003), where a step
    as large as a structure does not count (Tukey's biweight).

    Args:
        picture: the pieces as they are.
        wanted: differences (C, h, w) that each pixel should have to the next along y and along x, over cuts.
        cuts: (h, w) bool, where the pixel and the next along y and along x belong to two pieces.
        free: where the picture may change.
        counted: (h, w) bool, where the difference of a pixel to the next along y and along x counts at all.
        tiles: whether y and x tile; otherwise the last line has no next one.
    """
    rhs, anchor, edges = torch.zeros_like(picture), options.fade * free, []
    for axis, tile in enumerate(tiles):
        step = (wanted[axis] - (picture.roll(-1, axis + 1) - picture)) * cuts[axis]
        weight = (1 - step.square().mean(0) / options.structure**2).clamp_min(0).square() * counted[axis]
        if not tile:
            weight.select(axis, -1).zero_()
        before, after = weight * free, weight * free.roll(-1, axis)
        rhs += (after * step).roll(1, axis + 1) - before * step
        edges.append(before * free.roll(-1, axis))
        anchor = anchor + (before - edges[-1]) + (after - edges[-1]).roll(1, axis)
    return (picture + _solve(rhs, (edges[0], edges[1]), anchor, options)).clamp(0, 1)


def _solve(rhs: Tensor, edges: tuple[Tensor, Tensor], anchor: Tensor, options: BlendOptions) -> Tensor:
    """The correction (C, h, w) by conjugate gradients that start from the solution for blocks of 4 x 4 pixels.

    `edges` (h, w) are the weights between each pixel and the next along y and x, `anchor` (h, w) those that pull it to
    0. The edges between blocks are divided by four: a smooth function changes four times as much from block to block
    as from pixel to pixel.
    """
    h, w = anchor.shape
    start = torch.zeros_like(rhs)
    if min(h, w) >= 16 and h % 4 == 0 and w % 4 == 0:
        down = edges[0][3::4].unflatten(1, (w // 4, 4)).sum(2) / 4
        right = edges[1][:, 3::4].unflatten(0, (h // 4, 4)).sum(1) / 4
        pull = F.avg_pool2d(anchor[None], 4)[0] * 4
        coarse = _solve(F.avg_pool2d(rhs[None], 4)[0] * 16, (down, right), pull, options)
        start = F.interpolate(coarse[None], (h, w), mode="bilinear", align_corners=False)[0] * (anchor > 0)

    def apply(c: Tensor) -> Tensor:
        y, x = edges[0] * (c.roll(-1, 1) - c), edges[1] * (c.roll(-1, 2) - c)
        return y.roll(1, 1) - y + x.roll(1, 2) - x + anchor * c

    correction = start
    residual = rhs - apply(start)
    direction, energy = residual, residual.square().sum((1, 2), keepdim=True)
    enough = options.tolerance**2 * rhs.square().sum((1, 2), keepdim=True)
    for i in range(options.iterations):
        if i % 16 == 0:
            checkpoint()
            if bool((energy <= enough).all()):
                break
        applied = apply(direction)
        along = energy / (direction * applied).sum((1, 2), keepdim=True).clamp_min(1e-20)
        correction = correction + along * direction
        residual = residual - along * applied
        new = residual.square().sum((1, 2), keepdim=True)
        direction = residual + new / energy.clamp_min(1e-20) * direction
        energy = new
    return correction
