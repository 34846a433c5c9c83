"""The encoded prompt of one job: passed to every prediction, and never part of the cached model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SDXL_SIZES = (1024, 1024, 0, 0, 1024, 1024)
"""SDXL's micro-conditioning (arXiv 2307.01952, section 2.2): original size, crop corner and target size."""


@dataclass(frozen=True)
class Conditioning:
    """The prompt of one job, encoded; the same for all windows.

    `tokens` (1, 77 n, d) go to cross-attention, `pooled` (1, p) to SDXL's time embedding. Both are None for a model
    without text.
    """

    tokens: Tensor | None = None
    pooled: Tensor | None = None

    def arguments(self, batch: int) -> dict[str, Any]:
        """The keyword arguments of the UNet for a batch of windows."""
        if self.tokens is None:
            return {}
        arguments: dict[str, Any] = {"encoder_hidden_states": self.tokens.expand(batch, -1, -1)}
        if self.pooled is not None:
            sizes = torch.tensor([SDXL_SIZES], device=self.pooled.device, dtype=self.tokens.dtype)
            added = {"text_embeds": self.pooled.expand(batch, -1), "time_ids": sizes.expand(batch, -1)}
            arguments["added_cond_kwargs"] = added
        return arguments


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (arXiv 2207.12598): u + scale (c - u), for the negative prompt u and the prompt c.

    `positive` has one prompt for all places, or one for each label of a layout. A scale of 1 leaves u out.
    """

    positive: tuple[Conditioning, ...]
    negative: Conditioning
    scale: float
