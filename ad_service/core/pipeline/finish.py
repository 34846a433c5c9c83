"""From the finished canvas to the result: decode, sharpen, roll, and measure; the other channels follow."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ad_service.core import metrics
from ad_service.core.backbone import codec, memory
from ad_service.core.backbone.devices import free_cached_memory, is_out_of_memory
from ad_service.core.backbone.model import Model, unet_on_host
from ad_service.core.materials.correspondence import Labels
from ad_service.core.materials.follow import follow
from ad_service.core.pictures.patch_statistics import match_patch_statistics
from ad_service.core.pipeline.exemplar import Exemplar
from ad_service.core.pipeline.request import Request, Result, Step
from ad_service.core.pipeline.start import Start
from ad_service.core.pipeline.task import Task, as_steps
from ad_service.core.pixels import from_uint8, to_uint8

Shift = tuple[int, int]
"""Pixels (down, right) by which a result is rolled back."""

JOINT = ("normal", "roughness", "height")
"""Channels whose patches are compared together with the color's; their pixels must lie where the color has theirs."""

JOINT_PATCHES = 1 << 16
"""Patches of each scale that are compared together; with 8 times as many the distance changes by less than 2 %."""


def finish(
    task: Task, start: Start, canvas: Tensor, decoders: codec.Decoders | None
) -> Generator[Step, None, tuple[Tensor, dict[str, float]]]:
    """The picture (H, W, 3) uint8 of a canvas (C, H, W), and the round trip of a fitted decoder.

    A decoder that was fitted to this exemplar before is taken from `decoders`; one that is fitted now is put there.
    """
    detail = task.model.family.detail if task.request.detail == "auto" else task.request.detail
    state, round_trip = None, dict[str, float]()
    with unet_on_host(task.model, _codec_bytes(task.model)):
        if detail in ("decoder", "both"):
            fitting = _fit_decoder(task, {} if decoders is None else decoders)
            state, round_trip = yield from as_steps("fit-decoder", fitting)
        image = yield from as_steps("decode", decode_picture(task, canvas, state))
    if detail in ("pixels", "both"):
        yield from as_steps("sharpen", _sharpen(task, start, image))
    return image, round_trip


def deliver(
    task: Task, start: Start, image: Tensor, shift: Shift, more: Mapping[str, float], content: Tensor | None = None
) -> Generator[Step, None, Result]:
    """The result of a picture (H, W, 3) uint8, rolled back by `shift`, with its metrics and `more`."""
    channels = yield from as_steps("maps", _follow(task, start, image))
    back = (-shift[0], -shift[1])
    image, channels = image.roll(back, (0, 1)), {name: picture.roll(back, (0, 1)) for name, picture in channels.items()}
    source = None if start.source is None else replace(start.source, shift=shift)
    measured = yield from as_steps("measure", measure(image, task.request, task.exemplar, content, channels))
    return Result({"color": image, **channels}, {**measured, **more}, tuple(task.notes), source)


def plainest_shift(image: Tensor, tiles: tuple[bool, bool]) -> Shift:
    """The shift that moves the edge of a torus (H, W, 3) to an ordinary border, as different as the mean of all.

    A torus has no origin, so the roll changes no pixel; a random edge could lie on a joint or a highlight.
    """
    y, x = (metrics.plainest_border(image, axis) if tile else 0 for axis, tile in enumerate(tiles))
    return y, x


def measure(
    image: Tensor,
    request: Request,
    exemplar: Exemplar,
    content: Tensor | None = None,
    channels: Mapping[str, Tensor] | None = None,
) -> Generator[float, None, dict[str, float]]:
    """Seams, patch distance, copies and repetition of an image (H, W, 3), and the exemplar's own: see `metrics`.

    With a layout also how much of it is obeyed, with a content how much of its light and dark is kept, with other
    channels (H, W, C) the seams of each and the patch distance of all together. Yields the fraction done.
    """
    yield 0.0
    picture, swatch = from_uint8(image), exemplar.color
    out: dict[str, float] = {}
    edges = metrics.seam(picture)
    for axis, edge, tiles in (("y", edges.y, request.tile_y), ("x", edges.x, request.tile_x)):
        if tiles:
            out[f"seam_{axis}"] = edge.single.ratio
            out[f"seam_{axis}_rank"] = edge.single.rank
            out[f"seam_{axis}_band"] = edge.band.ratio
    yield 0.2
    out["patch_distance"] = metrics.patch_distance(picture, swatch)
    out["swatch_halves_distance"] = metrics.halves_distance(swatch)
    yield 0.5
    out["sharpness"] = metrics.sharpness(picture) / max(metrics.sharpness(swatch), 1e-9)
    out["copy_share"] = metrics.copy_share(picture, swatch)
    yield 0.8
    out["repetition"] = metrics.repetition(picture).peak
    out["swatch_repetition"] = metrics.repetition(swatch).peak
    if exemplar.maps is not None:
        layout = exemplar.maps.layout[: picture.shape[1], : picture.shape[2]]
        found = metrics.label_agreement(picture, layout, swatch, exemplar.maps.regions)
        out |= {"label_agreement": found.agreement, "label_agreement_ceiling": found.ceiling}
    if content is not None:
        out["content_correlation"] = metrics.content_correlation(picture, content)
    if channels:
        yield 0.9
        out = _measure_channels(picture, channels, request, exemplar) | out
    return out


