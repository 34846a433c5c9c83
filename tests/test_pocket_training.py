"""How pocket is made: textures, the analytic start of its codec, training that survives interruption, the export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from PIL import Image
from torch import Tensor, nn

from ad_service.pocket import evaluate, noise, reliefs, textures, train
from ad_service.pocket.codec_start import analyse, build_codec, write_codec
from ad_service.pocket.evaluate import in_context
from ad_service.pocket.in_context import InContext, likeness
from ad_service.pocket.train import Budget, Run, Settings

TINY = Settings(
    textures=3,
    channels=6,
    codec_widths=(16, 24, 32),
    codec_batch=2,
    codec_crop=64,
    unet_widths=(16, 32, 32),
    unet_textures=2,
    unet_each=2,
    unet_crop=16,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([textures.texture(seed) for seed in range(3)])


@pytest.fixture
def run(tmp_path: Path, pictures: np.ndarray) -> Run:
    """A tiny run whose textures are there already."""
    np.save(tmp_path / "textures.npy", pictures)
    return Run(tmp_path, TINY, codec_budget=Budget(steps=4), unet_budget=Budget(steps=4), save_every=0)


def test_a_texture_is_a_function_of_its_seed(pictures: np.ndarray) -> None:
    assert pictures.shape == (3, textures.SIZE, textures.SIZE, 3)
    assert pictures.dtype == np.uint8
    assert np.array_equal(textures.texture(1), pictures[1])
    assert not np.array_equal(pictures[0], pictures[1])


@pytest.mark.parametrize("family", [f for f, _ in reliefs.FAMILIES], ids=lambda f: f.__name__)
def test_every_family_gives_a_relief_with_detail(family) -> None:
    relief = family(np.random.default_rng(5))
    for part in (relief.height, relief.element, relief.u, relief.v):
        assert part.shape == (noise.RENDER, noise.RENDER)
        assert np.isfinite(part).all()
    assert relief.height.std() > 0.01
    assert relief.element.min() >= 0


def test_textures_are_written_whole_and_the_number_of_workers_changes_nothing(
    tmp_path: Path, pictures: np.ndarray
) -> None:
    textures.write_textures(tmp_path / "textures.npy", 2, 0, workers=2)
    assert np.array_equal(np.load(tmp_path / "textures.npy"), pictures[:2])
    assert [p.name for p in tmp_path.iterdir()] == ["textures.npy"]


def test_the_written_encoder_is_the_patch_code_exactly(pictures: np.ndarray) -> None:
    images = train.as_images(torch.from_numpy(pictures[:, :64, :64]))
    code = analyse(images, channels=16)
    codec = build_codec(16, (32, 64, 96)).eval()
    write_codec(codec, code)
    with torch.no_grad():
        z = codec.encode(images).latent_dist.mean * codec.config.scaling_factor
    assert torch.allclose(z, code.encode(images), atol=3e-3)
    assert z.mean((0, 2, 3)).abs().max() < 0.01
    assert z.square().mean() == pytest.approx(1, abs=0.02)


def test_the_decoder_starts_with_the_right_colours(pictures: np.ndarray) -> None:
    images = train.as_images(torch.from_numpy(pictures[:, :64, :64]))
    code = analyse(images, channels=16)
    codec = build_codec(16, (32, 64, 96)).eval()
    write_codec(codec, code)
    with torch.no_grad():
        out = codec.decode(code.encode(images)).sample
    coarse = nn.functional.avg_pool2d
    both = torch.stack([coarse(out, 16).flatten(), coarse(images, 16).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9


def test_crops_of_one_call_come_from_one_texture_and_follow_the_generator() -> None:
    flat = torch.full((2, 96, 96, 3), 40, dtype=torch.uint8)
    flat[1] = 200
    first = train.crops(flat, generator(3), 4, 32)
    assert first.shape == (4, 3, 32, 32)
    assert torch.equal(first, train.crops(flat, generator(3), 4, 32))
    assert torch.allclose(first, first[:1].expand_as(first))


def test_damage_changes_a_part_and_leaves_the_rest() -> None:
    z = torch.randn(2, 4, 32, 32, generator=generator())
    clean = z[0].clone()
    changed = torch.stack([(train.damage(z, generator(s)) != clean).any(0).float().mean() for s in range(40)])
    assert torch.equal(z[0], clean)
    assert (changed > 0).float().mean() > 0.9
    assert changed.mean() < 0.5


def test_a_noised_crop_reads_its_own_reference_and_no_other() -> None:
    torch.manual_seed(0)
    unet = train.new_unet(TINY).eval()
    nn.init.normal_(unet.conv_out.weight)
    batch = torch.randn(6, 6, 16, 16, generator=generator())
    times = torch.tensor([0, 0, 300, 300, 300, 300])

    def outputs(x: Tensor) -> Tensor:
        with torch.no_grad(), in_context(unet, 2):
            return unet(x, times).sample

    before = outputs(batch)
    other = batch.clone()
    other[1] += 1  # the second texture's reference: its crops are 4 and 5
    moved = (outputs(other) - before).abs().amax((1, 2, 3)) > 1e-4
    assert moved.tolist() == [False, True, False, False, True, True]


def test_a_noised_crop_may_see_the_reference_alone() -> None:
    x = torch.randn(2, 32, 4, 4, generator=generator())
    torch.manual_seed(0)
    layer = Attention(32, heads=1, dim_head=32, norm_num_groups=16, residual_connection=True)
    both, alone = (InContext(1, own)(layer, x) for own in (True, False))
    assert torch.allclose(both[0], alone[0])
    assert not torch.allclose(both[1], alone[1])


def test_likeness_is_blind_to_what_all_tokens_share() -> None:
    x = torch.randn(2, 3, 10, 8, generator=generator())
    shared = torch.randn(2, 3, 1, 8, generator=generator(1))
    assert torch.allclose(likeness(x), likeness(x + 5 * shared), atol=1e-4)
    assert torch.allclose(likeness(x).norm(dim=-1), torch.ones(2, 3, 10))


def test_the_skips_of_the_top_level_are_put_back() -> None:
    torch.manual_seed(0)
    unet = train.new_unet(TINY).eval()
    nn.init.normal_(unet.conv_out.weight)
    x = torch.randn(1, 6, 16, 16, generator=generator())
    train.set_references(unet, 1)
    with torch.no_grad():
        before = unet(x, 5).sample
        with train.without_fine_skips(unet):
            cut = unet(x, 5).sample
        after = unet(x, 5).sample
    assert not torch.allclose(before, cut)
    assert torch.equal(before, after)


def test_queries_start_like_keys_and_learn_more_slowly() -> None:
    unet = train.new_unet(TINY)
    layers = [m for m in unet.modules() if isinstance(m, Attention)]
    assert all(torch.equal(m.to_q.weight, m.to_k.weight) for m in layers)
    fast, slow = train.groups(unet, 1.0)
    assert len(slow["params"]) == 4 * len(layers)
    assert slow["rate"] < fast["rate"] == 1.0
    assert len(fast["params"]) + len(slow["params"]) == len(list(unet.parameters()))


def test_the_attention_is_put_back() -> None:
    unet = train.new_unet(TINY)
    with in_context(unet, 1):
        assert any(isinstance(getattr(m, "processor", None), InContext) for m in unet.modules())
    processors = [m.processor for m in unet.modules() if hasattr(m, "processor")]
    assert len(processors) == 11
    assert all(isinstance(p, AttnProcessor2_0) for p in processors)


class Killed(Exception):
    """Stands for whatever ends a process."""


def kill_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `fit` die in its step number `steps`."""
    fit = train.fit

    def dying(name, model, loss, budget, rate, run):
        left = iter(range(steps))

        def limited(g, used):
            if next(left, None) is None:
                raise Killed
            return loss(g, used)

        fit(name, model, limited, budget, rate, run)

    monkeypatch.setattr(train, "fit", dying)


