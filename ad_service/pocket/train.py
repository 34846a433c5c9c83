"""Make pocket's weights anew, from nothing: textures -> codec -> unet -> export.

    python -m ad_service.pocket.train --out RUN --minutes-codec 15 --minutes-unet 90

Every stage leaves its result in RUN and is skipped when that is there; a stage that was cut short goes on from its last
checkpoint. What a step does depends on the seed and on the step's number alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from ad_service.pocket.codec_start import FACTOR, PatchCode, analyse, build_codec, write_codec
from ad_service.pocket.in_context import InContext
from ad_service.pocket.textures import SIZE, write_textures

Textures = NDArray[np.uint8]
Loss = Callable[[nn.Module, torch.Generator, float], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Options:
    """Everything that decides what comes out."""

    out: Path
    device: str = "cpu"
    threads: int = 1
    seed: int = 0
    textures: int = 3072
    workers: int = 2
    channels: int = 16
    codec_widths: tuple[int, int, int] = (32, 64, 96)
    codec_batch: int = 8
    codec_crop: int = 80
    codec_rate: float = 2e-3
    codec_budget: Budget | None = None
    unet_widths: tuple[int, int, int] = (64, 128, 192)
    unet_textures: int = 6
    unet_each: int = 3
    unet_crop: int = 32
    unet_rate: float = 1e-3
    unet_budget: Budget | None = None
    save_every: float = 120.0


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, or minutes of work (pauses between two runs do not count)."""

    steps: int | None = None
    minutes: float | None = None

    def used(self, steps: int, seconds: float) -> float:
        """The part that is used up, in [0, 1]."""
        if self.steps is not None:
            return min(1.0, steps / max(1, self.steps))
        return min(1.0, seconds / 60 / max(1e-9, self.minutes or 0))


# -- crops ----------------------------------------------------------------------------------------------------------


def draw(g: torch.Generator, low: int, high: int) -> int:
    """An integer in [low, high)."""
    return int(torch.randint(low, high, (), generator=g))


def uniform(g: torch.Generator) -> float:
    """A number in [0, 1)."""
    return float(torch.rand((), generator=g))


def crops(textures: Textures, g: torch.Generator, count: int, size: int) -> Tensor:
    """`count` crops of one random texture, turned, mirrored, scaled and recoloured alike: (count, 3, size, size)."""
    texture = textures[draw(g, 0, len(textures))]
    zoom = 1.0 if uniform(g) < 0.6 else 1 + min(1.2, len(texture) / size - 1) * uniform(g)
    side = round(size * zoom)
    flip_x, flip_y, transpose = (uniform(g) < 0.5 for _ in range(3))
    out = []
    for _ in range(count):
        y, x = draw(g, 0, len(texture) - side + 1), draw(g, 0, len(texture) - side + 1)
        out.append(torch.from_numpy(texture[y : y + side, x : x + side].copy()))
    images = torch.stack(out).permute(0, 3, 1, 2).float() / 127.5 - 1
    images = images.flip(-1) if flip_x else images
    images = images.flip(-2) if flip_y else images
    images = images.transpose(-1, -2) if transpose else images
    if side != size:
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    if uniform(g) < 0.4:
        images = images[:, torch.randperm(3, generator=g)]
    gain = 1 + 0.25 * (2 * torch.rand(3, generator=g) - 1) if uniform(g) < 0.5 else torch.full((3,), 1.0)
    return ((images + 1) * gain[:, None, None] - 1).clamp(-1, 1)


# -- one loop for both networks -------------------------------------------------------------------------------------


