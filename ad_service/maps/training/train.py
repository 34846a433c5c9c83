"""Trains the network that estimates maps from a picture.

    python -m ad_service.maps.training.train --out RUN --materials DIR --minutes 90
    python -m ad_service.maps.training.train --out RUN --minutes 90

DIR has one folder for each material with color.jpg, normal_gl.jpg, roughness.jpg, height.jpg; a fifth is held out. Without
it the network is trained on drawn materials alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from ad_service.core.materials.estimate_network import GRID, MapsNetwork
from ad_service.maps.training.crops import batch
from ad_service.maps.training.evaluate import Figures, figures, mean, torus_gradient
from ad_service.maps.training.materials import Surface, draw_surfaces, read_surfaces
from ad_service.maps.training.objective import Weights, loss

AVERAGE = 0.998
VALIDATE_SECONDS = 240.0


@torch.no_grad()
def validate(network: MapsNetwork, held_out: list[Surface]) -> list[Figures]:
    rows = []
    for surface in held_out:
        color = surface.color[None].float() / 255
        h, w = color.shape[2:]
        assert h % GRID == 0 and w % GRID == 0
        with torch.autocast("cpu", torch.bfloat16):
            height, roughness = network(color.contiguous(memory_format=torch.channels_last), (True, True))
        rows.append(figures(surface, torus_gradient(height[0].float()), height[0].float(), roughness[0].float()))
    return rows


def train(args) -> None:
    photographed, held_out = read_surfaces(args.materials) if args.materials else ([], [])
    drawn = draw_surfaces(args.drawn, args.seed, 1) if args.drawn else []
    groups = [g for g in (photographed, drawn) if g]
    shares = [1 - args.drawn_share, args.drawn_share] if len(groups) == 2 else [1.0]
    print(len(photographed), len(held_out), len(drawn), flush=True)
    torch.manual_seed(args.seed)
    network = MapsNetwork().to(memory_format=torch.channels_last)
    if args.init: network.load_state_dict(torch.load(args.init))
    average = copy.deepcopy(network).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(network.parameters(), args.rate, betas=(0.9, 0.98), weight_decay=args.decay, fused=True)
    g = torch.Generator().manual_seed(args.seed)
    start = last = time.monotonic(); budget = 60 * args.minutes; step = 0; seen = {}
    paused = 0.0
    while (used := (time.monotonic() - start - paused) / budget) < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1, (step + 1) / 60) * max(0.01, min(1.0, (1 - used) / 0.7))
        b = batch(groups, shares, args.size, args.batch, args.relit, g)
        with torch.autocast("cpu", torch.bfloat16):
            height, roughness = network(b.color.contiguous(memory_format=torch.channels_last))
        value, parts = loss(height, roughness, b, Weights())
        optimizer.zero_grad(set_to_none=True); value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0); optimizer.step(); step += 1
        with torch.no_grad():
            keep = min(AVERAGE, step / (step + 20))
            for a, p in zip(average.state_dict().values(), network.state_dict().values()):
                if a.dtype.is_floating_point: a.lerp_(p, 1 - keep)
        for k, v in parts.items(): seen.setdefault(k, []).append(v)
        if step % 25 == 0:
            print(f"step {step} {used*args.minutes:.1f} min " + " ".join(f"{k} {np.mean(v):.3f}" for k, v in seen.items()), flush=True); seen.clear()
        if held_out and (time.monotonic() - last > VALIDATE_SECONDS):
            t = time.monotonic()
            rows = validate(average, held_out); print("VALID", step, mean(rows), flush=True)
            torch.save(average.state_dict(), args.out / "average.pt")
            last = time.monotonic(); paused += last - t
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(average.state_dict(), args.out / "average.pt")
    rows = validate(average, held_out)
    for s, r in zip(held_out, rows): print(f"{s.name:30s} {r}")
    print("VALID final", step, mean(rows))


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--out", type=Path); p.add_argument("--materials", type=Path); p.add_argument("--minutes", type=float, default=90)
    p.add_argument("--drawn", type=int, default=0); p.add_argument("--drawn-share", type=float, default=0.2)
    p.add_argument("--rate", type=float, default=2e-3); p.add_argument("--decay", type=float, default=0.05); p.add_argument("--relit", type=float, default=0.3)
    p.add_argument("--size", type=int, default=256); p.add_argument("--batch", type=int, default=8); p.add_argument("--seed", type=int, default=0)
    p.add_argument("--init", type=Path)
    args = p.parse_args(); torch.set_num_threads(1); args.out.mkdir(parents=True, exist_ok=True)
    train(args)
