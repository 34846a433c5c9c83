"""Stable Diffusion's architectures with random weights, made in memory: for the benchmark and the tests.

Speed does not depend on the weights. The pictures of these models are noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from ad_service.core.backbone.checkpoints import SCHEDULE
from ad_service.core.backbone.conditioning import Conditioning
from ad_service.core.backbone.devices import choose_precision
from ad_service.core.backbone.model import FAMILIES, Model
from ad_service.core.backbone.schedule import cumulative_alphas

Config = dict[str, Any]

SD15: Config = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 1, 1, 1),
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
SD2: Config = SD15 | {
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
SDXL: Config = SD2 | {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
UNETS: dict[str, Config] = {"sd15": SD15, "sd2": SD2, "sdxl": SDXL}
"""UNet2DConditionModel's config for each family, in full size."""

VAE_CHANNELS = (128, 256, 512, 512)


def vae(family: str, channels: tuple[int, ...] = VAE_CHANNELS) -> AutoencoderKL:
    """The codec of a family, with its own numbers of channels, multiples of 16."""
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=min(32, channels[0]),
        sample_size=1024 if family == "sdxl" else 512,
        scaling_factor=0.13025 if family == "sdxl" else 0.18215,
    )


def random_model(
    family: str, device: torch.device, *, vae_channels: tuple[int, ...] = VAE_CHANNELS, **unet_changes: Any
) -> Model:
    """A model of `family` with random weights, always the same on a device; `unet_changes` go into the UNet's config.

    The empty prompt is random too.
    """
    dtype = choose_precision("auto", device, family)
    with torch.random.fork_rng(), device:
        torch.manual_seed(1)
        unet = UNet2DConditionModel(**(UNETS[family] | unet_changes))
        unet.load_state_dict({name: tensor.to(dtype) for name, tensor in unet.state_dict().items()}, assign=True)
        codec = vae(family, vae_channels)
        tokens = torch.randn(1, 77, unet.config.cross_attention_dim, dtype=dtype)
        pooled = torch.randn(1, 1280, dtype=dtype) if family == "sdxl" else None
    for network in (unet, codec):
        network.requires_grad_(False).eval()
    return Model(
        family=FAMILIES[family],
        name=f"{family}, random weights",
        unet=unet,
        vae=codec,
        alphas=cumulative_alphas(SCHEDULE, Path(family)),
        prediction="epsilon",
        device=device,
        dtype=dtype,
        unconditional=Conditioning(tokens, pooled),
    )
