"""Samplers: how a canvas of latents comes to look like the exemplar. Generators that yield after every step.

A sampler works on windows of the canvas and keeps at most one batch of them on the device. The canvas itself, its
noise and its Adam state stay on the host in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ad_service.core.backbone import memory
from ad_service.core.backbone.conditioning import Guidance
from ad_service.core.backbone.devices import free_cached_memory, free_memory, is_out_of_memory, restart_peak
from ad_service.core.canvas import Accumulator, Shape, Window, cut_windows, windows
from ad_service.core.labels import used
from ad_service.core.sampling.attention import AttentionCapture, Layer, Reference, TokenLabels
from ad_service.core.sampling.diffusion import adain, add_noise, ddim_step, predict_x0_eps, timesteps, timesteps_after
from ad_service.core.sampling.losses import ad_loss, content_loss
from ad_service.core.steps import checkpoint

MAX_BATCH = 32
"""Most windows in one run of the network; more were not faster."""

LOSS_SCALE = 2.0**10
"""Factor on the loss while its gradient is taken, so that float16 does not underflow: it is a mean over millions."""


class NotFinite(ArithmeticError):
    """The network's output contains NaN or infinity."""


@dataclass(frozen=True)
class Plan:
    """The schedule of a sampler.

    Attributes:
        steps: number of timesteps.
        iterations: Adam iterations at each timestep.
        learning_rate: of Adam on the latents.
        content_weight: weight of the content loss (lambda of the paper).
        strength: fraction of the noise schedule that runs, in (0, 1].
        adain: whether `sample` gives the canvas the channel means and deviations of the noised exemplar before the loss
            (paper, section 3.4).
        double_grid_steps: how many of the last steps run on two window grids and average them, since no later step
            would smooth the borders of their windows.
    """

    steps: int
    iterations: int
    learning_rate: float
    content_weight: float
    strength: float
    adain: bool = False
    double_grid_steps: int = 2


Recrop = Callable[[torch.Generator], tuple[Tensor, Tensor | None]]
"""Draws crops (R, C, h, w) of the exemplar and their regions (R, h, w)."""


