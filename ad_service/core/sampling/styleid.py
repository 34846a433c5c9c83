"""StyleID (arXiv 2312.09008): the content in the exemplar's style, in one pass without a loss or a gradient.

A sampler like those in `samplers`: a generator that yields after every step and works on windows of the canvas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ad_service.core.canvas import Accumulator, cut_windows
from ad_service.core.sampling.attention import AttentionCapture, Transfer
from ad_service.core.sampling.diffusion import adain, ddim_step, predict_x0_eps, timesteps
from ad_service.core.sampling.samplers import Constraints, Plan, check_finite, window_batches


@dataclass(frozen=True)
class StyleIDOptions:
    """The paper's constants: `gamma` is the content's share of the queries, `tau` the temperature of the scores.

    Swapped keys give flatter scores than a picture's own, hence tau > 1 (its section 4).
    """

    gamma: float = 0.75
    tau: float = 1.5


def transfer_style(
    capture: AttentionCapture,
    constraints: Constraints,
    canvas: Tensor,
    plan: Plan,
    generator: torch.Generator,
    options: StyleIDOptions = StyleIDOptions(),
) -> Iterator[Tensor]:
    """Redraw the canvas (C, H, W), which holds the content's latents, while its queries read the exemplar.

    1. DDIM inversion takes content and exemplar from clean to z_T^c and z_T^s, through the steps' timesteps.
    2. Equation 8, by channel: z_T = sigma(z_T^s) (z_T^c - mu(z_T^c)) / sigma(z_T^c) + mu(z_T^s).
    3. One DDIM pass down, in which the last self-attention layers have the content's queries and read the exemplar's
       keys and values at the same t: see `Transfer`.

    Yields twice `plan.steps` times: the content during the inversion, then the predicted clean canvas. The inverted
    canvas of each step stays on the host, plan.steps canvases in all.
    """
    model = capture.model
    steps = timesteps(model, plan.steps, plan.strength)
    contents, styles = [canvas], [constraints.zs]
    for t, up in pairwise([0, *reversed(steps)]):
        total = Accumulator(len(canvas), constraints.shape)
        for batch in window_batches(capture, constraints.shape, generator):
            total.add(batch, _invert(capture, cut_windows(contents[-1], batch, constraints.shape), t, up))
        contents.append(check_finite(total.mean()))
        styles.append(_invert(capture, styles[-1], t, up))
        yield canvas
    canvas = adain(contents[-1], styles[-1])
    for i, (t, after) in enumerate(pairwise([*steps, 0])):
        content, reference = contents.pop(), capture.reference(styles.pop(), t)
        total, clean = (Accumulator(len(canvas), constraints.shape) for _ in range(2))
        double_grid = i >= len(steps) - plan.double_grid_steps
        for batch in window_batches(capture, constraints.shape, generator, double_grid):
            z, zc = (cut_windows(u, batch, constraints.shape).to(model.device) for u in (canvas, content))
            with torch.no_grad():
                transfer = Transfer(capture.record(zc, t), reference, options.gamma, options.tau)
                prediction = capture.predict_transferred(z, t, transfer)
            x0, eps = predict_x0_eps(model, z, prediction, t)
            z = ddim_step(model, x0, eps, after) if after else x0
            total.add(batch, z)
            clean.add(batch, x0)
        canvas = check_finite(total.mean())
        yield clean.mean()


def _invert(capture: AttentionCapture, z: Tensor, t: int, up: int) -> Tensor:
    """Latents z (B, C, h, w) on the host, taken from t, where 0 is clean, up the DDIM path to `up`.

    The noise at `up` is assumed to be what the network predicts for z (arXiv 2105.05233, appendix F).
    """
    model = capture.model
    with torch.no_grad():
        prediction, _ = capture.predict_and_record(z.to(model.device), up)
    _, eps = predict_x0_eps(model, z.to(model.device), prediction, up)
    a = float(model.alphas[t]) if t else 1.0
    x0 = (z - (1 - a) ** 0.5 * eps.to(z.device)) / a**0.5
    return ddim_step(model, x0, eps.to(z.device), up)
