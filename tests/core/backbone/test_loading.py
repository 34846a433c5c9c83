"""Checkpoints become backbones: every family, both layouts, no network; and each wrong file is named as what it is."""

from __future__ import annotations

import functools
import gc
import json
import shutil
import socket
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPPreTrainedModel, CLIPTokenizer

from ad_service.core.backbone import checkpoints, devices, loading, model, schedule, weights
from ad_service.core.backbone.checkpoints import CheckpointError, Header, file_family, unet_config, vae_config
from ad_service.core.backbone.loading import load, measure_prediction
from ad_service.core.backbone.model import Model, self_attention_layers
from ad_service.core.backbone.prompts import encode_prompts
from tests.support import tiny_checkpoints as tiny_models

CPU = torch.device("cpu")
FAMILIES = ("sd15", "sd2", "sdxl")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every family as a folder and as a single file."""
    shelf = tmp_path_factory.mktemp("shelf")
    for family in ("pocket", *FAMILIES):
        tiny_models.save_folder(tiny_models.tiny(family), shelf / family)
        if family != "pocket":
            tiny_models.tiny_single_file(family, shelf / f"{family}.safetensors")
    return shelf


@pytest.fixture
def tensors(shelf: Path) -> dict[str, Tensor]:
    """The tensors of a single file, to be spoilt by a test."""
    return load_file(shelf / "sd15.safetensors")


def load_fresh(path: Path, family: str) -> Model:
    return load(path, family, device="cpu", precision="fp32")


load_cpu = functools.cache(load_fresh)


def noise(channels: int = 4, side: int = 8) -> Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


def predict(model: Model, z: Tensor, t: int) -> Tensor:
    return model.predict(z, t, model.unconditional)


def assert_same(predicted: Tensor, expected: Tensor) -> None:
    """Up to rounding, which norms over the few numbers of so small a picture make larger."""
    torch.testing.assert_close(predicted, expected, atol=2e-3, rtol=0)


def found_family(path: Path) -> str:
    return checkpoints.folder_family(path) if path.is_dir() else file_family(checkpoints.read_header(path))


def refusal(path: Path, family: str | None = None) -> str:
    """The sentence with which a checkpoint is refused, before a weight is read."""
    with pytest.raises(CheckpointError) as caught:
        loading.inspect(path, family or found_family(path))
    sentence = str(caught.value)
    assert str(path) in sentence, "the sentence names the file"
    return sentence


# ---------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_and_a_single_file_predict_the_same(shelf: Path, family: str) -> None:
    from_folder = load_cpu(shelf / family, family)
    from_file = load_cpu(shelf / f"{family}.safetensors", family)
    assert from_folder.prediction == from_file.prediction and from_file.notes == ()
    torch.testing.assert_close(from_folder.alphas, from_file.alphas)
    assert_same(predict(from_file, noise(), 400), predict(from_folder, noise(), 400))


def test_a_folder_predicts_what_diffusers_own_loader_predicts(shelf: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(shelf / "sd15" / "unet", local_files_only=True)
    parts = weights.open_parts(shelf / "sd15")
    prompt = encode_prompts(parts, [""], CPU, torch.float32)[0]
    assert prompt.tokens is not None
    with torch.no_grad():
        expected = unet(noise(), 400, encoder_hidden_states=prompt.tokens.expand(2, -1, -1)).sample
    assert_same(predict(load_cpu(shelf / "sd15", "sd15"), noise(), 400), expected)


def test_pocket_needs_no_prompt(shelf: Path) -> None:
    pocket = load_cpu(shelf / "pocket", "pocket")
    assert predict(pocket, noise(16, 16), 10).shape == (2, 16, 16, 16)
    assert (pocket.name, pocket.prediction, pocket.family.similarity) == ("pocket", "v_prediction", 12.0)


def test_loading_touches_no_network(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for path in (shelf / "sd15", shelf / "sd15.safetensors"):
        load_fresh(path, "sd15")


def test_the_file_may_change_after_loading(shelf: Path, tmp_path: Path) -> None:
    path = shutil.copy(shelf / "sd15.safetensors", tmp_path / "model.safetensors")
    backbone = load_cpu(path, "sd15")
    before = predict(backbone, noise(), 5)
    path.write_bytes(b"")
    assert_same(predict(backbone, noise(), 5), before)


def test_half_precision_variants_and_old_attention_names_load(shelf: Path, tmp_path: Path) -> None:
    folder = tiny_models.save_folder(tiny_models.tiny("sd15"), tmp_path / "half", variant="fp16")
    file = folder / "vae" / "diffusion_pytorch_model.fp16.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    names = load_file(file)
    for new, name in old.items():
        names = {key.replace(f".{new}.", f".{name}."): tensor for key, tensor in names.items()}
    assert any(".query." in key for key in names)
    save_file(names, file)
    half, full = load_cpu(folder, "sd15"), load_cpu(shelf / "sd15", "sd15")
    torch.testing.assert_close(predict(half, noise(), 5), predict(full, noise(), 5), atol=0.05, rtol=0.05)
    picture = noise(3, 32)
    torch.testing.assert_close(
        half.vae.encode(picture).latent_dist.mean, full.vae.encode(picture).latent_dist.mean, atol=0.02, rtol=0.02
    )


def test_shards_are_one_component(shelf: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shelf / "sd15", tmp_path / "sharded")
    shutil.rmtree(folder / "unet")
    tiny_models.tiny("sd15").unet.save_pretrained(folder / "unet", max_shard_size="5MB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    expected = predict(load_cpu(shelf / "sd15", "sd15"), noise(), 5)
    assert_same(predict(load_cpu(folder, "sd15"), noise(), 5), expected)


def test_what_shared_files_carry_besides_is_left_alone(shelf: Path, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """EMA copies, counters, a text encoder without `text_model.`, a VAE without quantisation layers."""
    expected = predict(load_cpu(shelf / "sd15.safetensors", "sd15"), noise(), 5)
    tensors["model_ema.diffusion_modelinput_blocks00weight"] = torch.ones(32, 4, 3, 3)
    tensors["model_ema.num_updates"] = torch.tensor(3)
    tensors["global_step"] = torch.tensor(3)
    tensors = {
        name.replace("transformer.text_model.", "transformer."): tensor
        for name, tensor in tensors.items()
        if "quant_conv" not in name
    }
    path = tmp_path / "merged.safetensors"
    backbone = load_cpu(tiny_models.save_single_file(tensors, path, {"prediction_type": "epsilon"}), "sd15")
    assert_same(predict(backbone, noise(), 5), expected)
    assert backbone.vae.quant_conv is None and backbone.prediction == "epsilon"


def test_vaes_that_tools_wrote_back_load(shelf: Path, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """Some tools leave diffusers' names in the attention layer, some make its biases three-dimensional."""
    expected = load_cpu(shelf / "sd15", "sd15").vae.state_dict()
    for name in [name for name in tensors if ".mid.attn_1." in name]:
        tensor = tensors.pop(name)
        tensor = tensor[:, None, None] if name.endswith(".bias") and "norm" not in name else tensor
        for old, new in ((".q.", ".to_q."), (".k.", ".to_k."), (".v.", ".to_v."), (".proj_out.", ".to_out.0.")):
            name = name.replace(old, new) if ".encoder." in name else name
        tensors[name] = tensor
    path = tiny_models.save_single_file(tensors, tmp_path / "back.safetensors", {"prediction_type": "epsilon"})
    for name, tensor in load_cpu(path, "sd15").vae.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


