"""GPDM (Elnekave and Weiss 2022, arXiv 2203.11862), a reference: textures by patch statistics, without a network.

    python -m tests.support.gpdm SWATCH --side 256 --out SHEET.png

writes a sheet of the swatch, GPDM's result, pocket's quilt and pocket's result, and prints their metrics.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ad_service.core import Channel, SynthesizeRequest, from_uint8, load, metrics, run, synthesize, to_uint8
from ad_service.storage import models

PATCH = 7
COARSEST = 21
"""Pixels along the shortest side of the coarsest scale, about that of the paper."""


def generate(swatch: Tensor, height: int, width: int, generator: torch.Generator, steps: int = 120) -> Tensor:
    """A picture (3, height, width) on the torus with the patches of the swatch (3, h, w), coarse to fine.

    Each scale is 3/4 of the next. The coarsest starts from the swatch's pixels in random order.
    """
    scale = min(1.0, COARSEST / min(height, width, *swatch.shape[1:]))
    canvas: Tensor | None = None
    while True:
        target, size = _resize(swatch, *swatch.shape[1:], scale), (round(height * scale), round(width * scale))
        if canvas is None:
            pick = torch.randint(target[0].numel(), (size[0] * size[1],), generator=generator)
            canvas = target.flatten(1)[:, pick].view(3, *size)
        else:
            h, w = size
            around = F.interpolate(canvas.repeat(1, 3, 3)[None], (3 * h, 3 * w), mode="bicubic", align_corners=False)
            canvas = around[0, :, h : 2 * h, w : 2 * w]  # the middle one of nine tiles, so that it still tiles
        shifts = torch.randint(COARSEST, (2,), generator=generator).tolist()  # otherwise all scales share one border
        canvas, _ = descend(canvas.roll(shifts, (1, 2)), target, generator, steps)
        if scale == 1:
            return canvas.clamp(0, 1)
        scale = 1.0 if scale > 0.8 else scale / 0.75


def _resize(picture: Tensor, height: int, width: int, scale: float) -> Tensor:
    size = (round(height * scale), round(width * scale))
    return F.interpolate(picture[None], size, mode="bicubic", antialias=True, align_corners=False)[0]


def descend(
    canvas: Tensor, target: Tensor, generator: torch.Generator, steps: int, projections: int = 16, rate: float = 0.01
) -> tuple[Tensor, list[float]]:
    """Adam on the pixels of a torus (3, H, W) towards the target's patches; the canvas and its loss at each step.

    The loss is the sliced Wasserstein distance of its patches to as many of the target's, along directions and with
    patches drawn at each step. Unlike in the paper the differences are squared and the rate falls to 0: with 16
    directions absolute differences leave 1.8 to 2 times the grain of the swatch at no smaller distance.
    """
    canvas = canvas.clone().requires_grad_()
    adam = torch.optim.Adam([canvas], rate)
    fall = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.01, steps)
    losses = []
    for _ in range(steps):
        directions = torch.randn(projections, 3, PATCH, PATCH, generator=generator)
        directions = directions / directions.flatten(1).norm(dim=1)[:, None, None, None]
        got = F.conv2d(F.pad(canvas[None], (PATCH // 2,) * 4, mode="circular"), directions)[0].flatten(1)
        want = F.conv2d(target[None], directions)[0].flatten(1)
        want = want[:, torch.randint(want.shape[1], got.shape[1:], generator=generator)]
        loss = (got.sort(1).values - want.sort(1).values).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        fall.step()
        losses.append(loss.item())
    return canvas.detach(), losses


# ---------------------------------------------------------------------------------------------- compared with pocket


def pocket(swatch: Tensor, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pocket's quilt and its result, both (3, side, side).

    The quilt is the swatch once more as another channel, which follows the color and is not denoised.
    """
    request = SynthesizeRequest(swatch=swatch, height=side, width=side, seed=seed, channels={"quilt": Channel(swatch)})
    result = run(synthesize(load(models.POCKET, "pocket"), request))
    return from_uint8(result.channels["quilt"]), from_uint8(result.color)


def figures(picture: Tensor, swatch: Tensor) -> str:
    """The metrics of a result in one line."""
    edges = metrics.seam(picture)
    return (
        f"distance {metrics.patch_distance(picture, swatch):.4f} (halves {metrics.halves_distance(swatch):.4f})  "
        f"sharpness {metrics.sharpness(picture) / metrics.sharpness(swatch):.2f}  "
        f"copied {metrics.copy_share(picture, swatch):.2f}  "
        f"repeats {metrics.repetition(picture).peak:.2f} ({metrics.repetition(swatch).peak:.2f})  "
        f"seam {edges.y.single.ratio:.2f} {edges.x.single.ratio:.2f}"
    )


def _read(path: Path) -> Tensor:
    with Image.open(path) as image:
        return from_uint8(np.asarray(image.convert("RGB")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("swatch", type=Path)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    swatch, side = _read(options.swatch), options.side
    began = time.monotonic()
    made = generate(swatch, side, side, torch.Generator().manual_seed(options.seed))
    between = time.monotonic()
    quilt, ours = pocket(swatch, side, options.seed)
    print(f"{options.swatch.stem}: GPDM {between - began:.0f} s, pocket {time.monotonic() - between:.0f} s")
    for name, picture in (("GPDM", made), ("quilt", quilt), ("pocket", ours)):
        print(f"  {name:7}{figures(picture, swatch)}")
    sheet = torch.cat([swatch[:, :side, :side], made, quilt, ours], 2)
    Image.fromarray(to_uint8(sheet).numpy()).save(options.out)


if __name__ == "__main__":
    main()
