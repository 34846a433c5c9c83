"""Model families, one frozen row each, and a loaded model: weights that all jobs share and none changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from ad_service.core.backbone.conditioning import Conditioning
from ad_service.core.backbone.devices import free_cached_memory, free_memory
from ad_service.core.backbone.weights import Parts
from ad_service.core.pixels import at_least_float32

UNet: TypeAlias = UNet2DConditionModel | UNet2DModel


@dataclass(frozen=True)
class Schedule:
    """The default schedule of one method: see `samplers.Plan`."""

    steps: int
    iterations: int = 1
    learning_rate: float = 0.05


@dataclass(frozen=True)
class Family:
    """What all checkpoints of one architecture have in common.

    Attributes:
        window: side of the square that the UNet sees at once, in latents.
        factor: pixels along the side of a latent.
        layers: how many of the last self-attention layers the loss reads.
        similarity: None for softmax(Q K / sqrt(d)) as in the paper, or the fixed scale S of cosine attention
            softmax(S cos(Q, K)), with Q and K centered over a window's tokens.
        in_context: whether queries of the canvas also read the exemplar's keys in the forward pass, taken once from
            the clean exemplar (t = 0).
        keeps_start: whether a quilt is changed near its visible cuts alone.
        spacing: the timesteps of a schedule: "leading" ends at t = 1 and then at the clean latents, as diffusers' DDIM
            with an offset of 1 and the paper (section 3.2: "from T to 0"); "trailing" begins at T and ends a stride
            above 0.
        own_tile_statistics: whether each tile of a large picture is encoded with its own statistics of the group norms,
            on which all of pocket's results depend, or all tiles with the same.
        optimize, sample: the schedules of the two methods. Those of Stable Diffusion are the paper's: 100 timesteps
            with one Adam iteration (section 3.2), 50 with two (section 4).
        strength: how far a quilt is noised, as a fraction of the noise schedule.

    The other fields are the defaults of a job, see `samplers.Plan` and `pipeline.request`.
    """

    name: str
    title: str
    window: int
    factor: int
    layers: int = 6
    similarity: float | None = None
    in_context: bool = False
    start: Literal["noise", "quilt"] = "noise"
    strength: float = 0.6
    method: Literal["optimize", "sample"] = "optimize"
    spacing: Literal["leading", "trailing"] = "leading"
    own_tile_statistics: bool = False
    optimize: Schedule = Schedule(100)
    sample: Schedule = Schedule(50, 2)
    detail: Literal["off", "decoder", "pixels", "both"] = "off"
    keeps_start: bool = False


FAMILIES: dict[str, Family] = {
    row.name: row
    for row in (
        Family(
            "pocket",
            "Pocket",
            window=64,
            factor=4,
            similarity=12.0,
            in_context=True,
            start="quilt",
            strength=0.1,
            spacing="trailing",
            own_tile_statistics=True,
            optimize=Schedule(2, 1, 0.05),
            sample=Schedule(5, 1, 0.02),
            detail="pixels",
            keeps_start=True,
        ),
        Family("sd15", "Stable Diffusion 1.x", 64, 8, detail="decoder"),
        Family("sd2", "Stable Diffusion 2.x", 64, 8, detail="decoder"),
        Family(
            "sdxl",
            "Stable Diffusion XL",
            window=128,
            factor=8,
            # its latents are scaled by 0.13025 and not by 0.18215, and 0.015 is the only rate that the authors use
            optimize=Schedule(100, 1, 0.015),
            sample=Schedule(50, 2, 0.015),
            detail="decoder",
        ),
    )
}


@dataclass(frozen=True)
class Model:
    """A frozen diffusion model on one device.

    Attributes:
        unet: the denoiser, in `dtype`.
        vae: the codec, always in float32: SDXL's overflows in float16, bfloat16 shows as bands, and fitting the
            decoder needs the digits.
        alphas: cumulative products (T,) of the noise schedule in float64 on the CPU.
        prediction: what the UNet predicts.
        unconditional: the conditioning of the empty prompt.
        digest: sha256 of the weights.
        notes: what the artist should know about the checkpoint.
        parts: the opened checkpoint, whose text encoders are loaded for a job with a prompt; None for random weights.
    """

    family: Family
    name: str
    unet: nn.Module
    vae: AutoencoderKL
    alphas: Tensor
    prediction: str
    device: torch.device
    dtype: torch.dtype
    unconditional: Conditioning = field(default_factory=Conditioning)
    digest: str = ""
    notes: tuple[str, ...] = ()
    parts: Parts | None = None

    def predict(self, z: Tensor, t: int, conditioning: Conditioning) -> Tensor:
        """The UNet's raw output, at least in float32, for latents z (B, C, h, w) of any float type at timestep t.

        Gradients flow to z; no parameter takes one.
        """
        output: Tensor = self.unet(z.to(self.dtype), t, return_dict=False, **conditioning.arguments(len(z)))[0]
        return at_least_float32(output)


@contextmanager
def unet_on_host(model: Model, if_free_below: int) -> Iterator[None]:
    """The UNet's weights wait in the computer's memory while the device has fewer free bytes than this."""
    free = free_memory(model.device)
    if free is None or free >= if_free_below:
        yield
        return
    model.unet.to("cpu")
    free_cached_memory(model.device)
    try:
        yield
    finally:
        model.unet.to(model.device)


def self_attention_layers(unet: UNet) -> list[Attention]:
    """The self-attention layers in the order in which a forward pass runs them: down, middle, up.

    Registration order differs: UNet2DConditionModel registers its up blocks before the middle one. SD 1.5 has 16
    layers, the last six are 10..15; SDXL has 70, the last six are 64..69.
    """
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    return [layer for block in blocks if block is not None for layer in _self_attention(block)]


def _self_attention(block: nn.Module) -> Iterator[Attention]:
    return (m for m in block.modules() if isinstance(m, Attention) and not m.is_cross_attention)