PUBLISHED = {
    "sd15": (("model.diffusion_model.", 686), ("first_stage_model.", 248), ("cond_stage_model.", 197)),
    "sd2": (("model.diffusion_model.", 686), ("first_stage_model.", 248)),
    "sdxl": (("model.diffusion_model.", 1680), ("first_stage_model.", 248), ("conditioner.", 587)),
}
"""How many tensors the published single files have under each prefix."""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_real_architectures_are_read_off_the_shapes(family: str) -> None:
    model = tiny_models.real(family)
    tensors = tiny_models.single_file_tensors(model)
    for prefix, count in PUBLISHED[family]:
        assert sum(name.startswith(prefix) for name in tensors) == count
    header = Header(Path("real"), 0, {}, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, {})
    assert file_family(header) == family
    for config, module in ((unet_config(header, family), model.unet), (vae_config(header, family), model.vae)):
        published = {name: _listed(module.config[name]) for name in config}
        assert {name: _listed(value) for name, value in config.items()} == published
    parts = weights.file_parts(header, family)
    parts.unet.check()
    parts.vae.check()
    for part, text in zip(parts.texts, model.texts.values(), strict=True):
        config = part.check().config
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "intermediate_size"):
            assert getattr(config, name) == getattr(text.config, name)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


# ---------------------------------------------------------------------------------------------- the empty prompt


