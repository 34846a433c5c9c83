"""Training of pocket's denoiser: noised windows of a texture beside a clean window of the same texture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel
from torch import Tensor, nn

from ad_service.pocket.training.codec import read_code
from ad_service.pocket.training.codec_start import FACTOR, PatchEncoder, read_encoder
from ad_service.pocket.training.crops import Source
from ad_service.pocket.training.in_context import attention_layers, set_references
from ad_service.pocket.training.loop import Batches, Numbers, fit
from ad_service.pocket.training.photographs import Material
from ad_service.pocket.training.rng import chance, integer, uniform
from ad_service.pocket.training.settings import Run, Settings
from ad_service.pocket.training.statistics import measure
from ad_service.pocket.training.validation import held_out_windows, v_errors

DAMAGED = 0.35
"""Share of windows that are damaged as a quilt is before they are noised."""
WITHOUT_OWN_KEYS = 0.6
"""Share of steps in which noised windows read the reference alone: else they never learn to use it."""
WITHOUT_FINE_SKIPS = 0.1
"""Share of steps without the skip connections of the top level."""


class DenoiserBatch(NamedTuple):
    """Latents of `len(reference)` textures, each with the same number of noised windows.

    reference (r, c, h, w), noised and the target v (r * each, c, h, w), times and damaged (r * each,); own: noised
    windows read their own keys too; skips: the skip connections of the top level are kept.
    """

    reference: Tensor
    noised: Tensor
    v: Tensor
    times: Tensor
    damaged: Tensor
    own: bool
    skips: bool


def noise_schedule() -> DDIMScheduler:
    """The schedule of Stable Diffusion with v-prediction, down to a clean picture at t = 0."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def new_unet(settings: Settings) -> UNet2DModel:
    """Three levels, attention on the two lower ones, six self-attention layers on the way up; predicts 0 at first."""
    unet = UNet2DModel(
        sample_size=128,
        in_channels=settings.channels,
        out_channels=settings.channels,
        layers_per_block=2,
        block_out_channels=settings.unet_widths,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
        norm_num_groups=16,
    )
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)
    with torch.no_grad():
        for layer in attention_layers(unet):  # queries like keys: a token first attends to similar tokens
            layer.to_q.load_state_dict(layer.to_k.state_dict())
    return unet


