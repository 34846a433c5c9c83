"""What a training run is: its settings, its budget, its folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch


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
    """What decides the weights; a run keeps these in RUN/settings.json and refuses to go on with others."""

    seed: int = field(default=0, metadata={"help": "of the textures, the weights and every step"})
    textures: int = field(default=2432, metadata={"help": "number of drawn textures"})
    photograph_share: float = field(default=2 / 3, metadata={"help": "share of crops from photographs, if any"})
    channels: int = field(default=16, metadata={"help": "of the latents"})
    codec_widths: tuple[int, ...] = field(default=(32, 64, 96), metadata={"help": "of the codec's three levels"})
    codec_batch: int = field(default=8, metadata={"help": "crops per step"})
    codec_crop: int = field(default=80, metadata={"help": "pixels per side, a multiple of 4"})
    codec_rate: float = field(default=2e-3, metadata={"help": "highest learning rate"})
    standardize: bool = field(
        default=False, metadata={"help": "the UNet sees latents of mean 0 and variance 1, see statistics.py"}
    )
    unet_widths: tuple[int, ...] = field(default=(48, 96, 160), metadata={"help": "of the UNet's three levels"})
    unet_textures: int = field(default=4, metadata={"help": "textures per step"})
    unet_each: int = field(default=3, metadata={"help": "noised windows of each texture, at least 2"})
    unet_crop: int = field(
        default=32, metadata={"help": "latents per side of a window; some steps take 1.5 or 2 times this"}
    )
    unet_rate: float = field(default=1.2e-3, metadata={"help": "highest learning rate"})


@dataclass(frozen=True)
class Run:
    """A training run: its folder, its settings, and how to carry it out on this machine."""

    folder: Path
    settings: Settings = Settings()
    codec_budget: Budget = Budget(minutes=26)
    unet_budget: Budget = Budget(minutes=170)
    cooldown: float = 0.2
    """The last part of a budget, in which the learning rate falls."""
    photographs: Path | None = None
    """A folder of photographed materials, see photographs.py; without one, drawn textures alone."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 2
    """Processes that draw textures."""
    loaders: int = 0
    """Processes that prepare batches; 0: the training process does."""
    save_every: float = 180.0
    """Seconds between checkpoints."""
    validate_every: int = 500
    """Steps between validations."""

    @property
    def textures_file(self) -> Path:
        """uint8 (n, side, side, 3)."""
        return self.folder / "textures.npy"

    @property
    def code_file(self) -> Path:
        """The codec's patch code, see PatchCode."""
        return self.folder / "code.safetensors"

    @property
    def initial_weights(self) -> Path | None:
        """The exported weights that the run started from, or None if it started from nothing."""
        path = self.folder / "initial"
        return path if path.exists() else None

    def checkpoint(self, name: str) -> Path:
        """The checkpoint of the codec or of the UNet."""
        return self.folder / f"{name}.pt"


def keep_json(path: Path, values: dict[str, object]) -> None:
    """Write what a new run depends on into its folder.

    Raises:
        ValueError: The file is there and has other values.
    """
    values = json.loads(json.dumps(values))
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        for name in {**kept, **values}:
            if kept.get(name) != values.get(name):
                raise ValueError(
                    f"{path}: the run was started with {name} = {kept.get(name)}, not {values.get(name)}; "
                    "continue it with the same, or start another with a new --out"
                )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def keep_settings(run: Run) -> None:
    """Write the settings into a new run's folder; raise ValueError if an old run's differ."""
    keep_json(run.folder / "settings.json", asdict(run.settings))


def start_from(run: Run, weights: Path) -> None:
    """Copy exported weights into a new run's folder, so that it starts from them and keeps their codec.

    Raises:
        ValueError: The run has begun without them.
    """
    target = run.folder / "initial"
    if target.exists():
        return
    if run.checkpoint("unet").exists() or run.checkpoint("codec").exists():
        raise ValueError(f"{run.folder}: the run was started without --init; start another with a new --out")
    part = run.folder / "initial.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(weights, part)
    part.rename(target)
