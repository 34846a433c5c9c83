"""Backbones: one frozen row per model family, and how a checkpoint of each becomes a network ready for AD."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from ad_service.core.backbone.checkpoints import CheckpointError, Config
from ad_service.core.backbone.weights import Parts, Prompt, empty_prompt, open_parts

UNet: TypeAlias = UNet2DConditionModel | UNet2DModel

__all__ = ["FAMILIES", "Backbone", "CheckpointError", "Family", "inspect", "load", "predictor", "self_attention_layers"]


@dataclass(frozen=True)
class Family:
    """What is the same for all checkpoints of one architecture.

    `window` is the side of the square that the UNet sees at once, in latents. `layers` are the last self-attention
    layers, counted from the end, whose loss is read. `similarity` is None for softmax(Q K / sqrt(d)) as in the paper,
    or the fixed scale S of cosine attention softmax(S cos(Q, K)), with Q and K centred over a window's tokens.
    `in_context` says that queries of the canvas also read the swatch's keys in the forward pass, taken once from the
    clean swatch (t = 0). `keeps_start` says that a quilt is changed near its cuts alone, `strength` how far a quilt is
    noised. The rest are defaults of a job: see `samplers.Plan`.
    """

    name: str
    title: str
    window: int
    factor: int
    layers: int = 6
    similarity: float | None = None
    in_context: bool = False
    start: str = "noise"
    strength: float = 0.6
    method: str = "optimize"
    steps: int = 100
    iterations: int = 1
    learning_rate: float = 0.05
    detail: str = "off"
    keeps_start: bool = False


FAMILIES: dict[str, Family] = {
    row.name: row
    for row in (
        Family(
            "pocket",
            "Pocket",
            window=128,
            factor=4,
            similarity=12.0,
            in_context=True,
            start="quilt",
            strength=0.1,
            steps=5,
            learning_rate=0.02,
            detail="pixels",
            keeps_start=True,
        ),
        Family("sd15", "Stable Diffusion 1.x", 64, 8, detail="decoder"),
        Family("sd2", "Stable Diffusion 2.x", 64, 8, detail="decoder"),
        Family("sdxl", "Stable Diffusion XL", 128, 8, detail="decoder"),
    )
}


@dataclass
class Backbone:
    """A frozen diffusion model ready for AD, on one device.

    `predict(z, t)` is the bare UNet call for latents z (B, C, h, w) in any float type and an integer timestep t: it
    adds what the family needs (empty prompt, size embeddings), runs in the network's precision and returns the
    network's raw output in float32. `alphas` are the cumulative products (T,) of the noise schedule in float64 on the
    CPU; `prediction` is "epsilon", "v_prediction" or "sample". `dtype` is the UNet's. The VAE is always in float32:
    SDXL's overflows in float16, bfloat16 shows as bands, and fitting the decoder needs the digits.
    """

    family: Family
    name: str
    unet: nn.Module
    vae: AutoencoderKL
    alphas: Tensor
    prediction: str
    device: torch.device
    dtype: torch.dtype
    predict: Callable[[Tensor, int], Tensor]
    digest: str = ""
    notes: tuple[str, ...] = field(default=())


def load(
    path: Path, family: str, *, device: str | None = None, precision: str = "auto", name: str | None = None
) -> Backbone:
    """Load a diffusers folder or a single safetensors file of `family` (a key of FAMILIES).

    `device` is a torch device name, None for the best one here; `precision` is auto, fp32, bf16 or fp16. Needs no
    network. The text encoders come first and are gone before the UNet is read. Gradients flow through `predict` to z;
    no parameter takes one. Raises CheckpointError, and RuntimeError for a device that this machine lacks.
    """
    parts = inspect(path, family)
    where = choose_device(device)
    dtype = choose_precision(precision, where, family)
    prompt = empty_prompt(parts, where, dtype)
    unet: UNet = parts.unet.load(where, dtype)
    vae = parts.vae.load(where, torch.float32)
    predict = predictor(unet, prompt, dtype)
    alphas = cumulative_alphas(parts.schedule, path)
    prediction, notes = _prediction(parts, predict, where)
    return Backbone(
        family=_row(family, prediction),
        name=name or ("pocket" if family == "pocket" else path.stem if path.is_file() else path.name),
        unet=unet,
        vae=vae,
        alphas=alphas,
        prediction=prediction,
        device=where,
        dtype=dtype,
        predict=predict,
        digest=parts.digest(),
        notes=notes,
    )


def inspect(path: Path, family: str) -> Parts:
    """Open a checkpoint and check all that can be checked without reading weights; raises CheckpointError."""
    parts = open_parts(path, family)
    cumulative_alphas(parts.schedule, path)
    texts = [part.check().config for part in parts.texts]
    unet, vae = parts.unet.check().config, parts.vae.check().config
    factor = 2 ** (len(vae.block_out_channels) - 1)
    _expect(path, "VAE", "latent channels", vae.latent_channels, unet.in_channels)
    _expect(path, "VAE", "pixels a latent", factor, FAMILIES[family].factor)
    if texts:
        width = sum(text.hidden_size for text in texts)
        _expect(path, "text encoder", "numbers a word", width, unet.cross_attention_dim)
    return parts


def _expect(path: Path, network: str, what: str, got: int, expected: int) -> None:
    if got != expected:
        raise CheckpointError(
            f"{path}: the {network} does not belong to the UNet: it gives {got} {what}, expected {expected}; "
            f"use the model's own {network}"
        )


def _row(family: str, prediction: str) -> Family:
    """SD 2.x that predicts v was trained on 768 pixels; its epsilon base on 512."""
    row = FAMILIES[family]
    return replace(row, window=96) if family == "sd2" and prediction == "v_prediction" else row


# ---------------------------------------------------------------------------------------------- device and precision

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name, or the best one of this machine; raises RuntimeError if it is not there."""
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "xpu": torch.xpu.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if name is None:
        return torch.device(next(kind for kind, is_there in there.items() if is_there()))
    device = torch.device(name)
    if device.type in there and not there[device.type]():
        raise RuntimeError(f"the device {name} is not available on this machine; leave the device out to use the best")
    return device