def damage(clean: Tensor, other: Tensor, g: torch.Generator) -> Tensor:
    """Latents (c, h, w) with the faults of a quilt.

    Either thin bands come from `other`, or blocks are shifted by a few latents; hard, or half blended.
    """
    _, h, w = clean.shape
    out = clean.clone()
    strength = 0.5 if chance(g, 0.25) else 1.0
    bands = chance(g, 0.6)
    for _ in range(integer(g, 1, 4)):
        if bands:
            thick, long = integer(g, 2, 7), integer(g, h // 4, h + 1)
            bh, bw = (thick, long) if chance(g, 0.5) else (long, thick)
            source = other
        else:
            bh, bw = integer(g, 6, h // 2 + 1), integer(g, 6, w // 2 + 1)
            source = clean.roll((integer(g, -4, 5), integer(g, -4, 5)), (1, 2))
        y, x = integer(g, 0, h - bh + 1), integer(g, 0, w - bw + 1)
        out[:, y : y + bh, x : x + bw].lerp_(source[:, y : y + bh, x : x + bw], strength)
    return out


def random_timestep(g: torch.Generator, damaged: bool) -> int:
    """Any timestep; for a damaged window one in the range in which a quilt is repaired."""
    return integer(g, 180, 650) if damaged else integer(g, 0, 1000)


def window_size(g: torch.Generator, settings: Settings) -> tuple[int, int]:
    """Latents per side of a step's windows, and its number of textures: fewer of the larger windows."""
    size, count, kind = settings.unet_crop, settings.unet_textures, uniform(g)
    if kind < 0.1:
        return size * 2, max(1, count // 4)
    if kind < 0.3:
        return size * 3 // 2, max(1, count // 2)
    return size, count


def windows(z: Tensor, g: torch.Generator, count: int, size: int) -> Tensor:
    """`count` windows of latents (c, h, w): (count, c, size, size).

    They overlap, because parts of a quilt occur in its swatch; in half of the calls by multiples of 4, so that the
    tokens of the lowest level coincide.
    """
    room, grid = z.shape[-1] - size, 4 if chance(g, 0.5) else 1
    corners = [[grid * integer(g, 0, room // grid + 1) for _ in range(2)] for _ in range(count)]
    return torch.stack([z[:, y : y + size, x : x + size] for y, x in corners])


def denoiser_batches(source: Source, code: PatchEncoder, settings: Settings) -> Batches[DenoiserBatch]:
    """Windows of random textures; each texture has one clean reference, the others are noised."""
    alphas = noise_schedule().alphas_cumprod

    def make(g: torch.Generator) -> DenoiserBatch:
        size, count = window_size(g, settings)
        regions = torch.cat([source.crop(FACTOR * size * 3 // 2, g, softened=0.85) for _ in range(count)])
        latents = code.encode(regions)
        if settings.standardize:
            latents = measure(latents).standardize(latents)
        z = torch.stack([windows(region, g, 1 + settings.unet_each, size) for region in latents])
        reference, clean = z[:, 0], z[:, 1:]
        damaged = torch.rand(clean.shape[:2], generator=g) < DAMAGED
        start = clean.clone()
        for i, j in damaged.nonzero().tolist():
            start[i, j] = damage(clean[i, j], clean[i, j - 1], g)
        clean, start, damaged = clean.flatten(0, 1), start.flatten(0, 1), damaged.flatten()
        times = torch.tensor([random_timestep(g, d) for d in damaged.tolist()])
        a = alphas[times][:, None, None, None]
        noised = a.sqrt() * start + (1 - a).sqrt() * torch.randn(start.shape, generator=g)
        v = (a.sqrt() * noised - clean) / (1 - a).sqrt()  # its estimate of x0 is the undamaged window
        own, skips = not chance(g, WITHOUT_OWN_KEYS), not chance(g, WITHOUT_FINE_SKIPS)
        return DenoiserBatch(reference, noised, v, times, damaged, own, skips)

    return Batches(make, settings.seed)


@contextmanager
def without_fine_skips(unet: UNet2DModel) -> Iterator[None]:
    """Cut the skip connections of the top level: information reaches the output through the levels with attention.

    The top level alone denoises so well that without such steps the levels below, and the reference, stay unused.
    """
    top = unet.up_blocks[-1]
    hook = top.register_forward_pre_hook(lambda _, a: (a[0], tuple(torch.zeros_like(s) for s in a[1]), *a[2:]))
    try:
        yield
    finally:
        hook.remove()


def denoiser_loss(
    unet: UNet2DModel, code: PatchEncoder, device: torch.device, standardize: bool = False
) -> Callable[[DenoiserBatch], tuple[Tensor, Numbers]]:
    """The squared error of v; errors in structure weigh more than errors in grain."""
    weight = 1 / code.analysis.flatten(1).norm(dim=1)
    weight = (weight / weight.mean())[:, None, None].to(device)
    if standardize:
        weight = torch.ones_like(weight)

    def loss(batch: DenoiserBatch) -> tuple[Tensor, Numbers]:
        count = len(batch.reference)
        set_references(unet, count, own=batch.own)
        times = torch.cat([torch.zeros(count, dtype=torch.long), batch.times]).to(device)
        skips = nullcontext() if batch.skips else without_fine_skips(unet)
        with skips, torch.autocast(device.type, torch.bfloat16):
            out = unet(torch.cat([batch.reference, batch.noised]).to(device), times).sample[count:]
        errors = (weight * (out.float() - batch.v.to(device)).square()).mean((1, 2, 3))
        numbers: dict[str, list[float]] = {}
        for error, t, damaged in zip(errors.tolist(), batch.times.tolist(), batch.damaged.tolist(), strict=True):
            kind = "no_skips" if not batch.skips else "damaged" if damaged else f"t{t // 250 * 250:03d}"
            numbers.setdefault(kind, []).append(error)
        return errors.mean(), {k: float(np.mean(n)) for k, n in numbers.items()}

    return loss


def load_unet(run: Run) -> UNet2DModel:
    """The untrained UNet of a run, or the one that it starts from.

    Raises:
        ValueError: The initial weights have other widths than the settings.
    """
    if run.initial_weights is None:
        return new_unet(run.settings)
    unet = UNet2DModel.from_pretrained(run.initial_weights / "unet", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    config, settings = unet.config, run.settings
    if (tuple(config.block_out_channels), config.in_channels) != (settings.unet_widths, settings.channels):
        raise ValueError(
            f"{run.initial_weights}: a UNet of widths {config.block_out_channels} with {config.in_channels} channels; "
            f"the settings say {settings.unet_widths} with {settings.channels}"
        )
    return unet


def load_code(run: Run) -> PatchEncoder:
    """The patch encoder of a run, or that of the codec which it starts from."""
    if run.initial_weights is None:
        return read_code(run)
    return read_encoder(AutoencoderKL.from_pretrained(run.initial_weights / "vae", torch_dtype=torch.float32))


def train_denoiser(run: Run, source: Source, held_out: list[Material]) -> None:
    """Train the denoiser in context: RUN/unet.pt."""
    torch.manual_seed(run.settings.seed)
    code, unet = load_code(run), load_unet(run)
    # On CUDA channels_last suits the convolutions; on a CPU group norms of narrow layers take longer in it.
    unet = unet.to(run.device, memory_format=torch.channels_last if run.device.type == "cuda" else None)
    unet.requires_grad_(True)

    settings = run.settings
    pairs = held_out_windows(held_out, code, settings.unet_crop)
    if settings.standardize:
        pairs = measure(pairs).standardize(pairs)
    alphas = noise_schedule().alphas_cumprod

    def validate(model: nn.Module) -> Numbers:
        return v_errors(model, alphas, pairs)

    batches, loss = (
        denoiser_batches(source, code, settings),
        denoiser_loss(unet, code, run.device, settings.standardize),
    )
    fit("unet", unet, batches, loss, run.unet_budget, settings.unet_rate, run, validate if len(pairs) else None)
