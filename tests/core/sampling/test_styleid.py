"""StyleID: a picture in its own style comes back, another's style comes in, in windows over a canvas of any size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ad_service.core.backbone.model import Model, self_attention_layers
from ad_service.core.canvas import Shape
from ad_service.core.sampling import styleid
from ad_service.core.sampling.attention import capture_attention
from ad_service.core.sampling.samplers import Constraints, NotFinite, Plan
from tests.support.tiny_models import backbone, noise, predict, seeded, with_predict

PLAN = Plan(steps=4, iterations=1, learning_rate=0.05, content_weight=0.0, strength=1.0)
SQUARE = Shape(8, 8, True, True)
MODELS = pytest.mark.parametrize("family", ["pocket", "sd2"])


def latents(model: Model, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth latents (C, h, w), as pictures have them: noise blurred over a torus."""
    z = noise(model.unet.config.in_channels, height, width, seed=seed)
    z = torch.stack([z.roll((dy, dx), (1, 2)) for dy in range(3) for dx in range(3)]).mean(0)
    return z / z.std()


FAITHFUL = styleid.StyleIDOptions(gamma=1.0, tau=1.0)
"""Queries are the content's alone, and scores are not scaled."""


def run(
    model: Model,
    content: Tensor,
    swatch: Tensor,
    plan: Plan = PLAN,
    options: styleid.StyleIDOptions | None = None,
) -> list[Tensor]:
    with capture_attention(model) as capture:
        work = Constraints(swatch[None], SQUARE)
        return list(styleid.transfer_style(capture, work, content, plan, seeded(), options or styleid.StyleIDOptions()))


@MODELS
def test_a_content_in_its_own_style_comes_back_up_to_the_inversion_error(family: str) -> None:
    model = backbone(family)
    content = latents(model, 8, 8)
    errors = [
        float((run(model, content, content, replace(PLAN, steps=n), FAITHFUL)[-1] - content).abs().mean())
        for n in (4, 16)
    ]
    assert errors[1] < 0.15
    assert errors[1] < 0.8 * errors[0]


@MODELS
def test_the_result_has_the_swatchs_statistics_and_the_contents_shapes(family: str) -> None:
    model = backbone(family)
    content, other = latents(model, 8, 8), latents(model, 8, 8, seed=1)
    swatch = 2 + 0.5 * latents(model, 8, 8, seed=2)
    *_, end = run(model, content, swatch)
    means = [z.mean((1, 2)) for z in (end, content, swatch)]
    assert float((means[0] - means[2]).abs().mean()) < 0.5 * float((means[0] - means[1]).abs().mean())
    flat = [(z - z.mean((1, 2), keepdim=True)).flatten() for z in (end, content, other)]
    near, far = (float(torch.cosine_similarity(flat[0], z, 0)) for z in flat[1:])
    assert near > far + 0.3


def test_adain_sets_mean_and_deviation_of_each_channel() -> None:
    canvas, like = noise(4, 8, 16), 3 + 2 * noise(2, 4, 8, 8, seed=1)
    same = styleid.adain(canvas, like)
    theirs = like.transpose(0, 1).flatten(1)
    torch.testing.assert_close(same.mean((1, 2)), theirs.mean(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(same.std((1, 2)), theirs.std(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(styleid.adain(canvas, canvas[None]), canvas, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [Shape(16, 24, True, True), Shape(24, 16, False, True)])
def test_a_canvas_larger_than_a_window_is_processed_in_windows(shape: Shape) -> None:
    model = backbone("pocket")
    model = replace(model, family=replace(model.family, window=8))
    content = latents(model, shape.height, shape.width)
    with capture_attention(model) as capture:
        work, before = Constraints(latents(model, 8, 8, seed=1)[None], shape), content.clone()
        plan = replace(PLAN, steps=2)
        seen = list(styleid.transfer_style(capture, work, content, plan, seeded()))
    assert torch.equal(content, before)
    assert len(seen) == 2 * plan.steps
    assert all(z.shape == content.shape and bool(torch.isfinite(z).all()) for z in seen)
    least = shape.height * shape.width // 64
    passes = least + 2 * 2 * least + 2  # up; down on two grids, the content and the canvas; the swatch up and down
    assert passes * plan.steps <= capture.forwards <= 2 * passes * plan.steps
    assert capture.backwards == 0


def test_nan_is_an_error_and_the_network_is_restored() -> None:
    model = backbone("sd15")
    broken = with_predict(model, lambda m, z, t: predict(m, z, t) * torch.nan)
    content = latents(model, 8, 8)
    with pytest.raises(NotFinite, match="NaN or infinity"):
        run(broken, content, content)
    assert not [a for a in self_attention_layers(model.unet) if type(a.processor).__name__ == "_Processor"]
