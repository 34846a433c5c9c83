"""The losses of attention distillation (arXiv 2502.20235): pure functions of queries, keys and values.

Q is (B, heads, L, d); K and V are (B or 1, heads, M, d). `similarity` is None for softmax(Q K / sqrt(d)), or the
scale S of cosine attention softmax(S cos(Q, K)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.pixels import at_least_float32

Places: TypeAlias = Mapping[int, Tensor]
"""The indices of the tokens that each label has."""


def attend(Q: Tensor, K: Tensor, V: Tensor, similarity: float | None = None, sharpness: float = 1.0) -> Tensor:
    """Attn(Q, K, V): (B, heads, L, d). `sharpness` multiplies the scores before the softmax."""
    scale = Q.shape[-1] ** -0.5 if similarity is None else similarity
    if similarity is not None:
        Q, K = F.normalize(Q, dim=-1), F.normalize(K, dim=-1)
    K, V = K.expand(len(Q), -1, -1, -1), V.expand(len(Q), -1, -1, -1)
    out: Tensor = F.scaled_dot_product_attention(Q, K, V, scale=sharpness * scale)
    return out


def attend_by_label(
    Q: Tensor, K: Tensor, V: Tensor, queries: Sequence[Places], keys: Places, similarity: float | None = None
) -> Tensor:
    """Attention in which a query of label l sees the keys of label l only.

    Every query of each of the B windows has one label; a key may have several labels, and every label has at least one
    key. Tokens are grouped by label and every label attends separately: exact, without an L x M mask.
    """
    out = torch.empty_like(Q)
    for b, places in enumerate(queries):
        k = min(b, len(K) - 1)
        for label, q in places.items():
            m = keys[label]
            out[b, :, q] = attend(Q[b : b + 1, :, q], K[k : k + 1, :, m], V[k : k + 1, :, m], similarity)[0]
    return out


def ad_loss(own: Tensor, target: Tensor) -> Tensor:
    """mean |Attn(Q, K, V) - stopgrad(Attn(Q, Ks, Vs))|, equation 4 of the paper; one value for each of B windows."""
    return (at_least_float32(own) - at_least_float32(target.detach())).abs().flatten(1).mean(1)


def content_loss(Q: Tensor, Qc: Tensor) -> Tensor:
    """mean |Q - Qc|, equation 6 of the paper; one value for each of B windows."""
    return (at_least_float32(Q) - at_least_float32(Qc.detach())).abs().flatten(1).mean(1)
