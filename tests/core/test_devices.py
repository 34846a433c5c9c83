"""On a GPU: what a job computes there stays there, by a device that is not there but refuses what GPUs refuse."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ad_service.core import LabelMaps, RestyleRequest, SynthesizeRequest
from ad_service.core.backbone import codec, devices, loading
from ad_service.core.canvas import Shape, Window
from ad_service.core.pipeline.denoise import METHODS
from ad_service.core.pipeline.restyle import restyle
from ad_service.core.pipeline.synthesize import synthesize
from ad_service.core.sampling import samplers
from ad_service.core.sampling.attention import capture_attention
from ad_service.core.sampling.losses import ad_loss
from ad_service.core.sampling.samplers import Constraints, Plan
from ad_service.worker import image_files, runner
from blender_addon.wire import JobRequest
from tests.support import fake_device, tiny_checkpoints
from tests.support.fake_device import MixedDevices
from tests.support.tiny_models import OWN, end, noise, seeded, texture

if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this torch knows no devices made in Python", allow_module_level=True)

DEVICE = fake_device.device()  # here, since another module's test may take a gradient before the first one of this


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a tiny model of each family."""

    @functools.cache
    def folder(family: str) -> Path:
        return tiny_checkpoints.save_folder(tiny_checkpoints.tiny(family), tmp_path_factory.mktemp(family))

    return folder


@pytest.fixture(autouse=True)
def short_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "fit_decoder", functools.partial(codec.fit_decoder, steps=2))


def there(folder: Path, family: str, precision: str = "bf16") -> loading.Model:
    return loading.load(folder, family, device=str(DEVICE), precision=precision)


ASKED: dict[str, Any] = {"swatch": texture(64, 64), "height": 64, "width": 64, "steps": 2, "iterations": 1}


def request(**changes: Any) -> SynthesizeRequest:
    return SynthesizeRequest(**{**ASKED, "detail": "both", **changes})


def restyling(**changes: Any) -> RestyleRequest:
    return RestyleRequest(**{**ASKED, "content": texture(64, 64, seed=1), "detail": "off", **changes})


def halves(side: int) -> torch.Tensor:
    """Label 0 above, 1 below."""
    return (torch.arange(side)[:, None] >= side // 2).long().expand(side, side).contiguous()


# ---------------------------------------------------------------------------------------------- the device itself


def test_the_device_computes_and_takes_gradients() -> None:
    x, w = noise(1, 3, 8, 8), noise(4, 3, 3, 3, seed=1)
    there_x, there_w = (u.to(DEVICE).requires_grad_() for u in (x, w))
    there_y = torch.nn.functional.conv2d(there_x, there_w)
    gradient = torch.autograd.grad(there_y.square().sum(), there_w)[0]
    x.requires_grad_(), w.requires_grad_()
    y = torch.nn.functional.conv2d(x, w)
    assert there_y.device == gradient.device == DEVICE
    torch.testing.assert_close(there_y.detach().cpu(), y.detach())
    torch.testing.assert_close(gradient.cpu(), torch.autograd.grad(y.square().sum(), w)[0])


def test_the_device_refuses_what_a_gpu_refuses() -> None:
    here, away = torch.ones(3, 4), torch.ones(3, 4, device=DEVICE)
    assert float((away + torch.tensor(2.0)).sum()) == 36  # a single number may come from the CPU
    assert away[:, torch.tensor([0, 2])].shape == (3, 2)  # and so may indices
    for refused in (
        lambda: here + away,
        lambda: torch.cat([here, away]),
        lambda: here[torch.zeros(2, dtype=torch.long, device=DEVICE)],
        lambda: torch.randn(3, device=DEVICE, generator=seeded()),
        lambda: away.double(),
    ):
        with pytest.raises(MixedDevices):
            refused()
    with pytest.raises((RuntimeError, TypeError)):
        away.numpy()


def test_the_fake_device_logs_what_the_host_waits_for() -> None:
    away = torch.ones(3, 4, device=DEVICE)
    with fake_device.watch() as log:
        away.cpu(), float(away.sum()), away.nonzero(), torch.ones(2).to(away.device)
    assert log.waits == {"to host": 1, "number": 1, "nonzero": 1, "to device": 1}


# ---------------------------------------------------------------------------------------------- whole jobs


@pytest.mark.parametrize("family", ["pocket", "sd15"])
def test_a_texture_by_layout_is_made_on_the_device(saved: Any, family: str) -> None:
    model, decoders = there(saved(family), family), dict[str, codec.State]()
    job = synthesize(model, request(method="sample", maps=LabelMaps(halves(64), halves(64))), decoders)
    _, picture = end(job)
    assert picture.color.device.type == "cpu" and len(decoders) == 1


@pytest.mark.parametrize("family", ["pocket", "sdxl"])
def test_a_restyling_is_made_on_the_device(saved: Any, family: str) -> None:
    _, picture = end(restyle(there(saved(family), family), restyling(method="optimize")))
    assert picture.color.device.type == "cpu"


def test_a_preview_is_made_on_the_device(saved: Any) -> None:
    _, picture = end(restyle(there(saved("sd15"), "sd15"), restyling(method="preview")))
    assert picture.color.device.type == "cpu"


def test_the_engine_runs_a_job_on_its_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "choose_device", lambda name=None: DEVICE)
    swatch = image_files.encode_png((texture(64, 64).permute(1, 2, 0).numpy() * 255).astype(np.uint8), {})
    engine = runner.Runner(tmp_path)
    assert engine.ready().device == fake_device.NAME
    asked = {"width": 256, "height": 256, "steps": 1, "preset": "draft", "detail": "off"}
    job = JobRequest.parse({"kind": "synthesize", "inputs": {"swatch": "0" * 64}, "parameters": asked})
    steps, outcome = end(engine.run(job, lambda _: swatch))
    assert any(step.preview() for step in steps if step.preview)
    assert outcome.pictures["image"].startswith(b"\x89PNG")


