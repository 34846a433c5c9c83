"""The recipe of a texture from words: guided sampling, with the swatch's material if there is a swatch."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core import labels, metrics
from ad_service.core.backbone.codec import Decoders
from ad_service.core.backbone.conditioning import Guidance
from ad_service.core.backbone.model import Model, Schedule
from ad_service.core.backbone.prompts import encode_prompts, length_note
from ad_service.core.backbone.weights import Parts
from ad_service.core.pipeline import start as starts
from ad_service.core.pipeline.denoise import METHODS, denoise, plan_of
from ad_service.core.pipeline.exemplar import Exemplar, canvas_shape, work_shape
from ad_service.core.pipeline.finish import decode_picture, deliver, finish, plainest_shift
from ad_service.core.pipeline.options import PipelineOptions
from ad_service.core.pipeline.request import GenerateRequest, Job, Result, Step
from ad_service.core.pipeline.task import Task, as_steps, begin, step_of
from ad_service.core.pipeline.transform import Transform
from ad_service.core.pixels import from_uint8
from ad_service.core.sampling.samplers import Constraints

SCHEDULE = Schedule(50, 2, 0.015)
"""The authors' schedule for pictures from words (paper, section 3.4): 50 steps with two Adam iterations."""


class NoText(ValueError):
    """The model reads no prompts."""


def generate(
    model: Model, request: GenerateRequest, decoders: Decoders | None = None, options: PipelineOptions | None = None
) -> Job:
    """A texture of the request's prompt; arguments as in `synthesize`.

    With a swatch, each DDIM step is followed by AdaIN to the noised swatch and by Adam on the AD loss, which the empty
    prompt conditions, as in the authors' code.

    Raises:
        NoText: the model reads no prompts.
        LabelError: a label of the layout has no prompt.
        NotFinite: the network's output contains NaN or infinity.
    """
    if model.parts is None or not model.parts.texts:
        raise NoText(f"the model {model.name} reads no prompts; choose a Stable Diffusion model")
    has_swatch, options = request.swatch.numel() > 0, options or PipelineOptions()
    yield step_of("prepare", 0.0)
    guidance = _guidance(model, model.parts, request)
    task = (yield from begin(model, request, options)) if has_swatch else _without_swatch(model, request, options)
    task.notes.extend(note for note in map(length_note, (*request.prompts, request.negative_prompt)) if note)
    constraints = replace(task.constraints, guidance=guidance, layout=_layout(task, request))
    task = replace(task, constraints=constraints)
    start = yield from as_steps("start", starts.noise(task))
    plan = replace(plan_of(request, SCHEDULE), adain=has_swatch)
    canvas, passes = yield from denoise(task, start, plan, METHODS["sample"])
    if not has_swatch:
        image = yield from as_steps("decode", decode_picture(task, canvas))
        return (yield from _delivered(task, image, passes))
    image, round_trip = yield from finish(task, start, canvas, decoders)
    has_origin = request.layout is not None or not options.move_edge
    shift = (0, 0) if has_origin else plainest_shift(image, request.tiles)
    return (yield from deliver(task, start, image, shift, round_trip | passes))


def _guidance(model: Model, parts: Parts, request: GenerateRequest) -> Guidance:
    """The encoded prompts, on the model's device."""
    *positive, negative = encode_prompts(parts, [*request.prompts, request.negative_prompt], model.device, model.dtype)
    return Guidance(tuple(positive), negative, request.guidance)


def _without_swatch(model: Model, request: GenerateRequest, options: PipelineOptions) -> Task:
    """A task whose exemplar has no pixels."""
    empty = torch.empty(0, model.vae.config.latent_channels, 0, 0)
    shape = canvas_shape(request, model.family)
    constraints = Constraints(empty, work_shape(shape))
    exemplar = Exemplar(torch.empty(3, 0, 0), {}, Transform())
    generator = torch.Generator().manual_seed(request.seed)
    return Task(model, request, exemplar, torch.empty(empty.shape[1:]), shape, constraints, generator, options)


def _layout(task: Task, request: GenerateRequest) -> Tensor | None:
    """The layout at the size of the canvas. Raises LabelError for a label without a prompt."""
    if request.layout is None:
        return None
    last = int(request.layout.max())
    if last >= len(request.region_prompts):
        raise labels.LabelError(
            f"the layout has {last + 1} regions, but there are {len(request.region_prompts)} region prompts; "
            "write one for each"
        )
    layout = labels.resize(request.layout, task.shape.height, task.shape.width)
    work = task.constraints.shape
    pad = (0, work.width - task.shape.width, 0, work.height - task.shape.height)
    return F.pad(layout[None, None].float(), pad, "replicate")[0, 0].long()


def _delivered(task: Task, image: Tensor, passes: dict[str, float]) -> Generator[Step, None, Result]:
    """The result of a picture (H, W, 3) uint8 without a swatch to compare it with."""
    yield step_of("measure", 0.0)
    edges, measured = metrics.seam(from_uint8(image)), dict[str, float]()
    for axis, edge, tiles in (("y", edges.y, task.request.tile_y), ("x", edges.x, task.request.tile_x)):
        if tiles:
            measured[f"seam_{axis}"] = edge.single.ratio
            measured[f"seam_{axis}_rank"] = edge.single.rank
            measured[f"seam_{axis}_band"] = edge.band.ratio
    measured["repetition"] = metrics.repetition(from_uint8(image)).peak
    return Result({"color": image}, {**measured, **passes}, tuple(task.notes))
