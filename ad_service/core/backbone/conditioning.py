"""The encoded prompt of one job: passed to every prediction, and never part of the cached model."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ad_service.core.backbone.weights import Parts

SDXL_SIZES = (1024, 1024, 0, 0, 1024, 1024)
"""SDXL's micro-conditioning (arXiv 2307.01952, section 2.2): original size, crop corner and target size."""

BEGIN, END = 49406, 49407
"""CLIP's token ids that begin and end a text."""


@dataclass(frozen=True)
class Conditioning:
    """The prompt of one job, encoded; the same for all windows.

    `tokens` (1, 77, d) go to cross-attention, `pooled` (1, p) to SDXL's time embedding. Both are None for a model
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


@torch.no_grad()
def encode_empty_prompt(parts: Parts, device: torch.device, dtype: torch.dtype) -> Conditioning:
    """Load the text encoders one after the other, encode "", and free them.

    They run in float32, which is exact and still smaller than the UNet that is loaded after them; the result has
    `dtype`. The token ids of "" need no tokenizer: begin and end, then padding, which is the end for OpenAI's CLIP and
    0 for OpenCLIP.
    """
    tokens, pooled = [], None
    for i, part in enumerate(parts.texts):
        padding = 0 if parts.family == "sd2" or i == 1 else END
        ids = torch.tensor([[BEGIN, END] + [padding] * 75], device=device)
        encoder = part.load(device, torch.float32)
        output = encoder(ids, output_hidden_states=True)
        tokens.append(output.hidden_states[-2] if parts.family == "sdxl" else output.last_hidden_state)
        pooled = output.text_embeds.to(dtype) if i == 1 else None
        del encoder, output
        gc.collect()
    return Conditioning(torch.cat(tokens, dim=-1).to(dtype) if tokens else None, pooled)