def _measure_channels(
    picture: Tensor, channels: Mapping[str, Tensor], request: Request, exemplar: Exemplar
) -> dict[str, float]:
    """The seams of each channel, and the patch distance of the color and those of JOINT together, with its halves'."""
    out: dict[str, float] = {}
    maps = {name: _from_levels(channel) for name, channel in channels.items()}
    for name, channel in maps.items():
        edges = metrics.seam(channel)
        for axis, edge, tiles in (("y", edges.y, request.tile_y), ("x", edges.x, request.tile_x)):
            if tiles:
                out[f"seam_{axis}_{name}"] = edge.single.ratio
    together = [name for name in JOINT if name in maps]
    if together:
        ours = torch.cat([picture, *(maps[name] for name in together)])
        theirs = torch.cat([exemplar.color, *(exemplar.channels[name].pixels for name in together)])
        out["joint_distance"] = metrics.patch_distance(ours, theirs, max_patches=JOINT_PATCHES)
        out["joint_halves_distance"] = metrics.halves_distance(theirs, max_patches=JOINT_PATCHES)
    return out


# ---------------------------------------------------------------------------------------------- stages


def _codec_bytes(model: Model) -> int:
    """What fitting and decoding need at full speed on a device."""
    each = memory.map_bytes(model.vae.config.block_out_channels[0], model.family.factor)
    decoder = sum(p.numel() * p.element_size() for p in model.vae.decoder.parameters())
    fit = memory.FIT_MAPS * each * codec.FITTED_CROP**2 + memory.FIT_COPIES * decoder
    decode = memory.DECODER_MAPS * each * (codec.DECODED_TILE + 2 * codec.MARGIN) ** 2
    return int(max(fit, decode) / memory.SHARE)


def _fit_decoder(
    task: Task, decoders: codec.Decoders
) -> Generator[float, None, tuple[codec.State | None, dict[str, float]]]:
    """The decoder's state fitted to the exemplar, now or for an earlier job; None and a note if that is impossible.

    With it the PSNR of the exemplar after encoding and decoding, by the model's decoder and by the fitted one, in dB.
    The canvas is finished by now, and no error of the fit may lose it.
    """
    try:
        return (yield from _fitted(task, decoders))
    except RuntimeError as error:
        reason = "the device has too little memory" if is_out_of_memory(error) else str(error).splitlines()[0]
    free_cached_memory(task.model.device)
    task.notes.append(f"The decoder was not fitted to the swatch, and fine detail may be softer: {reason}")
    return None, {}


def _fitted(task: Task, decoders: codec.Decoders) -> Generator[float, None, tuple[codec.State, dict[str, float]]]:
    model, color = task.model, task.exemplar.color
    key = codec.fit_key(model, color)
    state = decoders.get(key)
    if state is None:
        state = yield from codec.fit_decoder(model, color)
        decoders[key] = state
    yield 1.0
    before = codec.round_trip_psnr(model, color)
    yield 1.0
    with codec.fitted(model, state):
        after = codec.round_trip_psnr(model, color)
    return state, {"round_trip_psnr": before, "round_trip_psnr_fitted": after}


def decode_picture(task: Task, canvas: Tensor, state: codec.State | None = None) -> Generator[float, None, Tensor]:
    """The picture (H, W, 3) uint8 of a canvas (C, H, W), by a fitted decoder or the model's own."""
    image = torch.empty(task.request.height, task.request.width, 3, dtype=torch.uint8)
    with codec.fitted(task.model, state):
        for y, x, tile in codec.decode(task.model, canvas, task.constraints.shape):
            part = image[y : y + tile.shape[1], x : x + tile.shape[2]]
            part[:] = to_uint8(tile)[: part.shape[0], : part.shape[1]]
            yield y / task.request.height
    return image


def _sharpen(task: Task, start: Start, image: Tensor) -> Generator[float, None, None]:
    """Match the exemplar's patch statistics in place."""
    maps = task.exemplar.maps
    labels = (None, None) if maps is None else (maps.layout, maps.regions)
    yield from match_patch_statistics(
        image,
        task.exemplar.color,
        task.request.tiles,
        labels,
        task.generator,
        device=task.model.device,
        shown=start.shown,
        options=task.options.patch_statistics,
    )


def _follow(task: Task, start: Start, image: Tensor) -> Generator[float, None, dict[str, Tensor]]:
    """The exemplar's other channels as they lie on an image (H, W, 3), (H, W, C) uint8 or uint16."""
    exemplar, request = task.exemplar, task.request
    if not exemplar.channels:
        return {}
    labels = None
    if exemplar.maps is not None:
        labels = Labels(exemplar.maps.layout, exemplar.maps.regions)
    generator = torch.Generator().manual_seed(request.seed)
    work = follow(from_uint8(image), exemplar.color, exemplar.channels, request.tiles, generator, start.source, labels)
    return (yield from work)


def _from_levels(channel: Tensor) -> Tensor:
    """A channel (C, H, W) in [0, 1] from (H, W, C) uint8 or uint16."""
    most = 255 if channel.dtype == torch.uint8 else 65535
    return channel.permute(2, 0, 1).float() / most
