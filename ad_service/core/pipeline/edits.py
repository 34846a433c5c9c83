"""Edits of a picture with its maps: make it tileable, repaint a part of it, extend it, change its layout.

Each recipe lays out a canvas that is mostly fixed, fills the rest with pieces of the picture (`edit_canvas`), and lets
the model change what still shows. What lies outside of the area that may change is the input itself.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core import metrics
from ad_service.core.backbone import codec
from ad_service.core.backbone.conditioning import Conditioning
from ad_service.core.backbone.model import Model
from ad_service.core.pipeline.denoise import denoise, method_of, plan_of
from ad_service.core.pipeline.edit_canvas import (
    EditCanvas,
    EditOptions,
    NothingToFillFrom,
    Sources,
    Window,
    fill_canvas,
    visible_spots,
)
from ad_service.core.pipeline.exemplar import prepare
from ad_service.core.pipeline.finish import finish
from ad_service.core.pipeline.options import PipelineOptions
from ad_service.core.pipeline.request import Detail, Job, LabelMaps, Method, Preset, Result, Step, SynthesizeRequest
from ad_service.core.pipeline.start import Start
from ad_service.core.pipeline.task import begin, step_of
from ad_service.core.pipeline.transform import Channel
from ad_service.core.pixels import from_uint8, to_uint8, to_uint16
from ad_service.core.quilting.cuts import Mask
from ad_service.core.quilting.fill import UNUSABLE
from ad_service.core.quilting.periodicity import find_periods
from ad_service.core.steps import translate

FILLED = 0.5
"""Part of an edit's time that the pieces take, roughly; the model takes the rest."""

REDRAWN = 0.5
"""Strength with which a model that draws whole pictures redraws the pieces, unless the request has its own."""


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """What every edit has in common.

    Attributes:
        picture: base color (3, H, W), float32 in [0, 1].
        channels: other channels of the material by name, pixel by pixel over the picture.
        tile_y, tile_x: whether the result repeats along each axis.

    The other fields are those of `request.Request`.
    """

    picture: Tensor
    channels: Mapping[str, Channel] = field(default_factory=dict)
    tile_y: bool = False
    tile_x: bool = False
    seed: int = 0
    preset: Preset = "standard"
    detail: Detail = "auto"
    method: Method = "auto"
    strength: float | None = None
    steps: int | None = None
    iterations: int | None = None
    learning_rate: float | None = None
    conditioning: Conditioning | None = None

    def __post_init__(self) -> None:
        for name, channel in self.channels.items():
            if name == "color" or channel.pixels.shape[1:] != self.picture.shape[1:]:
                raise ValueError(
                    f"the channel {name!r} has {tuple(channel.pixels.shape[1:])} pixels, and the picture "
                    f"{tuple(self.picture.shape[1:])}; both must agree, and no channel may be named color"
                )

    @property
    def tiles(self) -> tuple[bool, bool]:
        """Whether y and x tile."""
        return self.tile_y, self.tile_x

    def all_channels(self) -> dict[str, Channel]:
        """Copies of all channels of the picture by name, `color` first."""
        channels = {"color": Channel(self.picture, "color"), **self.channels}
        return {name: replace(channel, pixels=channel.pixels.clone()) for name, channel in channels.items()}


@dataclass(frozen=True, kw_only=True)
class TileableRequest(EditRequest):
    """A picture that is to repeat along its tiling axes; `band` pixels at each edge may change."""

    band: int


@dataclass(frozen=True, kw_only=True)
class RepaintRequest(EditRequest):
    """A picture of which `mask` (H, W) bool is filled from the rest."""

    mask: Tensor


