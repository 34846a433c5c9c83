"""What the stages of one job share, and how they report their steps."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from ad_service.core.backbone import codec
from ad_service.core.backbone.model import Model
from ad_service.core.canvas import Shape
from ad_service.core.pipeline.exemplar import Exemplar, canvas_shape, constraints_of, prepare
from ad_service.core.pipeline.options import PipelineOptions
from ad_service.core.pipeline.request import LabelMaps, Phase, Request, Step
from ad_service.core.sampling.samplers import Constraints
from ad_service.core.steps import translate

R = TypeVar("R")

SPANS: dict[Phase, tuple[float, float]] = {
    "prepare": (0.0, 0.03),
    "encode": (0.03, 0.05),
    "start": (0.05, 0.15),
    "denoise": (0.15, 0.8),
    "fit-decoder": (0.8, 0.84),
    "decode": (0.84, 0.86),
    "sharpen": (0.86, 0.95),
    "maps": (0.95, 0.98),
    "measure": (0.98, 1.0),
}
"""The part of a job's time that each phase takes, roughly, for the progress bar."""

MESSAGES: dict[Phase, str] = {
    "prepare": "preparing the swatch",
    "encode": "encoding the swatch",
    "start": "preparing the start",
    "denoise": "denoising",
    "fit-decoder": "fitting the decoder",
    "decode": "decoding",
    "sharpen": "sharpening",
    "maps": "painting the maps",
    "measure": "measuring",
}


@dataclass(frozen=True)
class Task:
    """A job after its preparation.

    `latents` (C, h, w) are those of the exemplar, `shape` is the result in latents, `constraints.shape` the canvas,
    which may be larger. `notes` collects what the artist should know.
    """

    model: Model
    request: Request
    exemplar: Exemplar
    latents: Tensor
    shape: Shape
    constraints: Constraints
    generator: torch.Generator
    options: PipelineOptions
    notes: list[str] = field(default_factory=list)


def begin(
    model: Model,
    request: Request,
    options: PipelineOptions,
    *,
    fit_periods: bool = False,
    maps: LabelMaps | None = None,
) -> Generator[Step, None, Task]:
    """Prepare the exemplar, encode it, and lay out the canvas. Raises LabelError."""
    yield step_of("prepare", 0.0)
    exemplar = prepare(request, model.family, options, fit_periods=fit_periods, maps=maps)
    yield step_of("encode", 0.0)
    latents = codec.encode(model, exemplar.color)
    constraints = constraints_of(request, model.family, exemplar, latents)
    generator = torch.Generator().manual_seed(request.seed)
    shape = canvas_shape(request, model.family)
    return Task(model, request, exemplar, latents, shape, constraints, generator, options)


def step_of(phase: Phase, fraction: float) -> Step:
    """The step of a phase of which a fraction in [0, 1] is done."""
    low, high = SPANS[phase]
    return Step(low + (high - low) * fraction, phase, MESSAGES[phase])


def as_steps(phase: Phase, work: Generator[float, None, R]) -> Generator[Step, None, R]:
    """The steps of a phase from the fractions in [0, 1] that its work yields; returns the work's result."""
    return translate(work, lambda fraction: step_of(phase, fraction))
