"""The sampler of a job: its plan, its steps with previews, and the passes through the network that it took."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.backbone import memory
from ad_service.core.backbone.devices import free_memory
from ad_service.core.backbone.model import Family, Model, Schedule
from ad_service.core.canvas import Shape
from ad_service.core.pipeline.exemplar import HALVED
from ad_service.core.pipeline.request import Preset, Request, Step
from ad_service.core.pipeline.start import Start
from ad_service.core.pipeline.task import Task, step_of
from ad_service.core.pixels import to_uint8
from ad_service.core.sampling.attention import capture_attention
from ad_service.core.sampling.samplers import MAX_BATCH, Plan, Sampler, optimize, sample
from ad_service.core.sampling.styleid import transfer_style


@dataclass(frozen=True)
class Method:
    """A sampler and what it needs.

    Attributes:
        sampler: see `samplers.Sampler`.
        schedule: its default schedule in a family.
        yields_per_step: how often it yields for each timestep.
        replaces_quilt: whether restyling starts from the content's latents in every family.
        takes_gradients: whether it lowers a loss.
    """

    sampler: Sampler
    schedule: Callable[[Family], Schedule]
    yields_per_step: int = 1
    replaces_quilt: bool = False
    takes_gradients: bool = True


METHODS: dict[str, Method] = {
    "optimize": Method(optimize, lambda family: family.optimize),
    "sample": Method(sample, lambda family: family.sample),
    "preview": Method(  # steps: StyleID, section 5
        transfer_style, lambda _: Schedule(50), 2, replaces_quilt=True, takes_gradients=False
    ),
}
"""Methods by their names in a request."""


def method_of(name: str, family: Family, shape: Shape) -> Method:
    """The method with that name; "auto" is the family's, and `sample` for a redrawn canvas larger than its window.

    The paper expands textures by sampling only (its section 4), and optimizes pictures of one window.
    """
    if name != "auto":
        return METHODS[name]
    expands = family.start == "noise" and max(shape.height, shape.width) > family.window
    return METHODS["sample" if expands else family.method]


STRUCTURE_WEIGHT = 0.25
"""Weight of the content loss where structure has to stay: lambda of the paper, section 4."""

PRESETS: dict[Preset, float] = {"draft": 0.5, "standard": 1.0, "fine": 2.0}
"""Factor on a family's own number of steps."""

SMALLEST_WINDOW = 32
"""Latents along the side of the smallest windows: in 256 pixels Stable Diffusion hardly recognizes a picture."""

PREVIEW_SIDE = 512
"""Pixels along the longer side of a preview, at most."""


def plan_of(request: Request, schedule: Schedule, *, strength: float = 1.0, keeps_structure: bool = False) -> Plan:
    """The request's own schedule; where it leaves a choice, `schedule` and this strength.

    `keeps_structure` says whether the structure of the start has to stay, for a layout or a content.
    """
    weight = request.content_weight
    return Plan(
        steps=request.steps or max(1, round(schedule.steps * PRESETS[request.preset])),
        iterations=request.iterations or schedule.iterations,
        learning_rate=request.learning_rate or schedule.learning_rate,
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
    factor = task.model.family.factor
    to_color = _color_map(task.latents, task.exemplar.color, factor) if task.latents.numel() else None
    count = plan.steps * method.yields_per_step
    canvas = start.canvas
    room = room_for(task.model, method.takes_gradients)
    model = task.model
    if room.window < model.family.window:
        task.notes.append(room.note(model))
        model = replace(model, family=replace(model.family, window=room.window))
    with capture_attention(model, task.request.conditioning, recomputes=room.recomputes) as capture:
        capture.batch = room.batch
        canvases = method.sampler(capture, constraints, canvas, plan, task.generator)
        for i, canvas in enumerate(canvases, 1):
            step = step_of("denoise", i / count)
            preview = None if to_color is None else _small_picture(to_color, canvas, task.shape)
            yield replace(step, message=f"step {i} of {count}", preview=preview)
        return canvas, {"unet_forwards": float(capture.forwards), "unet_backwards": float(capture.backwards)}


@dataclass(frozen=True)
class Room:
    """How a sampler fits into the memory of its device: the side of its windows in latents, how many run at once, and
    whether the backward pass computes blocks again; `free` are the bytes that it was chosen for."""

    window: int
    batch: int = 1
    recomputes: bool = False
    free: int = 0

    def note(self, model: Model) -> str:
        """Why windows are smaller than the model's own."""
        side, own = (n * model.family.factor for n in (self.window, model.family.window))
        return (
            f"{self.free / 1e9:.1f} GB of the device's memory were free, so the texture was made in windows of {side} "
            f"pixels and not of {own}; large shapes may look worse"
        )


def room_for(model: Model, takes_gradients: bool = True) -> Room:
    """Windows, batch and recomputation for the free memory, chosen before the first window runs.

    Some drivers move what does not fit into the computer's memory instead of raising an error, and become many times
    slower. Without an estimate (pocket, or a CPU) one window runs at a time, until its use has been measured.
    """
    family, free = model.family, free_memory(model.device)
    need = memory.UNETS.get(family.name)
    if free is None or need is None:
        return Room(family.window)
    usable, wide = memory.SHARE * free, model.dtype.itemsize / 2
    fused = model.device.type != "mps"  # there attention with a gradient keeps all scores (pytorch PR 182746)
    gradient = need.gradient if fused else need.unfused
    each = wide * (gradient if takes_gradients else 3 * need.forward)  # of a preview: content, swatch and canvas
    recomputes = takes_gradients and each * family.window**2 > usable
    if recomputes:
        each = wide * (need.recomputed if fused else need.unfused_recomputed)
    window = family.window
    while each * window**2 > usable and window > SMALLEST_WINDOW:
        window -= HALVED
    batch = max(1, min(MAX_BATCH, int(usable / (each * window**2))))
    return Room(window, batch, recomputes, free)


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