def make_repeatable(device: torch.device) -> None:
    """From now on an operation on a CUDA device gives the same result each time, or raises RuntimeError if it cannot.

    The fastest backward passes of attention and of convolutions add up in the order in which threads come by. With
    `warn_only` attention would stay so. cuBLAS also needs CUBLAS_WORKSPACE_CONFIG, set before torch is loaded.
    """
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # nothing reads it


def choose_precision(precision: str, device: torch.device, family: str) -> torch.dtype:
    """The UNet's number format: as asked for, or what the device does well without losing the picture."""
    if precision != "auto":
        return PRECISIONS[precision]
    if device.type == "cpu":
        return torch.bfloat16 if family == "pocket" and _cpu_multiplies_bf16() else torch.float32
    if device.type == "xpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)):
        return torch.bfloat16
    return torch.float32 if family == "sd2" else torch.float16  # SD 2.x's attention scores overflow float16


def _cpu_multiplies_bf16() -> bool:
    """Whether the CPU has instructions for bf16 products (AVX512-BF16 or AMX); without them bf16 is slower."""
    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(test is not None and test() for test in tests)


# ---------------------------------------------------------------------------------------------- the UNet call


def predictor(unet: UNet, prompt: Prompt | None, dtype: torch.dtype) -> Callable[[Tensor, int], Tensor]:
    """The bare UNet call, `Backbone.predict`, with the empty prompt of a family that has one."""
    if prompt is None:
        return lambda z, t: unet(z.to(dtype), t, return_dict=False)[0].float()

    def predict(z: Tensor, t: int) -> Tensor:
        batch = z.shape[0]
        output: Tensor = unet(
            z.to(dtype),
            t,
            encoder_hidden_states=prompt.tokens.expand(batch, -1, -1),
            added_cond_kwargs=added(batch),
            return_dict=False,
        )[0]
        return output.float()

    def added(batch: int) -> dict[str, Tensor] | None:
        """SDXL's conditions: the pooled prompt; size, crop and target size of an uncropped 1024x1024 picture."""
        if prompt.pooled is None:
            return None
        sizes = torch.tensor([[1024, 1024, 0, 0, 1024, 1024]], device=prompt.pooled.device, dtype=dtype)
        return {"text_embeds": prompt.pooled.expand(batch, -1), "time_ids": sizes.expand(batch, -1)}

    return predict


