"""Trains the network that estimates maps from a picture.

    python -m ad_service.maps.training.train --out RUN --materials DIR --minutes 60
    python -m ad_service.maps.training.train --out RUN --minutes 60

DIR has one folder for each material with color.jpg, normal_gl.jpg, roughness.jpg and height.jpg; a fifth is held out.
The second command needs no data: it trains on drawn materials alone, which have no roughness. The materials are
prepared once, in RUN/samples.pt. An interrupted run continues from RUN/checkpoint.pt; so does one that is given more
minutes. RUN/maps.safetensors is written at the end.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ad_service.core.materials.estimate_network import (
    CHANNELS,
    DEPTH_UNIT,
    FEATURES,
    FIRST_GAIN,
    GRID,
    MapsNetwork,
    enlarge,
    pyramid,
)
from ad_service.maps.training.crops import ZOOMS, Sample, batch, samples
from ad_service.maps.training.materials import correlation, draw_surfaces, read_surfaces
from ad_service.maps.training.objective import Weights, corner_slopes, corners, loss

AVERAGE = 0.998
"""Share that the moving average of the weights keeps in a step."""
WARM_UP_STEPS = 60
COOLDOWN = 0.3
"""Last part of the time, in which the learning rate falls to a hundredth."""
SAVE_SECONDS = 120
STATISTICS_BATCHES = 25
USUAL_ROUGHNESS = 0.73
"""Where no material of the training has one; the median of 118 photographed ones."""
GENTLE = 0.8
"""Factor on the strength that fits the materials of the training: it is surer of them than of others."""
TORUS = (True, True)
LOG_EVERY = 50
VALIDATE_EVERY = 200


@dataclass(frozen=True)
class Settings:
    """How the network is trained.

    Attributes:
        minutes: of training.
        drawn: number of drawn materials.
        drawn_share: share of crops that are of drawn materials.
        rate: highest learning rate.
        decay: weight decay.
        side: cells along the side of a crop.
        count: crops in a batch.
        luminance: share of the luminance itself in the relief; more for a network that was trained little.
        rough: part of the network's roughness that is kept; the rest is the median of the photographs.
        seed: of everything random.
    """

    minutes: float = 60.0
    drawn: int = 700
    drawn_share: float = 0.33
    rate: float = 2e-3
    decay: float = 0.05
    side: int = 80
    count: int = 9
    luminance: float = 0.4
    rough: float = 0.4
    seed: int = 0


@dataclass(frozen=True)
class Data:
    """Materials for training, photographed and drawn, each in several variants; and those held out, by name."""

    photographed: list[list[Sample]]
    drawn: list[list[Sample]]
    held_out: dict[str, Sample]


def prepare(materials: Path | None, settings: Settings, workers: int) -> Data:
    """The training data at the network's resolution."""
    g = torch.Generator().manual_seed(settings.seed)
    photographed, held_out = read_surfaces(materials) if materials else ([], [])
    drawn = draw_surfaces(settings.drawn, settings.seed, workers)
    return Data(
        [found for s in photographed if (found := samples(s, ZOOMS, g))],
        [found for s in drawn if (found := samples(s, (1.0,), g))],
        {s.name: found[0] for s in held_out if (found := samples(s, (1.0,), g))},
    )


def write_data(data: Data, path: Path) -> None:
    """Store training data as tensors."""
    groups = [[[(s.channels, s.has) for s in found] for found in group] for group in (data.photographed, data.drawn)]
    torch.save((*groups, {name: (s.channels, s.has) for name, s in data.held_out.items()}), path)


def read_data(path: Path) -> Data:
    """Training data that `write_data` stored."""
    photographed, drawn, held_out = torch.load(path)
    groups = [[[Sample(*s) for s in found] for found in group] for group in (photographed, drawn)]
    return Data(groups[0], groups[1], {name: Sample(*s) for name, s in held_out.items()})


