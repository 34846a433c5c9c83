"""StyleID (arXiv 2312.09008): the content in the swatch's style, in one pass with no loss and no gradient.

A sampler like those of `samplers`: a generator that yields after every step and works on windows of the canvas.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from ad_service.core.canvas import Accumulator, cut_windows
from ad_service.core.sampling.attention import Tape, Transfer
from ad_service.core.sampling.samplers import Plan, Subject, batches, finite, recombine, split, timesteps

KEEP = 0.75
"""gamma of the paper: how much of the queries is the content's."""

SHARPNESS = 1.5
"""tau of the paper: swapped keys give flatter scores than a picture's own."""


def preview(tape: Tape, subject: Subject, canvas: Tensor, plan: Plan, generator: torch.Generator) -> Iterator[Tensor]:
    """The canvas (C, H, W), which is the content's latents, drawn anew while its queries read the swatch.

    1. DDIM inversion takes content and swatch from clean up to z_T^c and z_T^s, through the steps' timesteps.
    2. Equation 8, by channel: z_T = sigma(z_T^s) (z_T^c - mu(z_T^c)) / sigma(z_T^c) + mu(z_T^s).
    3. One DDIM pass down, in which the last self-attention layers ask with the content's queries and read the swatch's
       keys and values, each of the same t: see `Transfer`.

    Yields twice `plan.steps` times: the content while it is inverted, then the clean canvas as it is predicted so far.
    The inverted canvas of each step is kept on the host, plan.steps canvases in all.
    """
    backbone = tape.backbone
    steps = timesteps(backbone, plan)
    contents, styles = [canvas], [subject.zs]
    for t, up in pairwise([0, *reversed(steps)]):
        total = Accumulator(len(canvas), subject.shape)
        for spots in batches(tape, subject.shape, generator):
            total.add(spots, _raised(tape, cut_windows(contents[-1], spots, subject.shape), t, up))
        contents.append(finite(total.mean()))
        styles.append(_raised(tape, styles[-1], t, up))
        yield canvas
    canvas = renormalised(contents[-1], styles[-1])
    for i, (t, after) in enumerate(pairwise([*steps, 0])):
        content, reference = contents.pop(), tape.reference(styles.pop(), t)
        total, clean = (Accumulator(len(canvas), subject.shape) for _ in range(2))
        for spots in batches(tape, subject.shape, generator, twice=i >= len(steps) - plan.settle):
            z, zc = (cut_windows(u, spots, subject.shape).to(backbone.device) for u in (canvas, content))
            with torch.no_grad():
                prediction = tape.restyle(z, t, Transfer(tape.layers(zc, t), reference, KEEP, SHARPNESS))
            x0, eps = split(backbone, z, prediction, t)
            z = recombine(backbone, x0, eps, after) if after else x0
            total.add(spots, z)
            clean.add(spots, x0)
        canvas = finite(total.mean())
        yield clean.mean()


def renormalised(canvas: Tensor, like: Tensor) -> Tensor:
    """A canvas (C, H, W) with the channel means and standard deviations of latents (R, C, h, w): AdaIN."""
    mean, std = canvas.mean((1, 2), keepdim=True), canvas.std((1, 2), keepdim=True)
    target = like.transpose(0, 1).flatten(1)
    return (canvas - mean) / std.clamp_min(1e-6) * target.std(1)[:, None, None] + target.mean(1)[:, None, None]


def _raised(tape: Tape, z: Tensor, t: int, up: int) -> Tensor:
    """Latents z (B, C, h, w) on the host, taken from t, where 0 is clean, up the DDIM path to `up`.

    The noise at `up` is taken to be what the network sees in z (arXiv 2105.05233, appendix F).
    """
    backbone = tape.backbone
    with torch.no_grad():
        prediction, _ = tape.observe(z.to(backbone.device), up)
    _, eps = split(backbone, z.to(backbone.device), prediction, up)
    a = float(backbone.alphas[t]) if t else 1.0
    x0 = (z - (1 - a) ** 0.5 * eps.to(z.device)) / a**0.5
    return recombine(backbone, x0, eps.to(z.device), up)
