"""From the finished canvas to the result: decode, sharpen, roll, and measure; the other channels follow."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ad_service.core import metrics
from ad_service.core.backbone import codec
from ad_service.core.materials.follow import SourceMap
from ad_service.core.pictures.patch_statistics import match_patch_statistics
from ad_service.core.pipeline.exemplar import Exemplar
from ad_service.core.pipeline.request import Request, Result, Step
from ad_service.core.pipeline.start import Start
from ad_service.core.pipeline.task import Task, as_steps
from ad_service.core.pipeline.transform import renormalize
from ad_service.core.pixels import from_uint8, to_uint8, to_uint16

Shift = tuple[int, int]
"""Pixels (down, right) by which a result is rolled back."""


def finish(
    task: Task, start: Start, canvas: Tensor, decoders: codec.Decoders | None
) -> Generator[Step, None, tuple[Tensor, dict[str, float]]]:
    """The picture (H, W, 3) uint8 of a canvas (C, H, W), and the round trip of a fitted decoder.

    A decoder that was fitted to this exemplar before is taken from `decoders`; one that is fitted now is put there.
    """
    detail = task.model.family.detail if task.request.detail == "auto" else task.request.detail
    state, round_trip = None, dict[str, float]()
    if detail in ("decoder", "both"):
        state, round_trip = yield from as_steps("fit-decoder", _fit_decoder(task, {} if decoders is None else decoders))
    image = yield from as_steps("decode", _decode(task, canvas, state))
    if detail in ("pixels", "both"):
        yield from as_steps("sharpen", _sharpen(task, start, image))
    return image, round_trip


def deliver(
    task: Task, start: Start, image: Tensor, shift: Shift, more: Mapping[str, float], content: Tensor | None = None
) -> Generator[Step, None, Result]:
    """The result of a picture (H, W, 3) uint8, rolled back by `shift`, with its metrics and `more`."""
    image = image.roll((-shift[0], -shift[1]), (0, 1))
    source = None if start.source is None else replace(start.source, shift=shift)
    measured = yield from as_steps("measure", measure(image, task.request, task.exemplar, content))
    return Result({"color": image, **_follow(task, source)}, {**measured, **more}, source_map=source)


def plainest_shift(image: Tensor, tiles: tuple[bool, bool]) -> Shift:
    """The shift that moves the edge of a torus (H, W, 3) to an ordinary border, as different as the mean of all.

    A torus has no origin, so the roll changes no pixel; a random edge could lie on a joint or a highlight.
    """
    y, x = (metrics.plainest_border(image, axis) if tile else 0 for axis, tile in enumerate(tiles))
    return y, x


def measure(
    image: Tensor, request: Request, exemplar: Exemplar, content: Tensor | None = None
) -> Generator[float, None, dict[str, float]]:
    """Seams, patch distance, copies and repetition of an image (H, W, 3), and the exemplar's own: see `metrics`.

    With a layout also how much of it is obeyed, with a content how much of its light and dark is kept. Yields the
    fraction done.
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
    return out


# ---------------------------------------------------------------------------------------------- stages


def _fit_decoder(task: Task, decoders: codec.Decoders) -> Generator[float, None, tuple[codec.State, dict[str, float]]]:
    """The decoder's state fitted to the exemplar, now or for an earlier job.

    With it the PSNR of the exemplar after encoding and decoding, by the model's decoder and by the fitted one, in dB.
    """
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


def _decode(task: Task, canvas: Tensor, state: codec.State | None) -> Generator[float, None, Tensor]:
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


def _follow(task: Task, source: SourceMap | None) -> dict[str, Tensor]:
    """The exemplar's other channels as they lie on the result, (H, W, C) uint8 or uint16."""
    if source is None:
        return {}
    out = {}
    for name, channel in task.exemplar.channels.items():
        painted = source.paint(channel.pixels, task.request.height, task.request.width)
        painted = renormalize(painted) if channel.kind == "normal" else painted
        out[name] = (to_uint8 if channel.bits == 8 else to_uint16)(painted)
    return out
