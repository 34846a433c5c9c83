"""Make pocket's weights anew, from nothing, in four stages: textures, codec, unet, export.

    python -m ad_service.pocket.train --out RUN

Each stage leaves its result in RUN and is passed over when that is there. Training writes checkpoints and goes on from
the last one, whatever ended it. What a step does depends on the seed and on the step's number alone. A GPU takes the
same command with `--device cuda` and larger settings.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ad_service.pocket.codec_start import FACTOR, PatchCode, analyse, build_codec, write_codec
from ad_service.pocket.in_context import InContext
from ad_service.pocket.textures import write_textures

Loss = Callable[[torch.Generator, float], tuple[Tensor, dict[str, float]]]


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


@dataclass(frozen=True)
class Settings:
    """What decides the weights; a run keeps these in RUN/settings.json and refuses others."""

    seed: int = field(default=0, metadata={"help": "of the textures, the weights and every step"})
    textures: int = field(default=2432, metadata={"help": "how many textures to make"})
    channels: int = field(default=16, metadata={"help": "of the latents"})
    codec_widths: tuple[int, ...] = field(default=(32, 64, 96), metadata={"help": "of the codec's three levels"})
    codec_batch: int = field(default=8, metadata={"help": "crops a step"})
    codec_crop: int = field(default=80, metadata={"help": "pixels a side, a multiple of 4"})
    codec_rate: float = field(default=2e-3, metadata={"help": "highest learning rate"})
    unet_widths: tuple[int, ...] = field(default=(48, 96, 160), metadata={"help": "of the UNet's three levels"})
    unet_textures: int = field(default=4, metadata={"help": "textures a step"})
    unet_each: int = field(default=3, metadata={"help": "noised crops of each texture, at least 2"})
    unet_crop: int = field(
        default=32, metadata={"help": "latents a side; a fifth of the later steps takes 1.5 times this"}
    )
    unet_rate: float = field(default=1.2e-3, metadata={"help": "highest learning rate"})


@dataclass(frozen=True)
class Run:
    """A run: its folder, its settings, and how to carry it out here."""

    folder: Path
    settings: Settings = Settings()
    codec_budget: Budget = Budget(minutes=26)
    unet_budget: Budget = Budget(minutes=170)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 2
    save_every: float = 180.0  # seconds

    @property
    def textures_file(self) -> Path:
        """uint8 (n, side, side, 3)."""
        return self.folder / "textures.npy"

    @property
    def code_file(self) -> Path:
        """The codec's patch code, see PatchCode."""
        return self.folder / "code.safetensors"


def keep_settings(run: Run) -> None:
    """Write the settings into a new run's folder; raise ValueError where an old run's differ."""
    path = run.folder / "settings.json"
    mine = json.loads(json.dumps(asdict(run.settings)))
    if path.exists():
        theirs = json.loads(path.read_text())
        for name, value in mine.items():
            if theirs.get(name) != value:
                raise ValueError(
                    f"{path} was started with {name} = {theirs.get(name)}, not {value}: "
                    "pass the same settings to go on, or another --out to start anew"
                )
    run.folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(mine, indent=2) + "\n")


# -- crops ----------------------------------------------------------------------------------------------------------


def draw(g: torch.Generator, low: int, high: int) -> int:
    """An integer in [low, high)."""
    return int(torch.randint(low, high, (), generator=g))


def uniform(g: torch.Generator) -> float:
    """A number in [0, 1)."""
    return float(torch.rand((), generator=g))


def load_textures(run: Run) -> Tensor:
    """uint8 (n, side, side, 3): read from the file as needed on a CPU, held by a GPU."""
    textures = torch.from_numpy(np.load(run.textures_file, mmap_mode="c"))
    return textures if run.device.type == "cpu" else textures.to(run.device)


def as_images(pixels: Tensor) -> Tensor:
    """uint8 (n, h, w, 3) -> (n, 3, h, w) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def crops(textures: Tensor, g: torch.Generator, count: int, size: int) -> Tensor:
    """`count` crops of one random texture, turned, mirrored, scaled and recoloured alike: (count, 3, size, size)."""
    texture = textures[draw(g, 0, len(textures))]
    side = size if uniform(g) < 0.6 else round(size * (1 + min(1.2, len(texture) / size - 1) * uniform(g)))
    flip_x, flip_y, transpose = (uniform(g) < 0.5 for _ in range(3))
    corners = [(draw(g, 0, len(texture) - side + 1), draw(g, 0, len(texture) - side + 1)) for _ in range(count)]
    images = as_images(torch.stack([texture[y : y + side, x : x + side] for y, x in corners]))
    images = images.flip(-1) if flip_x else images
    images = images.flip(-2) if flip_y else images
    images = images.transpose(-1, -2) if transpose else images
    if side != size:
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    if uniform(g) < 0.4:
        images = images[:, torch.randperm(3, generator=g)]
    if uniform(g) < 0.5:
        gain = 1 + 0.25 * (2 * torch.rand(3, 1, 1, generator=g) - 1)
        images = ((images + 1) * gain.to(images.device) - 1).clamp(-1, 1)
    return images


# -- one loop for both networks -------------------------------------------------------------------------------------


def checkpoint(path: Path, **state: object) -> None:
    """Write a checkpoint that is whole or not there."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def rate_at(step: int, used: float, warm: int = 60) -> float:
    """Learning rate factor: linear warm-up, then a cosine to a fiftieth."""
    return min(1.0, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * used)))


