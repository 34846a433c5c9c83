"""The v error on held-out materials, beside a right and a wrong reference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ad_service.pocket.training.codec_start import FACTOR, PatchEncoder
from ad_service.pocket.training.crops import as_images
from ad_service.pocket.training.in_context import in_context
from ad_service.pocket.training.photographs import Material

TIMES = (200, 400, 800)
MATERIALS_AT_ONCE = 8


def held_out_windows(materials: list[Material], code: PatchEncoder, size: int) -> Tensor:
    """Latents of the middles of materials, (n, c, size, 2 * size): target and reference side by side.

    Materials that are smaller than that are left out.
    """
    high, wide = FACTOR * size, 2 * FACTOR * size
    parts = []
    for material in materials:
        h, w = material.color.shape[:2]
        if h >= high and w >= wide:
            y, x = (h - high) // 2, (w - wide) // 2
            parts.append(material.color[y : y + high, x : x + wide])
    if not parts:
        return torch.empty(0, len(code.analysis), size, 2 * size)
    return code.encode(as_images(torch.stack(parts)))


@torch.no_grad()
def v_errors(unet: nn.Module, alphas: Tensor, pairs: Tensor) -> dict[str, float]:
    """Mean squared errors of v: {"right_200": ..., "wrong_200": ..., "linear_200": ..., ...}; empty without pairs.

    `linear` is the error of the best filter that multiplies each channel by a number, given the target's variances.

    Args:
        alphas: The noise schedule's cumulative products.
        pairs: (n, c, h, 2 w), each a target and its right reference; the wrong one is the next material's.
    """
    if not len(pairs):
        return {}
    device = next(unet.parameters()).device
    target, reference = pairs.chunk(2, -1)
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    numbers: dict[str, float] = {}
    for t in TIMES:
        a = alphas[t].cpu()
        noised, v = a.sqrt() * target + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * target
        for name, shown in (("right", reference), ("wrong", reference.roll(1, 0))):
            total = 0.0
            for first in range(0, len(pairs), MATERIALS_AT_ONCE):
                part = slice(first, first + MATERIALS_AT_ONCE)
                r = len(shown[part])
                times = torch.tensor([0] * r + [t] * r, device=device)
                with torch.autocast(device.type, torch.bfloat16), in_context(unet, r):
                    out = unet(torch.cat([shown[part], noised[part]]).to(device), times).sample[r:]
                total += float((out.float().cpu() - v[part]).square().mean((1, 2, 3)).sum())
            numbers[f"{name}_{t}"] = total / len(pairs)
        variance = target.var((-2, -1))
        numbers[f"linear_{t}"] = float((variance / (a * variance + 1 - a)).mean())
    return numbers
