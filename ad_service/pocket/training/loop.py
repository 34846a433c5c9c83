"""The training loop of both networks: batches by step number, AdamW, a moving average, checkpoints, validation."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ad_service.pocket.training.settings import Budget, Run

B = TypeVar("B")
Numbers = dict[str, float]
LOG_EVERY = 50
WARM_UP_STEPS = 200
AVERAGE = 0.999
"""Share that the moving average of the weights keeps in a step."""


class Batches(Dataset[B], Generic[B]):
    """Batch number `step` of a run: a function of the seed and of the step alone."""

    def __init__(self, make: Callable[[torch.Generator], B], seed: int) -> None:
        self.make = make
        self.seed = seed

    def __getitem__(self, step: int) -> B:
        return self.make(torch.Generator().manual_seed(self.seed * 1_000_003 + step))


def same(batch: B) -> B:
    """The batch as it was made."""
    return batch


def load(batches: Batches[B], first: int, run: Run) -> Iterator[B]:
    """Batches from number `first` on, without end, prepared ahead if the run has processes for that."""
    steps = range(first, 1 << 40)
    loader = DataLoader(batches, batch_size=None, sampler=steps, num_workers=run.loaders, collate_fn=same)
    return iter(loader)


def write_checkpoint(path: Path, **state: object) -> None:
    """Write a checkpoint; an interruption leaves the one before."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def rate_factor(step: int, used: float, cooldown: float) -> float:
    """Factor of the learning rate: linear warm-up, constant, and linear to a fiftieth in the last part of the budget.

    So a run that is given a larger budget continues at the same rate, unless its cooldown had begun.
    """
    return min(1.0, (step + 1) / WARM_UP_STEPS) * max(0.02, min(1.0, (1 - used) / max(1e-9, cooldown)))


def parameter_groups(model: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Parameters and their learning rates: a quarter for queries and keys, whose similarity Adam would destroy."""
    slow: list[nn.Parameter] = []
    fast: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (slow if ".to_q." in name or ".to_k." in name else fast).append(p)
    return [{"params": fast, "rate": rate}, {"params": slow, "rate": 0.25 * rate}]


class Log:
    """Prints the mean of the numbers of the last steps, and writes validations to RUN/NAME_validation.jsonl."""

    def __init__(self, name: str, run: Run) -> None:
        self.name = name
        self.validations = run.folder / f"{name}_validation.jsonl"
        self.seen: dict[str, list[float]] = {}

    def write(self, text: str) -> None:
        """Print a line."""
        print(f"{self.name} {text}", flush=True)

    def add(self, numbers: Numbers, step: int, seconds: float) -> None:
        """Keep the numbers of a step; print their means from time to time."""
        for key, number in numbers.items():
            self.seen.setdefault(key, []).append(number)
        if step % LOG_EVERY == 0:
            means = "  ".join(f"{k} {np.mean(v):.4f}" for k, v in sorted(self.seen.items()))
            self.write(f"step {step}  {seconds / 60:.1f} min  {means}")
            self.seen.clear()

    def validation(self, numbers: Numbers, step: int, seconds: float) -> None:
        """Print a validation and append it to its file."""
        self.write(f"step {step}  validation  " + "  ".join(f"{k} {v:.4f}" for k, v in numbers.items()))
        row = {"step": step, "minutes": round(seconds / 60, 1), **{k: round(v, 5) for k, v in numbers.items()}}
        with self.validations.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def fit(
    name: str,
    model: nn.Module,
    batches: Batches[B],
    loss: Callable[[B], tuple[Tensor, Numbers]],
    budget: Budget,
    rate: float,
    run: Run,
    validate: Callable[[nn.Module], Numbers] | None = None,
) -> None:
    """Train the parameters of the model that require a gradient until the budget is used.

    The checkpoint RUN/NAME.pt is read at the start, and written every `save_every` seconds and at the end.

    Args:
        name: Of the checkpoint and in the log.
        loss: Gives the loss of a batch, and numbers to report.
        rate: The highest learning rate.
        validate: Gives the figures of the averaged model; called at the start and every `validate_every` steps.
    """
    path, log = run.checkpoint(name), Log(name, run)
    model.train()
    weights: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    average = copy.deepcopy(model).requires_grad_(False).eval()
    averaged: list[Tensor] = [
        a for a, p in zip(average.parameters(), model.parameters(), strict=True) if p.requires_grad
    ]
    optimizer = torch.optim.AdamW(parameter_groups(model, rate), betas=(0.9, 0.98), weight_decay=1e-2, fused=True)
    step, seconds = 0, 0.0
    if path.exists():
        state = torch.load(path, map_location=run.device, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        for group, fresh in zip(optimizer.param_groups, parameter_groups(model, rate), strict=True):
            group["rate"] = fresh["rate"]
        step, seconds = state["step"], state["seconds"]
        log.write(f"continues from step {step}, {seconds / 60:.1f} minutes")
    elif validate:
        log.validation(validate(average), 0, 0.0)

    def save() -> None:
        write_checkpoint(
            path,
            model=model.state_dict(),
            average=average.state_dict(),
            optimizer=optimizer.state_dict(),
            step=step,
            seconds=seconds,
        )

    if budget.used(step, seconds) >= 1:
        return
    source = load(batches, step, run)
    saved = last = time.monotonic()
    while (used := budget.used(step, seconds)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * rate_factor(step, used, run.cooldown)
        value, numbers = loss(next(source))
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, 1 - min(AVERAGE, step / (step + 20)))
        now = time.monotonic()
        seconds, last = seconds + now - last, now
        log.add(numbers, step, seconds)
        if validate and step % run.validate_every == 0:
            log.validation(validate(average), step, seconds)
            last = time.monotonic()
        if time.monotonic() - saved >= run.save_every:
            save()
            saved = time.monotonic()
    save()