def tokenizer(folder: Path, pad: str) -> CLIPTokenizer:
    """The marks of CLIP's vocabulary at their places, which is all that the empty prompt needs."""
    folder.mkdir()
    vocabulary = {"!": 0, "<|startoftext|>": 49406, "<|endoftext|>": 49407}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, pad_token=pad, model_max_length=77, local_files_only=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_empty_prompt_is_what_the_pipeline_encodes(shelf: Path, tmp_path: Path, family: str) -> None:
    model = tiny_models.tiny(family)
    first = tokenizer(tmp_path / "first", "!" if family == "sd2" else "<|endoftext|>")
    common = {"unet": model.unet, "vae": model.vae, "scheduler": model.scheduler, "tokenizer": first, **model.texts}
    if family == "sdxl":
        second = tokenizer(tmp_path / "second", "!")
        pipeline = StableDiffusionXLPipeline(**common, tokenizer_2=second)
        tokens, _, pooled, _ = pipeline.encode_prompt("", device=CPU, do_classifier_free_guidance=False)
    else:
        pipeline = StableDiffusionPipeline(
            **common, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
        tokens, _ = pipeline.encode_prompt("", CPU, 1, False)
        pooled = None
    if family == "sdxl":
        sizes = pipeline._get_add_time_ids((1024, 1024), (0, 0), (1024, 1024), torch.float32, tiny_models.WIDTH)
        conditions = {"text_embeds": pooled, "time_ids": sizes}
        with torch.no_grad():
            expected = model.unet(noise()[:1], 7, tokens, added_cond_kwargs=conditions).sample
        assert_same(predict(load_cpu(shelf / "sdxl", "sdxl"), noise()[:1], 7), expected)
    for path in (shelf / family, shelf / f"{family}.safetensors"):
        prompt = encode_prompts(weights.open_parts(path), [""], CPU, torch.float32)[0]
        assert prompt.tokens is not None and prompt.tokens.shape == (1, 77, 64 if family == "sdxl" else 32)
        torch.testing.assert_close(prompt.tokens, tokens)
        torch.testing.assert_close(prompt.pooled, pooled) if pooled is not None else None


@pytest.mark.parametrize("path", ["sdxl", "sdxl.safetensors"])
def test_nothing_of_the_text_encoders_stays(shelf: Path, path: str) -> None:
    def remains() -> list[Any]:
        vocabulary = (tiny_models.WORDS, tiny_models.WIDTH)
        objects = gc.get_objects()
        modules = [o for o in objects if issubclass(type(o), CLIPPreTrainedModel)]
        return modules + [o for o in objects if issubclass(type(o), Tensor) and o.shape == vocabulary]

    gc.collect()
    before = len(remains())
    backbone = load_fresh(shelf / path, "sdxl")
    assert len(remains()) == before
    assert predict(backbone, noise(), 5).isfinite().all()


# ---------------------------------------------------------------------------------------------- attention layers


@pytest.mark.parametrize(("family", "count"), [("sd15", 16), ("sd2", 16), ("sdxl", 70)])
def test_the_real_architectures_have_their_layers_in_order(family: str, count: int) -> None:
    unet = tiny_models.real(family).unet
    names = {module: name for name, module in unet.named_modules()}
    found = [names[layer] for layer in self_attention_layers(unet)]
    places = [name.split("_")[0] for name in found]
    assert len(found) == count and all(name.endswith("attn1") for name in found)
    assert places == sorted(places, key=["down", "mid", "up"].index)
    assert set(places[-6:]) == {"up"}
    assert list(names.values()).index(found[-1]) < list(names.values()).index("mid_block"), "diffusers' own order fails"


@pytest.mark.parametrize("family", ["pocket", *FAMILIES])
def test_the_layers_run_in_the_order_of_the_list(shelf: Path, family: str) -> None:
    backbone = load_fresh(shelf / family, family)
    layers, ran = self_attention_layers(backbone.unet), []
    for layer in layers:
        layer.register_forward_hook(lambda module, *_: ran.append(module))
    with torch.no_grad():
        predict(backbone, noise(backbone.vae.config.latent_channels, 16), 3)
    assert [id(layer) for layer in ran] == [id(layer) for layer in layers]
    cross = 2 if family != "pocket" else 1
    assert len(layers) * cross == sum(isinstance(module, Attention) for module in backbone.unet.modules())


# ---------------------------------------------------------------------------------------------- gradients, precision


def test_gradients_reach_the_latents_and_no_parameter(shelf: Path) -> None:
    backbone = load_cpu(shelf / "sd15", "sd15")
    z = noise().requires_grad_()
    predict(backbone, z, 400).square().mean().backward()
    assert z.grad is not None and z.grad.abs().min() > 0
    assert not any(p.requires_grad for network in (backbone.unet, backbone.vae) for p in network.parameters())


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_is_the_unets_alone(shelf: Path, precision: str, dtype: torch.dtype) -> None:
    backbone = load(shelf / "sd2", "sd2", device="cpu", precision=precision)
    full = predict(load_cpu(shelf / "sd2", "sd2"), noise(), 400)
    z = noise().requires_grad_()
    predicted = predict(backbone, z, 400)
    predicted.mean().backward()
    assert backbone.dtype == dtype and {p.dtype for p in backbone.unet.parameters()} == {dtype}
    assert {p.dtype for p in backbone.vae.parameters()} == {torch.float32}
    assert predicted.dtype == torch.float32 and z.grad is not None and z.grad.dtype == torch.float32
    torch.testing.assert_close(predicted, full, atol=0.05, rtol=0.05)


def test_automatic_precision_fits_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = devices.choose_precision
    for native, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert choose("auto", torch.device("cuda"), "sdxl") == expected
    assert choose("auto", torch.device("cuda"), "sd2") == torch.float32, "its attention overflows float16"
    assert choose("auto", torch.device("mps"), "sd15") == torch.float16
    assert choose("auto", CPU, "sd15") == torch.float32
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(devices, "_cpu_multiplies_bf16", lambda fast=fast: fast)
        assert choose("auto", CPU, "pocket") == expected
    assert choose("fp16", CPU, "pocket") == torch.float16


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="cuda:0 is not available"):
        devices.choose_device("cuda:0")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    assert devices.choose_device() == torch.device("mps")


