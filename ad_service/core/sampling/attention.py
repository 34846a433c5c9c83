"""The self-attention of a frozen UNet: recorded, extended by the exemplar, or replaced while the network runs.

    with capture_attention(model) as capture:
        reference = capture.reference(zs, t)
        prediction, layers = capture.predict_and_record(z, t, reference)

Attention processors are replaced inside `capture_attention` and always restored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed_later

from ad_service.core.backbone.conditioning import Conditioning
from ad_service.core.backbone.model import Model, self_attention_layers
from ad_service.core.labels import membership, tokens, used
from ad_service.core.sampling.losses import Places, attend, attend_by_label
from ad_service.core.steps import checkpoint


@dataclass(frozen=True)
class Layer:
    """One self-attention layer of one run: Q, K, V (B, heads, h * w, d) on a token grid (h, w).

    `out` is Attn(Q, K, V) where the network computed it in the run.
    """

    Q: Tensor
    K: Tensor
    V: Tensor
    grid: tuple[int, int]
    out: Tensor | None = None


class TokenLabels:
    """Label maps (N, h, w) of N windows or crops in latents, as tokens of any grid; there are `count` labels.

    Indices are computed on the host, once for each grid: on the device every lookup would make the host wait.
    """

    def __init__(self, maps: Tensor, count: int, device: torch.device) -> None:
        self.maps, self.count, self.device = maps.cpu(), count, device
        self._queries: dict[tuple[int, int], list[Places]] = {}
        self._keys: dict[tuple[int, int], Places] = {}

    def queries(self, grid: tuple[int, int]) -> list[Places]:
        """For each map the indices of the h * w tokens with each label."""
        if grid not in self._queries:
            rows = [tokens(m, grid, self.count) for m in self.maps]
            found = [{label: row == label for label in used(row)} for row in rows]
            places = iter(self._places([mask for masks in found for mask in masks.values()]))
            self._queries[grid] = [{label: next(places) for label in masks} for masks in found]
        return self._queries[grid]

    def keys(self, grid: tuple[int, int]) -> Places:
        """The indices of the N * h * w concatenated keys with each label."""
        if grid not in self._keys:
            member = torch.cat([membership(m, grid, self.count) for m in self.maps], 1)
            self._keys[grid] = dict(enumerate(self._places(list(member))))
        return self._keys[grid]

    def _places(self, masks: list[Tensor]) -> tuple[Tensor, ...]:
        """The indices on the device where each mask (L,) is set, copied there at once."""
        found = [mask.nonzero()[:, 0] for mask in masks]
        return torch.cat(found).to(self.device).split([len(places) for places in found])


@dataclass(frozen=True)
class Reference:
    """Keys and values of the exemplar's crops, concatenated: K, V (1, heads, M, d) by layer number."""

    layers: dict[int, Layer]
    labels: TokenLabels | None = None


@dataclass(frozen=True)
class Transfer:
    """Attn(tau (gamma Qc + (1 - gamma) Q), Ks, Vs) in place of Attn(Q, K, V), in the layers of `content`.

    Equations 6 and 7 of StyleID (arXiv 2312.09008): the content's queries Qc, blended with the canvas' own by `gamma`
    in [0, 1] and scaled by the temperature `tau`, read the keys and values of the reference alone.
    """

    content: dict[int, Layer]
    reference: Reference
    gamma: float
    tau: float


@dataclass
class _Run:
    """What the processors do in one run of the network."""

    latent_grid: tuple[int, int]
    record: frozenset[int]
    layers: dict[int, Layer] = field(default_factory=dict)
    read: Reference | None = None
    layout: TokenLabels | None = None
    transfer: Transfer | None = None
    stop: bool = False


class StopForward(Exception):
    """Ends a run after the last layer that is recorded; the rest of the network is skipped."""


