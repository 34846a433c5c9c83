"""From a swatch, with a layout or a content picture if there is one, to a picture: start, sampler, decoder, polish."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core import labels, metrics
from ad_service.core.backbone import codec
from ad_service.core.backbone.loading import Backbone, Family
from ad_service.core.canvas import Shape, resized, round_up
from ad_service.core.pictures import lighting
from ad_service.core.pictures.patch_statistics import match_patch_statistics
from ad_service.core.quilting import periodicity, source_maps
from ad_service.core.quilting.cuts import visible_cuts
from ad_service.core.quilting.quilt import QuiltOptions, guide_of, quilt
from ad_service.core.sampling.attention import capture
from ad_service.core.sampling.samplers import SAMPLERS, Plan, Subject
from ad_service.core.sampling.styleid import preview

CELL = 4
"""Pixels along the side of the squares that a start is made of."""

LARGE = 1024
"""Pixels along the shorter side of a swatch above which a quilt of it is made of squares twice as large."""

BORDER = 3
"""Cells at each side of a visible cut that a weak model may change; the rest of a quilt is the swatch itself."""

GUIDED = QuiltOptions(block=8, overlap=2, refinements=3.0)
"""A quilt whose pieces are small enough that a content stays readable in them."""

GUIDE_PRICE = 8.0
"""What a tone that is not the content's costs in such a quilt, for a content weight of 1."""

PLACES = 1 << 14
"""Random places of a quilt that tell what of the swatch it shows."""

MAX_CROPS = 4
"""Crops of a swatch larger than the window whose keys and values stand side by side."""

HALVED = 8
"""Latents whose multiples every UNet can halve as often as it does."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    `swatch` (3, h, w) is float32 in [0, 1]; `regions` (h, w) and `layout` (any size, resized to the canvas) are int64
    label maps of the same labels, both or neither, whose colours `palette` (n, 3) errors tell. `even_light` is the part
    of the swatch's broad light and shade that is taken out. `content` (3, any size, resized to the canvas) is what
    `restyle` makes anew. None, "auto": the preset and the family decide.
    """

    swatch: Tensor
    height: int
    width: int
    tile_y: bool = True
    tile_x: bool = True
    seed: int = 0
    scale: float = 1.0
    even_light: float = 0.0
    preset: str = "standard"
    detail: str = "auto"
    method: str = "auto"
    start: str = "auto"
    strength: float | None = None
    steps: int | None = None
    iterations: int | None = None
    learning_rate: float | None = None
    content_weight: float | None = None
    regions: Tensor | None = None
    layout: Tensor | None = None
    palette: Tensor | None = None
    content: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """A step is done: the fraction of the whole job, what runs now, and a small picture (h, w, 3) uint8 on demand."""

    fraction: float
    message: str
    preview: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class Picture:
    """The result (H, W, 3) uint8 on the host, its figures, and notes for the artist."""

    image: Tensor
    metrics: dict[str, float]
    notes: tuple[str, ...] = ()


Job = Generator[Step, None, Picture]

METHODS = SAMPLERS | {"preview": preview}

PREVIEW_STEPS = 50
"""Timesteps of a StyleID pass (its paper, section 5)."""

PRESETS = {"draft": 0.5, "standard": 1.0, "fine": 2.0}
"""Factor on a family's own number of steps."""


def synthesize(backbone: Backbone, request: Request, decoders: codec.Decoders | None = None) -> Job:
    """A picture of any size from the swatch; yields after every step and can be dropped between any two.

    A decoder that was fitted to this swatch before is taken from `decoders`; one that is fitted now is put there.
    """
    return _make(backbone, request, _choose_start(request, backbone.family), decoders)


def restyle(backbone: Backbone, request: Request, decoders: codec.Decoders | None = None) -> Job:
    """The request's content made anew in the material of its swatch, as `synthesize` makes a picture from nothing.

    The canvas starts as the content's latents, and its queries keep to theirs (paper, section 3.2); in a family whose
    start is a quilt, as pieces of the swatch that have the content's light and dark. The method "preview" is StyleID.
    """
    assert request.content is not None
    content = resized(request.content, request.height, request.width, (request.tile_y, request.tile_x))
    quilted = backbone.family.start == "quilt" and request.method != "preview"
    return _make(backbone, replace(request, content=content), "quilt" if quilted else "content", decoders)