# ---------------------------------------------------------------------------------------------- noise schedule


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
    ],
)
def test_alphas_are_those_of_diffusers(settings: dict[str, Any]) -> None:
    scheduler = DDIMScheduler(**settings)
    alphas = schedule.cumulative_alphas(dict(scheduler.config), Path("model"))
    assert alphas.dtype == torch.float64
    torch.testing.assert_close(alphas.float(), scheduler.alphas_cumprod, atol=1e-5, rtol=1e-4)


def test_zero_snr_ends_in_almost_pure_noise() -> None:
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", rescale_betas_zero_snr=True)
    alphas = schedule.cumulative_alphas(dict(scheduler.config), Path("model"))
    assert alphas[-1] == 2**-24
    torch.testing.assert_close(alphas[:-1].float(), scheduler.alphas_cumprod[:-1], atol=1e-5, rtol=1e-3)


def test_a_schedule_of_another_kind_is_refused() -> None:
    with pytest.raises(CheckpointError, match="FlowMatchEulerDiscreteScheduler"):
        schedule.cumulative_alphas({"_class_name": "FlowMatchEulerDiscreteScheduler"}, Path("model"))


def test_the_training_target_can_be_measured() -> None:
    """A network that answers as a trained one: it knows that pictures are smooth, and z at t = 999 is noise."""
    alpha, picture = 0.0047, 0.3

    def predicts_epsilon(z: Tensor, t: int) -> Tensor:
        return (z - alpha**0.5 * picture) / (1 - alpha) ** 0.5

    def predicts_v(z: Tensor, t: int) -> Tensor:
        return alpha**0.5 * predicts_epsilon(z, t) - (1 - alpha) ** 0.5 * picture

    assert measure_prediction(predicts_epsilon, CPU) == "epsilon"
    assert measure_prediction(predicts_v, CPU) == "v_prediction"
    assert measure_prediction(lambda z, t: z * torch.nan, CPU) == "epsilon"