@torch.no_grad()
def validate(network: MapsNetwork, held_out: dict[str, Sample]) -> dict[str, float]:
    """Mean figures of the held-out materials, at the network's resolution."""
    found: dict[str, list[Tensor]] = {"slopes": [], "roughness": [], "height": []}
    for sample in held_out.values():
        x, maps = sample.channels[:FEATURES].float(), sample.channels[FEATURES:].float()
        height, roughness, _ = network(x[None].contiguous(memory_format=torch.channels_last), (True, True))
        has_normal, has_roughness, has_height = sample.has.tolist()
        if has_normal:
            guess, true = corners(corner_slopes(height)), corners(corners(maps[None, :2]))
            found["slopes"].append(correlation(guess, true)[0])
        if has_roughness:
            found["roughness"].append((roughness[0] - maps[2:3]).abs().mean())
        if has_height:
            found["height"].append(correlation(height[0], maps[3:]))
    return {name: float(torch.stack(values).mean()) for name, values in found.items() if values}


def train(data: Data, settings: Settings, out: Path) -> MapsNetwork:
    """The moving average of the network's weights after the time is used."""
    torch.manual_seed(settings.seed)
    g = torch.Generator().manual_seed(settings.seed)
    groups = [group for group in (data.photographed, data.drawn) if group]
    shares = [1 - settings.drawn_share, settings.drawn_share][: len(groups)]
    network = MapsNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average: MapsNetwork = copy.deepcopy(network).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.98), weight_decay=settings.decay, fused=True)
    seen: dict[str, list[float]] = {}
    path = out / "checkpoint.pt"
    step, seconds = 0, 0.0
    if path.exists():
        state = torch.load(path)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
        g.manual_seed(settings.seed + step)
        print(f"continues from step {step}, {seconds / 60:.1f} minutes", flush=True)
    saved = last = time.monotonic()
    while (used := seconds / (60 * settings.minutes)) < 1:
        factor = min(1.0, (step + 1) / WARM_UP_STEPS) * max(0.01, min(1.0, (1 - used) / COOLDOWN))
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * factor
        crops = batch(groups, shares, settings.side, settings.count, g)
        with torch.autocast("cpu", torch.bfloat16):
            height, roughness, _ = network(crops.features.contiguous(memory_format=torch.channels_last))
        value, parts = loss(height, roughness, crops, Weights())
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        follow(average, network, min(AVERAGE, step / (step + 20)))
        for name, part in parts.items():
            seen.setdefault(name, []).append(part)
        if step % LOG_EVERY == 0:
            print(f"step {step}  {used * settings.minutes:.1f} min  {_means(seen)}", flush=True)
            seen.clear()
        now = time.monotonic()
        seconds, last = seconds + now - last, now
        if now - saved > SAVE_SECONDS or seconds >= 60 * settings.minutes:
            saved = now
            state = {"network": network, "average": average, "optimizer": optimizer}
            torch.save({**{name: m.state_dict() for name, m in state.items()}, "step": step, "seconds": seconds}, path)
        if step % VALIDATE_EVERY == 0:
            print(f"step {step}  validation  {validate(average, data.held_out)}", flush=True)
    return average