@dataclass(frozen=True)
class Constraints:
    """What the canvas is driven towards, and where it may change.

    Attributes:
        zs: latent crops (R, C, h, w) of the exemplar; none (R = 0) for a picture made from a prompt alone.
        shape: the canvas in latents.
        layout, regions: label maps (H, W) of the canvas and (R, h, w) of the crops, with `count` labels. A layout
            without regions says which prompt is where.
        content: latents (C, H, W) whose queries the content loss keeps.
        change_mask: (H, W) in [0, 1]: how far each latent may leave the start; 0 keeps it. None: all may change.
        guidance: the prompts of `sample`; None for the capture's own conditioning.
        recrop: draws other crops and their regions, of an exemplar that is larger than the window; None: always `zs`.
    """

    zs: Tensor
    shape: Shape
    layout: Tensor | None = None
    regions: Tensor | None = None
    count: int = 0
    content: Tensor | None = None
    change_mask: Tensor | None = None
    guidance: Guidance | None = None
    recrop: Recrop | None = None

    def draw_crops(self, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The crops and their regions for one timestep."""
        return (self.zs, self.regions) if self.recrop is None else self.recrop(generator)


Queries = dict[int, Tensor]
"""The content's queries (B, heads, L, d) by layer number."""

Sampler = Callable[[AttentionCapture, Constraints, Tensor, Plan, torch.Generator], Iterator[Tensor]]


def optimize(
    capture: AttentionCapture, constraints: Constraints, canvas: Tensor, plan: Plan, generator: torch.Generator
) -> Iterator[Tensor]:
    """One Adam on the canvas (C, H, W) while t falls linearly; the exemplar is clean at each t (paper, section 3.2).

    Yields the canvas after every step.
    """
    first, second = torch.zeros_like(canvas), torch.zeros_like(canvas)
    in_context = capture.model.family.in_context
    descent = _Descent(capture, constraints, plan)
    reference: Reference | None = None
    for i, t in enumerate(timesteps(capture.model, plan.steps, plan.strength)):
        if reference is None or not in_context:
            zs, labels = _exemplar(capture, constraints, generator)
            reference = capture.reference(zs, 0 if in_context else t, labels)
        for k in range(plan.iterations):
            age = i * plan.iterations + k + 1
            moved = [Accumulator(len(canvas), constraints.shape) for _ in range(3)]
            for batch in window_batches(capture, constraints.shape, generator):
                z, m, v = (cut_windows(u, batch, constraints.shape) for u in (canvas, first, second))
                content = descent.content_queries(constraints.content, t, reference, batch)
                z, m, v = _adam(z, m, v, descent.gradient(z, t, reference, batch, content), age, plan.learning_rate)
                for total, value in zip(moved, (z, m, v), strict=True):
                    total.add(batch, value)
            changed, first, second = (check_finite(total.mean()) for total in moved)
            mask = constraints.change_mask
            canvas = changed if mask is None else torch.lerp(canvas, changed, mask)
        yield canvas


def sample(
    capture: AttentionCapture, constraints: Constraints, canvas: Tensor, plan: Plan, generator: torch.Generator
) -> Iterator[Tensor]:
    """DDIM from the noised canvas (C, H, W); after each step a fresh Adam lowers the AD loss at the new t.

    Exemplar and content are noised to that t, each with one draw of noise for all windows (paper, section 3.3); a
    family that reads in context reads the exemplar clean. Latents outside the change mask follow the start, noised to
    each t. Yields the predicted clean canvas after each step, and the result at the end.
    """
    model = capture.model
    steps = timesteps(model, plan.steps, plan.strength)
    start, noise = canvas, torch.randn(canvas.shape, generator=generator)
    canvas = ddim_step(model, start, noise, steps[0])
    descent = _Descent(capture, constraints, plan)
    reference: Reference | None = None
    for i, (t, after) in enumerate(zip(steps, timesteps_after(model, steps), strict=True)):
        content = constraints.content
        if model.family.in_context and reference is None:
            zs, labels = _exemplar(capture, constraints, generator)
            reference = capture.reference(zs, 0, labels)
        elif after is not None and not model.family.in_context and len(constraints.zs):
            zs, labels = _exemplar(capture, constraints, generator)
            zs = add_noise(zs, model, after, generator)
            reference = capture.reference(zs, after, labels)
        if content is not None and after is not None and plan.content_weight > 0:
            content = add_noise(content, model, after, generator)
        total, clean = (Accumulator(len(canvas), constraints.shape) for _ in range(2))
        double_grid = i >= len(steps) - plan.double_grid_steps
        for batch in window_batches(capture, constraints.shape, generator, double_grid):
            z = cut_windows(canvas, batch, constraints.shape).to(model.device)
            layout = _window_labels(capture, constraints, batch)
            with torch.no_grad():
                if constraints.guidance is None:
                    prediction, _ = capture.predict_and_record(z, t, reference, layout)
                else:
                    prediction = _guided(capture, constraints, z, t, batch)
                x0, eps = predict_x0_eps(model, z, prediction, t)
            z = x0 if after is None else ddim_step(model, x0, eps, after)
            if after is not None and reference is not None and not plan.adain:
                z = descent.iterate(z, after, reference, batch, content)
            total.add(batch, z)
            clean.add(batch, x0)
        canvas, is_last = check_finite(total.mean()), i + 1 == len(steps)
        if plan.adain and after is not None and reference is not None:
            canvas = adain(canvas, zs)
            total = Accumulator(len(canvas), constraints.shape)
            for batch in window_batches(capture, constraints.shape, generator, double_grid):
                z = cut_windows(canvas, batch, constraints.shape).to(model.device)
                total.add(batch, descent.iterate(z, after, reference, batch, content))
            canvas = check_finite(total.mean())
        if constraints.change_mask is not None:
            unchanged = start if is_last or after is None else ddim_step(model, start, noise, after)
            canvas = torch.lerp(unchanged, canvas, constraints.change_mask)
        yield canvas if is_last else clean.mean()


def _guided(capture: AttentionCapture, constraints: Constraints, z: Tensor, t: int, batch: list[Window]) -> Tensor:
    """The guided prediction for windows z (B, C, h, w): with a layout, each place by the prompt of its label.

    Predictions of several prompts are put together by place (MultiDiffusion, arXiv 2302.08113, section 4.2).
    """
    guidance = constraints.guidance
    assert guidance is not None
    if constraints.layout is None:
        wanted = capture.predict(z, t, guidance.positive[0])
    else:
        labels = cut_windows(constraints.layout[None], batch, constraints.shape).to(z.device)  # (B, 1, h, w)
        wanted = torch.zeros_like(z, dtype=torch.float32)
        for label in used(labels.cpu()):
            wanted = torch.where(labels == label, capture.predict(z, t, guidance.positive[label]), wanted)
    if guidance.scale == 1.0:
        return wanted
    return torch.lerp(capture.predict(z, t, guidance.negative), wanted, guidance.scale)


def check_finite(canvas: Tensor) -> Tensor:
    """The canvas itself; raises NotFinite if it contains NaN or infinity."""
    if not bool(torch.isfinite(canvas).all()):
        raise NotFinite("the network's output contains NaN or infinity")
    return canvas


# ---------------------------------------------------------------------------------------------- windows


def window_batches(
    capture: AttentionCapture, shape: Shape, generator: torch.Generator, double_grid: bool = False
) -> Iterator[list[Window]]:
    """The windows of one step in batches, on a grid with a random offset; on two such grids if `double_grid`."""
    side = capture.model.family.window
    y, x = torch.randint(0, side, (2,), generator=generator).tolist()
    offsets = [(y, x), (y + side // 2, x + side // 2)] if double_grid else [(y, x)]
    rest = list(dict.fromkeys(w for offset in offsets for w in windows(shape, side, offset)))
    while rest:
        batch, rest = rest[: capture.batch], rest[capture.batch :]
        yield batch


def _exemplar(
    capture: AttentionCapture, constraints: Constraints, generator: torch.Generator
) -> tuple[Tensor, TokenLabels | None]:
    """The exemplar's crops (R, C, h, w) for one timestep, and their labels."""
    zs, regions = constraints.draw_crops(generator)
    labels = None if regions is None else TokenLabels(regions, constraints.count, capture.model.device)
    return zs, labels


def _window_labels(capture: AttentionCapture, constraints: Constraints, batch: list[Window]) -> TokenLabels | None:
    if constraints.layout is None:
        return None
    maps = cut_windows(constraints.layout[None], batch, constraints.shape)[:, 0]
    return TokenLabels(maps, constraints.count, capture.model.device)


# ---------------------------------------------------------------------------------------------- loss and gradient


class _Descent:
    """The loss of one sampler and its gradient, in batches that fit into memory."""

    def __init__(self, capture: AttentionCapture, constraints: Constraints, plan: Plan) -> None:
        self.capture, self.constraints, self.plan = capture, constraints, plan

    def gradient(
        self, z: Tensor, t: int, reference: Reference, batch: list[Window], content: Queries | None = None
    ) -> Tensor:
        """The gradient for windows z (B, C, h, w), on their device; in smaller batches if memory runs out."""
        try:
            with _choosing_batch(self.capture, len(z)):
                return self._gradient_at_once(z, t, reference, batch, content)
        except RuntimeError as error:
            if len(z) == 1 or not is_out_of_memory(error):
                raise
        size = self.capture.batch = len(z) // 2
        free_cached_memory(self.capture.model.device)
        gradients = []
        for i in range(0, len(z), size):
            some = None if content is None else {layer: Qc[i : i + size] for layer, Qc in content.items()}
            gradients.append(self.gradient(z[i : i + size], t, reference, batch[i : i + size], some))
        return torch.cat(gradients)

    def iterate(self, z: Tensor, t: int, reference: Reference, batch: list[Window], content: Tensor | None) -> Tensor:
        """Windows z (B, C, h, w) after a few iterations of a fresh Adam; `content` (C, H, W) is noised to t."""
        m, v = torch.zeros_like(z), torch.zeros_like(z)
        queries = self.content_queries(content, t, reference, batch)
        for k in range(1, self.plan.iterations + 1):
            gradient = self.gradient(z, t, reference, batch, queries)
            z, m, v = _adam(z, m, v, gradient, k, self.plan.learning_rate)
        return z

    def content_queries(
        self, content: Tensor | None, t: int, reference: Reference, batch: list[Window]
    ) -> Queries | None:
        """The queries of a content (C, H, W) in these windows; None without a content or its loss."""
        if content is None or self.plan.content_weight <= 0:
            return None
        layout = _window_labels(self.capture, self.constraints, batch)
        with torch.no_grad():
            z = cut_windows(content, batch, self.constraints.shape).to(self.capture.model.device)
            return {i: layer.Q for i, layer in self.capture.record(z, t, reference, layout).items()}

    def _gradient_at_once(
        self, z: Tensor, t: int, reference: Reference, batch: list[Window], content: Queries | None
    ) -> Tensor:
        capture, device = self.capture, self.capture.model.device
        layout = _window_labels(capture, self.constraints, batch)
        with torch.enable_grad():
            leaf = z.detach().to(device).requires_grad_()
            loss = self._loss(capture.record(leaf, t, reference, layout), reference, layout, content)
            (gradient,) = torch.autograd.grad(LOSS_SCALE * loss, leaf)
        capture.backwards += len(z)
        return gradient.to(z.device) / LOSS_SCALE

    def _loss(
        self, layers: dict[int, Layer], reference: Reference, layout: TokenLabels | None, content: Queries | None
    ) -> Tensor:
        """The AD loss and the weighted content loss, summed over layers and windows."""
        capture = self.capture
        total = torch.zeros((), device=capture.model.device)
        for i, layer in layers.items():
            checkpoint()
            with torch.no_grad():
                target = capture.target(i, layer, reference, layout)
            total = total + ad_loss(capture.own_attention(layer), target).sum()
            if content is not None:
                total = total + self.plan.content_weight * content_loss(layer.Q, content[i]).sum()
        return total


@contextmanager
def _choosing_batch(capture: AttentionCapture, count: int) -> Iterator[None]:
    """Around the first window on a CUDA device: set the batch to what its free memory holds."""
    device = capture.model.device
    if device.type != "cuda" or count > 1 or capture.backwards:
        yield
        return
    before = restart_peak(device)
    yield
    each = max(1, torch.cuda.max_memory_allocated(device) - before)
    capture.batch = max(1, min(MAX_BATCH, int(memory.SHARE * (free_memory(device) or 0) / each)))


def _adam(z: Tensor, m: Tensor, v: Tensor, gradient: Tensor, age: int, rate: float) -> tuple[Tensor, Tensor, Tensor]:
    """z and its two moments after step number `age`, from 1 (arXiv 1412.6980, algorithm 1)."""
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.square()
    return z - rate * (m / (1 - 0.9**age)) / ((v / (1 - 0.999**age)).sqrt() + 1e-8), m, v