def test_a_measured_training_target_is_noted(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    silent = load_fresh(tiny_models.save_single_file(tensors, tmp_path / "silent.safetensors"), "sd15")
    assert silent.prediction == "v_prediction", "random weights know nothing of the noise"
    assert silent.notes == (
        "silent.safetensors does not declare what its network predicts; its output for pure noise shows v_prediction",
    )


def test_a_single_file_says_its_training_target(shelf: Path, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    def schedule(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> dict[str, Any]:
        path = tiny_models.save_single_file(tensors, tmp_path / "model.safetensors", metadata)
        return weights.open_parts(path).schedule

    assert schedule(tensors)["prediction_type"] is None
    assert schedule(tensors, {"modelspec.prediction_type": "v"})["prediction_type"] == "v_prediction"
    marked = schedule(tensors | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)})
    assert (marked["prediction_type"], marked["rescale_betas_zero_snr"]) == ("v_prediction", True)
    yaml = tmp_path / "model.yaml"
    yaml.write_text('model:\n  params:\n    parameterization: "v"\n')
    assert schedule(tensors)["prediction_type"] == "v_prediction"
    yaml.write_text("model:\n  params:\n    timesteps: 1000\n")
    assert schedule(tensors)["prediction_type"] == "epsilon"


def test_sd2_that_predicts_v_sees_a_larger_window(shelf: Path) -> None:
    assert load_cpu(shelf / "sd2", "sd2").family.window == 96
    assert model.FAMILIES["sd2"].window == 64


# ---------------------------------------------------------------------------------------------- identity


def test_the_digest_tells_weights_apart(shelf: Path, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    def digest(path: Path) -> str:
        return weights.open_parts(path).digest()

    copy = shutil.copytree(shelf / "sd15", tmp_path / "copy")
    assert digest(copy) == digest(shelf / "sd15") != digest(shelf / "sd2")
    tensors["model.diffusion_model.out.2.bias"] += 1
    one = tiny_models.save_single_file(tensors, tmp_path / "sd15.safetensors")
    assert digest(one) != digest(shelf / "sd15.safetensors")


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("kept", [4, 300, 200_000, -1])
def test_a_file_cut_short_is_refused(shelf: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes((shelf / "sd15.safetensors").read_bytes()[:kept])
    assert "download it again" in refusal(path)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_a_component_cut_short_is_refused(shelf: Path, tmp_path: Path, component: str) -> None:
    folder = shutil.copytree(shelf / "sd15", tmp_path / "cut")
    file = next((folder / component).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    assert "cut short" in refusal(folder) and component in refusal(folder)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"", "empty"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"\x80\x02}q\0", "pickled"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\xff" * 100, "not a safetensors file"),
        (b"\x0a" + b"\0" * 7 + b'{"a": [1]}', "damaged header"),
        (b"\x05" + b"\0" * 7 + b"{nope", "damaged header"),
        (b"\x02" + b"\0" * 7 + b"{}", "no tensor"),
    ],
)
def test_other_file_formats_are_named_in_the_error(tmp_path: Path, start: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(start)
    assert words in refusal(path)


@given(st.binary(max_size=300), st.integers(0, 400), st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_a_header_or_a_checkpoint_error(tmp_path: Path, noise: bytes, place: int, framed: bool) -> None:
    good = b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},'
    good += b'"b":{"dtype":"I8","shape":[],"data_offsets":[16,17]}}'
    body = good[:place] + noise + good[place:] if place < len(good) else noise
    path = tmp_path / "model.safetensors"
    path.write_bytes((len(body).to_bytes(8, "little") if framed else b"") + body + bytes(17))
    try:
        header = checkpoints.read_header(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        checkpoints.digest([header])


def test_a_deeply_nested_header_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000)
    assert "damaged header" in refusal(path)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", b"cos\nsystem\n")
    assert "pickled checkpoint" in refusal(tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight"], "is a LoRA"),
        (["unet.mid_block.attentions.0.to_q.lora_A.weight"], "is a LoRA"),
        (["unet.mid_block.attentions.0.to_q.weight.absmax"], "is quantized"),
        (["emb_params"], "textual inversion"),
        (["control_model.input_blocks.0.0.weight"], "ControlNet"),
        (["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"], "SD3"),
        (["double_blocks.0.img_attn.qkv.weight"], "Flux"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "only the UNet"),
        (["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"], "only the UNet"),
        (["encoder.conv_in.weight", "decoder.conv_in.weight"], "only the VAE"),
        (["text_model.embeddings.token_embedding.weight"], "only a text encoder"),
        (["lm_head.weight"], "unknown kind"),
    ],
)
def test_files_of_other_kinds_are_named_in_the_error(tmp_path: Path, names: list[str], words: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(4, 4, 3, 3) for name in names}, path)
    assert words in refusal(path)


@pytest.mark.parametrize(
    ("dropped", "words"),
    [
        ("first_stage_model.", "lacks the VAE"),
        ("cond_stage_model.", "lacks the text encoder"),
        ("first_stage_model.decoder.", "VAE"),
        ("first_stage_model.decoder.up.1.block.0.conv1.bias", "lacks 1 of"),
        ("model.diffusion_model.middle_block.1.proj_in.bias", "lacks 1 of"),
        ("model.diffusion_model.middle_block.1.", "unknown shape"),
        ("cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc2.weight", "text encoder lacks 1 of"),
        ("cond_stage_model.transformer.text_model.embeddings.", "text encoder"),
    ],
)
def test_missing_tensors_are_in_the_error(tmp_path: Path, tensors: dict[str, Tensor], dropped: str, words: str) -> None:
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(dropped)}
    assert words in refusal(tiny_models.save_single_file(kept, tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("sd2", "cond_stage_model.model.ln_final.weight"),
        ("sdxl", "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_bias"),
    ],
)
def test_missing_tensors_of_an_open_clip_encoder_are_in_the_error(
    shelf: Path, tmp_path: Path, family: str, name: str
) -> None:
    kept = load_file(shelf / f"{family}.safetensors")
    del kept[name]
    sentence = refusal(tiny_models.save_single_file(kept, tmp_path / "model.safetensors"))
    assert "text encoder" in sentence and "lacks" in sentence


