"""Evaluates pocket on pictures that took no part in its training: numbers per picture, and a sheet to look at.

    python -m ad_service.pocket.training.evaluate --weights DIR --sheet OUT.png IMAGE...
    python -m ad_service.pocket.training.evaluate --weights DIR --photographs DIR

The second form prints the v errors on the held-out materials of a training folder.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

from ad_service.pocket import WEIGHTS
from ad_service.pocket.training.codec_start import read_encoder
from ad_service.pocket.training.in_context import SHARPNESS, attention_layers, center_and_normalize, in_context
from ad_service.pocket.training.photographs import read_materials
from ad_service.pocket.training.statistics import identity, measure, read_flag
from ad_service.pocket.training.validation import held_out_windows, v_errors

SIDE = 512
"""Pictures are scaled and cropped to SIDE x SIDE; reference and target are crops of half of it."""


def read_image(path: Path) -> Tensor:
    """(1, 3, SIDE, SIDE) in [-1, 1]."""
    with Image.open(path) as image:
        fitted = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE))
    return torch.from_numpy(np.asarray(fitted, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1]."""
    return float(-10 * ((a - b) / 2).square().mean().log10())


def velocity(unet: UNet2DModel, z: Tensor, t: int, reference: Tensor) -> Tensor:
    """v of latents (1, c, h, w) at t beside a clean reference of the same size."""
    times = torch.tensor([0, t], device=z.device)
    with torch.autocast(z.device.type, torch.bfloat16), in_context(unet, 1):
        out: Tensor = unet(torch.cat([reference, z]), times).sample[1:]
    return out.float()


def add_noise(z: Tensor, noise: Tensor, a: Tensor) -> Tensor:
    """sqrt(a) z + sqrt(1 - a) noise."""
    return a.sqrt() * z + (1 - a).sqrt() * noise


def ddim(unet: UNet2DModel, z: Tensor, reference: Tensor, alphas: Tensor, start: int, steps: int) -> Tensor:
    """Deterministic DDIM from noised latents at `start` to clean ones."""
    times = np.linspace(start, 0, steps + 1).round().astype(int)
    for t, after in pairwise(times.tolist()):
        v = velocity(unet, z, t, reference)
        a, b = alphas[t], alphas[after] if after > 0 else torch.ones_like(alphas[0])
        x0, noise = a.sqrt() * z - (1 - a).sqrt() * v, a.sqrt() * v + (1 - a).sqrt() * z
        z = add_noise(x0, noise, b)
    return z


def effective_keys(unet: UNet2DModel, z: Tensor, t: int, reference: Tensor) -> list[str]:
    """exp(entropy) of the attention over the reference's keys, and their number, for each layer."""
    found: list[str] = []

    def measure(layer: Attention, args: tuple[Tensor, ...]) -> None:
        x = layer.group_norm(args[0].flatten(2)).transpose(1, 2)
        split = "n l (heads d) -> n heads l d"
        q, k = (
            center_and_normalize(rearrange(project(x), split, heads=layer.heads).float())
            for project in (layer.to_q, layer.to_k)
        )
        weights = (SHARPNESS * q[1] @ k[0].mT).softmax(-1)
        entropy = -(weights * weights.clamp_min(1e-9).log()).sum(-1)
        found.append(f"{float(entropy.exp().mean()):.0f}/{weights.shape[-1]}")

    hooks = [layer.register_forward_pre_hook(measure) for layer in attention_layers(unet)]
    velocity(unet, z, t, reference)
    for hook in hooks:
        hook.remove()
    return found