def groups(model: nn.Module, rate: float) -> list[dict[str, Any]]:
    """What is trained, and how fast: queries and keys more slowly, or Adam shakes their likeness to bits."""
    slow: list[nn.Parameter] = []
    fast: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (slow if ".to_q." in name or ".to_k." in name else fast).append(p)
    return [{"params": fast, "rate": rate}, {"params": slow, "rate": 0.25 * rate}]


def fit(name: str, model: nn.Module, loss: Loss, budget: Budget, rate: float, run: Run) -> None:
    """Train whatever of the model requires a gradient until the budget is used, with AdamW and a moving average.

    loss(generator, used) gives the loss and numbers to report. The checkpoint RUN/name.pt is written every `save_every`
    seconds and at the end, and read at the start.
    """
    path = run.folder / f"{name}.pt"
    model.train()
    weights: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    average = copy.deepcopy(model).requires_grad_(False)
    averaged: list[Tensor] = [
        a for a, p in zip(average.parameters(), model.parameters(), strict=True) if p.requires_grad
    ]
    optimizer = torch.optim.AdamW(groups(model, rate), betas=(0.9, 0.98), weight_decay=1e-2, fused=True)
    step, seconds = 0, 0.0
    if path.exists():
        state = torch.load(path, map_location=run.device, weights_only=True)
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
        g = torch.Generator().manual_seed(run.settings.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * rate_at(step, used)
        value, numbers = loss(g, used)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
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
        if now - saved >= run.save_every:
            save()
            saved = now
    save()


# -- codec ----------------------------------------------------------------------------------------------------------


def pixel_loss(out: Tensor, target: Tensor) -> tuple[Tensor, dict[str, float]]:
    """L1 at three scales, and L1 of the gradients, which keeps edges sharp and shows no block grid."""
    d = out.float() - target
    dx, dy = d[..., 1:] - d[..., :-1], d[..., 1:, :] - d[..., :-1, :]
    coarse = F.avg_pool2d(d, 2).abs().mean() + F.avg_pool2d(d, 4).abs().mean()
    loss = d.abs().mean() + 0.5 * coarse + 0.4 * (dx.abs().mean() + dy.abs().mean())
    psnr = -10 * (d.detach() / 2).square().mean((1, 2, 3)).log10()
    return loss, {"loss": float(loss.detach()), "psnr": float(psnr.mean())}


def new_codec(settings: Settings) -> AutoencoderKL:
    """The codec, nothing written into it yet."""
    return build_codec(settings.channels, settings.codec_widths)


def plainer(image: Tensor, g: torch.Generator) -> Tensor:
    """Draw an image (3, h, w) towards one colour, often a very bright or dark one: paper, snow, smoke, soot."""
    contrast = 0.05 + 0.6 * uniform(g)
    grey = uniform(g) * 2 - 1 if uniform(g) < 0.3 else math.copysign(1 - 0.3 * uniform(g), uniform(g) - 0.3)
    colour = (grey + 0.2 * (torch.rand(3, 1, 1, generator=g) - 0.5)).clamp(-1, 1)
    return torch.lerp(colour.to(image.device), image, contrast)


def codec_loss(codec: AutoencoderKL, textures: Tensor, code: PatchCode, run: Run) -> Loss:
    """Decode slightly wrong latents of crops, some of which are pasted together from two places."""
    size, device = run.settings.codec_crop, run.device

    def loss(g: torch.Generator, used: float) -> tuple[Tensor, dict[str, float]]:
        images = []
        for _ in range(run.settings.codec_batch):
            a, b = crops(textures, g, 2, size)
            if uniform(g) < 0.3:
                y, x = draw(g, 0, size - 16), draw(g, 0, size - 16)
                h, w = draw(g, 16, 64), draw(g, 16, 64)
                a[:, y : y + h, x : x + w] = b[:, y : y + h, x : x + w]
            images.append(plainer(a, g) if uniform(g) < 0.35 else a)
        x0 = torch.stack(images)
        z = code.encode(x0)
        wrong = 0.15 * torch.rand(len(z), 1, 1, 1, generator=g).square() * torch.randn(z.shape, generator=g)
        z = (z + wrong.to(device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            out = codec.decode(z).sample
        return pixel_loss(out, x0)

    return loss


def train_codec(run: Run) -> None:
    """Write the encoder, train the decoder: RUN/code.safetensors and RUN/codec.pt."""
    textures = load_textures(run)
    torch.manual_seed(run.settings.seed)
    if not run.code_file.exists():
        code = analyse(as_images(textures[:400, :256, :256]).cpu(), run.settings.channels)
        save_file(asdict(code), run.code_file)
    code = read_code(run)
    codec = new_codec(run.settings)
    write_codec(codec, code)
    codec = codec.to(run.device, memory_format=torch.channels_last)
    codec.requires_grad_(False)
    codec.decoder.requires_grad_(True)
    loss = codec_loss(codec, textures, code, run)
    fit("codec", codec, loss, run.codec_budget, run.settings.codec_rate, run)


def read_code(run: Run) -> PatchCode:
    """The patch code of this run."""
    return PatchCode(**load_file(run.code_file, device=str(run.device)))


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
        for layer in unet.modules():
            if isinstance(layer, Attention):  # queries like keys: a token first attends to what looks like it
                layer.to_q.load_state_dict(layer.to_k.state_dict())
    return unet


def damage(z: Tensor, g: torch.Generator) -> Tensor:
    """What a quilt does to latents: of two crops of a texture (2, c, h, w), the first one, spoilt: (c, h, w).

    Either thin bands come from the second crop, or blocks are shifted by a few latents; hard, or half blended.
    """
    clean, other = z[0], z[1]
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
        out[:, y : y + bh, x : x + bw].lerp_(source[:, y : y + bh, x : x + bw], strength)
    return out


def timestep(g: torch.Generator, damaged: bool) -> int:
    """Any for a crop; for a damaged one the range in which a quilt is mended."""
    if damaged:
        return draw(g, 180, 650)
    return draw(g, 0, 600) if uniform(g) < 0.7 else draw(g, 600, 1000)


def windows(z: Tensor, g: torch.Generator, count: int, size: int) -> Tensor:
    """`count` windows of latents (c, h, w): (count, c, size, size).

    They overlap, as a quilt's parts are found in its swatch; half of the time by multiples of 4, so that the tokens of
    the lowest level coincide.
    """
    room, grid = z.shape[-1] - size, 4 if uniform(g) < 0.5 else 1
    corners = [[grid * draw(g, 0, room // grid + 1) for _ in range(2)] for _ in range(count)]
    return torch.stack([z[:, y : y + size, x : x + size] for y, x in corners])


def soften(images: Tensor, g: torch.Generator) -> Tensor:
    """Mostly, blur (n, 3, h, w) a little: photographs are softer than rendered textures."""
    if uniform(g) < 0.15:
        return images
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return images.lerp(blurred, 0.2 + 0.8 * uniform(g))


@contextmanager
def without_fine_skips(unet: UNet2DModel) -> Iterator[None]:
    """Cut the connections across the top level: what is known of the picture comes by the levels with attention.

    Those alone denoise so well that without such steps the levels below, and with them the reference, stay unused.
    """
    top = unet.up_blocks[-1]
    cut = top.register_forward_pre_hook(lambda _, a: (a[0], tuple(torch.zeros_like(s) for s in a[1]), *a[2:]))
    try:
        yield
    finally:
        cut.remove()


def set_references(unet: UNet2DModel, count: int, own: bool = True) -> None:
    """Tell the attention layers how many of the batch are clean references, and whether the others see themselves."""
    processor = InContext(count, own)
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(processor)


def unet_loss(unet: UNet2DModel, textures: Tensor, code: PatchCode, run: Run) -> Loss:
    """Denoise crops of a texture beside one clean crop of it; some were damaged before the noise was added."""
    settings, device = run.settings, run.device
    alphas = noise_schedule().alphas_cumprod
    weight = 1 / code.analysis.flatten(1).norm(dim=1)  # an error in structure weighs more than one in grain
    weight = (weight / weight.mean())[:, None, None]

    def loss(g: torch.Generator, used: float) -> tuple[Tensor, dict[str, float]]:
        size, count = settings.unet_crop, settings.unet_textures
        if used > 0.3 and uniform(g) < 0.2:
            size, count = size * 3 // 2, max(1, count // 2)
        regions = torch.cat([soften(crops(textures, g, 1, FACTOR * size * 3 // 2), g) for _ in range(count)])
        z = torch.stack([windows(region, g, 1 + settings.unet_each, size) for region in code.encode(regions)])
        reference, clean = z[:, 0], z[:, 1:]
        spoilt = torch.rand(clean.shape[:2], generator=g) < 0.45
        start = clean.clone()
        for i, j in spoilt.nonzero().tolist():
            start[i, j] = damage(torch.stack([clean[i, j], clean[i, j - 1]]), g)
        t = torch.tensor([[timestep(g, s) for s in row] for row in spoilt.tolist()]).flatten()
        clean, start = clean.flatten(0, 1), start.flatten(0, 1)
        a = alphas[t].to(device)[:, None, None, None]
        noised = a.sqrt() * start + (1 - a).sqrt() * torch.randn(start.shape, generator=g).to(device)
        v = (a.sqrt() * noised - clean) / (1 - a).sqrt()  # so that the estimate of x0 is the undamaged crop
        batch = torch.cat([reference, noised]).contiguous(memory_format=torch.channels_last)
        times = torch.cat([torch.zeros(count, dtype=torch.long), t]).to(device)
        set_references(unet, count, own=uniform(g) < 0.4)  # mostly not: else it never learns to look elsewhere
        blind = uniform(g) < 0.2
        cut = without_fine_skips(unet) if blind else nullcontext()
        with cut, torch.autocast(device.type, torch.bfloat16):
            out = unet(batch, times).sample[count:]
        errors = (weight * (out.float() - v).square()).mean((1, 2, 3))
        numbers: dict[str, list[float]] = {}
        for error, at, damaged in zip(errors.tolist(), t.tolist(), spoilt.flatten().tolist(), strict=True):
            kind = "blind" if blind else "mend" if damaged else f"t{at // 250 * 250:03d}"
            numbers.setdefault(kind, []).append(error)
        return errors.mean(), {k: float(np.mean(n)) for k, n in numbers.items()}

    return loss


def train_unet(run: Run) -> None:
    """Train the denoiser in context: RUN/unet.pt."""
    torch.manual_seed(run.settings.seed)
    unet = new_unet(run.settings).to(run.device, memory_format=torch.channels_last)
    loss = unet_loss(unet, load_textures(run), read_code(run), run)
    fit("unet", unet, loss, run.unet_budget, run.settings.unet_rate, run)


# -- the stages, and the command line -----------------------------------------------------------------------------


def make_textures(run: Run) -> None:
    """RUN/textures.npy, unless it is there."""
    if not run.textures_file.exists():
        write_textures(run.textures_file, run.settings.textures, run.settings.seed, run.workers)


def export(run: Run, weights: Path) -> None:
    """Write the averaged weights of the last checkpoints in fp16, as diffusers lays them out."""
    models = {"codec": ("vae", new_codec(run.settings)), "unet": ("unet", new_unet(run.settings))}
    for name, (folder, model) in models.items():
        state = torch.load(run.folder / f"{name}.pt", map_location="cpu", weights_only=True)
        model.load_state_dict(state["average"])
        model.half().save_pretrained(weights / folder)
        print(f"{folder}: step {state['step']}, {state['seconds'] / 60:.1f} minutes", flush=True)
    noise_schedule().save_pretrained(weights / "scheduler")
    for path in weights.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    size = sum(p.stat().st_size for p in weights.rglob("*.safetensors"))
    print(f"{weights}: {size / 1e6:.1f} MB", flush=True)


STAGES = ("textures", "codec", "unet", "export")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; every field of Settings is an option."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--weights", type=Path, help="where to export to; RUN/weights unless given")
    parser.add_argument("--stage", choices=STAGES, help="do this stage alone; export works while a run trains")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU")
    parser.add_argument("--workers", type=int, default=2, help="processes that make textures")
    for name, minutes in (("codec", 26.0), ("unet", 170.0)):
        parser.add_argument(f"--minutes-{name}", type=float, default=minutes, help="training time")
        parser.add_argument(f"--steps-{name}", type=int, help="number of steps, instead of minutes")
    for f in fields(Settings):
        default = f.default
        many: dict[str, Any] = {"nargs": 3, "type": int} if isinstance(default, tuple) else {"type": type(default)}
        text = f"{f.metadata['help']} (default {default})"
        parser.add_argument(f"--{f.name.replace('_', '-')}", default=default, help=text, **many)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Carry out the stages that are not done."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    values: dict[str, Any] = {f.name: getattr(args, f.name) for f in fields(Settings)}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    run = Run(
        folder=args.out,
        settings=Settings(**values),
        codec_budget=Budget(args.steps_codec, args.minutes_codec),
        unet_budget=Budget(args.steps_unet, args.minutes_unet),
        device=args.device,
        workers=args.workers,
    )
    keep_settings(run)
    do = {
        "textures": lambda: make_textures(run),
        "codec": lambda: train_codec(run),
        "unet": lambda: train_unet(run),
        "export": lambda: export(run, args.weights or run.folder / "weights"),
    }
    for stage in [args.stage] if args.stage else STAGES:
        do[stage]()


if __name__ == "__main__":
    main()
