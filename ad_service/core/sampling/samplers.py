"""Samplers: how a canvas of latents becomes more of the swatch. Generators that yield after every step.

Both work on windows of the canvas and never hold more than a batch of them on the device. The canvas itself, its noise
and its Adam state live on the host in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ad_service.core.backbone.loading import Backbone
from ad_service.core.canvas import Accumulator, Shape, Window, cut_windows, windows
from ad_service.core.sampling.attention import Labels, Layer, Reference, Tape
from ad_service.core.sampling.losses import ad_loss, attend, content_loss

MOST_WINDOWS = 32
"""Windows that go through the network at once at most; more are not faster."""

LOSS_SCALE = 2.0**10
"""What the loss is multiplied by while its gradient is taken, so that float16 holds it: it is a mean over millions."""


class NotFinite(ArithmeticError):
    """The network gave NaN or infinity."""


@dataclass(frozen=True)
class Plan:
    """How a canvas is worked on.

    `strength` is the part of the noise schedule that is run, `steps` the timesteps in it, `iterations` the Adam
    iterations at each, `settle` how many of the last steps run on two window grids and average.
    """

    steps: int
    iterations: int
    learning_rate: float
    content_weight: float
    strength: float
    settle: int = 2


@dataclass(frozen=True)
class Subject:
    """What is made of what: the swatch's latent crops zs (R, C, h, w), the canvas' shape in latents, the labels.

    `layout` (H, W) and `regions` (R, h, w) are label maps of `count` labels, both or neither. `content` (C, H, W) is
    the latent whose queries the content loss keeps. `freedom` (H, W) in [0, 1] says how far each cell may leave the
    canvas that it starts from: 0 keeps it, None frees all.
    """

    zs: Tensor
    shape: Shape
    layout: Tensor | None = None
    regions: Tensor | None = None
    count: int = 0
    content: Tensor | None = None
    freedom: Tensor | None = None


Sampler = Callable[[Tape, Subject, Tensor, Plan, torch.Generator], Iterator[Tensor]]


def optimize(tape: Tape, subject: Subject, canvas: Tensor, plan: Plan, generator: torch.Generator) -> Iterator[Tensor]:
    """One Adam on the canvas (C, H, W) while t falls linearly to 0; the swatch is clean at each t (paper, section 3.2).

    Yields the canvas after every step.
    """
    first, second = torch.zeros_like(canvas), torch.zeros_like(canvas)
    labels, in_context = _labels(tape, subject), tape.backbone.family.in_context
    reference: Reference | None = None
    for i, t in enumerate(timesteps(tape.backbone, plan)):
        if reference is None or not in_context:
            reference = tape.reference(subject.zs, 0 if in_context else t, labels)
        for k in range(plan.iterations):
            age = i * plan.iterations + k + 1
            moved = [Accumulator(len(canvas), subject.shape) for _ in range(3)]
            for spots in batches(tape, subject.shape, generator):
                z, m, v = (cut_windows(u, spots, subject.shape) for u in (canvas, first, second))
                gradient = _gradient(tape, z, t, reference, spots, subject, plan)
                z, m, v = _adam(z, m, v, gradient, age, plan.learning_rate)
                for total, value in zip(moved, (z, m, v), strict=True):
                    total.add(spots, value)
            moving, first, second = (finite(total.mean()) for total in moved)
            canvas = moving if subject.freedom is None else torch.lerp(canvas, moving, subject.freedom)
        yield canvas


def sample(tape: Tape, subject: Subject, canvas: Tensor, plan: Plan, generator: torch.Generator) -> Iterator[Tensor]:
    """DDIM from the noised canvas (C, H, W); after each step a fresh Adam lowers the AD loss at the new t.

    The swatch is noised to that t with one draw of noise for all windows, or read clean by a family that reads in
    context (paper, section 3.3). What has no freedom follows the start, noised to each t. Yields the clean canvas as
    it is predicted so far, and at the end the result.
    """
    backbone = tape.backbone
    steps = timesteps(backbone, plan)
    kept, noise = canvas, torch.randn(canvas.shape, generator=generator)
    canvas = recombine(backbone, kept, noise, steps[0])
    labels = _labels(tape, subject)
    reference: Reference | None = None
    for i, t in enumerate(steps):
        after = steps[i + 1] if i + 1 < len(steps) else None
        if backbone.family.in_context:
            reference = reference or tape.reference(subject.zs, 0, labels)
        elif after is not None:
            reference = tape.reference(noised(subject.zs, backbone, after, generator), after, labels)
        total, clean = (Accumulator(len(canvas), subject.shape) for _ in range(2))
        for spots in batches(tape, subject.shape, generator, twice=i >= len(steps) - plan.settle):
            z = cut_windows(canvas, spots, subject.shape).to(backbone.device)
            layout = _layout(tape, subject, spots)
            with torch.no_grad():
                prediction, _ = tape.observe(z, t, reference, layout)
                x0, eps = split(backbone, z, prediction, t)
            z = x0 if after is None else recombine(backbone, x0, eps, after)
            if after is not None and reference is not None:
                z = _lower(tape, z, after, reference, spots, subject, plan)
            total.add(spots, z)
            clean.add(spots, x0)
        canvas = finite(total.mean())
        if subject.freedom is not None:
            canvas = torch.lerp(
                kept if after is None else recombine(backbone, kept, noise, after), canvas, subject.freedom
            )
        yield canvas if after is None else clean.mean()


def timesteps(backbone: Backbone, plan: Plan) -> list[int]:
    """`steps` integer timesteps from strength * T down, the last one above 0."""
    top = plan.strength * (len(backbone.alphas) - 1)
    return [max(1, round(top * (1 - i / plan.steps))) for i in range(plan.steps)]


def noised(z: Tensor, backbone: Backbone, t: int, generator: torch.Generator) -> Tensor:
    """sqrt(a) z + sqrt(1 - a) noise, drawn on the host so that every device gets the same."""
    return recombine(backbone, z, torch.randn(z.shape, generator=generator).to(z.device), t)


def split(backbone: Backbone, z: Tensor, prediction: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """The clean latent and the noise that a prediction says z is made of."""
    a = float(backbone.alphas[t])
    signal, noise = a**0.5, (1 - a) ** 0.5
    if backbone.prediction == "v_prediction":
        return signal * z - noise * prediction, noise * z + signal * prediction
    if backbone.prediction == "epsilon":
        return (z - noise * prediction) / max(signal, 1e-3), prediction
    return prediction, (z - signal * prediction) / max(noise, 1e-3)


def recombine(backbone: Backbone, x0: Tensor, eps: Tensor, t: int) -> Tensor:
    """The deterministic DDIM step to t (arXiv 2010.02502, equation 12)."""
    a = float(backbone.alphas[t])
    return a**0.5 * x0 + (1 - a) ** 0.5 * eps


def _labels(tape: Tape, subject: Subject) -> Labels | None:
    return None if subject.regions is None else Labels(subject.regions, subject.count, tape.backbone.device)


def _layout(tape: Tape, subject: Subject, spots: list[Window]) -> Labels | None:
    if subject.layout is None:
        return None
    maps = cut_windows(subject.layout[None], spots, subject.shape)[:, 0]
    return Labels(maps, subject.count, tape.backbone.device)


def batches(tape: Tape, shape: Shape, generator: torch.Generator, twice: bool = False) -> Iterator[list[Window]]:
    """The windows of one step in batches, on a grid that is rolled by a random offset; `twice`: on two grids."""
    side = tape.backbone.family.window
    y, x = torch.randint(0, side, (2,), generator=generator).tolist()
    offsets = [(y, x), (y + side // 2, x + side // 2)] if twice else [(y, x)]
    spots = [w for offset in offsets for w in windows(shape, side, offset)]
    while spots:
        batch, spots = spots[: tape.batch], spots[tape.batch :]
        yield batch


def _loss(
    tape: Tape,
    layers: dict[int, Layer],
    reference: Reference,
    layout: Labels | None,
    content: dict[int, Layer] | None,
    weight: float,
) -> Tensor:
    """The AD loss, and the weighted content loss, summed over layers and windows."""
    total = torch.zeros((), device=tape.backbone.device)
    for i, layer in layers.items():
        with torch.no_grad():
            target = tape.target(i, layer, reference, layout)
        total = total + ad_loss(attend(layer.Q, layer.K, layer.V, tape.similarity), target).sum()
        if content is not None:
            total = total + weight * content_loss(layer.Q, content[i].Q).sum()
    return total


def _gradient(
    tape: Tape, z: Tensor, t: int, reference: Reference, spots: list[Window], subject: Subject, plan: Plan
) -> Tensor:
    """The gradient of the loss for windows z (B, C, h, w), on the host; in smaller batches if memory is out."""
    try:
        with _sizing(tape, len(z)):
            return _whole_gradient(tape, z, t, reference, spots, subject, plan)
    except torch.OutOfMemoryError:
        if len(z) == 1:
            raise
    tape.batch = len(z) // 2
    torch.cuda.empty_cache()  # does nothing where there is no CUDA
    parts = zip(z.split(tape.batch), (spots[i : i + tape.batch] for i in range(0, len(z), tape.batch)), strict=True)
    return torch.cat([_gradient(tape, part, t, reference, some, subject, plan) for part, some in parts])


@contextmanager
def _sizing(tape: Tape, count: int) -> Iterator[None]:
    """Around the first window on a CUDA device: as many as its memory holds go through at once from then on."""
    device = tape.backbone.device
    if device.type != "cuda" or count > 1 or tape.backwards:
        yield
        return
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield
    each = max(1, torch.cuda.max_memory_allocated(device) - before)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + unused
    tape.batch = max(1, min(MOST_WINDOWS, int(0.8 * free / each)))


def _whole_gradient(
    tape: Tape, z: Tensor, t: int, reference: Reference, spots: list[Window], subject: Subject, plan: Plan
) -> Tensor:
    device = tape.backbone.device
    layout = _layout(tape, subject, spots)
    content = _content(tape, t, reference, spots, subject, plan, layout)
    with torch.enable_grad():
        leaf = z.detach().to(device).requires_grad_()
        layers = tape.layers(leaf, t, reference, layout)
        loss = _loss(tape, layers, reference, layout, content, plan.content_weight)
        (gradient,) = torch.autograd.grad(LOSS_SCALE * loss, leaf)
    tape.backwards += len(z)
    return gradient.to(z.device) / LOSS_SCALE


def _content(
    tape: Tape, t: int, reference: Reference, spots: list[Window], subject: Subject, plan: Plan, layout: Labels | None
) -> dict[int, Layer] | None:
    if subject.content is None or plan.content_weight <= 0:
        return None
    with torch.no_grad():
        z = cut_windows(subject.content, spots, subject.shape).to(tape.backbone.device)
        return tape.layers(z, t, reference, layout)


def _lower(
    tape: Tape, z: Tensor, t: int, reference: Reference, spots: list[Window], subject: Subject, plan: Plan
) -> Tensor:
    """A few iterations of a fresh Adam on windows z (B, C, h, w)."""
    m, v = torch.zeros_like(z), torch.zeros_like(z)
    for k in range(1, plan.iterations + 1):
        gradient = _gradient(tape, z, t, reference, spots, subject, plan)
        z, m, v = _adam(z, m, v, gradient, k, plan.learning_rate)
    return z


def _adam(z: Tensor, m: Tensor, v: Tensor, gradient: Tensor, age: int, rate: float) -> tuple[Tensor, Tensor, Tensor]:
    """z and its two moments after the `age`-th step, counted from 1 (arXiv 1412.6980, algorithm 1)."""
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.square()
    return z - rate * (m / (1 - 0.9**age)) / ((v / (1 - 0.999**age)).sqrt() + 1e-8), m, v


def finite(canvas: Tensor) -> Tensor:
    """The canvas itself; raises NotFinite if it holds NaN or infinity."""
    if not bool(torch.isfinite(canvas).all()):
        raise NotFinite("the network gave NaN or infinity")
    return canvas


SAMPLERS: dict[str, Sampler] = {"optimize": optimize, "sample": sample}
