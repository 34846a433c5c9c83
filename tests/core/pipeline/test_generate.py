"""Textures from words: latents as in diffusers' pipelines, regions by prompt, tiling, and the swatch's material."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ad_service.core import GenerateRequest, Result, Step
from ad_service.core.backbone.conditioning import Conditioning, Guidance
from ad_service.core.backbone.loading import load
from ad_service.core.backbone.model import Model
from ad_service.core.backbone.prompts import encode_prompts
from ad_service.core.canvas import Shape
from ad_service.core.labels import LabelError
from ad_service.core.pipeline.generate import NoText, generate
from ad_service.core.sampling import samplers
from ad_service.core.sampling.attention import AttentionCapture, capture_attention
from ad_service.core.sampling.diffusion import adain, ddim_step
from ad_service.core.sampling.samplers import Constraints, Plan, sample
from tests.support import tiny_checkpoints
from tests.support.pipelines import pipeline
from tests.support.tiny_models import backbone, end, noise, seeded, texture

NONE = torch.empty(3, 0, 0)
PLAN = Plan(4, 2, 0.015, 0.0, 1.0, double_grid_steps=0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """Tiny models whose files stay, since their text encoders are loaded for each job."""
    folder, loaded = tmp_path_factory.mktemp("models"), dict[str, Model]()

    def get(family: str) -> Model:
        if family not in loaded:
            saved = tiny_checkpoints.save_folder(tiny_checkpoints.tiny(family), folder / family)
            loaded[family] = load(saved, family, device="cpu", precision="fp32")
        return loaded[family]

    return get


def make(model: Model, **asked: Any) -> tuple[list[Step], Result]:
    asked = {"prompt": "mossy stones", "swatch": NONE, "height": 64, "width": 64, "steps": 2, "detail": "off"} | asked
    return end(generate(model, GenerateRequest(**asked)))


# ---------------------------------------------------------------------------------------------- beside diffusers


def latents_of_samplers(model: Model, constraints: Constraints, canvas: Tensor, plan: Plan) -> list[Tensor]:
    """The canvas before each step, and at the end."""
    seen: list[Tensor] = []

    class Watched(AttentionCapture):
        def predict(self, z: Tensor, t: int, conditioning: Conditioning) -> Tensor:
            if conditioning is constraints.guidance.positive[0]:  # type: ignore[union-attr]
                seen.append(z.clone())
            return super().predict(z, t, conditioning)

    with capture_attention(model) as capture:
        capture.__class__ = Watched
        *_, last = sample(capture, constraints, canvas, plan, seeded(1))
    return [*seen, last[None]]


@pytest.mark.parametrize(("family", "guidance"), [("sd15", 1.0), ("sd15", 7.0), ("sd2", 7.0), ("sdxl", 7.0)])
def test_latents_after_each_step_are_those_of_diffusers(
    family: str, guidance: float, models: Callable[[str], Model]
) -> None:
    model, tiny = models(family), tiny_checkpoints.tiny(family)
    assert model.parts is not None
    prompt, negative = "mossy cobblestones", "blurry"
    positive, avoided = encode_prompts(model.parts, [prompt, negative], model.device, model.dtype)
    constraints = Constraints(
        torch.empty(0, 4, 0, 0), Shape(16, 16, False, False), guidance=Guidance((positive,), avoided, guidance)
    )
    canvas = noise(4, 16, 16)
    ours = latents_of_samplers(model, constraints, canvas, PLAN)
    theirs: list[Tensor] = []

    def keep(_: Any, __: int, ___: int, values: dict[str, Any]) -> dict[str, Any]:
        theirs.append(values["latents"].clone())
        return values

    sizes = {"original_size": (1024, 1024), "target_size": (1024, 1024)} if family == "sdxl" else {}
    pipe = pipeline(tiny)
    pipe.set_progress_bar_config(disable=True)
    pipe(
        prompt,
        negative_prompt=negative,
        height=128,
        width=128,
        num_inference_steps=PLAN.steps,
        guidance_scale=guidance,
        latents=ours[0],
        output_type="latent",
        callback_on_step_end=keep,
        **sizes,
    )
    assert len(ours) == len(theirs) + 1 == PLAN.steps + 1
    for mine, other in zip(ours[1:], theirs, strict=True):
        assert float((mine - other).norm() / other.norm()) < 1e-5


def test_a_swatch_is_followed_by_adain_and_adam_after_each_step(models: Callable[[str], Model]) -> None:
    """Paper, section 3.4: DDIM step, AdaIN to the noised swatch, then Adam; here for one step, written plainly."""
    model = models("sd15")
    assert model.parts is not None
    positive, negative = encode_prompts(model.parts, ["stones", ""], model.device, model.dtype)
    zs, canvas, plan = 2 + noise(1, 4, 16, 16, seed=3), noise(4, 16, 16), replace(PLAN, steps=1, adain=True)
    constraints = Constraints(zs, Shape(16, 16, False, False), guidance=Guidance((positive,), negative, 7.0))
    with capture_attention(model) as capture:
        (last,) = sample(capture, constraints, canvas, plan, seeded(1))
        generator = seeded(1)
        first = ddim_step(model, canvas, torch.randn(canvas.shape, generator=generator), 1)
        noised = ddim_step(model, zs, torch.randn(zs.shape, generator=generator), 0)
        with torch.no_grad():
            c, u = (capture.predict(first[None], 1, p) for p in (positive, negative))
        x0, eps = samplers.predict_x0_eps(model, first[None], u + 7.0 * (c - u), 1)
        z = adain(ddim_step(model, x0, eps, 0)[0], noised)
        assert float((z.mean((1, 2)) - noised.mean((0, 2, 3))).abs().max()) < 1e-4
        reference = capture.reference(noised, 0)
        descent = samplers._Descent(capture, constraints, plan)
        windows = [samplers.Window(0, 0, 16, 16)]
        expected = descent.iterate(z[None], 0, reference, windows, None)[0]
    torch.testing.assert_close(last, expected, atol=2e-3, rtol=0)
    assert float((last - z).abs().max()) > 0.01


# ---------------------------------------------------------------------------------------------- whole jobs


@pytest.mark.parametrize(
    ("family", "height", "width", "tiles"),
    [("sd15", 64, 96, (True, True)), ("sd2", 72, 64, (False, True)), ("sdxl", 64, 64, (False, False))],
)
def test_every_family_makes_any_size_from_words(
    family: str, height: int, width: int, tiles: tuple[bool, bool], models: Callable[[str], Model]
) -> None:
    with_swatch = family != "sd2"
    steps, result = make(
        models(family),
        swatch=texture(96, 128) if with_swatch else NONE,
        height=height,
        width=width,
        tile_y=tiles[0],
        tile_x=tiles[1],
        steps=1,
    )
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert result.color.shape == (height, width, 3)
    assert float(result.color.float().std()) > 5
    assert {"seam_y" in result.metrics, "seam_x" in result.metrics} == set(tiles)
    assert ("patch_distance" in result.metrics) is with_swatch
    assert (result.metrics["unet_backwards"] > 0) is with_swatch


def test_the_prompt_the_negative_prompt_and_the_seed_change_the_picture(models: Callable[[str], Model]) -> None:
    model = models("sd15")
    pictures = [
        make(model, **changes)[1].color
        for changes in ({}, {"prompt": "blue tiles"}, {"negative_prompt": "blue"}, {"seed": 1})
    ]
    assert torch.equal(make(model)[1].color, pictures[0])
    assert all(not torch.equal(pictures[0], other) for other in pictures[1:])


def test_each_region_follows_its_own_prompt(models: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """With guidance 1 and without overlap, the prediction of each place is that of its prompt alone."""
    model = models("sd15")
    assert model.parts is not None
    first, second, negative = encode_prompts(model.parts, ["red", "blue", ""], model.device, model.dtype)
    layout = torch.zeros(16, 16, dtype=torch.long)
    layout[:, 8:] = 1
    z, windows = noise(1, 4, 16, 16), [samplers.Window(0, 0, 16, 16)]
    constraints = Constraints(
        torch.empty(0, 4, 0, 0), Shape(16, 16, True, True), layout, guidance=Guidance((first, second), negative, 1.0)
    )
    with capture_attention(model) as capture, torch.no_grad():
        found = samplers._guided(capture, constraints, z, 400, windows)
        left, right = (capture.predict(z, 400, prompt) for prompt in (first, second))
    assert torch.equal(found[..., :8], left[..., :8])
    assert torch.equal(found[..., 8:], right[..., 8:])
    assert not torch.equal(left, right)


def test_a_layout_needs_a_prompt_for_each_region(models: Callable[[str], Model]) -> None:
    layout = torch.zeros(20, 30, dtype=torch.long)
    layout[:10] = 1
    _, result = make(models("sd15"), layout=layout, region_prompts=("moss", "sand"), steps=1)
    assert result.color.shape == (64, 64, 3)
    with pytest.raises(LabelError, match="2 regions, but there are 1"):
        make(models("sd15"), layout=layout, region_prompts=("moss",))


def test_a_long_prompt_is_noted(models: Callable[[str], Model]) -> None:
    _, result = make(models("sd15"), prompt="stone " * 100, steps=1)
    (note,) = result.notes
    assert "100 tokens" in note


def test_a_model_without_text_is_refused() -> None:
    with pytest.raises(NoText, match="reads no prompts"):
        make(backbone("pocket"))


def test_the_model_is_as_it_was_after_a_job(models: Callable[[str], Model]) -> None:
    model = models("sdxl")
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    make(model, swatch=texture(96, 96), steps=1)
    assert all(torch.equal(value, before[name]) for name, value in model.unet.state_dict().items())
    assert model.unconditional.tokens is not None


def test_the_files_of_the_model_are_needed_for_a_prompt(tmp_path: Path) -> None:
    saved = tiny_checkpoints.save_folder(tiny_checkpoints.tiny("sd15"), tmp_path / "m")
    model = load(saved, "sd15", device="cpu", precision="fp32")
    for file in (saved / "text_encoder").iterdir():
        file.unlink()
    with pytest.raises(Exception, match="text_encoder"):
        make(model)
