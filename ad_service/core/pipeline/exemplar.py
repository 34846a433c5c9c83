"""The exemplar of a job: the swatch with its channels and regions after one transform, and the canvas it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core import labels
from ad_service.core.backbone.model import Family
from ad_service.core.canvas import Shape, round_up
from ad_service.core.pictures import lighting
from ad_service.core.pipeline.options import PipelineOptions
from ad_service.core.pipeline.request import LabelMaps, Request
from ad_service.core.pipeline.transform import Channel, Crop, Scale, Transform, Warp
from ad_service.core.quilting import periodicity
from ad_service.core.quilting.periodicity import PeriodicityOptions
from ad_service.core.sampling.samplers import Constraints, Recrop

HALVED = 8
"""Latents whose multiples every UNet can halve as often as it does."""

MAX_CROPS = 4
"""Crops of a swatch larger than the window whose keys and values are concatenated."""


@dataclass(frozen=True)
class Exemplar:
    """The swatch as a job uses it.

    Attributes:
        color: (3, h, w) in [0, 1], sides in multiples of the codec's factor.
        channels: the other channels by name, at the same size.
        transform: what was applied to the swatch, its channels and its regions.
        periods: (1 or 2, 2) of a regular swatch in pixels, fitted to the canvas; None if there are none.
        maps: the painted layout and the regions, at the sizes of the canvas and of `color`; None without a layout.
    """

    color: Tensor
    channels: Mapping[str, Channel]
    transform: Transform
    periods: Tensor | None = None
    maps: LabelMaps | None = None

    @property
    def regions(self) -> Tensor | None:
        return None if self.maps is None else self.maps.regions

    @property
    def layout(self) -> Tensor | None:
        return None if self.maps is None else self.maps.layout

    @property
    def label_count(self) -> int:
        """One more than the largest label; 0 without a layout."""
        return 0 if self.maps is None else int(max(self.maps.regions.max(), self.maps.layout.max())) + 1


def prepare(
    request: Request,
    family: Family,
    options: PipelineOptions,
    *,
    fit_periods: bool,
    maps: LabelMaps | None = None,
) -> Exemplar:
    """Scale the swatch, flatten its lighting, fit its periods to the canvas, and crop it to whole latents.

    `fit_periods` is for swatches that are quilted: a regular one is stretched a little so that whole periods close on
    the torus. Raises LabelError if the maps do not fit together or a label is lost by the crop.
    """
    smallest = family.factor * HALVED
    regions = None if maps is None else maps.regions
    if maps is not None:
        labels.check(maps.layout, maps.regions, maps.palette)
    scale = scale_of(request.swatch, request.scale, smallest)
    transform = Transform((scale,))
    regions = None if regions is None else transform.apply(regions, "labels")
    color = scaled_and_lit(request.swatch, scale, request.even_light, regions, options)
    warp, periods = _fit_periods(color, request, options.periodicity) if fit_periods else (None, None)
    if warp is not None:
        warped = warp.apply(color, "color")
        if min(warped.shape[1:]) >= smallest:
            transform, color = transform.then(warp), warped
            regions = None if regions is None else warp.apply(regions, "labels")
        else:
            periods = None
    h, w = (side - side % family.factor for side in color.shape[1:])
    crop = Crop(*((0, 0) if regions is None else _corner_with_most_labels(regions, h, w)), h, w)
    transform = transform.then(crop)
    channels = {name: replace(c, pixels=transform.apply(c.pixels, c.kind)) for name, c in request.channels.items()}
    exemplar = Exemplar(crop.apply(color, "color"), channels, transform, periods)
    if maps is None or regions is None:
        return exemplar
    regions = crop.apply(regions, "labels")
    since = f" once the swatch is fitted to {w}x{h} pixels, multiples of {family.factor}"
    labels.check(maps.layout, regions, maps.palette, since)
    layout = labels.resize(maps.layout, request.height, request.width)
    return replace(exemplar, maps=LabelMaps(layout, regions, maps.palette))


def scale_of(swatch: Tensor, scale: float, smallest: int) -> Scale:
    """To the scale of a swatch (3, h, w), with sides of at least `smallest` pixels."""
    h, w = (max(smallest, round(side * scale)) for side in swatch.shape[1:])
    return Scale(h, w)


def scaled_and_lit(
    swatch: Tensor, scale: Scale, even_light: float, regions: Tensor | None, options: PipelineOptions
) -> Tensor:
    """A swatch (3, h, w) after scaling and with its lighting flattened; `regions` are the scaled ones."""
    color = scale.apply(swatch, "color")
    return lighting.flatten_lighting(color, even_light, regions, options.lighting) if even_light else color


def _fit_periods(color: Tensor, request: Request, options: PeriodicityOptions) -> tuple[Warp | None, Tensor | None]:
    """The warp after which a regular swatch closes on the canvas, and its periods then; none for another swatch."""
    periods = periodicity.find_periods(color, options)
    if periods is None:
        return None, None
    fit = periodicity.fit_periods(periods, request.height, request.width, request.tiles, options)
    return (None, None) if fit is None else (Warp(fit[0]), fit[1])


def _corner_with_most_labels(regions: Tensor, h: int, w: int) -> tuple[int, int]:
    """The corner (top, left) of a crop h x w that keeps the most labels of the regions, the first of equals."""
    corners = [(y, x) for y in (0, regions.shape[0] - h) for x in (0, regions.shape[1] - w)]
    return max(corners, key=lambda c: len(labels.used(regions[c[0] : c[0] + h, c[1] : c[1] + w])))


# ---------------------------------------------------------------------------------------------- the canvas


def canvas_shape(request: Request, family: Family) -> Shape:
    """The result in latents, rounded up."""
    height, width = (-(-side // family.factor) for side in (request.height, request.width))
    return Shape(height, width, request.tile_y, request.tile_x)


def work_shape(shape: Shape) -> Shape:
    """The canvas for a result: along an axis with edges as many latents as every UNet can halve."""
    return replace(
        shape,
        height=shape.height if shape.tile_y else round_up(shape.height, HALVED),
        width=shape.width if shape.tile_x else round_up(shape.width, HALVED),
    )


def constraints_of(request: Request, family: Family, exemplar: Exemplar, latents: Tensor) -> Constraints:
    """Crops of the exemplar's latents (C, h, w), the canvas that the UNet can halve, and the labels of both."""
    shape = canvas_shape(request, family)
    work = work_shape(shape)
    if exemplar.maps is None:
        crops = _crops(latents, family.window, None)
        return Constraints(_stack(latents, crops), work, recrop=_recrop(latents, family, None))
    layout = labels.resize(exemplar.maps.layout, shape.height, shape.width)
    pad = (0, work.width - shape.width, 0, work.height - shape.height)
    layout = F.pad(layout[None, None].float(), pad, "replicate")[0, 0].long()
    small = labels.condense(exemplar.maps.regions, *latents.shape[1:])
    crops = _crops(latents, family.window, small)
    regions = _stack(small, crops)
    recrop = _recrop(latents, family, small)
    return Constraints(_stack(latents, crops), work, layout, regions, exemplar.label_count, recrop=recrop)