def test_the_picture_does_not_depend_on_the_device(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, and but for roundings: the device has the CPU's numbers, so that nothing else can differ.

    Of two borders that are as plain, roundings decide which becomes the edge; here the edge stays where it is.
    """
    monkeypatch.setattr("ad_service.core.metrics.plainest_border", lambda image, axis: 0)
    models = (loading.load(saved("sd15"), "sd15", device=device, precision="fp32") for device in ("cpu", str(DEVICE)))
    one, other = (end(synthesize(model, request(detail="off")))[1].color.float() for model in models)
    assert float((one - other).abs().mean()) < 0.5


# ---------------------------------------------------------------------------------------------- the hot loop


@pytest.mark.parametrize("method", METHODS)
def test_the_host_waits_only_for_copies_in_a_step(saved: Any, method: str) -> None:
    """Not for numbers, nor once for each window or label: four windows of two labels are one batch."""
    model = there(saved("sd15"), "sd15", "fp32")
    model = replace(model, family=replace(model.family, window=8))
    canvas, labels = noise(4, 16, 16), halves(16)
    constraints = Constraints(noise(1, 4, 8, 8), Shape(16, 16, True, True), labels, halves(8)[None], 2, canvas)
    if method == "preview":
        constraints = replace(constraints, layout=None, regions=None)
    waits = []
    for steps in (2, 3):
        with capture_attention(model) as capture, fake_device.watch() as log:
            capture.batch = 4
            run = METHODS[method].sampler
            list(run(capture, constraints, canvas, Plan(steps, 1, 0.05, 0.25, 1.0, double_grid_steps=0), seeded()))
            waits.append(log.waits)
    step = Counter(waits[1])
    step.subtract(waits[0])
    assert set(+step) == {"to device", "to host"}
    assert step["to host"] <= (6 if method == "preview" else 3)
    assert step["to device"] <= 12


def test_an_engine_on_cuda_uses_deterministic_algorithms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Strictly deterministic: with `warn_only` the backward pass of attention would not be."""
    monkeypatch.setattr(devices, "choose_device", lambda name=None: torch.device("cuda"))
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    try:
        runner.Runner(tmp_path)
        assert (
            torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
        )
    finally:
        torch.use_deterministic_algorithms(False)


REFUSED = {
    "aten.adaptive_avg_pool2d_backward",
    "aten.adaptive_max_pool2d_backward",
    "aten.cumsum",
    "aten.grid_sampler_2d_backward",
    "aten.histc",
    "aten.put_",
    "aten.reflection_pad2d_backward",
    "aten.upsample_bicubic2d_backward",
    "aten.upsample_bilinear2d_backward",
}
"""What torch.use_deterministic_algorithms refuses on CUDA, by its own page, of what a picture could come to need."""


def test_every_operation_of_a_job_has_a_deterministic_kernel(saved: Any) -> None:
    with fake_device.watch() as log:
        model = there(saved("sd15"), "sd15")
        end(synthesize(model, request(method="optimize", maps=LabelMaps(halves(64), halves(64)))))
    assert "aten.convolution_backward" in log.ran
    assert not REFUSED & set(log.ran)


def test_small_gradients_do_not_underflow_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of 256 times as many tokens gives each of them a 256th of the gradient."""
    monkeypatch.setattr(samplers, "ad_loss", lambda own, target: ad_loss(own, target) / 256)
    z, canvas = noise(1, 16, 32, 32), noise(1, 16, 32, 32, seed=1)
    constraints, plan = Constraints(z, Shape(32, 32, True, True)), Plan(1, 1, 0.02, 0.0, 1.0)
    gradients = []
    for precision in ("fp32", "fp16"):
        with capture_attention(loading.load(OWN, "pocket", device="cpu", precision=precision)) as capture:
            reference = capture.reference(z, 0)
            gradients.append(
                samplers._Descent(capture, constraints, plan).gradient(canvas, 100, reference, [Window(0, 0, 32, 32)])
            )
    assert float(torch.cosine_similarity(*(g.flatten() for g in gradients), dim=0)) > 0.999
