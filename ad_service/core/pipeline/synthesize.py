"""The recipe of a new texture: prepare the exemplar, start, denoise, finish, deliver."""

from __future__ import annotations

from ad_service.core.backbone.codec import Decoders
from ad_service.core.backbone.model import Family, Model
from ad_service.core.pipeline.denoise import denoise, method_of, plan_of
from ad_service.core.pipeline.finish import deliver, finish, plainest_shift
from ad_service.core.pipeline.options import PipelineOptions
from ad_service.core.pipeline.request import Job, SynthesizeRequest
from ad_service.core.pipeline.start import STARTS, novel
from ad_service.core.pipeline.task import as_steps, begin


def synthesize(
    model: Model, request: SynthesizeRequest, decoders: Decoders | None = None, options: PipelineOptions | None = None
) -> Job:
    """A texture of any size from the swatch; yields after every step and can be dropped between any two.

    Args:
        decoders: fitted decoders to use again; a new one is added.
        options: constants of the pipeline, for tests.

    Raises:
        LabelError: the painted layout and the regions do not fit together.
        NotFinite: the network's output contains NaN or infinity.
    """
    family, options = model.family, options or PipelineOptions()
    name = _start_name(request, family)
    task = yield from begin(model, request, options, fit_periods=name == "quilt", maps=request.maps)
    making = novel(task, request.novelty) if name == "quilt" and request.novelty else STARTS[name](task)
    start = yield from as_steps("start", making)
    method = method_of(request.method, family, task.shape)
    plan = plan_of(
        request,
        method.schedule(family),
        strength=family.strength if name == "quilt" else 1.0,
        keeps_structure=request.maps is not None and start.is_picture,
    )
    canvas, passes = yield from denoise(task, start, plan, method)
    image, round_trip = yield from finish(task, start, canvas, decoders)
    has_origin = request.maps is not None or not options.move_edge
    shift = (0, 0) if has_origin else plainest_shift(image, request.tiles)
    return (yield from deliver(task, start, image, shift, round_trip | passes))


def _start_name(request: SynthesizeRequest, family: Family) -> str:
    """The requested start, or the family's; noise is never chosen for a layout, because it cannot follow one."""
    if request.start != "auto":
        return request.start
    return "fill" if family.start == "noise" and request.maps is not None else family.start
