"""Backbones: one frozen row per model family, and how a checkpoint of each becomes a network ready for AD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from diffusers import AutoencoderKL
from torch import Tensor


@dataclass(frozen=True)
class Family:
    """What is the same for all checkpoints of one architecture.

    `window` is the side of the square that the UNet sees at once, in latents. `layers` are the last self-attention
    layers, counted from the end, whose loss is read. `similarity` is None for softmax(Q K / sqrt(d)) as in the paper,
    or the fixed scale S of cosine attention softmax(S cos(Q, K)). `in_context` says that queries of the canvas also
    read the swatch's keys in the forward pass, taken once from the clean swatch (t = 0).
    """

    name: str
    title: str
    window: int
    factor: int
    layers: int = 6
    similarity: float | None = None
    in_context: bool = False
    start: str = "noise"
    strength: float = 1.0
    method: str = "optimise"
    steps: int = 100
    iterations: int = 1
    learning_rate: float = 0.05
    detail: str = "off"


@dataclass
class Backbone:
    """A frozen diffusion model ready for AD, on one device.

    `predict(z, t)` is the bare UNet call for latents z (B, C, h, w) in any float type and an integer timestep t: it
    adds what the family needs (empty prompt, size embeddings), runs in the network's precision and returns the
    network's raw output in float32. `alphas` are the cumulative products (T,) of the noise schedule in float64 on the CPU;
    `prediction` is "epsilon", "v_prediction" or "sample".
    """

    family: Family
    name: str
    unet: torch.nn.Module
    vae: AutoencoderKL
    alphas: Tensor
    prediction: str
    device: torch.device
    dtype: torch.dtype
    predict: Callable[[Tensor, int], Tensor]
    digest: str = ""
    notes: tuple[str, ...] = field(default=())
