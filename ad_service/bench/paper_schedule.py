"""The paper's schedule, written plainly: what `ad-service bench` measures against.

It is `panorama` of the authors' code (arXiv 2502.20235, MultiDiffusion arXiv 2302.08113): 50 DDIM steps from noise. At
each, a fixed grid of windows goes through in batches. Each batch is denoised, the swatch passes again with fresh
noise at the new t, and two steps of a fresh Adam lower the AD loss; then all windows are averaged. The canvas is
decoded at the end. Nothing of the engine's own samplers is used: it shares the networks, the attention capture, the
loss and the codec.

The grid does not wrap around, as in the authors' code: 25 x 25 = 625 windows for 2048x2048 pixels of Stable Diffusion.
The result has real edges. On a torus it would take 32 x 32 = 1024 windows, so this is the cheaper of the two.

All models are treated alike, including those whose own window is larger than 64 latents. Pocket, which reads the
swatch in context, gets it clean at t = 0, as it was trained; it still passes again for each batch, and the canvas
starts from noise.

The loss is summed over the windows of a batch, where the authors average it: a window's steps then do not depend on
its batch. Through Adam's epsilon alone this changes the latents by 0.4 % in two steps.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ad_service.core.backbone.model import Model
from ad_service.core.canvas import Window
from ad_service.core.sampling.attention import AttentionCapture, Reference
from ad_service.core.sampling.losses import ad_loss

STEPS, ITERATIONS, LEARNING_RATE = 50, 2, 0.05
SIDE, STRIDE, BATCH = 64, 8, 8
"""Side and stride of the windows in latents, and windows in one run of the network."""


@dataclass(frozen=True)
class Count:
    """The cost of a canvas: windows of the grid, batches over all steps, and windows that pass through the UNet."""

    windows: int
    batches: int
    forwards: int
    backwards: int


def count(height: int, width: int, steps: int = STEPS) -> Count:
    """The cost of a canvas of height x width latents, with one crop of the swatch.

    At each step: the swatch once per batch, each window once to denoise it and twice, with its gradient, for Adam.
    """
    windows = _along(height) * _along(width)
    batches = math.ceil(windows / BATCH)
    loss = windows * ITERATIONS
    return Count(windows, steps * batches, steps * (batches + windows + loss), steps * loss)


def grid(height: int, width: int) -> list[Window]:
    """Windows at every 8th latent, the last ones at the edges; one, as large as the canvas, where it is smaller."""
    h, w = min(SIDE, height), min(SIDE, width)
    ys, xs = ([min(i * STRIDE, n - s) for i in range(_along(n))] for n, s in ((height, h), (width, w)))
    return [Window(y, x, h, w) for y in ys for x in xs]


def _along(length: int) -> int:
    return math.ceil(max(0, length - SIDE) / STRIDE) + 1


def sample(
    capture: AttentionCapture, z_swatch: Tensor, height: int, width: int, generator: torch.Generator, steps: int = STEPS
) -> Generator[int, None, Tensor]:
    """The canvas (C, height, width) from the swatch's latents (C, h, w), of which one window is read.

    Yields after each batch how many windows were in it.
    """
    device = capture.model.device
    scheduler = _scheduler(capture.model, steps)
    zs = z_swatch[None, :, :SIDE, :SIDE].to(device)
    canvas = torch.randn(len(z_swatch), height, width, generator=generator).to(device)
    windows = grid(height, width)
    for t in scheduler.timesteps.tolist():
        after = max(t - scheduler.config.num_train_timesteps // steps, 0)
        total, hits = torch.zeros_like(canvas), torch.zeros_like(canvas)
        for first in range(0, len(windows), BATCH):
            batch = windows[first : first + BATCH]
            z = torch.stack([canvas[:, w.y : w.y + w.height, w.x : w.x + w.width] for w in batch])
            reference = _reference(capture, scheduler, zs, after, generator)
            with torch.no_grad():
                prediction, _ = capture.predict_and_record(z, t, reference)
            z = scheduler.step(prediction, t, z).prev_sample
            z = _descend(capture, z, after, reference)
            for w, value in zip(batch, z, strict=True):
                total[:, w.y : w.y + w.height, w.x : w.x + w.width] += value
                hits[:, w.y : w.y + w.height, w.x : w.x + w.width] += 1
            yield len(batch)
        canvas = total / hits
    return canvas


def _reference(
    capture: AttentionCapture, scheduler: DDIMScheduler, zs: Tensor, t: int, generator: torch.Generator
) -> Reference:
    """The reference of one batch: with fresh noise at t, or clean for a model that reads in context."""
    if capture.model.family.in_context:
        return capture.reference(zs, 0)
    noise = torch.randn(zs.shape, generator=generator).to(zs.device)
    return capture.reference(scheduler.add_noise(zs, noise, torch.tensor([t])), t)


def _descend(capture: AttentionCapture, z: Tensor, t: int, reference: Reference) -> Tensor:
    """Two steps of a fresh Adam on windows z (B, C, h, w)."""
    z = z.clone().requires_grad_()
    adam = torch.optim.Adam([z], LEARNING_RATE)
    for _ in range(ITERATIONS):
        z.grad = gradient(capture, z, t, reference)
        adam.step()
    return z.detach()


def gradient(capture: AttentionCapture, z: Tensor, t: int, reference: Reference) -> Tensor:
    """The gradient of the AD loss, summed over layers and windows, to windows z (B, C, h, w) that require one."""
    with torch.enable_grad():
        layers = capture.record(z, t, reference)
        loss = torch.zeros((), device=z.device)
        for i, layer in layers.items():
            target = capture.target(i, layer, reference, None)
            loss = loss + ad_loss(capture.own_attention(layer), target).sum()
        capture.backwards += len(z)
        return torch.autograd.grad(loss, z)[0]


def _scheduler(model: Model, steps: int) -> DDIMScheduler:
    """diffusers' DDIM with the model's noise schedule."""
    alphas = model.alphas
    scheduler = DDIMScheduler(
        num_train_timesteps=len(alphas),
        trained_betas=(1 - alphas / torch.cat([alphas.new_ones(1), alphas[:-1]])).tolist(),
        prediction_type=model.prediction,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.set_timesteps(steps)
    return scheduler
