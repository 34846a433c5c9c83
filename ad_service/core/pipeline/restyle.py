"""The recipe of a restyling: the content is the start and its structure stays, the exemplar gives the material."""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from ad_service.core.backbone.codec import Decoders
from ad_service.core.backbone.model import Model
from ad_service.core.canvas import resized
from ad_service.core.pipeline import start as starts
from ad_service.core.pipeline.denoise import METHODS, denoise, plan_of
from ad_service.core.pipeline.finish import deliver, finish
from ad_service.core.pipeline.options import PipelineOptions
from ad_service.core.pipeline.request import Job, RestyleRequest
from ad_service.core.pipeline.task import Task, as_steps, begin


def restyle(
    model: Model, request: RestyleRequest, decoders: Decoders | None = None, options: PipelineOptions | None = None
) -> Job:
    """The request's content redrawn in the material of its swatch; arguments and errors as in `synthesize`.

    The canvas starts as the content's latents, and its queries keep to theirs (paper, section 3.2). In a family that
    starts from quilts it starts as pieces of the swatch with the content's light and dark. The method preview is
    StyleID.
    """
    family = model.family
    method = METHODS[family.method if request.method == "auto" else request.method]
    as_quilt = family.start == "quilt" and not method.replaces_quilt
    task = yield from begin(model, request, options or PipelineOptions())
    content = resized(request.content, request.height, request.width, request.tiles)
    picture, shift = _on_canvas(task, content), _half_latent(task)
    schedule = method.schedule(family)
    if method is METHODS["optimize"] and not as_quilt:
        schedule = replace(schedule, steps=2 * schedule.steps)  # paper, section 4: 200 for style transfer
    strength = family.strength if as_quilt else 1.0
    plan = plan_of(request, schedule, strength=strength, keeps_structure=True)
    making = starts.guided_quilt(task, picture, plan.content_weight) if as_quilt else starts.content(task, picture)
    start = yield from as_steps("start", making)
    canvas, passes = yield from denoise(task, start, plan, method)
    image, round_trip = yield from finish(task, start, canvas, decoders)
    return (yield from deliver(task, start, image, shift, round_trip | passes, content))


def _on_canvas(task: Task, content: Tensor) -> Tensor:
    """A content (3, H, W) rolled by half a latent, its last row and column repeated where the canvas is larger."""
    request, shape, factor = task.request, task.constraints.shape, task.model.family.factor
    pad = (0, shape.width * factor - request.width, 0, shape.height * factor - request.height)
    return F.pad(content.roll(_half_latent(task), (1, 2))[None], pad, "replicate")[0]


def _half_latent(task: Task) -> tuple[int, int]:
    """Pixels (down, right) by which the content is rolled during the job: its edge must not lie between two latents."""
    half = task.model.family.factor // 2
    return task.request.tile_y * half, task.request.tile_x * half
