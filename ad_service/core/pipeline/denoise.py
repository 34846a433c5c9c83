"""The sampler of a job: its plan, its steps with previews, and the passes through the network that it took."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.backbone.model import Family
from ad_service.core.canvas import Shape
from ad_service.core.pipeline.request import Preset, Request, Step
from ad_service.core.pipeline.start import Start
from ad_service.core.pipeline.task import Task, step_of
from ad_service.core.pixels import to_uint8
from ad_service.core.sampling.attention import capture_attention
from ad_service.core.sampling.samplers import Plan, Sampler, optimize, sample
from ad_service.core.sampling.styleid import transfer_style


@dataclass(frozen=True)
class Method:
    """A sampler and what it needs.

    Attributes:
        sampler: see `samplers.Sampler`.
        steps: its own number of timesteps; None for the family's.
        yields_per_step: how often it yields for each timestep.
        replaces_quilt: whether restyling starts from the content's latents in every family.
    """

    sampler: Sampler
    steps: int | None = None
    yields_per_step: int = 1
    replaces_quilt: bool = False


METHODS: dict[str, Method] = {
    "optimize": Method(optimize),
    "sample": Method(sample),
    "preview": Method(transfer_style, steps=50, yields_per_step=2, replaces_quilt=True),  # steps: StyleID, section 5
}
"""Methods by their names in a request."""

STRUCTURE_WEIGHT = 0.25
"""Weight of the content loss where structure has to stay: lambda of the paper, section 4."""

PRESETS: dict[Preset, float] = {"draft": 0.5, "standard": 1.0, "fine": 2.0}
"""Factor on a family's own number of steps."""

PREVIEW_SIDE = 512
"""Pixels along the longer side of a preview, at most."""


def plan_of(
    request: Request, family: Family, *, steps: int, strength: float = 1.0, keeps_structure: bool = False
) -> Plan:
    """The request's own schedule; where it leaves a choice, the family's, with these steps and this strength.

    `keeps_structure` says whether the structure of the start has to stay, for a layout or a content.
    """
    weight = request.content_weight
    return Plan(
        steps=request.steps or max(1, round(steps * PRESETS[request.preset])),
        iterations=request.iterations or family.iterations,
        learning_rate=request.learning_rate or family.learning_rate,
        content_weight=(STRUCTURE_WEIGHT if keeps_structure else 0.0) if weight is None else weight,
        strength=request.strength or strength,
    )


def denoise(
    task: Task, start: Start, plan: Plan, method: Method
) -> Generator[Step, None, tuple[Tensor, dict[str, float]]]:
    """Run a sampler from the start; returns the canvas (C, H, W) and the counted passes through the UNet."""
    constraints = replace(
        task.constraints, content=start.canvas if start.is_picture else None, change_mask=start.change_mask
    )
    to_color = _color_map(task.latents, task.exemplar.color, task.model.family.factor)
    count = plan.steps * method.yields_per_step
    canvas = start.canvas
    with capture_attention(task.model, task.request.conditioning) as capture:
        canvases = method.sampler(capture, constraints, canvas, plan, task.generator)
        for i, canvas in enumerate(canvases, 1):
            step = step_of("denoise", i / count)
            yield replace(step, message=f"step {i} of {count}", preview=_small_picture(to_color, canvas, task.shape))
        return canvas, {"unet_forwards": float(capture.forwards), "unet_backwards": float(capture.backwards)}


def _color_map(latents: Tensor, picture: Tensor, factor: int) -> Tensor:
    """The linear map (C + 1, 3) from latents to colors that fits the exemplar best: a preview needs no decoder."""
    colors = F.avg_pool2d(picture[None], factor)[0].flatten(1).t()
    z = F.pad(latents.flatten(1).t(), (0, 1), value=1.0)
    solution: Tensor = torch.linalg.lstsq(z, colors).solution
    return solution


def _small_picture(to_color: Tensor, canvas: Tensor, shape: Shape) -> Callable[[], Tensor]:
    """A picture of the canvas of at most PREVIEW_SIDE pixels a side, made when called."""

    def make() -> Tensor:
        z = canvas[:, : shape.height, : shape.width]
        step = -(-max(z.shape[1:]) // PREVIEW_SIDE)
        z = z[:, ::step, ::step]
        colors = F.pad(z.flatten(1).t(), (0, 1), value=1.0) @ to_color
        small = colors.t().reshape(3, *z.shape[1:])
        grow = max(1, PREVIEW_SIDE // max(small.shape[1:]))
        return to_uint8(F.interpolate(small[None], scale_factor=grow, mode="bilinear", align_corners=False)[0])

    return make
