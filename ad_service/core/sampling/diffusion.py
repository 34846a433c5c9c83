"""The noise schedule in formulas: timesteps, adding noise, what a prediction means, the DDIM step, and AdaIN."""

from __future__ import annotations

import torch
from torch import Tensor

from ad_service.core.backbone.model import Model


def timesteps(model: Model, steps: int, strength: float) -> list[int]:
    """`steps` integer timesteps that fall from strength * T, in the spacing of the model's family.

    "leading" are those of diffusers' DDIMScheduler with an offset of 1: 991, 981 ... 1 for 100 steps of 1000.
    """
    T = len(model.alphas)
    if model.family.spacing == "trailing":
        top = strength * (T - 1)
        return [max(1, round(top * (1 - i / steps))) for i in range(steps)]
    top = strength * T
    stride = top // steps or top / steps
    return [min(round((steps - 1 - i) * stride) + 1, T - 1) for i in range(steps)]


def timesteps_after(model: Model, steps: list[int]) -> list[int | None]:
    """The timestep to which each step leads: the next one; the last step leads to 0, or to the clean latents (None)."""
    return [*steps[1:], 0 if model.family.spacing == "leading" else None]


def add_noise(z: Tensor, model: Model, t: int, generator: torch.Generator) -> Tensor:
    """sqrt(a) z + sqrt(1 - a) noise, drawn on the host so that every device gets the same."""
    return ddim_step(model, z, torch.randn(z.shape, generator=generator).to(z.device), t)


def predict_x0_eps(model: Model, z: Tensor, prediction: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """The clean latents and the noise that z consists of, according to the network's prediction at t."""
    a = float(model.alphas[t])
    signal, noise = a**0.5, (1 - a) ** 0.5
    if model.prediction == "v_prediction":
        return signal * z - noise * prediction, noise * z + signal * prediction
    if model.prediction == "epsilon":
        return (z - noise * prediction) / max(signal, 1e-3), prediction
    return prediction, (z - signal * prediction) / max(noise, 1e-3)


def ddim_step(model: Model, x0: Tensor, eps: Tensor, t: int) -> Tensor:
    """The deterministic DDIM step to t (arXiv 2010.02502, equation 12)."""
    a = float(model.alphas[t])
    return a**0.5 * x0 + (1 - a) ** 0.5 * eps


def adain(canvas: Tensor, like: Tensor) -> Tensor:
    """A canvas (C, H, W) with the channel means and standard deviations of latents (R, C, h, w) (arXiv 1703.06868)."""
    mean, std = canvas.mean((1, 2), keepdim=True), canvas.std((1, 2), keepdim=True)
    target = like.transpose(0, 1).flatten(1)
    return (canvas - mean) / std.clamp_min(1e-6) * target.std(1)[:, None, None] + target.mean(1)[:, None, None]
