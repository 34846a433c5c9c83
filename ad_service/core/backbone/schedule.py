"""The noise schedule of a checkpoint, from its scheduler config.

In float64: diffusers' `DDIMScheduler.alphas_cumprod` is float32, which is off by up to 4e-7 and has no protection
against the zero of `rescale_betas_zero_snr`.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from ad_service.core.backbone.checkpoints import CheckpointError, Config


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
