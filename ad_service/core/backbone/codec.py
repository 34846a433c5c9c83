"""Encoding and decoding on a torus in tiles of bounded memory, and fitting the decoder to a swatch.

Pictures are (3, H, W) in [0, 1]; latents (C, h, w) are scaled to the units of the UNet.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ad_service.core.backbone import memory
from ad_service.core.backbone.devices import free_cached_memory, free_memory, is_out_of_memory
from ad_service.core.backbone.model import Model
from ad_service.core.canvas import Shape, around
from ad_service.core.pixels import psnr
from ad_service.core.steps import checkpoint

MARGIN = 16
"""Latents around a tile that are computed with it, so that its edges are as good as its middle."""

LARGEST_UNTILED = 256
"""Latents along the longer side of a picture up to which it is encoded in one pass."""

ENCODED_TILE = 64
DECODED_TILE = 128
FITTED_CROP = 48
"""Largest sides in latents of what is encoded, decoded and fitted at once; smaller ones where memory is short."""

FIT_STEPS = 75
"""Adam steps that fit a decoder (paper, section 3.4); on wicker they raise the round trip from 27.4 to 34.1 dB."""

State = dict[str, Tensor]


class Decoders(Protocol):
    """A cache of the states of fitted decoders by `fit_key`, for example a dict."""

    def get(self, key: str, /) -> State | None: ...

    def __setitem__(self, key: str, state: State, /) -> None: ...


def encode(model: Model, picture: Tensor, largest_untiled: int | None = None) -> Tensor:
    """Latents (C, h, w) of a picture (3, H, W) with sides in multiples of the codec's factor.

    It is encoded in tiles if it is larger than `largest_untiled` latents, by default as many as the device has room
    for.
    """
    h, w = (side // model.family.factor for side in picture.shape[1:])
    if max(h, w) > (largest_untiled or _largest_untiled(model)):
        return encode_canvas(model, picture, Shape(h, w, False, False))
    try:
        return _encode(model, picture)
    except RuntimeError as error:
        if not is_out_of_memory(error) or max(h, w) <= MARGIN:
            raise
    free_cached_memory(model.device)
    return encode_canvas(model, picture, Shape(h, w, False, False))


def _largest_untiled(model: Model) -> int:
    if model.family.own_tile_statistics:
        return LARGEST_UNTILED
    side = LARGEST_UNTILED if free_memory(model.device) is not None else LARGEST_UNTILED // 2  # 2.5 GB for 128 latents
    return _room_for(model, side, 0, memory.ENCODER_MAPS)


def _room_for(model: Model, side: int, margin: int, maps: float, overhead: int = 0) -> int:
    """The side in latents, or as much less as the free memory of the device requires: see `memory.largest_side`."""
    width = model.vae.config.block_out_channels[0]
    each = maps * memory.map_bytes(width, model.family.factor)
    return memory.largest_side(free_memory(model.device), side, margin, each, overhead)


def _encode(model: Model, picture: Tensor) -> Tensor:
    checkpoint()
    vae, config = model.vae, model.vae.config
    with torch.no_grad():
        x = (picture[None] * 2 - 1).to(model.device, vae.dtype)
        z = vae.encode(x).latent_dist.mean.float()
    return ((z - (config.get("shift_factor") or 0.0)) * config.scaling_factor)[0].cpu()


def encode_canvas(model: Model, picture: Tensor, shape: Shape, side: int | None = None) -> Tensor:
    """Latents (C, H, W) of a canvas' picture (3, H * factor, W * factor), in tiles with margins of their neighbors.

    The tiles share the statistics of their group norms, as in `decode`, unless the family wants each tile's own. If
    memory runs out, all tiles are encoded again with half the side.
    """
    side = side or _room_for(model, ENCODED_TILE, MARGIN, memory.SHARED_ENCODER_MAPS)
    try:
        return _encode_canvas(model, picture, shape, side)
    except RuntimeError as error:
        if not is_out_of_memory(error) or side <= MARGIN:
            raise
    free_cached_memory(model.device)
    return encode_canvas(model, picture, shape, side // 2)


def _encode_canvas(model: Model, picture: Tensor, shape: Shape, side: int) -> Tensor:
    factor = model.family.factor

    def encoded(y: int, x: int) -> Tensor:
        rows, columns = _tile(shape, y, x, side)
        return _encode(model, picture[:, _pixels(rows, factor)][:, :, _pixels(columns, factor)])

    spots = [(y, x) for y in range(0, shape.height, side) for x in range(0, shape.width, side)]
    canvas = torch.empty(0)
    shared = 1 if model.family.own_tile_statistics else len(spots)
    with _shared_statistics(model.vae.encoder, shared) as norms:
        for spot in norms.sample(spots):
            encoded(*spot)
        norms.freeze()
        for y, x in spots:
            z = encoded(y, x)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
            if canvas.numel() == 0:
                canvas = torch.empty(len(z), shape.height, shape.width)
            canvas[:, y : y + z.shape[1], x : x + z.shape[2]] = z
    return canvas


def _pixels(cells: Tensor, factor: int) -> Tensor:
    """The pixels of latents along one axis."""
    return (cells[:, None] * factor + torch.arange(factor)).flatten()


def decode_tile(model: Model, z: Tensor) -> Tensor:
    """The decoder's unclamped output (B, 3, H, W), about [0, 1], for latents (B, C, h, w)."""
    config = model.vae.config
    z = z.float() / config.scaling_factor + (config.get("shift_factor") or 0.0)
    y: Tensor = model.vae.decode(z.to(model.device, model.vae.dtype)).sample
    return y.float() / 2 + 0.5