def _make(backbone: Backbone, request: Request, start: str, decoders: codec.Decoders | None) -> Job:
    family = backbone.family
    generator = torch.Generator().manual_seed(request.seed)
    exemplar = _prepare(request, family, start)
    latents = codec.encode(backbone, exemplar.picture)
    subject, visible = _subject(request, family, exemplar, latents)
    paint = _painter(latents, exemplar.picture, family.factor)
    method = family.method if request.method == "auto" else request.method
    plan = _plan(request, family, start, method, layout=exemplar.layout is not None)
    if start == "noise":
        canvas = torch.randn(len(latents), subject.shape.height, subject.shape.width, generator=generator)
    else:
        laying = _start(start, request, plan, exemplar, subject, family, generator)
        laid = yield from _map(laying, 0.0, 0.15, "laying out")
        canvas = codec.encode_canvas(backbone, laid.picture, subject.shape)
        subject = replace(subject, content=canvas)
        if family.keeps_start:
            subject, exemplar = replace(subject, freedom=laid.freedom), replace(exemplar, shown=laid.shown)
        del laid
    count = plan.steps * (2 if method == "preview" else 1)
    with capture(backbone) as tape:
        steps = METHODS[method](tape, subject, canvas, plan, generator)
        for i, canvas in enumerate(steps, 1):
            yield Step(0.15 + 0.65 * i / count, f"step {i} of {count}", _preview(paint, canvas, visible))
        passes = {"unet_forwards": float(tape.forwards), "unet_backwards": float(tape.backwards)}
    state, fit = None, dict[str, float]()
    if _detail(backbone, request) in ("decoder", "both"):
        state, fit = yield from _fit(backbone, exemplar.picture, {} if decoders is None else decoders)
    image = yield from _finish(backbone, request, exemplar, canvas, subject.shape, state, generator)
    if request.content is not None:
        image = image.roll([-shift for shift in _half_a_latent(request, family)], (0, 1))
    elif request.layout is None:
        image = _cut_anywhere(image, (request.tile_y, request.tile_x))
    return Picture(image, _figures(image, request, exemplar) | fit | passes)


def _choose_start(request: Request, family: Family) -> str:
    """The start asked for, or the family's; with a layout never noise, which knows nothing of it."""
    if request.start != "auto":
        return request.start
    return "fill" if family.start == "noise" and request.layout is not None else family.start


def _detail(backbone: Backbone, request: Request) -> str:
    return backbone.family.detail if request.detail == "auto" else request.detail


def _fit(
    backbone: Backbone, swatch: Tensor, decoders: codec.Decoders
) -> Generator[Step, None, tuple[codec.State, dict[str, float]]]:
    """The decoder fitted to the swatch (3, h, w), now or earlier, and the swatch's round trip before and after."""
    key = codec.fit_key(backbone, swatch)
    state = decoders.get(key)
    if state is None:
        state = yield from _map(codec.fit_decoder(backbone, swatch), 0.8, 0.84, "fitting the decoder")
        decoders[key] = state
    yield Step(0.84, "reading back the swatch")
    before = codec.round_trip_psnr(backbone, swatch)
    with codec.fitted(backbone, state):
        after = codec.round_trip_psnr(backbone, swatch)
    return state, {"round_trip_psnr": before, "round_trip_psnr_fitted": after}


def _finish(
    backbone: Backbone,
    request: Request,
    exemplar: _Exemplar,
    canvas: Tensor,
    shape: Shape,
    state: codec.State | None,
    generator: torch.Generator,
) -> Generator[Step, None, Tensor]:
    """From the finished canvas to pixels (H, W, 3) uint8, by the decoder's own state or a fitted one."""
    image = torch.empty(request.height, request.width, 3, dtype=torch.uint8)
    with codec.fitted(backbone, state):
        for y, x, tile in codec.decode(backbone, canvas, shape):
            part = image[y : y + tile.shape[1], x : x + tile.shape[2]]
            part[:] = _quantise(tile)[: part.shape[0], : part.shape[1]]
            yield Step(0.84 + 0.02 * y / request.height, "decoding")
    if _detail(backbone, request) in ("pixels", "both"):
        maps = (exemplar.pixel_layout, exemplar.regions)
        tiles = (request.tile_y, request.tile_x)
        for fraction in match_patch_statistics(
            image, exemplar.picture, tiles, maps, generator, device=backbone.device, shown=exemplar.shown
        ):
            yield Step(0.86 + 0.12 * fraction, "sharpening")
    yield Step(0.99, "measuring")
    return image