def self_attention_layers(unet: UNet) -> list[Attention]:
    """The self-attention layers in the order in which a forward pass runs them: down, middle, up.

    The module's own order will not do: UNet2DConditionModel registers its up blocks before the middle one. SD 1.5 has
    16 layers, the last six are 10..15; SDXL has 70, the last six are 64..69.
    """
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    return [layer for block in blocks if block is not None for layer in _self_attention(block)]


def _self_attention(block: nn.Module) -> Iterator[Attention]:
    return (m for m in block.modules() if isinstance(m, Attention) and not m.is_cross_attention)


# ---------------------------------------------------------------------------------------------- noise schedule


def cumulative_alphas(config: Config, path: Path) -> Tensor:
    """The cumulative products of 1 - beta of a scheduler config, (T,) in float64; raises CheckpointError.

    With `rescale_betas_zero_snr` (arXiv 2305.08891) the last one would be 0; it is kept at 2^-24, so that a division
    by its root stays finite.
    """
    try:
        betas = _betas(config)
    except (TypeError, ValueError, OverflowError):
        betas = None
    if betas is None or len(betas) < 2 or not ((betas > 0) & (betas < 1)).all():
        raise CheckpointError(
            f"{path} has a noise schedule of an unknown kind ({config.get('_class_name')}, beta_schedule "
            f"{config.get('beta_schedule')}); use an SD 1.x, SD 2.x or SDXL model"
        )
    alphas = (1 - betas).cumprod(0)
    if config.get("rescale_betas_zero_snr"):
        root = alphas.sqrt()
        alphas = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square().clamp_min(2**-24)
    return alphas


def _betas(config: Config) -> Tensor | None:
    """Scheduler config -> betas (T,), with diffusers' names for the schedules."""
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float64)
    T, kind = min(max(int(config.get("num_train_timesteps", 1000)), 0), 100_000), config.get("beta_schedule")
    first, last = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    if kind == "linear":
        return torch.linspace(first, last, T, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(first**0.5, last**0.5, T, dtype=torch.float64).square()
    if kind == "squaredcos_cap_v2":
        t = torch.arange(T + 1, dtype=torch.float64) / T
        bars = ((t + 0.008) / 1.008 * math.pi / 2).cos().square()
        return (1 - bars[1:] / bars[:-1]).clamp_max(0.999)
    return None


def _prediction(
    parts: Parts, predict: Callable[[Tensor, int], Tensor], device: torch.device
) -> tuple[str, tuple[str, ...]]:
    """What the UNet predicts: what the checkpoint says, or what a measurement says and a note if that is unusual."""
    said = parts.schedule.get("prediction_type", "epsilon")
    if said is None:
        found = measure_prediction(predict, device)
        note = f"{parts.path.name} does not say what its network predicts; by its answer to noise it is {found}"
        return found, (note,) if found != "epsilon" else ()
    if said not in ("epsilon", "v_prediction", "sample"):
        raise CheckpointError(f"{parts.path} predicts {said!r}, which is unknown; use an SD 1.x, SD 2.x or SDXL model")
    return str(said), ()


@torch.no_grad()
def measure_prediction(predict: Callable[[Tensor, int], Tensor], device: torch.device, channels: int = 4) -> str:
    """Tell an epsilon from a v network by asking it about pure noise at the last timestep.

    There z is noise (alpha is 0.0047 in Stable Diffusion's schedule), so a network that predicts epsilon answers with z
    itself, whatever picture it guesses. One that predicts v = sqrt(alpha) epsilon - sqrt(1 - alpha) x answers with the
    negative of that guess, which has hardly anything of z in it. The cosine between question and answer is therefore
    near 1 or near 0; the border is 0.5. No number at all says nothing, and epsilon is the usual kind.
    """
    z = torch.randn(1, channels, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    cosine = torch.cosine_similarity(z.flatten(), predict(z, 999).flatten(), dim=0)
    return "v_prediction" if cosine <= 0.5 else "epsilon"