@pytest.mark.parametrize("stage", ["codec", "unet"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    stage: str, run: Run, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    train.train_codec(run)
    other = replace(run, folder=tmp_path_factory.mktemp("interrupted"))
    for name in ("textures.npy", "code.safetensors"):
        (other.folder / name).write_bytes((run.folder / name).read_bytes())
    steps = {"codec": train.train_codec, "unet": train.train_unet}[stage]
    steps(run)
    with monkeypatch.context() as patch:
        kill_after(2, patch)
        with pytest.raises(Killed):
            steps(other)
    steps(other)
    whole, resumed = (torch.load(r.folder / f"{stage}.pt", weights_only=True) for r in (run, other))
    assert whole["step"] == resumed["step"] == 4
    for key in ("model", "average"):
        assert all(torch.equal(a, resumed[key][k]) for k, a in whole[key].items())


def test_training_changes_the_decoder_and_never_the_encoder(run: Run) -> None:
    train.train_codec(run)
    state = torch.load(run.folder / "codec.pt", weights_only=True)["model"]
    torch.manual_seed(TINY.seed)
    fresh = train.new_codec(TINY)
    write_codec(fresh, train.read_code(run))
    before = fresh.state_dict()
    same = {k for k, v in state.items() if torch.equal(v, before[k])}
    assert all(k in same for k in state if not k.startswith("decoder"))
    assert not any(k in same for k in state if k.endswith("conv2.weight") and k.startswith("decoder"))


def test_the_command_makes_weights_that_plain_diffusers_loads(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [f"--{k.replace('_', '-')}={v}" for k, v in vars(TINY).items() if not isinstance(v, tuple)]
    widths = ["--codec-widths", "16", "24", "32", "--unet-widths", "16", "32", "32"]
    argv = ["--out", str(run.folder), "--steps-codec=1", "--steps-unet=1", *options, *widths]
    threads = torch.get_num_threads()
    train.main(argv)
    train.main(argv)  # a finished run trains no more
    torch.set_num_threads(threads)
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
    evaluate.evaluate(weights, [run.folder / "photo.png"], run.folder / "sheet.png", "cpu")
    assert "photo: round trip" in capsys.readouterr().out
    with Image.open(run.folder / "sheet.png") as sheet:
        assert sheet.size == (8 * 128, 128)


def test_the_weights_that_ship_are_small_and_give_an_unseen_texture_back() -> None:
    weights = Path(train.__file__).parent / "weights"
    assert sum(p.stat().st_size for p in weights.rglob("*.safetensors")) < 40e6
    codec = AutoencoderKL.from_pretrained(weights / "vae").eval()
    picture = train.as_images(torch.from_numpy(textures.texture(987654321)[None, :128, :128]))
    with torch.no_grad():
        z = codec.encode(picture).latent_dist.mean
        back = codec.decode(z).sample
    assert z.shape == (1, 16, 32, 32)
    assert evaluate.psnr(back.clamp(-1, 1), picture) > 28


def test_a_run_refuses_to_go_on_with_other_settings(run: Run) -> None:
    train.keep_settings(run)
    train.keep_settings(run)
    with pytest.raises(ValueError, match="started with seed = 0, not 7"):
        train.keep_settings(replace(run, settings=replace(TINY, seed=7)))