def decode(model: Model, canvas: Tensor, shape: Shape, side: int | None = None) -> Iterator[tuple[int, int, Tensor]]:
    """Tiles (y, x, picture (3, h, w) on the host) of the picture of a canvas (C, H, W).

    Every tile is decoded with a margin of its neighbors, wrapped along tiling axes and repeated beyond real edges, and
    all share the statistics of their group norms, so that borders of tiles are not visible. Their side is by default
    as large as the device has room for. If memory runs out nevertheless, all tiles are decoded again with half the
    side.

    Raises torch.OutOfMemoryError if the smallest tiles do not fit either.
    """
    side = side or _room_for(model, DECODED_TILE, MARGIN, memory.DECODER_MAPS)
    try:
        yield from _decode(model, canvas, shape, side)
        return
    except RuntimeError as error:
        if not is_out_of_memory(error) or side <= MARGIN:
            raise
    free_cached_memory(model.device)
    yield from decode(model, canvas, shape, side // 2)


def _decode(model: Model, canvas: Tensor, shape: Shape, side: int) -> Iterator[tuple[int, int, Tensor]]:
    factor = model.family.factor
    spots = [(y, x) for y in range(0, shape.height, side) for x in range(0, shape.width, side)]
    with torch.no_grad(), _shared_statistics(model.vae.decoder, len(spots)) as norms:
        for pool in norms.sample(spots):
            decode_tile(model, _patch(canvas, shape, *pool, side)[None])
        norms.freeze()
        for y, x in spots:
            picture = decode_tile(model, _patch(canvas, shape, y, x, side)[None])[0]
            margin = MARGIN * factor
            yield y * factor, x * factor, picture[:, margin:-margin, margin:-margin].cpu()


def _patch(canvas: Tensor, shape: Shape, y: int, x: int, side: int) -> Tensor:
    """The latents of the tile at (y, x) with its margins."""
    rows, columns = _tile(shape, y, x, side)
    return canvas[:, rows][:, :, columns]


def _tile(shape: Shape, y: int, x: int, side: int) -> tuple[Tensor, Tensor]:
    """The rows and columns of the tile at (y, x) with its margins, as indices of the canvas."""
    return (
        around(y, min(side, shape.height - y), MARGIN, shape.height, shape.tile_y),
        around(x, min(side, shape.width - x), MARGIN, shape.width, shape.tile_x),
    )


class _Norms:
    """The group norms of a network: first measured on some tiles, then frozen to the measured statistics."""

    def __init__(self, norms: list[nn.GroupNorm], tiles: int) -> None:
        self.norms, self.tiles = norms, tiles
        self.sums: dict[nn.GroupNorm, list[Tensor]] = {}
        self.frozen = False

    def sample(self, spots: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The tiles to measure: none if there is only one, otherwise at most nine, spread evenly along both axes."""
        if self.tiles == 1:
            return []
        if len(spots) <= 9:
            return spots
        ys, xs = (sorted({spot[axis] for spot in spots}) for axis in (0, 1))
        golden = (5**0.5 - 1) / 2  # its multiples are spread evenly along the other axis
        chosen = {(ys[int((i + 0.5) / 9 * len(ys))], xs[int((i + 0.5) * golden % 1 * len(xs))]) for i in range(9)}
        return sorted(chosen)

    def freeze(self) -> None:
        """From now on normalize by the measured statistics, if there are several tiles."""
        self.frozen = self.tiles > 1

    def forward(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        """What `norm` computes for x (B, C, ...), recorded or by the measured statistics."""
        checkpoint()
        if self.tiles == 1:
            return F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        grouped = x.float().unflatten(1, (norm.num_groups, -1)).flatten(2)
        if not self.frozen:
            self.sums.setdefault(norm, []).append(torch.stack([grouped.mean(2), grouped.square().mean(2)]))
            return F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        mean, square = torch.stack(self.sums[norm]).mean(0)
        scale = (square - mean.square() + norm.eps).rsqrt()
        y = ((grouped - mean[..., None]) * scale[..., None]).view(x.shape).to(x.dtype)
        channels = (1, -1, *[1] * (x.ndim - 2))  # attention passes (B, C, tokens)
        return y * norm.weight.view(channels) + norm.bias.view(channels)


@contextmanager
def _shared_statistics(network: nn.Module, tiles: int) -> Iterator[_Norms]:
    """Replace the group norms of an encoder or a decoder by `_Norms` inside the context."""
    norms = _Norms([m for m in network.modules() if isinstance(m, nn.GroupNorm)], tiles)
    try:
        for norm in norms.norms:
            norm.forward = lambda x, norm=norm: norms.forward(norm, x)  # type: ignore[method-assign,misc]
        yield norms
    finally:
        for norm in norms.norms:
            del norm.forward


def fit_key(model: Model, picture: Tensor, steps: int = FIT_STEPS) -> str:
    """sha256 of all that a fit depends on: the model, the type of device, the steps, and the picture (3, H, W)."""
    sha = hashlib.sha256(f"{model.digest} {model.device.type} {steps} {tuple(picture.shape)} ".encode())
    sha.update(picture.float().cpu().numpy().tobytes())
    return sha.hexdigest()


def fit_decoder(
    model: Model, picture: Tensor, steps: int = FIT_STEPS, side: int | None = None
) -> Generator[float, None, State]:
    """Fit the decoder to crops of a picture (3, H, W): |D(E(x)) - x|_1, Adam with rate 1e-4 (paper, section 3.4).

    Yields the fraction done and returns the decoder's state; the model's own decoder is restored. The crops have their
    own random generator, so that a fit depends only on what `fit_key` hashes and can be cached. Their side in latents
    is by default as large as the device has room for. If memory runs out nevertheless, the fit begins again with half
    the side.

    Raises torch.OutOfMemoryError if the smallest crops do not fit either.
    """
    overhead = memory.FIT_COPIES * sum(p.numel() * p.element_size() for p in model.vae.decoder.parameters())
    side = side or _room_for(model, FITTED_CROP, 0, memory.FIT_MAPS, overhead)
    try:
        return (yield from _fit_decoder(model, picture, steps, side))
    except RuntimeError as error:
        if not is_out_of_memory(error) or side <= MARGIN:
            raise
    free_cached_memory(model.device)
    return (yield from fit_decoder(model, picture, steps, side // 2))


def _fit_decoder(model: Model, picture: Tensor, steps: int, side: int) -> Generator[float, None, State]:
    factor, vae = model.family.factor, model.vae
    generator = torch.Generator().manual_seed(0)
    z = encode(model, picture)
    before = copy.deepcopy(vae.decoder.state_dict())
    side = min(side, z.shape[1], z.shape[2])
    parameters = list(vae.decoder.parameters())
    try:
        for p in parameters:
            p.requires_grad_(True)
        adam = torch.optim.Adam(parameters, 1e-4)
        for k in range(steps):
            y = int(torch.randint(z.shape[1] - side + 1, (1,), generator=generator))
            x = int(torch.randint(z.shape[2] - side + 1, (1,), generator=generator))
            want = picture[:, y * factor : (y + side) * factor, x * factor : (x + side) * factor].to(model.device)
            with torch.enable_grad():
                loss = (decode_tile(model, z[None, :, y : y + side, x : x + side])[0] - want).abs().mean()
                adam.zero_grad()
                loss.backward()
            adam.step()
            yield (k + 1) / steps
        return {name: value.detach().clone() for name, value in vae.decoder.state_dict().items()}
    finally:
        for p in parameters:
            p.requires_grad_(False)
            p.grad = None
        vae.decoder.load_state_dict(before)


@contextmanager
def fitted(model: Model, state: State | None) -> Iterator[None]:
    """Use a fitted decoder's state inside the context; None for the model's own."""
    if state is None:
        yield
        return
    before = copy.deepcopy(model.vae.decoder.state_dict())
    try:
        model.vae.decoder.load_state_dict(state)
        yield
    finally:
        model.vae.decoder.load_state_dict(before)


def round_trip_psnr(model: Model, picture: Tensor) -> float:
    """PSNR in dB of a picture (3, H, W) after encoding and decoding."""
    z, back = encode(model, picture), torch.empty_like(picture)
    for y, x, tile in decode(model, z, Shape(z.shape[1], z.shape[2], False, False)):
        back[:, y : y + tile.shape[1], x : x + tile.shape[2]] = tile
    return psnr(back.clamp(0, 1), picture)