def _stack(picture: Tensor, crops: list[Crop]) -> Tensor:
    return torch.stack([crop.apply(picture, "data") for crop in crops])


def _recrop(latents: Tensor, family: Family, regions: Tensor | None) -> Recrop | None:
    """Draws other crops of a large swatch for each timestep; None if it is small, or read once for all timesteps."""
    if family.in_context or len(_crops(latents, family.window, None)) == 1:
        return None

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        crops = _crops(latents, family.window, regions, generator)
        return _stack(latents, crops), None if regions is None else _stack(regions, crops)

    return draw


def _crops(latents: Tensor, side: int, regions: Tensor | None, generator: torch.Generator | None = None) -> list[Crop]:
    """At most MAX_CROPS windows that show much of the swatch, and one more for each label that none of them shows.

    All of one size that the UNet can halve; a rim of the swatch narrower than an eighth of it may be left out.
    `regions` (h, w) has the labels of the latents. Without a generator the crops lie in the corners. With one, each is
    drawn from its part of the swatch, so that over some timesteps all of it is read.
    """
    h, w = latents.shape[1:]
    height, width = (min(n - n % HALVED, side) for n in (h, w))
    ys, xs = ([0] if n - length <= length // 8 else [0, n - length] for n, length in ((h, height), (w, width)))
    corners = [(y, x) for y in ys for x in xs][:MAX_CROPS]
    if generator is not None:
        half = (max(ys) / 2, max(xs) / 2)
        part = torch.rand(len(corners), 2, generator=generator).tolist()
        corners = [
            tuple(round(c / 2 + u * reach) for c, u, reach in zip(corner, us, half, strict=True))
            for corner, us in zip(corners, part, strict=True)
        ]
    crops = [Crop(y, x, height, width) for y, x in corners]
    for label in [] if regions is None else labels.used(regions):
        assert regions is not None
        if not any(bool((crop.apply(regions, "labels") == label).any()) for crop in crops):
            spots = (regions == label).nonzero()
            chosen = len(spots) // 2 if generator is None else int(torch.randint(len(spots), (), generator=generator))
            middle = spots[chosen].tolist()
            y, x = (min(max(c - s // 2, 0), n - s) for c, s, n in zip(middle, (height, width), (h, w), strict=True))
            crops.append(Crop(y, x, height, width))
    return crops