def _cut_anywhere(image: Tensor, tiles: tuple[bool, bool]) -> Tensor:
    """Roll a torus so that its edge falls on an ordinary border, as different as the mean of all.

    A torus has no origin, so this changes no pixel; at random the edge would also fall on a joint or a highlight.
    """
    shifts = [metrics.plainest_border(image, axis) if tile else 0 for axis, tile in enumerate(tiles)]
    return image.roll((-shifts[0], -shifts[1]), (0, 1))


T = TypeVar("T")


def _map(work: Generator[float, None, T], low: float, high: float, message: str) -> Generator[Step, None, T]:
    """Steps between two fractions of the job from the fractions that a piece of work yields; returns its value."""
    while True:
        try:
            fraction = next(work)
        except StopIteration as end:
            value: T = end.value
            return value
        yield Step(low + (high - low) * fraction, message)


@dataclass(frozen=True)
class _Exemplar:
    """The swatch at the scale asked for, and the label maps that go with it, at its size and the canvas'.

    `periods` (1 or 2, 2) are those of a regular swatch in pixels; see `lattice`. `shown` (n, 2) are random places of
    the swatch that a quilt took pieces from.
    """

    picture: Tensor
    regions: Tensor | None
    layout: Tensor | None
    pixel_layout: Tensor | None
    count: int
    periods: Tensor | None = None
    shown: Tensor | None = None


@dataclass(frozen=True)
class _Laid:
    """A start: its picture (3, H, W), for a quilt how near each latent (h, w) is to a cut that shows, and `shown`."""

    picture: Tensor
    freedom: Tensor | None = None
    shown: Tensor | None = None