@dataclass(frozen=True, kw_only=True)
class ExtendRequest(EditRequest):
    """A picture that grows by these numbers of pixels at its sides. A tiling axis tiles afterwards."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0


@dataclass(frozen=True, kw_only=True)
class RelayoutRequest(EditRequest):
    """A result whose layout changes.

    Attributes:
        earlier: labels (H, W) of the layout that the picture was made with.
        synthesis: how it was made: its swatch, and the new layout and the regions as `maps`. Its channels are those of
            the swatch; without all of the picture's channels, only the picture itself is copied.
    """

    earlier: Tensor
    synthesis: SynthesizeRequest


def make_tileable(
    model: Model, request: TileableRequest, decoders: codec.Decoders | None = None, options: EditOptions | None = None
) -> Job:
    """The picture as a torus along its tiling axes, changed only in a band at its edges, where that hides the seam.

    An axis along which the picture tiles already stays as it is. Other arguments and errors as in `repaint`.
    """
    channels, notes = request.all_channels(), list[str]()
    measured = dict[str, float]()
    seams = metrics.seam(request.picture)
    whole = np.zeros(request.picture.shape[1:], np.bool_)
    todo = []
    for axis, name, seam in ((1, "x", seams.x), (0, "y", seams.y)):
        if request.tiles[axis] and seam.in_range:
            notes.append(f"The picture tiles along {name} already, and nothing was changed there")
        elif request.tiles[axis]:
            todo.append(axis)
    periods = find_periods(request.picture) if todo else None
    for i, axis in enumerate(todo):
        notes += _misfit(periods, axis, whole.shape[axis], options or EditOptions())
        lines = np.arange(whole.shape[axis])
        near = np.minimum(lines, lines[::-1]) < request.band
        free = np.zeros_like(whole)
        free[(slice(None), near) if axis == 1 else near] = True
        closed = [request.tiles[other] and other not in todo[i:] for other in (0, 1)]  # what tiles by now
        tiles = axis == 0 or closed[0], axis == 1 or closed[1]
        joined = closed[0], closed[1]
        canvas = EditCanvas(
            channels,
            np.ones(whole.shape, np.int64),
            np.zeros_like(free),
            free,
            np.ones(whole.shape, np.int64),
            tiles,
            joined,
        )
        steps = _fill_and_mend(model, request, canvas, decoders, options or EditOptions())
        yield from _part_of(steps, i / len(todo), (i + 1) / len(todo))
        whole |= free
    after = metrics.seam(channels["color"].pixels)
    for name, edge, tile in (("x", after.x, request.tile_x), ("y", after.y, request.tile_y)):
        if tile:
            measured |= {f"seam_{name}": edge.single.ratio, f"seam_{name}_band": edge.band.ratio}
    return _delivered(request, request.all_channels(), channels, whole, notes, measured)


def repaint(
    model: Model, request: RepaintRequest, decoders: codec.Decoders | None = None, options: EditOptions | None = None
) -> Job:
    """The picture with its mask filled from the rest; yields after every step and can be dropped between any two.

    Args:
        decoders: fitted decoders to use again; a new one is added.
        options: constants, for tests.

    Raises:
        NothingToFillFrom: too little of the picture is left.
        NotFinite: the network's output contains NaN or infinity.
    """
    channels, mask = request.all_channels(), request.mask.numpy()
    labels = np.where(mask, UNUSABLE, 1)
    canvas = EditCanvas(channels, labels, mask.copy(), mask, np.ones_like(labels), request.tiles, request.tiles)
    yield from _fill_and_mend(model, request, canvas, decoders, options or EditOptions())
    return _delivered(request, request.all_channels(), channels, mask, [], {})


def extend(
    model: Model, request: ExtendRequest, decoders: codec.Decoders | None = None, options: EditOptions | None = None
) -> Job:
    """The picture with new parts at its sides; arguments and errors as in `repaint`."""
    pad = (request.left, request.right, request.top, request.bottom)
    before = {
        name: replace(channel, pixels=F.pad(channel.pixels, pad)) for name, channel in request.all_channels().items()
    }
    channels = {name: replace(channel, pixels=channel.pixels.clone()) for name, channel in before.items()}
    H, W = before["color"].pixels.shape[1:]
    new = np.ones((H, W), np.bool_)
    new[request.top : H - request.bottom, request.left : W - request.right] = False
    labels = np.where(new, UNUSABLE, 1)
    canvas = EditCanvas(channels, labels, new.copy(), new, np.ones_like(labels), request.tiles, request.tiles)
    yield from _fill_and_mend(model, request, canvas, decoders, options or EditOptions())
    notes = [
        f"The picture was not extended along {name}, so it repeats along {name} only if it did before"
        for name, tile, grown in (("x", request.tile_x, pad[0] + pad[1]), ("y", request.tile_y, pad[2] + pad[3]))
        if tile and not grown
    ]
    return _delivered(request, before, channels, new, notes, {})


def relayout(
    model: Model, request: RelayoutRequest, decoders: codec.Decoders | None = None, options: EditOptions | None = None
) -> Job:
    """A result with another layout: pixels whose label stays keep their values. Arguments and errors as in `repaint`.

    Raises:
        LabelError: the painted layout and the regions do not fit together.
    """
    synthesis = request.synthesis
    assert synthesis.maps is not None
    fits = model.family.start == "quilt" and synthesis.start in ("auto", "quilt")
    exemplar = prepare(synthesis, model.family, PipelineOptions(), fit_periods=fits, maps=synthesis.maps)
    assert exemplar.maps is not None
    wanted = exemplar.maps.layout.numpy() + 1
    earlier = request.earlier.numpy() + 1
    changed = wanted != earlier
    channels = request.all_channels()
    labels = np.where(changed, UNUSABLE, earlier)
    more, notes = None, []
    if set(request.channels) <= set(exemplar.channels):
        theirs = {"color": Channel(exemplar.color, "color"), **{n: exemplar.channels[n] for n in request.channels}}
        more = Sources(theirs, exemplar.maps.regions.numpy() + 1)
    else:
        notes.append("The swatch has no maps, so new parts are copied from the picture alone")
    for label in np.unique(wanted[changed]):
        if more is None and not (labels == label).any():
            raise NothingToFillFrom(
                "a material of the new layout is nowhere in the rest of the picture, from which its maps are copied; "
                "leave out the maps, so that it is copied from the swatch"
            )
    canvas = EditCanvas(channels, labels, changed.copy(), changed, wanted, request.tiles, request.tiles, more)
    yield from _fill_and_mend(model, request, canvas, decoders, options or EditOptions())
    return _delivered(request, request.all_channels(), channels, changed, notes, {})


def _misfit(periods: Tensor | None, axis: int, length: int, options: EditOptions) -> list[str]:
    """The note that a regular picture does not have a whole number of periods along an axis; empty if it has."""
    if periods is None or not bool((periods[:, axis].abs() > options.slanted * periods.norm(dim=1)).any()):
        return []
    steepest = periods[periods[:, axis].abs().argmax()]
    period = float(steepest.square().sum() / steepest[axis].abs())
    count = length / period
    if abs(count - round(count)) * period <= options.misfit:
        return []
    name, side = (("y", "high"), ("x", "wide"))[axis]
    return [
        f"The picture repeats every {period:.0f} pixels along {name}, {count:.1f} times, so one of its parts becomes "
        f"shorter or longer; a picture {round(int(count) * period)} pixels {side} would have whole ones"
    ]


# ---------------------------------------------------------------------------------------------- stages


def _part_of(steps: Generator[Step, None, None], low: float, high: float) -> Generator[Step, None, None]:
    """Steps whose fractions in [0, 1] become those of a part of a job."""
    return translate(steps, lambda step: replace(step, fraction=low + (high - low) * step.fraction))


def _fill_and_mend(
    model: Model, request: EditRequest, canvas: EditCanvas, decoders: codec.Decoders | None, options: EditOptions
) -> Generator[Step, None, None]:
    """Fill the canvas with pieces, and let the model change what still shows."""
    generator = torch.Generator().manual_seed(request.seed)
    filling = translate(
        fill_canvas(canvas, generator, options),
        lambda fraction: replace(step_of("start", fraction), fraction=FILLED * fraction, message="laying pieces"),
    )
    windows = yield from filling
    if model.family.keeps_start:
        windows = list(visible_spots(canvas, options))
    for i, window in enumerate(windows):
        low, high = (FILLED + (1 - FILLED) * n / len(windows) for n in (i, i + 1))
        yield from _part_of(_redraw(model, request, canvas, window, decoders, options), low, high)


def _redraw(
    model: Model,
    request: EditRequest,
    canvas: EditCanvas,
    window: Window,
    decoders: codec.Decoders | None,
    options: EditOptions,
) -> Generator[Step, None, None]:
    """Redraw the colors of a window by attention distillation, where cuts show, or all that was filled.

    A family that keeps its start changes what is near visible cuts. Others redraw the filled area. The exemplar is what
    the window was filled from. Maps keep what their pieces show.
    """
    at, family = window.at, model.family
    free = torch.from_numpy(canvas.free[at] & window.middle & (canvas.moved[at] if family.keeps_start else True))
    change = _near(torch.from_numpy(canvas.visible[at]), options.reach) if family.keeps_start else free.float()
    change = change * free
    if not bool(change.any()):
        return
    index = torch.from_numpy(at[0]), torch.from_numpy(at[1])
    picture = canvas.color[:, index[0], index[1]]
    edited = _synthesis(request, canvas, window, picture)
    pipeline = PipelineOptions()
    task = yield from begin(model, edited, pipeline, maps=edited.maps)
    shape, factor = task.constraints.shape, family.factor
    pad = (0, shape.width * factor - edited.width, 0, shape.height * factor - edited.height)
    latents = codec.encode_canvas(model, F.pad(picture[None], pad, "replicate")[0], shape)
    mask = F.max_pool2d(F.pad(change[None, None], pad), factor)[0, 0]
    start = Start(latents, change_mask=mask)
    method = method_of(edited.method, family, shape)
    plan = plan_of(edited, method.schedule(family), strength=family.strength if family.keeps_start else REDRAWN)
    latents, _ = yield from denoise(task, start, plan, method)
    image, _ = yield from finish(task, start, latents, decoders)
    weight = _feathered(change, free, options.feather)
    canvas.color[:, index[0], index[1]] = torch.lerp(picture, from_uint8(image), weight)


def _synthesis(request: EditRequest, canvas: EditCanvas, window: Window, picture: Tensor) -> SynthesizeRequest:
    """The request of a window as a synthesis: from what it was filled from, by labels, on what it shows."""
    wanted, labels = canvas.wanted[window.at], canvas.labels[window.at]
    swatch = picture
    if canvas.more is not None:
        swatch, labels = canvas.more.channels["color"].pixels, canvas.more.labels
    has_all = set(np.unique(wanted)) <= set(np.unique(labels))
    maps = LabelMaps(torch.from_numpy(wanted), torch.from_numpy(labels)) if has_all else None
    return SynthesizeRequest(
        swatch=swatch,
        height=picture.shape[1],
        width=picture.shape[2],
        tile_y=window.tiles[0],
        tile_x=window.tiles[1],
        maps=maps,
        **{name: getattr(request, name) for name in _SHARED},
    )


_SHARED = (*("seed", "preset", "detail", "method", "strength", "steps", "iterations", "learning_rate", "conditioning"),)
"""Fields of an edit that a synthesis has, too."""


def _near(visible: Tensor, reach: int) -> Tensor:
    """How near each pixel of (h, w) is to a visible one: 1 at one, falling to 0 at `reach` pixels."""
    wide = F.max_pool2d(visible[None, None], 2 * (reach // 2) + 1, 1, reach // 2)
    return F.avg_pool2d(wide, 2 * (reach // 2) + 1, 1, reach // 2)[0, 0]


def _feathered(change: Tensor, free: Tensor, feather: int) -> Tensor:
    """The weight (h, w) of the model's colors: 0 outside `free` and rising to `change` over some pixels inside."""
    inside = 1 - F.max_pool2d(1 - free[None, None].float(), 2 * feather + 1, 1, feather)
    return F.avg_pool2d(inside, 2 * feather + 1, 1, feather)[0, 0] * change * free


def _delivered(
    request: EditRequest,
    before: Mapping[str, Channel],
    after: Mapping[str, Channel],
    free: Mask,
    notes: list[str],
    more: Mapping[str, float],
) -> Result:
    """The result of an edit, with what was changed, also outside of the area that might change, and its border."""
    pixels = {name: _whole_numbers(channel) for name, channel in after.items()}
    differ = torch.zeros(free.shape, dtype=torch.bool)
    for name, channel in before.items():
        differ |= (_whole_numbers(channel).int() != pixels[name].int()).any(2)
    area = torch.from_numpy(free)
    border = metrics.area_border(after["color"].pixels, area, request.tiles)
    measured = {
        "changed": float((differ & area).float().mean()),
        "changed_outside": float((differ & ~area).float().mean()),
        "border": border.single,
        "border_band": border.band,
        **more,
    }
    notes.append(f"{measured['changed']:.1%} of the picture was changed")
    return Result(pixels, measured, tuple(notes))


def _whole_numbers(channel: Channel) -> Tensor:
    return (to_uint8 if channel.bits == 8 else to_uint16)(channel.pixels)
