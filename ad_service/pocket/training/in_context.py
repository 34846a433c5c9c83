"""The attention that pocket is trained with: a clean crop stands beside noised ones of the same texture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from einops import rearrange, repeat
from torch import Tensor, nn

SHARPNESS = 12.0  # attention scores are SHARPNESS * cos(q - mean q, k - mean k), means over a picture's tokens


class InContext:
    """An attention processor for batches of `references` clean crops, followed by the noised crops of each.

    A clean crop attends to itself. A noised crop attends to itself (unless `own` is False) and to its texture's clean
    crop. Queries and keys are centered over their crop's tokens and normalized in each head; everything else is as in
    diffusers.
    """

    def __init__(self, references: int, own: bool = True) -> None:
        self.references = references
        self.own = own

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """(n, c, h, w) -> the same."""
        n, h, r = len(hidden_states), hidden_states.shape[2], self.references
        x = rearrange(attn.group_norm(hidden_states), "n c h w -> n (h w) c")
        q, k, v = (
            rearrange(layer(x), "n l (heads d) -> n heads l d", heads=attn.heads)
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        q, k = (center_and_normalize(t.float()).to(v.dtype) for t in (q, k))
        out = attend(q[:r], k[:r], v[:r])
        if n > r:
            each = (n - r) // r
            k_seen, v_seen = (repeat(t[:r], "r ... -> (r each) ...", each=each) for t in (k, v))
            if self.own:
                k_seen, v_seen = torch.cat([k[r:], k_seen], 2), torch.cat([v[r:], v_seen], 2)
            out = torch.cat([out, attend(q[r:], k_seen, v_seen)])
        out = attn.to_out[0](rearrange(out, "n heads l d -> n l (heads d)"))
        result: Tensor = (rearrange(out, "n (h w) c -> n c h w", h=h) + hidden_states) / attn.rescale_output_factor
        return result


def center_and_normalize(x: Tensor) -> Tensor:
    """Queries or keys (n, heads, l, d) minus their mean over the tokens, at unit length.

    The part that all tokens share, mostly the timestep, would otherwise dominate the cosine and hide their content.
    """
    return F.normalize(x - x.mean(2, keepdim=True), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(SHARPNESS q k^T) v, for (n, heads, l, d).

    Written out: with short sequences on a CPU it takes half the time of the fused kernel, slow in its backward pass.
    """
    heads = q.shape[1]
    q, k, v = (rearrange(t, "n heads l d -> (n heads) l d") for t in (q, k, v))
    scores = torch.baddbmm(q.new_zeros(()), q, k.transpose(1, 2), beta=0, alpha=SHARPNESS)
    return rearrange(torch.bmm(scores.softmax(-1), v), "(n heads) l d -> n heads l d", heads=heads)


def attention_layers(unet: nn.Module) -> list[Attention]:
    """The self-attention layers of a UNet."""
    return [m for m in unet.modules() if isinstance(m, Attention)]


def set_references(unet: nn.Module, references: int, own: bool = True) -> None:
    """Let all attention layers read in context: the first `references` of a batch are clean crops, see InContext."""
    processor = InContext(references, own)
    for layer in attention_layers(unet):
        layer.set_processor(processor)


@contextmanager
def in_context(unet: nn.Module, references: int) -> Iterator[None]:
    """The attention of the training; the processors before it are restored."""
    layers = attention_layers(unet)
    before = [layer.processor for layer in layers]
    set_references(unet, references)
    try:
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)
