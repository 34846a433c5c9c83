"""What the self-attention layers of a frozen UNet see: queries, keys and values, taped while it runs.

    with capture(backbone) as tape:
        reference = tape.reference(zs, t)
        prediction, layers = tape.observe(z, t)

Attention processors are swapped inside `capture` and always put back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import torch
from diffusers.models.attention_processor import Attention
from einops import rearrange
from torch import Tensor

from ad_service.core.backbone.loading import Backbone, self_attention_layers
from ad_service.core.labels import membership, tokens, used
from ad_service.core.sampling.losses import Places, attend, attend_by_label


@dataclass(frozen=True)
class Layer:
    """One self-attention layer of one run: Q, K, V (B, heads, h * w, d) on a token grid (h, w)."""

    Q: Tensor
    K: Tensor
    V: Tensor
    grid: tuple[int, int]


class Labels:
    """The label maps (N, h, w) of N windows or crops in latents, as tokens of any grid; there are `count` labels.

    Tokens are looked for on the host, once for each grid: on the device every look would make the host wait.
    """

    def __init__(self, maps: Tensor, count: int, device: torch.device) -> None:
        self.maps, self.count, self.device = maps.cpu(), count, device
        self._queries: dict[tuple[int, int], list[Places]] = {}
        self._keys: dict[tuple[int, int], Places] = {}

    def queries(self, grid: tuple[int, int]) -> list[Places]:
        """For each map the tokens, of its h * w, that have each label."""
        if grid not in self._queries:
            rows = [tokens(m, grid, self.count) for m in self.maps]
            found = [{label: row == label for label in used(row)} for row in rows]
            places = iter(self._places([mask for masks in found for mask in masks.values()]))
            self._queries[grid] = [{label: next(places) for label in masks} for masks in found]
        return self._queries[grid]

    def keys(self, grid: tuple[int, int]) -> Places:
        """Which of the N * h * w keys, side by side, each label has."""
        if grid not in self._keys:
            member = torch.cat([membership(m, grid, self.count) for m in self.maps], 1)
            self._keys[grid] = dict(enumerate(self._places(list(member))))
        return self._keys[grid]

    def _places(self, masks: list[Tensor]) -> tuple[Tensor, ...]:
        """The indices on the device of what each mask (L,) has set, taken there in one copy."""
        found = [mask.nonzero()[:, 0] for mask in masks]
        return torch.cat(found).to(self.device).split([len(places) for places in found])


@dataclass(frozen=True)
class Reference:
    """Keys and values of the swatch's crops, side by side: K, V (1, heads, M, d) for each layer number."""

    layers: dict[int, Layer]
    labels: Labels | None = None


@dataclass(frozen=True)
class Transfer:
    """Attn(sharpness (keep Qc + (1 - keep) Q), Ks, Vs) in place of Attn(Q, K, V), in the layers of `content`.

    Equations 6 and 7 of StyleID (arXiv 2312.09008): the content's queries Qc, blended with the canvas' own by `keep`
    in [0, 1], read the keys and values of the reference alone. StyleID calls them gamma and the temperature tau.
    """

    content: dict[int, Layer]
    reference: Reference
    keep: float
    sharpness: float


@dataclass
class _Run:
    """What the processors do in the run at hand."""

    latent_grid: tuple[int, int]
    record: frozenset[int]
    layers: dict[int, Layer] = field(default_factory=dict)
    read: Reference | None = None
    layout: Labels | None = None
    transfer: Transfer | None = None
    stop: bool = False


class _Enough(Exception):
    """The last layer that is asked for is taped; what the network would do after it is left out."""


