"""Training runs: interruption, validation, the command line, the export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel
from PIL import Image

from ad_service.pocket.training import evaluate, loop, textures, train
from ad_service.pocket.training.codec import train_codec
from ad_service.pocket.training.denoiser import train_denoiser
from ad_service.pocket.training.settings import Budget, Run, keep_settings, start_from
from tests.support.tiny_training import HELD_OUT, TINY, TRAINING

pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(Exception):
    """Stands for anything that ends a process."""


def interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next training die when it asks for its batch number `steps`."""
    load = loop.load

    def dying(batches, first, run):
        for i, batch in enumerate(load(batches, first, run)):
            if i == steps:
                raise Killed
            yield batch

    monkeypatch.setattr(loop, "load", dying)


def copy_run(run: Run, folder: Path) -> Run:
    for name in ("textures.npy", "code.safetensors"):
        (folder / name).write_bytes((run.folder / name).read_bytes())
    return replace(run, folder=folder)


def train_stage(stage: str, run: Run) -> None:
    source, held_out = train.training_data(run)
    if stage == "codec":
        train_codec(run, source)
    else:
        train_denoiser(run, source, held_out)


@pytest.mark.parametrize("stage", ["codec", "unet"])
def test_interrupted_training_ends_like_an_uninterrupted_one(
    stage: str, run: Run, photographs: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replace(run, photographs=photographs)
    train_stage("codec", run)
    other = copy_run(run, tmp_path_factory.mktemp("interrupted"))
    train_stage(stage, run)
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        with pytest.raises(Killed):
            train_stage(stage, other)
    assert torch.load(other.checkpoint(stage), weights_only=True)["step"] == 2
    train_stage(stage, other)
    whole, resumed = (torch.load(r.checkpoint(stage), weights_only=True) for r in (run, other))
    assert whole["step"] == resumed["step"] == 4
    for key in ("model", "average"):
        assert all(torch.equal(a, resumed[key][k]) for k, a in whole[key].items())


def test_processes_that_prepare_batches_change_nothing(
    run: Run, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = replace(run, photographs=photographs)
    train_stage("codec", run)
    other = replace(copy_run(run, tmp_path_factory.mktemp("loaders")), loaders=2)
    weights = []
    for r in (run, other):
        train_stage("unet", r)
        weights.append(torch.load(r.checkpoint("unet"), weights_only=True)["model"])
    assert all(torch.equal(a, weights[1][k]) for k, a in weights[0].items())


def test_validation_is_logged_and_does_not_change_the_training(
    run: Run, photographs: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    run = replace(run, photographs=photographs, validate_every=2)
    train_stage("codec", run)
    other = replace(copy_run(run, tmp_path_factory.mktemp("other")), validate_every=1000)
    weights = []
    for r in (run, other):
        train_stage("unet", r)
        weights.append(torch.load(r.checkpoint("unet"), weights_only=True)["model"])
    assert all(torch.equal(a, weights[1][k]) for k, a in weights[0].items())
    rows = [json.loads(line) for line in (run.folder / "unet_validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert all(row[f"{kind}_{t}"] > 0 for row in rows for kind in ("right", "wrong") for t in (200, 400, 800))
    assert "validation  right_200" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("step", "used", "factor"), [(0, 0.0, 1 / 200), (200, 0.5, 1), (900, 0.9, 0.5), (1000, 1, 0.02)]
)
def test_learning_rate_rises_stays_and_falls(step: int, used: float, factor: float) -> None:
    assert loop.rate_factor(step, used, cooldown=0.2) == pytest.approx(factor)


def test_a_longer_budget_continues_at_the_same_rate() -> None:
    short, long = Budget(steps=1000), Budget(steps=9000)
    assert loop.rate_factor(700, short.used(700, 0), 0.2) == loop.rate_factor(700, long.used(700, 0), 0.2)


def options(run: Run, *more: str) -> list[str]:
    """Arguments of the command for a tiny run of one step."""
    given = [f"--{k.replace('_', '-')}={v}" for k, v in vars(TINY).items() if not isinstance(v, tuple | bool)]
    widths = ["--codec-widths", "16", "24", "32", "--unet-widths", "16", "32", "32"]
    return ["--out", str(run.folder), "--steps-codec=1", "--steps-unet=1", *given, *widths, *more]


def test_command_writes_weights_that_diffusers_loads(
    run: Run, photographs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train.main(options(run))
    train.main(options(run))  # a finished run trains no more
    weights = run.folder / "weights"
    codec = AutoencoderKL.from_pretrained(weights / "vae")
    unet = UNet2DModel.from_pretrained(weights / "unet")
    scheduler = DDIMScheduler.from_pretrained(weights / "scheduler")
    z = codec.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean
    assert z.shape == (1, 6, 16, 16)
    assert unet(z, 10).sample.shape == z.shape
    assert scheduler.config.prediction_type == "v_prediction"
    assert scheduler.config.set_alpha_to_one
    assert not scheduler.config.clip_sample
    sizes = [json.loads((weights / f / "config.json").read_text())["sample_size"] for f in ("vae", "unet")]
    assert sizes == [512, 128]
    assert "MB" in capsys.readouterr().out

    monkeypatch.setattr(evaluate, "SIDE", 256)
    Image.fromarray(textures.texture(4)).save(run.folder / "photo.png")
    sheet = run.folder / "sheet.png"
    evaluate.main(
        [str(run.folder / "photo.png"), f"--weights={weights}", f"--sheet={sheet}", f"--photographs={photographs}"]
    )
    out = capsys.readouterr().out
    assert "photo: round trip" in out
    assert "2 held-out materials, windows of 32 latents: right_200" in out
    with Image.open(sheet) as image:
        assert image.size == (8 * 128, 128)


def test_run_starts_from_exported_weights_and_photographs(
    run: Run, photographs: Path, pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    train.main(options(run))
    first = run.folder / "weights"
    second = replace(run, folder=tmp_path_factory.mktemp("second"))
    np.save(second.textures_file, pictures)
    train.main(options(second, f"--init={first}", f"--photographs={photographs}", "--standardize"))
    assert not second.checkpoint("codec").exists()
    names = json.loads((second.folder / "materials.json").read_text())
    assert names == {"training": list(TRAINING), "held_out": list(HELD_OUT)}
    exported = second.folder / "weights"
    assert json.loads((exported / "latents.json").read_text()) == {"standardized": True}
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert (exported / vae).read_bytes() == (first / vae).read_bytes()
    before, after = (UNet2DModel.from_pretrained(w / "unet").state_dict() for w in (first, exported))
    assert all(torch.allclose(v, after[k], atol=2e-2) for k, v in before.items())
    assert not all(torch.equal(v, after[k]) for k, v in before.items())
    with pytest.raises(SystemExit, match=r"materials\.json: the run was started with"):
        train.main(options(second, "--steps-unet=2", "--standardize"))
    with pytest.raises(ValueError, match="started without --init"):
        start_from(run, exported)


def test_initial_weights_of_another_width_are_rejected(run: Run) -> None:
    with pytest.raises(SystemExit, match="the settings say"):
        train.main(options(run, f"--init={evaluate.WEIGHTS}", "--stage=unet"))


def test_run_rejects_other_settings(run: Run) -> None:
    keep_settings(run)
    keep_settings(run)
    with pytest.raises(ValueError, match="started with seed = 0, not 7"):
        keep_settings(replace(run, settings=replace(TINY, seed=7)))
