"""Training of pocket's codec: its encoder is written down (codec_start.py), its decoder learns to invert it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from ad_service.pocket.training.codec_start import PatchCode, PatchEncoder, analyse, build_codec, write_codec
from ad_service.pocket.training.crops import Source, as_images
from ad_service.pocket.training.loop import Batches, Numbers, fit
from ad_service.pocket.training.rng import chance, integer, uniform
from ad_service.pocket.training.settings import Run, Settings


class CodecBatch(NamedTuple):
    """Images (n, 3, h, w) and their slightly wrong latents (n, C, h/4, w/4)."""

    images: Tensor
    latents: Tensor


def new_codec(settings: Settings) -> AutoencoderKL:
    """The codec with random weights."""
    return build_codec(settings.channels, settings.codec_widths)


def read_code(run: Run) -> PatchCode:
    """The patch code of a run."""
    return PatchCode(**load_file(run.code_file))


def flatten_contrast(image: Tensor, g: torch.Generator) -> Tensor:
    """Move an image (3, h, w) towards one color, often a very bright or dark one: paper, snow, smoke, soot."""
    contrast = 0.05 + 0.6 * uniform(g)
    gray = uniform(g, -1, 1) if chance(g, 0.3) else math.copysign(1 - 0.3 * uniform(g), uniform(g) - 0.3)
    color = (gray + 0.2 * (torch.rand(3, 1, 1, generator=g) - 0.5)).clamp(-1, 1)
    return torch.lerp(color, image, contrast)


def codec_batches(source: Source, code: PatchEncoder, settings: Settings) -> Batches[CodecBatch]:
    """Crops, some with a rectangle of another crop, and their latents with a little noise."""
    size = settings.codec_crop

    def make(g: torch.Generator) -> CodecBatch:
        images = []
        for _ in range(settings.codec_batch):
            image = source.crop(size, g)[0]
            if chance(g, 0.3):
                y, x = integer(g, 0, size - 16), integer(g, 0, size - 16)
                h, w = min(integer(g, 16, 64), size - y), min(integer(g, 16, 64), size - x)
                image[:, y : y + h, x : x + w] = source.crop(size, g)[0, :, :h, :w]
            images.append(flatten_contrast(image, g) if chance(g, 0.35) else image)
        x0 = torch.stack(images)
        z = code.encode(x0)
        error = 0.15 * torch.rand(len(z), 1, 1, 1, generator=g).square() * torch.randn(z.shape, generator=g)
        return CodecBatch(x0, z + error)

    return Batches(make, settings.seed)


def pixel_loss(out: Tensor, target: Tensor) -> tuple[Tensor, Numbers]:
    """L1 at three scales, and L1 of the gradients, which keeps edges sharp and avoids a block grid."""
    d = out.float() - target
    dx, dy = d[..., 1:] - d[..., :-1], d[..., 1:, :] - d[..., :-1, :]
    coarse = F.avg_pool2d(d, 2).abs().mean() + F.avg_pool2d(d, 4).abs().mean()
    loss = d.abs().mean() + 0.5 * coarse + 0.4 * (dx.abs().mean() + dy.abs().mean())
    psnr = -10 * (d.detach() / 2).square().mean((1, 2, 3)).log10()
    return loss, {"loss": float(loss.detach()), "psnr": float(psnr.mean())}


def codec_loss(codec: AutoencoderKL, device: torch.device) -> Callable[[CodecBatch], tuple[Tensor, Numbers]]:
    """The pixel loss of decoded latents."""

    def loss(batch: CodecBatch) -> tuple[Tensor, Numbers]:
        z = batch.latents.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            out = codec.decode(z).sample
        return pixel_loss(out, batch.images.to(device))

    return loss


def train_codec(run: Run, source: Source) -> None:
    """Write the encoder, train the decoder: RUN/code.safetensors and RUN/codec.pt."""
    torch.manual_seed(run.settings.seed)
    if not run.code_file.exists():
        code = analyse(as_images(source.textures[:400, :256, :256]), run.settings.channels)
        save_file(asdict(code), run.code_file)
    code = read_code(run)
    codec = new_codec(run.settings)
    write_codec(codec, code)
    codec = codec.to(run.device, memory_format=torch.channels_last)
    codec.requires_grad_(False)
    codec.decoder.requires_grad_(True)
    batches, loss = codec_batches(source, code, run.settings), codec_loss(codec, run.device)
    fit("codec", codec, batches, loss, run.codec_budget, run.settings.codec_rate, run)