def cross_with_bands(z: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Latents with two rows and two columns of other latents laid over them, and where: (h, w) bool."""
    bands = torch.zeros(z.shape[-2:], dtype=torch.bool, device=z.device)
    for first in (14, 44):
        bands[first : first + 4] = True
        bands[:, first + 6 : first + 10] = True
    return torch.where(bands, other, z), bands


def evaluate_picture(
    codec: AutoencoderKL, unet: UNet2DModel, alphas: Tensor, picture: Tensor, seed: int, standardized: bool
) -> tuple[str, Tensor]:
    """The figures of a picture (1, 3, h, w) as text, and its row of the sheet (8, 3, h/2, w/2)."""
    latents = codec.encode(picture).latent_dist.mean
    round_trip = psnr(codec.decode(latents).sample.clamp(-1, 1), picture)
    statistics = measure(latents) if standardized else identity()
    latents = statistics.standardize(latents)
    half = latents.shape[-1] // 2
    target, reference = latents[..., :half, :half], latents[..., :half, half:]
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(seed)).to(target.device)
    figures, results = [f"round trip {round_trip:.1f} dB"], [target]

    for t in (200, 400, 800):
        z, a = add_noise(target, noise, alphas[t]), alphas[t]
        v = a.sqrt() * noise - (1 - a).sqrt() * target
        right, wrong = ((velocity(unet, z, t, r) - v).square().mean() for r in (reference, reference.flip(1)))
        figures.append(f"v error at {t} {right:.3f}, with a wrong reference {wrong:.3f}")
        if t < 800:
            results.append(ddim(unet, z, reference, alphas, t, 10))
    results.append(ddim(unet, noise, reference, alphas, 999, 30))

    damaged, bands = cross_with_bands(target, latents[..., half:, half:])
    repaired = ddim(unet, add_noise(damaged, noise, alphas[200]), reference, alphas, 200, 4)
    before, after = ((z - target)[..., bands].square().mean() for z in (damaged, repaired))
    figures.append(f"error in bands {before:.2f} -> {after:.2f}")
    results += [damaged, repaired]

    keys = effective_keys(unet, add_noise(target, noise, alphas[300]), 300, reference)
    figures.append(f"effective keys {' '.join(keys)}")
    decoded = codec.decode(statistics.restore(torch.cat(results))).sample.clamp(-1, 1)
    side = decoded.shape[-1]
    row = torch.cat([picture[..., :side, :side], decoded, picture[..., :side, side:]])
    return "; ".join(figures), row.cpu()


@torch.no_grad()
def evaluate(
    weights: Path,
    images: list[Path],
    sheet: Path | None = None,
    photographs: Path | None = None,
    device: str = "cpu",
) -> None:
    """Print a line for each picture, and write the sheet.

    Columns: the target crop; decoded from its latents; denoised from t = 200 and from t = 400; from pure noise, 30
    steps; crossed by bands from elsewhere, as in a quilt; that, repaired from t = 200; the reference, which is the crop
    beside the target.

    Args:
        photographs: A training folder; the v errors of its held-out materials are printed, for windows of 32 and 64
            latents.
    """
    codec = AutoencoderKL.from_pretrained(weights / "vae").to(device).eval()
    unet = UNet2DModel.from_pretrained(weights / "unet", low_cpu_mem_usage=False).to(device).eval()
    alphas = DDIMScheduler.from_pretrained(weights / "scheduler").alphas_cumprod.to(device)
    if photographs:
        code, held_out = read_encoder(codec.cpu()), read_materials(photographs)[1]
        codec.to(device)
        for size in (32, 64):
            pairs = held_out_windows(held_out, code, size)
            if read_flag(weights) and len(pairs):
                pairs = measure(pairs).standardize(pairs)
            errors = "  ".join(f"{k} {v:.4f}" for k, v in v_errors(unet, alphas, pairs).items())
            print(f"{len(pairs)} held-out materials, windows of {size} latents: {errors}", flush=True)
    rows, standardized = [], read_flag(weights)
    for seed, path in enumerate(images):
        figures, row = evaluate_picture(codec, unet, alphas, read_image(path).to(device), seed, standardized)
        print(f"{path.parent.name if path.stem == 'color' else path.stem}: {figures}", flush=True)
        rows.append(torch.cat(list(row), -1))
    if sheet and rows:
        grid = torch.cat(rows, -2)
        Image.fromarray(((grid + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(sheet)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="*", metavar="IMAGE")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--sheet", type=Path, help="PNG to write")
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="training folder, for its held-out materials")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    evaluate(args.weights, args.images, args.sheet, args.photographs, args.device)


if __name__ == "__main__":
    main()