class AttentionCapture:
    """Runs a model under one conditioning and records its self-attention; made by `capture_attention`.

    `batch` is the number of windows in one run; whoever runs out of memory halves it. `forwards` and `backwards` count
    the windows that passed through the network. With `recomputes` a backward pass computes each block again instead of
    keeping what it needs of it, which takes a third of the memory and a third more time.
    """

    def __init__(
        self, model: Model, conditioning: Conditioning, attentions: list[Attention], recomputes: bool = False
    ) -> None:
        self.model = model
        self.conditioning = conditioning
        self.recomputes = recomputes
        self.count = len(attentions)
        self.loss_layers = range(self.count - min(model.family.layers, self.count), self.count)
        self.similarity = model.family.similarity
        self.forwards = 0
        self.backwards = 0
        self.batch = 1
        self._run: _Run | None = None

    def reference(self, zs: Tensor, t: int, labels: TokenLabels | None = None) -> Reference:
        """Keys and values of the exemplar's crops zs (R, C, h, w) at timestep t."""
        layers = range(self.count) if self.model.family.in_context else self.loss_layers
        run = _Run((zs.shape[2], zs.shape[3]), frozenset(layers), stop=True)
        with torch.no_grad(), suppress(StopForward):
            self._predict(zs.to(self.model.device), t, run)
        recorded = {
            i: Layer(_concatenate(x.Q), _concatenate(x.K), _concatenate(x.V), x.grid) for i, x in run.layers.items()
        }
        return Reference(recorded, labels)

    def predict_and_record(
        self, z: Tensor, t: int, reference: Reference | None = None, layout: TokenLabels | None = None
    ) -> tuple[Tensor, dict[int, Layer]]:
        """The prediction for windows z (B, C, h, w), and the layers that the loss reads.

        A family that reads in context also attends to the reference's keys; `layout` has the labels of the windows.
        """
        run = self._reading(z, reference, layout)
        return self._predict(z, t, run), run.layers

    def record(
        self, z: Tensor, t: int, reference: Reference | None = None, layout: TokenLabels | None = None
    ) -> dict[int, Layer]:
        """The layers that the loss reads, as from `predict_and_record`; the network stops at the last of them."""
        run = self._reading(z, reference, layout, stop=True)
        with suppress(StopForward):
            self._predict(z, t, run)
        return run.layers

    def _reading(self, z: Tensor, reference: Reference | None, layout: TokenLabels | None, stop: bool = False) -> _Run:
        read = reference if self.model.family.in_context else None
        return _Run((z.shape[2], z.shape[3]), frozenset(self.loss_layers), read=read, layout=layout, stop=stop)

    def predict(self, z: Tensor, t: int, conditioning: Conditioning) -> Tensor:
        """The prediction for windows z (B, C, h, w) with another conditioning than the capture's own."""
        return self._predict(z, t, _Run((z.shape[2], z.shape[3]), frozenset()), conditioning)

    def predict_transferred(self, z: Tensor, t: int, transfer: Transfer) -> Tensor:
        """The prediction for windows z (B, C, h, w) with the content's queries, see `Transfer`."""
        return self._predict(z, t, _Run((z.shape[2], z.shape[3]), frozenset(), transfer=transfer))

    def own_attention(self, layer: Layer) -> Tensor:
        """Attn(Q, K, V) of a recorded layer, computed only if the network has not done so."""
        return attend(layer.Q, layer.K, layer.V, self.similarity) if layer.out is None else layer.out

    def target(self, i: int, layer: Layer, reference: Reference, layout: TokenLabels | None) -> Tensor:
        """Attn(Q, Ks, Vs) for the queries of a layer; with a layout, label by label."""
        K, V = reference.layers[i].K, reference.layers[i].V
        if layout is None or reference.labels is None:
            return attend(layer.Q, K, V, self.similarity)
        keys = reference.labels.keys(reference.layers[i].grid)
        return attend_by_label(layer.Q, K, V, layout.queries(layer.grid), keys, self.similarity)

    def _predict(self, z: Tensor, t: int, run: _Run, conditioning: Conditioning | None = None) -> Tensor:
        self._run = run
        self.forwards += len(z)
        try:
            return self.model.predict(z, t, conditioning or self.conditioning)
        finally:
            self._run = None

    def attend(self, i: int, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        """The output of layer i in the current run: record, extend by the reference, or transfer."""
        run = self._run
        checkpoint()
        if run is None:
            assert self.recomputes, "the network was called without its capture"
            return attend(Q, K, V, self.similarity)
        if Q.requires_grad:  # the backward pass of a window takes several seconds on a CPU
            Q.register_hook(lambda _: checkpoint())
        grid = token_grid(run.latent_grid, Q.shape[2])
        if self.similarity is not None:
            Q, K = center_tokens(Q), center_tokens(K)
        if i in run.record:
            run.layers[i] = Layer(Q, K, V, grid)
        if run.stop and i == self.loss_layers[-1] and not (self.recomputes and torch.is_grad_enabled()):
            raise StopForward  # a block that is computed again has to be computed to its end the first time
        if run.transfer is not None and i in run.transfer.content:
            transfer, swatch = run.transfer, run.transfer.reference.layers[i]
            Q = torch.lerp(Q, transfer.content[i].Q, transfer.gamma)
            return attend(Q, swatch.K, swatch.V, self.similarity, transfer.tau)
        if run.read is None:
            out = attend(Q, K, V, self.similarity)
            if i in run.record:
                run.layers[i] = Layer(Q, K, V, grid, out)
            return out
        reference = run.read.layers[i]
        Ks, Vs = (u.expand(len(Q), -1, -1, -1) for u in (reference.K, reference.V))
        keys, values = torch.cat([K, Ks], 2), torch.cat([V, Vs], 2)
        if run.layout is None or run.read.labels is None:
            return attend(Q, keys, values, self.similarity)
        own = torch.arange(K.shape[2], device=K.device)
        by_label = run.read.labels.keys(reference.grid)
        places = {label: torch.cat([own, len(own) + theirs]) for label, theirs in by_label.items()}
        return attend_by_label(Q, keys, values, run.layout.queries(grid), places, self.similarity)


class _Processor:
    """diffusers' attention processor that leaves the step between the projections to the capture."""

    def __init__(self, index: int, capture: AttentionCapture) -> None:
        self.index, self.capture = index, capture

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        assert encoder_hidden_states is None and attention_mask is None, "only self-attention is captured"
        residual, spatial = hidden_states, hidden_states.shape[2:]
        if hidden_states.ndim == 4:
            hidden_states = rearrange(hidden_states, "b c h w -> b (h w) c")
        if attn.group_norm is not None:
            hidden_states = rearrange(attn.group_norm(rearrange(hidden_states, "b l c -> b c l")), "b c l -> b l c")
        Q, K, V = (
            rearrange(projection(hidden_states), "b l (n d) -> b n l d", n=attn.heads)
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        )
        if attn.norm_q is not None:
            Q = attn.norm_q(Q)
        if attn.norm_k is not None:
            K = attn.norm_k(K)
        out = rearrange(self.capture.attend(self.index, Q, K, V), "b n l d -> b l (n d)")
        out = attn.to_out[1](attn.to_out[0](out))
        if residual.ndim == 4:
            out = rearrange(out, "b (h w) c -> b c h w", h=spatial[0])
        if attn.residual_connection:
            out = out + residual
        result: Tensor = out / attn.rescale_output_factor
        return result


def _concatenate(crops: Tensor) -> Tensor:
    return rearrange(crops, "r n l d -> 1 n (r l) d")


def center_tokens(tokens: Tensor) -> Tensor:
    """Queries or keys (B, heads, L, d) minus their mean over each window's tokens.

    What all tokens share, above all the timestep, would otherwise dominate their cosines. Pocket is trained with it.
    """
    return tokens - tokens.mean(2, keepdim=True)


def token_grid(latents: tuple[int, int], count: int) -> tuple[int, int]:
    """The grid (h, w) of `count` tokens over a latent grid that a UNet has halved some times, rounding up."""
    h, w = latents
    while h * w > count:
        h, w = -(-h // 2), -(-w // 2)
    if h * w != count:
        raise ValueError(f"{count} tokens are not a halving of {latents[0]}x{latents[1]} latents")
    return h, w


def _checkpointed(block: nn.Module, *arguments: Any) -> Any:
    """Run a block whose backward pass computes it again; it draws no random numbers that would have to be kept."""
    return recomputed_later(block, *arguments, use_reentrant=False, preserve_rng_state=False)


@contextmanager
def capture_attention(
    model: Model, conditioning: Conditioning | None = None, *, recomputes: bool = False
) -> Iterator[AttentionCapture]:
    """A capture of the self-attention layers of a model's UNet, whose own processors are restored at the end.

    `conditioning` is that of the job; by default the empty prompt. `recomputes`: see `AttentionCapture`; not for a
    family that reads in context.
    """
    assert not (recomputes and model.family.in_context), "what a block reads in context is not known when it runs again"
    attentions = self_attention_layers(model.unet)
    capture = AttentionCapture(model, conditioning or model.unconditional, attentions, recomputes)
    before = [a.processor for a in attentions]
    try:
        if recomputes:
            model.unet.enable_gradient_checkpointing(_checkpointed)  # type: ignore[operator]
        for i, a in enumerate(attentions):
            a.processor = _Processor(i, capture)
        yield capture
    finally:
        if recomputes:
            model.unet.disable_gradient_checkpointing()  # type: ignore[operator]
        for a, processor in zip(attentions, before, strict=True):
            a.processor = processor
