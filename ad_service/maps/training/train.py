"""Trains the network that estimates maps from a picture.

    python -m ad_service.maps.training.train --out RUN --materials DIR --minutes 60
    python -m ad_service.maps.training.train --out RUN --minutes 60

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
from torch import nn

from ad_service.core.materials.estimate_network import MapsNetwork
from ad_service.maps.training.crops import Batch, Sample, batch
from ad_service.maps.training.objective import Weights, loss, corners, corner_slopes, unit_normals
from ad_service.core.materials.estimate_network import FEATURES
from ad_service.maps.training.materials import correlation

AVERAGE = 0.998


@torch.no_grad()
def validate(network, held_out):
    rows = []
    for name, variants in held_out.items():
        s = variants[0]; c = s.channels.float()
        h, r, _ = network(c[None, :FEATURES].contiguous(memory_format=torch.channels_last), (True, True))
        p, t = corners(corner_slopes(h)), corners(corners(c[None, FEATURES:FEATURES+2]))
        row = [float("nan")] * 4
        if s.has[0]:
            d = (unit_normals(p) - unit_normals(t)).square().sum(1).sqrt().mean() * 57.3
            row[0] = float((correlation(p[:, :1], t[:, :1]) + correlation(p[:, 1:], t[:, 1:])) / 2); row[1] = float(d)
        if s.has[1]: row[2] = float((r[0] - c[FEATURES+2:FEATURES+3]).abs().mean())
        if s.has[2]: row[3] = float(correlation(h[0], c[FEATURES+3:]))
        rows.append((name, row))
    return rows


def train(args) -> None:
    tr, ho = torch.load(args.samples) if args.samples else ({}, {})
    tr = {k: [Sample(*x) for x in v] for k, v in tr.items()}; held_out = {k: [Sample(*x) for x in v] for k, v in ho.items()}
    groups = [list(tr.values())]; shares = [1.0]
    if args.drawn:
        d = torch.load(args.drawn); groups.append([[Sample(*x)] for x in d]); shares = [1 - args.drawn_share, args.drawn_share]
    print([len(g) for g in groups], len(held_out), flush=True)
    torch.manual_seed(args.seed)
    network = MapsNetwork().to(memory_format=torch.channels_last)
    print(sum(p.numel() for p in network.parameters()))
    if args.init: network.load_state_dict(torch.load(args.init))
    average = copy.deepcopy(network).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(network.parameters(), args.rate, betas=(0.9, 0.98), weight_decay=args.decay, fused=True)
    g = torch.Generator().manual_seed(args.seed)
    start = last = time.monotonic(); budget = 60 * args.minutes; step = 0; seen = {}
    best = 9.0
    def check():
        nonlocal best
        rows = validate(average, held_out); m = np.nanmean([r for _, r in rows], 0)
        print(f"VALID {step} cpu {time.process_time()/60:.1f} corr {m[0]:.3f} angle {m[1]:.2f} rough {m[2]:.3f} height {m[3]:.3f}", flush=True)
        torch.save(average.state_dict(), args.out / "average.pt")
        return rows
    while (used := (time.process_time() if args.cpu else time.monotonic() - start) / budget) < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1, (step + 1) / 60) * max(0.01, min(1.0, (1 - used) / 0.6))
        b = batch(groups, shares, args.side, args.batch, g)
        with torch.autocast("cpu", torch.bfloat16):
            height, roughness, _ = network(b.features.contiguous(memory_format=torch.channels_last))
        value, parts = loss(height, roughness, b, Weights())
        optimizer.zero_grad(set_to_none=True); value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0); optimizer.step(); step += 1
        with torch.no_grad():
            keep = min(AVERAGE, step / (step + 20))
            for a, p in zip(average.state_dict().values(), network.state_dict().values()):
                if a.dtype.is_floating_point: a.lerp_(p, 1 - keep)
        for k, v in parts.items(): seen.setdefault(k, []).append(v)
        if step % 50 == 0:
            print(f"step {step} {used*args.minutes:.1f} min " + " ".join(f"{k} {np.mean(v):.3f}" for k, v in seen.items()), flush=True); seen.clear()
        if held_out and step % 100 == 0: check()
    for n, r in check(): print(f"{n:30s} " + " ".join(f"{x:+.3f}" for x in r))


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--out", type=Path); p.add_argument("--samples", type=Path); p.add_argument("--minutes", type=float, default=90)
    p.add_argument("--drawn", type=Path); p.add_argument("--drawn-share", type=float, default=0.3)
    p.add_argument("--rate", type=float, default=2e-3); p.add_argument("--decay", type=float, default=0.05)
    p.add_argument("--side", type=int, default=80); p.add_argument("--batch", type=int, default=8); p.add_argument("--seed", type=int, default=0)
    p.add_argument("--init", type=Path); p.add_argument("--cpu", action="store_true")
    args = p.parse_args(); torch.set_num_threads(1); args.out.mkdir(parents=True, exist_ok=True)
    train(args)