def test_a_tensor_of_another_shape_is_named_in_the_error(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    tensors["model.diffusion_model.out.0.weight"] = torch.zeros(7)
    sentence = refusal(tiny_models.save_single_file(tensors, tmp_path / "model.safetensors"))
    assert "conv_norm_out.weight of the shape (7,), expected (32,)" in sentence


@pytest.mark.parametrize(
    ("channels", "words"), [(9, "inpainting"), (8, "InstructPix2Pix"), (5, "depth"), (6, "6 input")]
)
def test_models_with_other_input_channels_are_named_in_the_error(
    shelf: Path, tmp_path: Path, tensors: dict[str, Tensor], channels: int, words: str
) -> None:
    tensors["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(32, channels, 3, 3)
    assert words in refusal(tiny_models.save_single_file(tensors, tmp_path / "model.safetensors"))
    folder = shutil.copytree(shelf / "sd15", tmp_path / "folder")
    edit(folder / "unet" / "config.json", in_channels=channels)
    assert words in refusal(folder)


def test_the_sdxl_refiner_is_refused(shelf: Path, tmp_path: Path) -> None:
    tensors = load_file(shelf / "sdxl.safetensors")
    refiner = {
        name.replace("embedders.1.", "embedders.0."): tensor
        for name, tensor in tensors.items()
        if "embedders.0" not in name
    }
    assert "refiner" in refusal(tiny_models.save_single_file(refiner, tmp_path / "refiner.safetensors"))
    folder = shutil.copytree(shelf / "sdxl", tmp_path / "refiner")
    shutil.rmtree(folder / "text_encoder")
    assert "refiner" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", ()),
        ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", ()),
        ("model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight", (3,)),
        ("first_stage_model.decoder.conv_in.weight", (3,)),
        ("first_stage_model.decoder.mid.attn_1.q.weight", (1, 1, 0)),
        ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", ()),
        ("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight", (2,)),
        ("cond_stage_model.model.text_projection", (1, 2, 3)),
        ("conditioner.embedders.1.model.positional_embedding", (1,)),
    ],
)
@pytest.mark.filterwarnings("ignore:The use of `x.T`")
def test_tensors_of_odd_shapes_are_refused(
    tmp_path: Path, tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]
) -> None:
    path = tiny_models.save_single_file(tensors | {name: torch.zeros(shape)}, tmp_path / "model.safetensors")
    assert refusal(path)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        ("unet/config.json", {"_class_name": "UNet3DConditionModel"}, "UNet3DConditionModel"),
        ("unet/config.json", {"block_out_channels": [64, 64, 64, 64]}, "of the shape"),
        ("unet/config.json", {"down_block_types": ["NoBlock"] * 4}, "cannot be built"),
        ("unet/config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized"),
        ("unet/config.json", {"in_channels": [4]}, "[4] input channels"),
        ("scheduler/scheduler_config.json", {"beta_start": "high"}, "noise schedule of an unknown kind"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0, "beta_end": 2}, "noise schedule"),
        ("unet/config.json", {"class_embed_type": "projection"}, "unCLIP"),
        ("vae/config.json", {"_class_name": "AutoencoderTiny"}, "AutoencoderTiny"),
    ],
)
def test_a_folder_of_another_architecture_is_refused(
    shelf: Path, tmp_path: Path, path: str, changes: dict[str, Any], words: str
) -> None:
    folder = shutil.copytree(shelf / "sd15", tmp_path / "folder")
    edit(folder / path, **changes)
    assert words in refusal(folder)