@torch.no_grad()
def calibrate(network: MapsNetwork, data: Data, settings: Settings) -> None:
    """Make averaged weights fit for use: statistics of the norms, and the strength of the relief.

    The weights are an average over many steps, and their activations have other statistics than those averaged beside
    them. The relief is mixed with the luminance's. It gets the strength at which blurred slopes that correlate as those
    of the photographs do are off least on average. Roughness is moved towards the usual one.
    """
    found = [group[0] for group in (data.photographed or data.drawn)]
    g = torch.Generator().manual_seed(settings.seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches
            module.train()
    for _ in range(STATISTICS_BATCHES):
        network(batch([[[s] for s in found]], [1.0], settings.side, settings.count, g).features)
    network.eval()
    ratios, guesses = [], []
    for sample in found:
        if sample.has[0]:
            x, true = sample.channels[None, :FEATURES].float(), sample.channels[None, FEATURES : FEATURES + 2].float()
            own, plain = (corners(corner_slopes(h)).flatten() for h in (network(x, TORUS)[0], luminance_height(x)))
            ratios.append(plain.norm() / own.norm())
            guesses.append((own, plain, corners(corners(true)).flatten()))
    share = settings.luminance
    ratio = float(torch.stack(ratios).median())
    mixed = [((1 - share) * ratio * own + share * plain, true) for own, plain, true in guesses]
    agreement = torch.stack([m @ t / (m.norm() * t.norm()).clamp_min(1e-6) for m, t in mixed]).mean()
    steepness = [torch.stack([x.square().mean().sqrt() for x in column]).mean() for column in zip(*mixed, strict=True)]
    strength = GENTLE * float(agreement * steepness[1] / steepness[0])
    print(f"ratio {ratio:.3f}, strength {strength:.3f}", flush=True)
    for head in network.heads:
        assert isinstance(head, nn.Conv2d) and head.bias is not None
        for i, factor in enumerate((strength * (1 - share) * ratio, settings.rough) * 2):
            head.weight[i] *= factor
            head.bias[i] *= factor
        head.bias[2] += strength * share * FIRST_GAIN
    levels = [float(s.channels[FEATURES + 2].mean()) for s in found if s.has[1]] or [USUAL_ROUGHNESS]
    assert isinstance(head.bias, Tensor)
    head.bias[1] += (1 - settings.rough) * float(torch.logit(torch.tensor(levels).median()))


def luminance_height(x: Tensor) -> Tensor:
    """The height (1, 1, h, w) before training, bright is high, of features (1, FEATURES, h, w) of a torus."""
    height = torch.zeros(1)
    for i, band in enumerate(reversed(pyramid(x[:, 3:4], len(CHANNELS), TORUS))):
        height = (enlarge(height, TORUS) if i else height) + DEPTH_UNIT * FIRST_GAIN * GRID / 2**i * band
    return height


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    """Move the average's weights and statistics towards the network's."""
    for a, p in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(p, 1 - keep)


def _means(seen: dict[str, list[float]]) -> str:
    return "  ".join(f"{name} {sum(values) / len(values):.3f}" for name, values in seen.items())


def trained(out: Path) -> MapsNetwork:
    """The averaged weights of a run's last checkpoint."""
    network = MapsNetwork()
    network.load_state_dict(torch.load(out / "checkpoint.pt")["average"])
    return network.eval()


def export(network: MapsNetwork, path: Path) -> None:
    """Write the weights in fp16."""
    state = {name: weight.half().contiguous() for name, weight in network.state_dict().items()}
    save_file({name: weight for name, weight in state.items() if "num_batches" not in name}, path)
    path.chmod(0o644)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Command line; ends with a message if there is nothing to train on."""
    defaults = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--materials", type=Path, metavar="DIR", help="folder of materials")
    parser.add_argument("--minutes", type=float, default=defaults.minutes)
    parser.add_argument("--drawn", type=int, default=defaults.drawn, help="number of drawn materials")
    parser.add_argument("--luminance", type=float, default=defaults.luminance, help="its share in the relief")
    parser.add_argument("--rough", type=float, default=defaults.rough, help="part of the network's roughness kept")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw materials")
    parser.add_argument("--export", action="store_true", help="write the weights of the last checkpoint, and end")
    args = parser.parse_args(argv)
    settings = Settings(
        minutes=args.minutes, drawn=args.drawn, luminance=args.luminance, rough=args.rough, seed=args.seed
    )
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    prepared = args.out / "samples.pt"
    try:
        if not prepared.exists():
            write_data(prepare(args.materials, settings, args.workers), prepared)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    data = read_data(prepared)
    network = trained(args.out) if args.export else train(data, settings, args.out)
    calibrate(network, data, settings)
    print(f"held out: {validate(network, data.held_out)}", flush=True)
    export(network, args.out / "maps.safetensors")


if __name__ == "__main__":
    main()
