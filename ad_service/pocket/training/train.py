"""Trains pocket's weights in four stages: textures, codec, unet, export.

    python -m ad_service.pocket.training.train --out RUN
    python -m ad_service.pocket.training.train --out RUN --photographs DIR --init ad_service/pocket/weights

The first command needs no data: it trains on drawn textures alone. --photographs adds a folder of photographed
materials (one subfolder each with color.jpg, normal_gl.jpg, height.jpg, or plain pictures), a fifth of which is held
out for validation. --init starts the UNet from exported weights and keeps their codec.

Each stage leaves its result in RUN and is skipped if that is there. Training writes checkpoints, and the same command
continues an interrupted run. A step depends on the seed and the step's number alone. The learning rate is constant
until the last part of the budget, --cooldown: a run without a known end gets many --steps-unet, and is ended by the
same command with fewer.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin

from ad_service.pocket.training.codec import new_codec, train_codec
from ad_service.pocket.training.crops import Source, load_textures
from ad_service.pocket.training.denoiser import load_unet, noise_schedule, train_denoiser
from ad_service.pocket.training.photographs import Material, read_materials
from ad_service.pocket.training.settings import Budget, Run, Settings, keep_json, keep_settings, start_from
from ad_service.pocket.training.statistics import write_flag
from ad_service.pocket.training.textures import write_textures

STAGES = ("textures", "codec", "unet", "export")


def make_textures(run: Run) -> None:
    """RUN/textures.npy, unless it is there."""
    if not run.textures_file.exists():
        write_textures(run.textures_file, run.settings.textures, run.settings.seed, run.workers)


def training_data(run: Run) -> tuple[Source, list[Material]]:
    """The source of crops, and the held-out materials; their names are kept in RUN/materials.json.

    Raises:
        ValueError: The folder's materials are not those that the run was started with.
    """
    training, held_out = read_materials(run.photographs) if run.photographs else ([], [])
    names = {"training": [m.name for m in training], "held_out": [m.name for m in held_out]}
    keep_json(run.folder / "materials.json", dict(names))
    return Source(load_textures(run), training, run.settings.photograph_share), held_out


def export_model(model: ModelMixin, checkpoint: Path, folder: Path) -> None:
    """Write the averaged weights of a checkpoint in fp16, as diffusers lays them out."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(state["average"])
    model.half().save_pretrained(folder)
    print(f"{folder.name}: step {state['step']}, {state['seconds'] / 60:.1f} minutes", flush=True)


def export(run: Run, weights: Path) -> None:
    """Write codec, UNet and noise schedule as diffusers lays them out."""
    export_model(load_unet(run), run.checkpoint("unet"), weights / "unet")
    if run.initial_weights is None:
        export_model(new_codec(run.settings), run.checkpoint("codec"), weights / "vae")
    else:
        shutil.copytree(run.initial_weights / "vae", weights / "vae", dirs_exist_ok=True)
    noise_schedule().save_pretrained(weights / "scheduler")
    write_flag(weights, run.settings.standardize)
    for path in weights.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    size = sum(p.stat().st_size for p in weights.rglob("*.safetensors"))
    print(f"{weights}: {size / 1e6:.1f} MB", flush=True)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; every field of Settings is an option."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="folder of photographed materials")
    parser.add_argument("--init", type=Path, metavar="WEIGHTS", help="exported weights to start from")
    parser.add_argument("--weights", type=Path, help="where to export to (default RUN/weights)")
    parser.add_argument("--stage", choices=STAGES, help="this stage alone; export works while a run trains")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw textures")
    parser.add_argument("--loaders", type=int, default=0, help="processes that prepare batches; for a GPU")
    for name, minutes in (("codec", 26.0), ("unet", 170.0)):
        parser.add_argument(f"--minutes-{name}", type=float, default=minutes, help="training time")
        parser.add_argument(f"--steps-{name}", type=int, help="number of steps, instead of minutes")
    parser.add_argument("--cooldown", type=float, default=0.2, help="last part of a budget, with a falling rate")
    for f in fields(Settings):
        default = f.default
        many: dict[str, Any] = {"nargs": 3, "type": int} if isinstance(default, tuple) else {"type": type(default)}
        if isinstance(default, bool):
            many = {"action": argparse.BooleanOptionalAction}
        text = f"{f.metadata['help']} (default {default})"
        parser.add_argument(f"--{f.name.replace('_', '-')}", default=default, help=text, **many)
    return parser.parse_args(argv)


def run_of(args: argparse.Namespace) -> Run:
    """The run that the command line describes."""
    values: dict[str, Any] = {f.name: getattr(args, f.name) for f in fields(Settings)}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Run(
        folder=args.out,
        settings=Settings(**values),
        codec_budget=Budget(args.steps_codec, args.minutes_codec),
        unet_budget=Budget(args.steps_unet, args.minutes_unet),
        cooldown=args.cooldown,
        photographs=args.photographs,
        device=args.device,
        workers=args.workers,
        loaders=args.loaders,
    )


def carry_out(run: Run, stages: Sequence[str], weights: Path) -> None:
    """The stages that are not done yet."""
    for stage in stages:
        if stage == "textures":
            make_textures(run)
        elif stage == "codec" and run.initial_weights is None:
            train_codec(run, training_data(run)[0])
        elif stage == "unet":
            train_denoiser(run, *training_data(run))
        elif stage == "export":
            export(run, weights)


def main(argv: list[str] | None = None) -> None:
    """Command line; ends with a message if the settings or the photographs are invalid."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    run = run_of(args)
    try:
        keep_settings(run)
        if args.init:
            start_from(run, args.init)
        carry_out(run, [args.stage] if args.stage else STAGES, args.weights or run.folder / "weights")
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