def test_the_error_of_an_incomplete_folder_says_what_is_missing(shelf: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shelf / "sd15", tmp_path / "folder")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    assert "scheduler_config.json is missing" in refusal(folder)
    shutil.rmtree(folder / "text_encoder")
    assert "text_encoder is missing" in refusal(folder)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(folder / "vae" / "diffusion_pytorch_model.bin")
    assert "pickled weights only" in refusal(folder)
    (folder / "unet" / "config.json").write_text("{")
    assert "config.json is damaged" in refusal(folder)
    shutil.rmtree(folder / "unet")
    assert "unet/config.json is missing" in refusal(folder)
    (folder / "transformer").mkdir()
    assert "instead of a UNet" in refusal(folder)
    assert "does not exist" in refusal(tmp_path / "nowhere")


def test_a_checkpoint_of_another_family_is_refused(shelf: Path) -> None:
    assert "is of the family sdxl, not sd15" in refusal(shelf / "sdxl.safetensors", "sd15")
    assert "is of the family sd15, not pocket" in refusal(shelf / "sd15", "pocket")


def test_a_vae_of_another_model_is_refused(shelf: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shelf / "sd15", tmp_path / "folder")
    shutil.rmtree(folder / "vae")
    shutil.copytree(shelf / "pocket" / "vae", folder / "vae")
    assert "gives 16 latent channels, expected 4" in refusal(folder)


def test_a_text_encoder_of_another_model_is_refused(shelf: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shelf / "sd15", tmp_path / "folder")
    shutil.rmtree(folder / "unet")
    tiny_models.tiny("sd15", cross_attention_dim=48).unet.save_pretrained(folder / "unet")
    assert "gives 32 numbers a word, expected 48" in refusal(folder)
