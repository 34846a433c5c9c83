"""What pocket does with pictures it never saw: numbers per picture, and one sheet of pictures to look at.

    python -m ad_service.pocket.evaluate --weights DIR --sheet OUT.png IMAGE...

Nothing here takes part in the training.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

from ad_service.pocket.in_context import SHARPNESS, InContext, likeness

SIDE = 512  # pictures are brought to SIDE x SIDE; reference and target are crops of half of it


def read_image(path: Path) -> Tensor:
    """(1, 3, SIDE, SIDE) in [-1, 1]."""
    with Image.open(path) as image:
        fitted = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE))
    return torch.from_numpy(np.asarray(fitted, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1]."""
    return float(-10 * ((a - b) / 2).square().mean().log10())


@contextmanager
def in_context(unet: UNet2DModel, references: int) -> Iterator[None]:
    """The attention of the training, put back afterwards."""
    layers = [m for m in unet.modules() if isinstance(m, Attention)]
    before = [m.processor for m in layers]
    for layer in layers:
        layer.set_processor(InContext(references))
    try:
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)


def velocity(unet: UNet2DModel, z: Tensor, t: int, reference: Tensor) -> Tensor:
    """v of latents (1, c, h, w) at t beside a clean reference of the same size."""
    times = torch.tensor([0, t], device=z.device)
    with torch.autocast(z.device.type, torch.bfloat16), in_context(unet, 1):
        out: Tensor = unet(torch.cat([reference, z]), times).sample[1:]
    return out.float()


def noised(z: Tensor, noise: Tensor, a: Tensor) -> Tensor:
    """sqrt(a) z + sqrt(1 - a) noise."""
    return a.sqrt() * z + (1 - a).sqrt() * noise


def ddim(unet: UNet2DModel, z: Tensor, reference: Tensor, alphas: Tensor, start: int, steps: int) -> Tensor:
    """Deterministic DDIM from noised latents at `start` to clean ones."""
    times = np.linspace(start, 0, steps + 1).round().astype(int)
    for t, after in pairwise(times.tolist()):
        v = velocity(unet, z, t, reference)
        a, b = alphas[t], alphas[after] if after > 0 else torch.tensor(1.0)
        x0, noise = a.sqrt() * z - (1 - a).sqrt() * v, a.sqrt() * v + (1 - a).sqrt() * z
        z = noised(x0, noise, b)
    return z


def effective_keys(unet: UNet2DModel, z: Tensor, t: int, reference: Tensor) -> list[str]:
    """exp(entropy) of the attention over the reference's keys, and their number, for each layer."""
    found: list[str] = []

    def watch(layer: Attention, args: tuple[Tensor, ...]) -> None:
        x = layer.group_norm(args[0].flatten(2)).transpose(1, 2)
        split = "n l (heads d) -> n heads l d"
        q, k = (likeness(rearrange(f(x), split, heads=layer.heads).float()) for f in (layer.to_q, layer.to_k))
        weights = (SHARPNESS * q[1] @ k[0].mT).softmax(-1)
        entropy = -(weights * weights.clamp_min(1e-9).log()).sum(-1)
        found.append(f"{float(entropy.exp().mean()):.0f}/{weights.shape[-1]}")

    layers = [m for m in unet.modules() if isinstance(m, Attention)]
    hooks = [layer.register_forward_pre_hook(watch) for layer in layers]
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


def look(codec: AutoencoderKL, unet: UNet2DModel, alphas: Tensor, picture: Tensor, seed: int) -> tuple[str, Tensor]:
    """What is to be said of one picture (1, 3, h, w), and its row of pictures (8, 3, h/2, w/2)."""
    latents = codec.encode(picture).latent_dist.mean
    whole = psnr(codec.decode(latents).sample.clamp(-1, 1), picture)
    half = latents.shape[-1] // 2
    target, reference = latents[..., :half, :half], latents[..., :half, half:]
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(seed)).to(target.device)
    said, results = [f"round trip {whole:.1f} dB"], [target]

    for t in (200, 400, 800):
        z, a = noised(target, noise, alphas[t]), alphas[t]
        v = a.sqrt() * noise - (1 - a).sqrt() * target
        own, wrong = ((velocity(unet, z, t, r) - v).square().mean() for r in (reference, reference.flip(1)))
        said.append(f"v error at {t} {own:.3f}, with a wrong reference {wrong:.3f}")
        if t < 800:
            results.append(ddim(unet, z, reference, alphas, t, 10))
    results.append(ddim(unet, noise, reference, alphas, 999, 30))

    spoilt, bands = cross_with_bands(target, latents[..., half:, half:])
    mended = ddim(unet, noised(spoilt, noise, alphas[200]), reference, alphas, 200, 4)
    before, after = ((z - target)[..., bands].square().mean() for z in (spoilt, mended))
    said.append(f"error in bands {before:.2f} -> {after:.2f}")
    results += [spoilt, mended]

    said.append(f"keys {' '.join(effective_keys(unet, noised(target, noise, alphas[300]), 300, reference))}")
    decoded = codec.decode(torch.cat(results)).sample.clamp(-1, 1)
    side = decoded.shape[-1]
    row = torch.cat([picture[..., :side, :side], decoded, picture[..., :side, side:]])
    return "; ".join(said), row.cpu()


@torch.no_grad()
def evaluate(weights: Path, images: list[Path], sheet: Path, device: str) -> None:
    """Print a line for each picture and write the sheet.

    Columns: the target crop; decoded from its latents; denoised from t = 200 and from t = 400; from pure noise, 30
    steps; crossed by bands from elsewhere, as in a quilt; that, mended from t = 200; the reference, which is the crop
    beside the target.
    """
    codec = AutoencoderKL.from_pretrained(weights / "vae").to(device).eval()
    unet = UNet2DModel.from_pretrained(weights / "unet").to(device).eval()
    alphas = DDIMScheduler.from_pretrained(weights / "scheduler").alphas_cumprod.to(device)
    rows = []
    for seed, path in enumerate(images):
        said, row = look(codec, unet, alphas, read_image(path).to(device), seed)
        print(f"{path.stem}: {said}", flush=True)
        rows.append(torch.cat(list(row), -1))
    grid = torch.cat(rows, -2)
    Image.fromarray(((grid + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(sheet)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--weights", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--sheet", type=Path, required=True, help="PNG to write")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    evaluate(args.weights, args.images, args.sheet, args.device)


if __name__ == "__main__":
    main()
