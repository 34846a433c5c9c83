"""Samplers: they lower the loss, obey seed, mask and layout, cover any canvas, and end cleanly on NaN."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ad_service.core.backbone.model import Model, self_attention_layers
from ad_service.core.canvas import Shape
from ad_service.core.pipeline import denoise
from ad_service.core.sampling import attention, samplers
from ad_service.core.sampling.attention import capture_attention
from ad_service.core.sampling.diffusion import add_noise, ddim_step, predict_x0_eps, timesteps
from ad_service.core.sampling.losses import ad_loss, attend
from ad_service.core.sampling.samplers import Constraints, NotFinite, Plan
from tests.support.tiny_models import backbone, noise, predict, seeded, with_predict

PLAN = Plan(steps=3, iterations=1, learning_rate=0.05, content_weight=0.0, strength=0.5)
TORUS = Shape(16, 24, True, True)
SAMPLERS = {name: method.sampler for name, method in denoise.METHODS.items() if name != "preview"}
METHODS = pytest.mark.parametrize("method", SAMPLERS)
MODELS = pytest.mark.parametrize("family", ["pocket", "sd15"])


def small_window(family: str, side: int = 16) -> Model:
    model = backbone(family)
    return replace(model, family=replace(model.family, window=side))


def canvas_of(model: Model, shape: Shape, seed: int = 0) -> Tensor:
    return noise(model.unet.config.in_channels, shape.height, shape.width, seed=seed)


def swatch_of(model: Model) -> Tensor:
    """Latents of a flat swatch with a little grain, which noise is far from."""
    return 3 + 0.1 * noise(1, model.unet.config.in_channels, 16, 16, seed=9)


def run(model: Model, method: str, shape: Shape, plan: Plan = PLAN, seed: int = 0, **constraints: object) -> Tensor:
    """The canvas at the end, from noise that is always the same."""
    with capture_attention(model) as capture:
        work = Constraints(swatch_of(model), shape, **constraints)  # type: ignore[arg-type]
        *_, canvas = SAMPLERS[method](capture, work, canvas_of(model, shape), plan, seeded(seed))
    return canvas


# ---------------------------------------------------------------------------------------------- timesteps


@pytest.mark.parametrize(
    ("family", "steps", "strength", "expected"),
    [
        ("pocket", 4, 1.0, [999, 749, 500, 250]),
        ("pocket", 4, 0.1, [100, 75, 50, 25]),
        ("pocket", 1, 0.5, [500]),
        ("pocket", 5, 0.001, [1, 1, 1, 1, 1]),
        ("sd15", 4, 1.0, [751, 501, 251, 1]),
        ("sd15", 4, 0.1, [76, 51, 26, 1]),
        ("sd15", 1, 0.5, [1]),
        ("sd15", 5, 0.001, [2, 2, 1, 1, 1]),
    ],
)
def test_timesteps_fall_evenly_from_the_strength(family: str, steps: int, strength: float, expected: list[int]) -> None:
    assert timesteps(backbone(family), steps, strength) == expected


@pytest.mark.parametrize("steps", [1, 7, 50, 100, 999])
def test_timesteps_are_those_of_the_papers_scheduler(steps: int) -> None:
    scheduler = DDIMScheduler(steps_offset=1)
    scheduler.set_timesteps(steps)
    assert timesteps(backbone("sd15"), steps, 1.0) == scheduler.timesteps.tolist()


# ---------------------------------------------------------------------------------------------- the DDIM step


def truth(kind: str, x0: Tensor, eps: Tensor, a: float) -> Tensor:
    """What a perfect network predicts for z = sqrt(a) x0 + sqrt(1 - a) eps."""
    return {"epsilon": eps, "sample": x0, "v_prediction": a**0.5 * eps - (1 - a) ** 0.5 * x0}[kind]


@pytest.mark.parametrize("t", [1, 400, 900])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_x0_and_eps_are_recovered_from_a_perfect_prediction(kind: str, t: int) -> None:
    model = replace(backbone("sd15"), prediction=kind)
    x0, eps = noise(1, 4, 8, 8), noise(1, 4, 8, 8, seed=1)
    z = ddim_step(model, x0, eps, t)
    found = predict_x0_eps(model, z, truth(kind, x0, eps, float(model.alphas[t])), t)
    torch.testing.assert_close(found, (x0, eps), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_x0_and_eps_of_any_prediction_add_up_to_the_latent(kind: str) -> None:
    model = replace(backbone("sd15"), prediction=kind)
    z, prediction = noise(1, 4, 8, 8), noise(1, 4, 8, 8, seed=1)
    for t in (1, 400, 999):
        torch.testing.assert_close(
            ddim_step(model, *predict_x0_eps(model, z, prediction, t), t), z, atol=1e-4, rtol=1e-4
        )


def test_noise_is_added_by_the_schedule() -> None:
    model = backbone("sd15")
    z = noise(2, 4, 8, 8)
    a = float(model.alphas[300])
    expected = a**0.5 * z + (1 - a) ** 0.5 * noise(2, 4, 8, 8, seed=5)
    torch.testing.assert_close(add_noise(z, model, 300, seeded(5)), expected)


# ---------------------------------------------------------------------------------------------- both samplers


@METHODS
def test_a_sampler_depends_only_on_its_seed(method: str) -> None:
    model, shape = small_window("pocket"), Shape(16, 40, True, True)
    one, again, other = (run(model, method, shape, replace(PLAN, steps=2), seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert float((one - other).abs().max()) > 1e-3


@METHODS
@pytest.mark.parametrize("shape", [Shape(24, 40, True, True), Shape(24, 40, False, True), Shape(40, 16, False, False)])
def test_windows_cover_a_canvas_larger_than_one(method: str, shape: Shape) -> None:
    model = small_window("pocket")
    end = run(model, method, shape, replace(PLAN, steps=2, iterations=2))
    assert end.shape == (16, shape.height, shape.width)
    assert bool(torch.isfinite(end).all())
    moved = (end - canvas_of(model, shape)).abs().amax(0)
    assert float(moved.min()) > 0, "every cell was in some window"


@METHODS
def test_every_step_yields_a_canvas_and_the_start_is_not_modified(method: str) -> None:
    model = small_window("pocket")
    start = canvas_of(model, TORUS)
    before = start.clone()
    with capture_attention(model) as capture:
        seen = list(SAMPLERS[method](capture, Constraints(swatch_of(model), TORUS), start, PLAN, seeded()))
    assert len(seen) == PLAN.steps
    assert all(s.shape == start.shape and not s.requires_grad for s in seen), "no graph may grow over the steps"
    assert torch.equal(start, before)


@METHODS
def test_latents_outside_the_change_mask_stay_as_they_were(method: str) -> None:
    model = small_window("pocket")
    change_mask = torch.zeros(16, 24)
    change_mask[:, 12:] = 1
    change_mask[:, 11] = 0.5
    end, start = run(model, method, TORUS, change_mask=change_mask), canvas_of(model, TORUS)
    assert torch.equal(end[:, change_mask == 0], start[:, change_mask == 0])
    assert float((end - start).abs().amax(0)[change_mask > 0].min()) > 1e-4


@METHODS
def test_a_network_that_gives_nan_is_an_error(method: str) -> None:
    model = small_window("pocket")
    broken = with_predict(model, lambda m, z, t: predict(m, z, t) * torch.nan)
    if method == "optimize":  # which reads queries, keys and values and not the prediction
        broken = with_predict(model, lambda m, z, t: predict(m, z * torch.nan, t))
    with pytest.raises(NotFinite, match="NaN or infinity"):
        run(broken, method, TORUS)
    assert not [a for a in self_attention_layers(model.unet) if type(a.processor).__name__ == "_Processor"]


@METHODS
@MODELS
def test_a_layout_decides_what_each_part_becomes(family: str, method: str) -> None:
    model, shape = small_window(family), Shape(16, 16, True, True)
    regions = (torch.arange(16)[:, None] >= 8).long().expand(1, 16, 16)
    one, other = (
        run(model, method, shape, replace(PLAN, steps=2, iterations=2), layout=layout, regions=regions, count=2)
        for layout in (torch.zeros(16, 16, dtype=torch.long), torch.ones(16, 16, dtype=torch.long))
    )
    assert bool(torch.isfinite(one).all() & torch.isfinite(other).all())
    assert float((one - other).abs().max()) > 1e-3


# ---------------------------------------------------------------------------------------------- the loss falls


def loss(model: Model, canvas: Tensor, shape: Shape, t: int) -> float:
    """The AD loss of a canvas in one window at t, against the clean swatch."""
    with torch.no_grad(), capture_attention(model) as capture:
        reference = capture.reference(swatch_of(model), 0 if model.family.in_context else t)
        _, layers = capture.predict_and_record(canvas[None], t, reference)
        return sum(
            float(ad_loss(attend(x.Q, x.K, x.V, capture.similarity), capture.target(i, x, reference, None)))
            for i, x in layers.items()
        )


PULL = replace(PLAN, steps=4, iterations=10, learning_rate=0.2, strength=0.1)


@pytest.mark.parametrize(("family", "method"), [("pocket", "optimize"), ("pocket", "sample"), ("sd15", "optimize")])
def test_a_sampler_lowers_the_loss(family: str, method: str) -> None:
    model, shape = backbone(family), Shape(16, 16, True, True)
    end = run(model, method, shape, PULL)
    assert loss(model, end, shape, 40) < 0.9 * loss(model, canvas_of(model, shape), shape, 40)


def test_optimize_lowers_the_loss_over_several_windows() -> None:
    model, shape = backbone("pocket"), Shape(32, 24, True, True)
    end = run(small_window("pocket"), "optimize", shape, PULL)
    assert loss(model, end, shape, 40) < 0.9 * loss(model, canvas_of(model, shape), shape, 40)


def test_sample_lowers_the_loss_by_its_adam_steps() -> None:
    model, shape = backbone("pocket"), Shape(16, 16, True, True)
    still, moved = (run(model, "sample", shape, replace(PULL, learning_rate=rate)) for rate in (1e-9, 0.2))
    assert loss(model, moved, shape, 40) < 0.9 * loss(model, still, shape, 40)


def test_the_content_loss_keeps_queries_near_the_content() -> None:
    model, shape = backbone("pocket"), Shape(16, 16, True, True)
    content = canvas_of(model, shape, seed=3)

    def distance(weight: float) -> float:
        end = run(model, "optimize", shape, replace(PULL, content_weight=weight), content=content)
        with torch.no_grad(), capture_attention(model) as capture:
            (_, ours), (_, theirs) = (capture.predict_and_record(z[None], 40) for z in (end, content))
        return sum(float((ours[i].Q - theirs[i].Q).abs().mean()) for i in ours)

    assert distance(10.0) < 0.9 * distance(0.0)


# ---------------------------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize(
    ("family", "method", "forwards", "backwards"),
    [
        ("pocket", "optimize", 3 * 4 * 2 + 1, 3 * 4 * 2),
        ("sd15", "optimize", 3 * 4 * 2 + 3, 3 * 4 * 2),
        ("pocket", "sample", 4 * 3 + 8 * 3 + 8 + 1, 4 * 2 + 8 * 2),  # the last two steps run on two grids,
        ("sd15", "sample", 4 * 3 + 8 * 3 + 8 * 3 + 3, 4 * 2 + 8 * 2 + 8 * 2),  # no loss follows pocket's last
    ],
)
def test_passes_through_the_network_are_counted(family: str, method: str, forwards: int, backwards: int) -> None:
    model, shape = small_window(family, 8), Shape(16, 16, True, True)
    work, plan = Constraints(swatch_of(model)[:, :, :8, :8], shape), replace(PLAN, iterations=2)
    with capture_attention(model) as capture:
        list(SAMPLERS[method](capture, work, canvas_of(model, shape), plan, seeded()))
    assert (capture.forwards, capture.backwards) == (forwards, backwards)


def test_the_own_attention_is_computed_once_for_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(Q: Tensor, *rest: Any) -> Tensor:
        if torch.is_grad_enabled():
            calls.append(Q.shape[2])
        return attend(Q, *rest)

    monkeypatch.setattr(attention, "attend", counted)
    model, window = small_window("sd15"), samplers.Window(0, 0, 16, 16)
    with capture_attention(model) as capture:
        reference = capture.reference(swatch_of(model), 100)
        descent = samplers._Descent(capture, Constraints(swatch_of(model), TORUS), PLAN)
        descent._gradient_at_once(noise(1, 4, 16, 16), 100, reference, [window], None)
        assert len(calls) == capture.count  # and not once more for each layer that the loss reads


@pytest.mark.parametrize(("tile", "count"), [(False, 1), (True, 2)])
def test_two_grids_that_are_the_same_window_run_once(tile: bool, count: int) -> None:
    with capture_attention(small_window("sd15")) as capture:
        batches = list(samplers.window_batches(capture, Shape(16, 16, tile, tile), seeded(), double_grid=True))
    assert sum(map(len, batches)) == count


def in_batches(method: str, size: int) -> tuple[Tensor, int]:
    """A canvas of four windows that go through in batches of a size, and the size at the end."""
    model, shape = small_window("pocket", 8), Shape(16, 16, True, True)
    plan, work = replace(PLAN, steps=2, learning_rate=1e-3), Constraints(swatch_of(model), shape)
    with capture_attention(model) as capture:
        capture.batch = size
        *_, end = SAMPLERS[method](capture, work, canvas_of(model, shape), plan, seeded())
    return end, capture.batch


@METHODS
def test_the_size_of_a_batch_changes_nothing(method: str) -> None:
    (one, _), (four, _) = (in_batches(method, size) for size in (1, 4))
    torch.testing.assert_close(one, four, atol=2e-3, rtol=0)


@METHODS
def test_a_batch_that_runs_out_of_memory_is_halved(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = samplers._Descent._gradient_at_once

    def of_two(descent: Any, z: Tensor, *rest: Any) -> Tensor:
        if len(z) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gradient(descent, z, *rest)

    whole, _ = in_batches(method, 4)
    monkeypatch.setattr(samplers._Descent, "_gradient_at_once", of_two)
    parted, size = in_batches(method, 4)
    assert size == 2
    torch.testing.assert_close(parted, whole, atol=2e-3, rtol=0)


def test_one_window_that_runs_out_of_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(samplers._Descent, "_gradient_at_once", full)
    with pytest.raises(torch.OutOfMemoryError):
        in_batches("optimize", 4)
