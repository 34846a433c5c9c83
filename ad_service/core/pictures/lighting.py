"""The broad light on a swatch: a photograph that is brighter at one side gives a texture of bright and dark patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.labels import used

GRID = 64
"""Cells along a side in which the light is measured."""

DEGREE = 3
"""Of the polynomial that the light's logarithm is taken to be: no stone is small enough to be taken for light."""

DARKEST = 0.005
"""Added to the luminance, so that black has a logarithm."""


def flatten_lighting(picture: Tensor, amount: float, regions: Tensor | None = None) -> Tensor:
    """A picture (3, h, w) in [0, 1] without `amount` (0 to 1) of its broad light and shade, as bright as before.

    The logarithm of its luminance is fitted by a polynomial of the place; what regions (h, w) of the picture are darker
    or brighter as a whole is the material's own and stays.
    """
    h, w = picture.shape[1:]
    grid = min(GRID, h), min(GRID, w)
    terms = _terms(*grid)
    light = (F.adaptive_avg_pool2d(picture.mean(0)[None], grid)[0] + DARKEST).log()
    if regions is None:
        own = torch.ones(light.numel(), 1)
    else:
        own = torch.stack(
            [F.adaptive_avg_pool2d((regions == i).float()[None], grid)[0].flatten() for i in used(regions)], 1
        )
    fit = torch.linalg.lstsq(torch.cat([terms, own], 1), light.flatten()[:, None], driver="gelsd").solution
    shade = _terms(h, w) @ fit[: terms.shape[1]]
    gain = (-amount * (shade - shade.mean())).exp().view(h, w)
    out = picture * gain
    return (out * (picture.mean() / out.mean().clamp_min(1e-6))).clamp(0, 1)


def _terms(h: int, w: int) -> Tensor:
    """The powers y^i x^j with 0 < i + j <= DEGREE of the places of a picture in [-1, 1]: (h * w, terms)."""
    y, x = (((torch.arange(n) + 0.5) / n * 2 - 1) for n in (h, w))
    powers = [(i, j) for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i) if i + j]
    return torch.stack([(y[:, None] ** i * x[None, :] ** j).flatten() for i, j in powers], 1)