def checkpoint(path: Path, **state: object) -> None:
    """Write a checkpoint that is whole or not there."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def rate_at(step: int, used: float, warm: int = 60) -> float:
    """Learning rate factor: linear warm-up, then a cosine to a fiftieth."""
    return min(1.0, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * used)))


def fit(name: str, model: nn.Module, loss: Loss, budget: Budget, rate: float, o: Options) -> nn.Module:
    """Train what requires a gradient until the budget is used; return the averaged model.

    A checkpoint RUN/name.pt is written every `save_every` seconds and at the end, and read at the start.
    """
    path = o.out / f"{name}.pt"
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    average = copy.deepcopy(model).requires_grad_(False)
    averaged = [a for a, p in zip(average.parameters(), model.parameters(), strict=True) if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, rate, betas=(0.9, 0.98), weight_decay=1e-2, fused=True)
    step, seconds = 0, 0.0
    if path.exists():
        state = torch.load(path, map_location=o.device, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
        print(f"{name}: goes on from step {step}, {seconds / 60:.1f} minutes", flush=True)

    def save() -> None:
        checkpoint(
            path,
            model=model.state_dict(),
            average=average.state_dict(),
            optimizer=optimizer.state_dict(),
            step=step,
            seconds=seconds,
        )

    seen: dict[str, list[float]] = {}
    saved = last = time.monotonic()
    while (used := budget.used(step, seconds)) < 1:
        g = torch.Generator().manual_seed(o.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_at(step, used)
        value, numbers = loss(model, g, used)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, 1 - min(0.998, step / (step + 20)))
        now = time.monotonic()
        seconds, last = seconds + now - last, now
        for key, number in numbers.items():
            seen.setdefault(key, []).append(number)
        if step % 50 == 0:
            means = "  ".join(f"{k} {np.mean(v):.4f}" for k, v in sorted(seen.items()))
            print(f"{name} step {step}  {seconds / 60:.1f} min  {means}", flush=True)
            seen.clear()
        if now - saved > o.save_every:
            save()
            saved = now
    save()
    return average


# -- codec ----------------------------------------------------------------------------------------------------------


def pixel_loss(out: Tensor, target: Tensor) -> tuple[Tensor, dict[str, float]]:
    """L1 at three scales, and L1 of the gradients, which keeps edges sharp and shows no block grid."""
    d = out.float() - target
    dx, dy = d[..., 1:] - d[..., :-1], d[..., 1:, :] - d[..., :-1, :]
    coarse = F.avg_pool2d(d, 2).abs().mean() + F.avg_pool2d(d, 4).abs().mean()
    loss = d.abs().mean() + 0.5 * coarse + 0.4 * (dx.abs().mean() + dy.abs().mean())
    psnr = -10 * (d.detach() / 2).square().mean((1, 2, 3)).log10()
    return loss, {"loss": float(loss.detach()), "psnr": float(psnr.mean())}


def codec_loss(textures: Textures, code: PatchCode, o: Options) -> Loss:
    """Decode slightly wrong latents of crops, some of which are pasted together from two places."""
    device = torch.device(o.device)
    analysis, bias = code.analysis.to(device), code.bias.to(device)

    def loss(codec: nn.Module, g: torch.Generator, used: float) -> tuple[Tensor, dict[str, float]]:
        images = []
        for _ in range(o.codec_batch):
            a, b = crops(textures, g, 2, o.codec_crop)
            if uniform(g) < 0.3:
                y, x = draw(g, 0, o.codec_crop - 16), draw(g, 0, o.codec_crop - 16)
                h, w = draw(g, 16, 64), draw(g, 16, 64)
                a[:, y : y + h, x : x + w] = b[:, y : y + h, x : x + w]
            images.append(a)
        x0 = torch.stack(images).to(device)
        z = F.conv2d(x0, analysis, bias, stride=FACTOR)
        wrong = 0.15 * torch.rand(len(z), 1, 1, 1, generator=g).square() * torch.randn(z.shape, generator=g)
        z = (z + wrong.to(device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            out = codec.decode(z).sample
        return pixel_loss(out, x0)

    return loss


def train_codec(textures: Textures, o: Options) -> AutoencoderKL:
    """Write the encoder, train the decoder."""
    torch.manual_seed(o.seed)
    n = min(len(textures), 400)
    sample = torch.from_numpy(textures[:n, :256, :256].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    code = analyse(sample, o.channels)
    codec = build_codec(o.channels, o.codec_widths)
    write_codec(codec, code)
    codec = codec.to(o.device, memory_format=torch.channels_last)
    codec.encoder.requires_grad_(False)
    codec.quant_conv.requires_grad_(False)
    codec.post_quant_conv.requires_grad_(False)
    return fit("codec", codec, codec_loss(textures, code, o), o.codec_budget, o.codec_rate, o)


# -- unet -----------------------------------------------------------------------------------------------------------


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


def build_unet(channels: int, widths: tuple[int, int, int]) -> UNet2DModel:
    """Three levels, attention on the two lower ones, six self-attention layers on the way up; predicts 0 at first."""
    unet = UNet2DModel(
        sample_size=128,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=2,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
        norm_num_groups=16,
    )
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)
    return unet


def damage(z: Tensor, g: torch.Generator) -> Tensor:
    """What a quilt does to latents (c, h, w) from two crops (2, c, h, w) of a texture: the first one, spoilt.

    Either thin bands come from the second crop, or a block is shifted by a few latents; hard, or half blended.
    """
    clean, other = z
    _, h, w = clean.shape
    out = clean.clone()
    strength = 0.5 if uniform(g) < 0.25 else 1.0
    bands = uniform(g) < 0.6
    for _ in range(draw(g, 1, 4)):
        if bands:
            thick, long = draw(g, 2, 7), draw(g, h // 4, h + 1)
            bh, bw = (thick, long) if uniform(g) < 0.5 else (long, thick)
            source = other
        else:
            bh, bw = draw(g, 6, h // 2 + 1), draw(g, 6, w // 2 + 1)
            source = clean.roll((draw(g, -4, 5), draw(g, -4, 5)), (1, 2))
        y, x = draw(g, 0, h - bh + 1), draw(g, 0, w - bw + 1)
        part = out[:, y : y + bh, x : x + bw]
        part.lerp_(source[:, y : y + bh, x : x + bw], strength)
    return out


def timestep(g: torch.Generator, damaged: bool) -> int:
    """Mostly the range in which a quilt is mended; a damaged crop is never nearly clean."""
    if damaged:
        return draw(g, 120, 600)
    return draw(g, 0, 500) if uniform(g) < 0.65 else draw(g, 500, 1000)


def unet_loss(textures: Textures, code: PatchCode, o: Options) -> Loss:
    """Denoise crops of a texture beside one clean crop of it; some were damaged before the noise was added."""
    device = torch.device(o.device)
    alphas = noise_schedule().alphas_cumprod
    analysis, bias = code.analysis.to(device), code.bias.to(device)

    def loss(unet: nn.Module, g: torch.Generator, used: float) -> tuple[Tensor, dict[str, float]]:
        size, count = o.unet_crop, o.unet_textures
        if used > 0.3 and uniform(g) < 0.2:
            size, count = size * 3 // 2, max(1, count // 2)
        images = torch.stack([crops(textures, g, 1 + o.unet_each, FACTOR * size) for _ in range(count)]).to(device)
        z = F.conv2d(images.flatten(0, 1), analysis, bias, stride=FACTOR).unflatten(0, images.shape[:2])
        reference, clean = z[:, 0], z[:, 1:]
        spoilt = torch.rand(clean.shape[:2], generator=g) < 0.45
        start = clean.clone()
        for i, j in spoilt.nonzero().tolist():
            start[i, j] = damage(torch.stack([clean[i, j], clean[i, j - 1]]), g)
        t = torch.tensor([[timestep(g, bool(s)) for s in row] for row in spoilt]).flatten()
        clean, start = clean.flatten(0, 1), start.flatten(0, 1)
        a = alphas[t].to(device)[:, None, None, None]
        noised = a.sqrt() * start + (1 - a).sqrt() * torch.randn(start.shape, generator=g).to(device)
        v = (a.sqrt() * noised - clean) / (1 - a).sqrt()  # the model's estimate of x0 is the undamaged crop
        batch = torch.cat([reference, noised]).contiguous(memory_format=torch.channels_last)
        times = torch.cat([torch.zeros(count, dtype=torch.long), t]).to(device)
        set_references(unet, count)
        with torch.autocast(device.type, torch.bfloat16):
            out = unet(batch, times).sample[count:]
        each = (out.float() - v).square().mean((1, 2, 3))
        numbers: dict[str, list[float]] = {}
        for e, ti, s in zip(each.tolist(), t.tolist(), spoilt.flatten().tolist(), strict=True):
            numbers.setdefault("mend" if s else f"t{ti // 250 * 250:03d}", []).append(e)
        return each.mean(), {k: float(np.mean(n)) for k, n in numbers.items()}

    return loss


def set_references(unet: nn.Module, count: int) -> None:
    """Tell the attention layers how many of the batch are clean references."""
    processor = InContext(count)
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(processor)


def train_unet(textures: Textures, code: PatchCode, o: Options) -> UNet2DModel:
    """Train the denoiser in context."""
    torch.manual_seed(o.seed)
    unet = build_unet(o.channels, o.unet_widths).to(o.device, memory_format=torch.channels_last)
    return fit("unet", unet, unet_loss(textures, code, o), o.unet_budget, o.unet_rate, o)