class Tape:
    """Runs the network and tapes its self-attention; made by `capture`.

    `batch` is how many windows go through at once; who runs out of memory halves it.
    """

    def __init__(self, backbone: Backbone, attentions: list[Attention]) -> None:
        self.backbone = backbone
        self.count = len(attentions)
        self.loss_layers = range(self.count - min(backbone.family.layers, self.count), self.count)
        self.similarity = backbone.family.similarity
        self.forwards = 0
        self.backwards = 0
        self.batch = 1
        self._run: _Run | None = None

    def reference(self, zs: Tensor, t: int, labels: Labels | None = None) -> Reference:
        """Keys and values of the swatch's crops zs (R, C, h, w) at timestep t."""
        layers = range(self.count) if self.backbone.family.in_context else self.loss_layers
        run = _Run((zs.shape[2], zs.shape[3]), frozenset(layers), stop=True)
        with torch.no_grad(), suppress(_Enough):
            self._predict(zs.to(self.backbone.device), t, run)
        layers_of_swatch = {
            i: Layer(_side_by_side(x.Q), _side_by_side(x.K), _side_by_side(x.V), x.grid) for i, x in run.layers.items()
        }
        return Reference(layers_of_swatch, labels)

    def observe(
        self, z: Tensor, t: int, reference: Reference | None = None, layout: Labels | None = None
    ) -> tuple[Tensor, dict[int, Layer]]:
        """The network's prediction for windows z (B, C, h, w), and the layers that the loss reads.

        A family that reads in context also attends to the reference's keys; `layout` has the windows' labels.
        """
        run = self._reading(z, reference, layout)
        return self._predict(z, t, run), run.layers

    def layers(
        self, z: Tensor, t: int, reference: Reference | None = None, layout: Labels | None = None
    ) -> dict[int, Layer]:
        """The layers that the loss reads, as `observe` gives them; the network stops at the last of them."""
        run = self._reading(z, reference, layout, stop=True)
        with suppress(_Enough):
            self._predict(z, t, run)
        return run.layers

    def _reading(self, z: Tensor, reference: Reference | None, layout: Labels | None, stop: bool = False) -> _Run:
        read = reference if self.backbone.family.in_context else None
        return _Run((z.shape[2], z.shape[3]), frozenset(self.loss_layers), read=read, layout=layout, stop=stop)

    def restyle(self, z: Tensor, t: int, transfer: Transfer) -> Tensor:
        """The prediction for windows z (B, C, h, w) that ask with the content's queries: see `Transfer`."""
        return self._predict(z, t, _Run((z.shape[2], z.shape[3]), frozenset(), transfer=transfer))

    def target(self, i: int, layer: Layer, reference: Reference, layout: Labels | None) -> Tensor:
        """Attn(Q, Ks, Vs) for the queries of a layer; with a layout, label by label."""
        K, V = reference.layers[i].K, reference.layers[i].V
        if layout is None or reference.labels is None:
            return attend(layer.Q, K, V, self.similarity)
        keys = reference.labels.keys(reference.layers[i].grid)
        return attend_by_label(layer.Q, K, V, layout.queries(layer.grid), keys, self.similarity)

    def _predict(self, z: Tensor, t: int, run: _Run) -> Tensor:
        self._run = run
        self.forwards += len(z)
        try:
            return self.backbone.predict(z, t)
        finally:
            self._run = None

    def attention(self, i: int, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        """What a layer does in the run at hand: tape, read the reference too, attend."""
        run = self._run
        assert run is not None, "the network was called around its tape"
        grid = token_grid(run.latent_grid, Q.shape[2])
        if self.similarity is not None:
            Q, K = centred(Q), centred(K)
        if i in run.record:
            run.layers[i] = Layer(Q, K, V, grid)
        if run.stop and i == self.loss_layers[-1]:
            raise _Enough
        if run.transfer is not None and i in run.transfer.content:
            asked, answering = run.transfer, run.transfer.reference.layers[i]
            Q = torch.lerp(Q, asked.content[i].Q, asked.keep)
            return attend(Q, answering.K, answering.V, self.similarity, asked.sharpness)
        if run.read is None:
            return attend(Q, K, V, self.similarity)
        reference = run.read.layers[i]
        Ks, Vs = (u.expand(len(Q), -1, -1, -1) for u in (reference.K, reference.V))
        if run.layout is None or run.read.labels is None:
            return attend(Q, torch.cat([K, Ks], 2), torch.cat([V, Vs], 2), self.similarity)
        own = torch.arange(K.shape[2], device=K.device)
        places = {i: torch.cat([own, len(own) + theirs]) for i, theirs in run.read.labels.keys(reference.grid).items()}
        keys, values = torch.cat([K, Ks], 2), torch.cat([V, Vs], 2)
        return attend_by_label(Q, keys, values, run.layout.queries(grid), places, self.similarity)


class _Processor:
    """diffusers' attention processor that asks the tape what to do between projections."""

    def __init__(self, index: int, tape: Tape) -> None:
        self.index, self.tape = index, tape

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        assert encoder_hidden_states is None and attention_mask is None, "only self-attention is taped"
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
        out = rearrange(self.tape.attention(self.index, Q, K, V), "b n l d -> b l (n d)")
        out = attn.to_out[1](attn.to_out[0](out))
        if residual.ndim == 4:
            out = rearrange(out, "b (h w) c -> b c h w", h=spatial[0])
        if attn.residual_connection:
            out = out + residual
        result: Tensor = out / attn.rescale_output_factor
        return result


def _side_by_side(crops: Tensor) -> Tensor:
    return rearrange(crops, "r n l d -> 1 n (r l) d")


def centred(tokens: Tensor) -> Tensor:
    """Queries or keys (B, heads, L, d) less their mean over each window's tokens.

    What all tokens share, the timestep above all, would otherwise rule their cosines. Pocket is trained with it.
    """
    return tokens - tokens.mean(2, keepdim=True)


def token_grid(latents: tuple[int, int], count: int) -> tuple[int, int]:
    """The (h, w) of `count` tokens over a latent grid that a UNet has halved some times, rounding up."""
    h, w = latents
    while h * w > count:
        h, w = -(-h // 2), -(-w // 2)
    if h * w != count:
        raise ValueError(f"{count} tokens are no halving of {latents[0]}x{latents[1]} latents")
    return h, w


@contextmanager
def capture(backbone: Backbone) -> Iterator[Tape]:
    """A tape over the self-attention layers of a backbone's UNet, whose own processors are back at the end."""
    attentions = self_attention_layers(backbone.unet)
    tape = Tape(backbone, attentions)
    before = [a.processor for a in attentions]
    try:
        for i, a in enumerate(attentions):
            a.processor = _Processor(i, tape)
        yield tape
    finally:
        for a, processor in zip(attentions, before, strict=True):
            a.processor = processor