def _prepare(request: Request, family: Family, start: str) -> _Exemplar:
    """Scale the swatch, even out its light if it is asked for, and cut its sides to whole latents.

    A regular swatch that is to be quilted, and follows no content, is stretched so that its periods fit the canvas.
    """
    picture, regions, least = request.swatch, request.regions, family.factor * HALVED
    if regions is not None and request.layout is not None:
        labels.check(request.layout, regions, request.palette)
    h, w = (max(least, round(side * request.scale)) for side in picture.shape[1:])
    if (h, w) != picture.shape[1:]:
        mode = "bicubic"
        picture = F.interpolate(picture[None], (h, w), mode=mode, antialias=True, align_corners=False)[0].clamp(0, 1)
        if regions is not None:
            regions = labels.condense(regions, h, w)
    if request.even_light:
        picture = lighting.flatten_lighting(picture, request.even_light, regions)
    periods = periodicity.find_periods(picture) if start == "quilt" and request.content is None else None
    if periods is not None:
        fitting = periodicity.fit_periods(periods, request.height, request.width, (request.tile_y, request.tile_x))
        periods = None
        if fitting is not None and min((warped := periodicity.warp(picture, fitting[0])).shape[1:]) >= least:
            matrix, periods = fitting
            picture = warped.clamp(0, 1)
            if regions is not None:
                regions = periodicity.warp(regions[None].float(), matrix, "nearest")[0].long()
    h, w = (side - side % family.factor for side in picture.shape[1:])
    top, left = (0, 0) if regions is None or request.layout is None else _most_labels(regions, h, w)
    picture = picture[:, top : top + h, left : left + w]
    if regions is None or request.layout is None:
        return _Exemplar(picture, None, None, None, 0, periods)
    regions = regions[top : top + h, left : left + w]
    fitted_to = f" once the swatch is fitted to {w}x{h} pixels, multiples of {family.factor}"
    labels.check(request.layout, regions, request.palette, fitted_to)
    pixel_layout = labels.resize(request.layout, request.height, request.width)
    count = int(max(regions.max(), pixel_layout.max())) + 1
    rows, columns = (-(-side // family.factor) for side in (request.height, request.width))
    return _Exemplar(picture, regions, labels.resize(pixel_layout, rows, columns), pixel_layout, count, periods)


def _most_labels(regions: Tensor, h: int, w: int) -> tuple[int, int]:
    """The corner (top, left) of a cut to h x w that keeps the most labels of the regions, the first of equals."""
    corners = [(y, x) for y in (0, regions.shape[0] - h) for x in (0, regions.shape[1] - w)]
    return max(corners, key=lambda c: len(labels.used(regions[c[0] : c[0] + h, c[1] : c[1] + w])))


def _subject(request: Request, family: Family, exemplar: _Exemplar, latents: Tensor) -> tuple[Subject, Shape]:
    shape = Shape(
        -(-request.height // family.factor), -(-request.width // family.factor), request.tile_y, request.tile_x
    )
    work = replace(
        shape,
        height=shape.height if shape.tile_y else round_up(shape.height, HALVED),
        width=shape.width if shape.tile_x else round_up(shape.width, HALVED),
    )
    layout, small, regions = exemplar.layout, None, None
    if layout is not None and exemplar.regions is not None:
        pad = (0, work.width - shape.width, 0, work.height - shape.height)
        layout = F.pad(layout[None, None].float(), pad, "replicate")[0, 0].long()
        small = labels.condense(exemplar.regions, *latents.shape[1:])
    crops = _crops(latents, family.window, small)
    zs = torch.stack([latents[:, y : y + h, x : x + w] for y, x, h, w in crops])
    if small is not None:
        regions = torch.stack([small[y : y + h, x : x + w] for y, x, h, w in crops])
    return Subject(zs, work, layout, regions, exemplar.count), shape


def _crops(latents: Tensor, side: int, regions: Tensor | None) -> list[tuple[int, int, int, int]]:
    """MAX_CROPS windows (y, x, h, w) that show much of the swatch, and one more for each label that none of them shows.

    All of one size that the UNet can halve; a rim of the swatch less than an eighth of it wide may be left out.
    `regions` (h, w) has the labels of the latents.
    """
    h, w = latents.shape[1:]
    height, width = (min(n - n % HALVED, side) for n in (h, w))
    ys, xs = ([0] if n - length <= length // 8 else [0, n - length] for n, length in ((h, height), (w, width)))
    crops = [(y, x, height, width) for y in ys for x in xs][:MAX_CROPS]
    if regions is None:
        return crops
    for label in labels.used(regions):
        if not any(bool((regions[y : y + height, x : x + width] == label).any()) for y, x, _, _ in crops):
            spots = (regions == label).nonzero()
            middle = spots[len(spots) // 2].tolist()
            y, x = (min(max(c - s // 2, 0), n - s) for c, s, n in zip(middle, (height, width), (h, w), strict=True))
            crops.append((y, x, height, width))
    return crops


def _start(
    start: str,
    request: Request,
    plan: Plan,
    exemplar: _Exemplar,
    subject: Subject,
    family: Family,
    generator: torch.Generator,
) -> Generator[float, None, _Laid]:
    """What the canvas begins with, made in cells; yields the fraction done."""
    shape, layout, factor = subject.shape, subject.layout, family.factor
    content = _content(request, family, shape)
    if start == "content" and content is not None:
        return _Laid(content)
    cell = _cell(exemplar.picture) if start == "quilt" and content is None else CELL
    h, w = (side // cell for side in exemplar.picture.shape[1:])
    picture = exemplar.picture[:, : h * cell, : w * cell]
    cells = replace(shape, height=shape.height * factor // cell, width=shape.width * factor // cell)
    regions = None if exemplar.regions is None else labels.condense(exemplar.regions, h, w)
    periods = None if exemplar.periods is None else exemplar.periods / cell
    swatch = source_maps.Swatch(source_maps.patch_features(picture, cell), regions, periods)
    if layout is not None:
        layout = labels.resize(layout, cells.height, cells.width)
    tiles = (shape.tile_y, shape.tile_x)
    if start == "quilt":
        options, tones = _quilt_options(min(h, w), periods), None
        if content is not None:
            options = replace(GUIDED, guide_price=GUIDE_PRICE * plan.content_weight)
            tones = guide_of(content, picture, cell, tiles)
        source = yield from quilt(swatch, cells, layout, generator, options, tones)
        near = visible_cuts(source, swatch, options.contrast_floor, BORDER, tiles)[None, None]
        near = F.adaptive_max_pool2d(near, (shape.height, shape.width))[0, 0]
        drawn = source.flatten()[torch.randint(source.numel(), (PLACES,), generator=generator)]
        shown = cell * torch.stack([drawn // w, drawn % w], 1)
        return _Laid(source_maps.paint(source, picture, cell, tiles), near, shown)
    return _Laid(
        source_maps.paint(source_maps.random_source_map(swatch, cells, layout, generator), picture, cell, tiles)
    )


def _cell(picture: Tensor) -> int:
    """Pixels along the side of a quilt's cells: more in a large swatch (3, h, w), whose parts are large as a rule."""
    return CELL if min(picture.shape[1:]) <= LARGE else 2 * CELL


def _quilt_options(side: int, periods: Tensor | None) -> QuiltOptions:
    """Pieces a quarter of the swatch's side in cells, since what it shows grows with it, but neither tiny nor huge.

    Those of a regular swatch overlap by a whole period.
    """
    block = max(8, min(side // 3, max(32, side // 4), QuiltOptions.largest_piece * 2 // 3))
    overlap = max(2, block // 4)
    if periods is not None:
        overlap = max(overlap, min(block // 2, int(periods.norm(dim=1).min()) + 2))
    return QuiltOptions(block=block, overlap=overlap)


def _content(request: Request, family: Family, shape: Shape) -> Tensor | None:
    """The content as it is worked on: rolled, and its last row and column repeated where the canvas is larger."""
    if request.content is None:
        return None
    picture = request.content.roll(_half_a_latent(request, family), (1, 2))
    pad = (0, shape.width * family.factor - request.width, 0, shape.height * family.factor - request.height)
    return F.pad(picture[None], pad, "replicate")[0]


def _half_a_latent(request: Request, family: Family) -> tuple[int, int]:
    """How far a content is rolled meanwhile (down, right), so that its edge falls on no border between latents."""
    return request.tile_y * family.factor // 2, request.tile_x * family.factor // 2


def _plan(request: Request, family: Family, start: str, method: str, *, layout: bool) -> Plan:
    strength = request.strength or (family.strength if start == "quilt" else 1.0)
    own = PREVIEW_STEPS if method == "preview" else family.steps * (2 if start == "content" else 1)
    steps = request.steps or max(2, round(own * PRESETS[request.preset]))
    weight = request.content_weight
    if weight is None:
        weight = 0.25 if request.content is not None or (layout and start != "noise") else 0.0
    return Plan(
        steps, request.iterations or family.iterations, request.learning_rate or family.learning_rate, weight, strength
    )


def _painter(latents: Tensor, picture: Tensor, factor: int) -> Tensor:
    """The linear map (C + 1, 3) from latents to colours that fits the swatch best: a preview costs no decoder."""
    colours = F.avg_pool2d(picture[None], factor)[0].flatten(1).t()
    z = F.pad(latents.flatten(1).t(), (0, 1), value=1.0)
    solution: Tensor = torch.linalg.lstsq(z, colours).solution
    return solution


def _preview(paint: Tensor, canvas: Tensor, shape: Shape) -> Callable[[], Tensor]:
    """A picture of the canvas of at most 512 pixels a side, made when called."""

    def preview() -> Tensor:
        z = canvas[:, : shape.height, : shape.width]
        step = -(-max(z.shape[1:]) // 512)
        z = z[:, ::step, ::step]
        colours = F.pad(z.flatten(1).t(), (0, 1), value=1.0) @ paint
        small = colours.t().reshape(3, *z.shape[1:])
        grow = max(1, 512 // max(small.shape[1:]))
        return _quantise(F.interpolate(small[None], scale_factor=grow, mode="bilinear", align_corners=False)[0])

    return preview


def _quantise(picture: Tensor) -> Tensor:
    """(3, h, w) in [0, 1] to (h, w, 3) uint8."""
    return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)


def _figures(image: Tensor, request: Request, exemplar: _Exemplar) -> dict[str, float]:
    """Seams, patch distance, copies, repetition, with a layout the agreement, and the swatch's own: see `metrics`."""
    picture = image.permute(2, 0, 1).float() / 255
    out: dict[str, float] = {}
    edges = metrics.seam(picture)
    for axis, edge, tiles in (("y", edges.y, request.tile_y), ("x", edges.x, request.tile_x)):
        if tiles:
            out[f"seam_{axis}"] = edge.single.ratio
            out[f"seam_{axis}_rank"] = edge.single.rank
            out[f"seam_{axis}_band"] = edge.band.ratio
    out["patch_distance"] = metrics.patch_distance(picture, exemplar.picture)
    out["swatch_halves_distance"] = metrics.halves_distance(exemplar.picture)
    out["sharpness"] = metrics.sharpness(picture) / max(metrics.sharpness(exemplar.picture), 1e-9)
    out["copy_share"] = metrics.copy_share(picture, exemplar.picture)
    out["repetition"] = metrics.repetition(picture).peak
    out["swatch_repetition"] = metrics.repetition(exemplar.picture).peak
    if exemplar.regions is not None and exemplar.pixel_layout is not None:
        layout = exemplar.pixel_layout[: picture.shape[1], : picture.shape[2]]
        found = metrics.label_agreement(picture, layout, exemplar.picture, exemplar.regions)
        out |= {"label_agreement": found.agreement, "label_agreement_ceiling": found.ceiling}
    if request.content is not None:
        out["content_correlation"] = metrics.content_correlation(picture, request.content)
    return out
