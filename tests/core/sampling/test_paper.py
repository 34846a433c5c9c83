"""The samplers beside the paper's equations (arXiv 2502.20235), written plainly here and run on a tiny SD 1.5.

Nothing of the engine is used but its networks: queries, keys and values are read by hooks on the projections, timesteps
and DDIM steps are diffusers', Adam is torch's. Everything is in float64, in which two right programs agree to many
digits; in float32 the signs that Adam's first step takes of small gradients differ.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ad_service.core.backbone.conditioning import Conditioning
from ad_service.core.backbone.model import Model
from ad_service.core.canvas import Shape
from ad_service.core.sampling.attention import capture_attention
from ad_service.core.sampling.samplers import Constraints, Plan, optimize, sample
from tests.support.tiny_models import backbone, noise, seeded

SHAPE = Shape(16, 16, False, False)
STEPS = 4


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def double(name: str) -> Model:
    """A tiny model in float64."""
    torch.set_default_dtype(torch.float32)
    single = backbone(name)
    torch.set_default_dtype(torch.float64)
    empty = single.unconditional
    assert empty.tokens is not None
    pooled = None if empty.pooled is None else empty.pooled.double()
    return replace(
        single,
        unet=copy.deepcopy(single.unet).double(),
        dtype=torch.float64,
        unconditional=Conditioning(empty.tokens.double(), pooled),
    )


# ---------------------------------------------------------------------------------------------- the paper, plainly


class Paper:
    """Equations 3 to 6 and algorithm 1 for one network."""

    def __init__(self, model: Model, layers: int = 6) -> None:
        self.unet = model.unet
        self.arguments = model.unconditional.arguments(1)
        blocks = [*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks]
        attentions = [m for block in blocks for name, m in block.named_modules() if name.endswith("attn1")]
        self.attentions = attentions[-layers:]
        self.scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        )
        self.scheduler.alphas_cumprod = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()).cumprod(0)
        self.scheduler.final_alpha_cumprod = self.scheduler.alphas_cumprod[0]
        self.scheduler.set_timesteps(STEPS)

    def run(self, z: Tensor, t: int) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
        """The predicted noise, and Q, K, V (1, heads, tokens, d) of the last layers."""
        seen: dict[tuple[int, str], Tensor] = {}

        def keep(i: int, name: str, heads: int) -> Callable[..., None]:
            def hook(_: object, __: object, out: Tensor) -> None:
                seen[i, name] = out.unflatten(2, (heads, -1)).transpose(1, 2)

            return hook

        handles = [
            getattr(attention, f"to_{name}").register_forward_hook(keep(i, name, attention.heads))
            for i, attention in enumerate(self.attentions)
            for name in "qkv"
        ]
        prediction = self.unet(z, t, return_dict=False, **self.arguments)[0]
        for handle in handles:
            handle.remove()
        return prediction, [(seen[i, "q"], seen[i, "k"], seen[i, "v"]) for i in range(len(self.attentions))]

    def loss(self, z: Tensor, zs: Tensor, zc: Tensor | None, weight: float, t: int) -> Tensor:
        """L_AD + lambda L_content of a canvas z, an exemplar zs and a content zc (1, C, h, w)."""
        with torch.no_grad():
            swatch = self.run(zs, t)[1]
            content = None if zc is None else self.run(zc, t)[1]
        total = torch.zeros(())
        for i, (Q, K, V) in enumerate(self.run(z, t)[1]):
            _, Ks, Vs = swatch[i]
            target = (Q @ Ks.mT / Q.shape[-1] ** 0.5).softmax(-1) @ Vs
            own = (Q @ K.mT / Q.shape[-1] ** 0.5).softmax(-1) @ V
            total = total + (own - target.detach()).abs().mean()
            if content is not None:
                total = total + weight * (Q - content[i][0]).abs().mean()
        return total

    def optimize(self, z: Tensor, zs: Tensor, zc: Tensor | None = None, weight: float = 0.0) -> Iterator[Tensor]:
        """Section 3.2: one Adam on the latents while t falls; exemplar and content are clean."""
        z = z.clone().requires_grad_()
        adam = torch.optim.Adam([z], 0.05)
        for t in self.scheduler.timesteps.tolist():
            adam.zero_grad()
            self.loss(z, zs, zc, weight, t).backward()
            adam.step()
            yield z.detach().clone()

    def sample(
        self, z: Tensor, draws: Draws, zs: Tensor, zc: Tensor | None = None, weight: float = 0.0
    ) -> Iterator[Tensor]:
        """Section 3.3: after each DDIM step a fresh Adam, with exemplar and content noised to the new t."""
        add_noise, timesteps = self.scheduler.add_noise, self.scheduler.timesteps.tolist()
        z = add_noise(z, draws(), torch.tensor([timesteps[0]]))
        for t in timesteps:
            after = max(t - 1000 // STEPS, 0)
            noised = add_noise(zs, draws(), torch.tensor([after]))
            content = None if zc is None else add_noise(zc, draws(), torch.tensor([after]))
            with torch.no_grad():
                z = self.scheduler.step(self.run(z, t)[0], t, z).prev_sample
            z = z.clone().requires_grad_()
            adam = torch.optim.Adam([z], 0.05)
            for _ in range(2):
                adam.zero_grad()
                self.loss(z, noised, content, weight, after).backward()
                adam.step()
            z = z.detach()
            yield z


Draws = Callable[[], Tensor]


def draws_of(seed: int) -> Draws:
    """Standard normal latents, one after the other, as the samplers draw them."""
    generator, randn = seeded(seed), torch.randn

    def draw() -> Tensor:
        return randn(1, 4, 16, 16, generator=generator)

    return draw


# ---------------------------------------------------------------------------------------------- side by side


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("family", "weight"), [("sd15", 0.25), ("sdxl", 0.0)])
def test_optimize_is_the_papers(family: str, weight: float) -> None:
    model = double(family)
    zs, zc, z = (noise(1, 4, 16, 16, seed=s) for s in range(3))
    plan = Plan(STEPS, 1, 0.05, weight, 1.0)
    content = zc[0] if weight else None
    with capture_attention(model) as capture:
        ours = list(optimize(capture, Constraints(zs, SHAPE, content=content), z[0], plan, seeded()))
    theirs = list(Paper(model).optimize(z, zs, zc if weight else None, weight))
    for i in range(STEPS):
        assert relative(ours[i][None], theirs[i]) < 1e-5


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_sample_is_the_papers(weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = double("sd15")
    zs, zc, z = (noise(1, 4, 16, 16, seed=s) for s in range(3))
    plan, seen = Plan(STEPS, 2, 0.05, weight, 1.0, double_grid_steps=0), list[Tensor]()
    draws = draws_of(5)

    def drawn(shape: torch.Size, generator: torch.Generator) -> Tensor:
        return draws().reshape(shape)

    with capture_attention(model) as capture, monkeypatch.context() as patch:
        patch.setattr(torch, "randn", drawn)
        before = capture.predict_and_record

        def predict(z: Tensor, *rest: object) -> object:
            seen.append(z.clone())
            return before(z, *rest)  # type: ignore[arg-type]

        patch.setattr(capture, "predict_and_record", predict)
        constraints = Constraints(zs, SHAPE, content=zc[0] if weight else None)
        *_, last = sample(capture, constraints, z[0], plan, seeded())
    theirs = list(Paper(model).sample(z, draws_of(5), zs, zc if weight else None, weight))
    assert len(seen) == STEPS
    for ours, other in zip([*seen[1:], last[None]], theirs, strict=True):
        assert relative(ours, other) < 1e-5
