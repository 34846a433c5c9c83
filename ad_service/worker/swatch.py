"""The swatch as a job uses it: cropped, straightened, without transparent pixels, and fitted to the result. No torch.

A job, a plan and `prepare` all go through `prepare_swatch`, so that a plan says what the job will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ad_service.core.pictures.fit import Fit, FitOptions, fit, shown_part
from ad_service.core.pictures.grain import Grain, GrainOptions, measure_grain
from ad_service.worker.image_files import Decoded, Pixels, check_size
from ad_service.worker.maps import MaterialMap, resized
from ad_service.worker.straighten import straighten, undistort
from blender_addon import wire
from blender_addon.wire import WireError, geometry

Rectangle = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""
Mask = npt.NDArray[np.bool_]
MeasureGrain = Callable[[Pixels, GrainOptions], Grain]
"""What `measure_grain` is; a plan remembers what it returned."""


@dataclass(frozen=True)
class SwatchOptions:
    """Thresholds of `prepare_swatch`.

    Attributes:
        opaque_share: a rectangle without transparent pixels is used if it has this share of all opaque pixels;
            otherwise the transparent ones are filled. A leaf that was cut out has about half of its pixels in it.
        least_parts: of the swatch that a result should show; with fewer the artist is warned.
        same_color: levels of 0 to 255 within which the colors of a region map are the same region.
        region_share: share of a region map that a region must have to be kept when the part is chosen.
        most_enlarged: factor up to which a small swatch is enlarged for a model that needs large ones.
        fit: how the part and the scale are chosen.
    """

    opaque_share: float = 0.35
    least_parts: float = 6.0
    same_color: int = 40
    region_share: float = 0.002
    most_enlarged: float = 4.0
    fit: FitOptions = field(default_factory=FitOptions)


@dataclass(frozen=True)
class PreparedSwatch:
    """A swatch and its regions as the core gets them.

    Attributes:
        pixels: (h, w, 3); with the automatic scale they are scaled already.
        regions: the label map of `pixels`, of any size.
        used: the rectangle that is used, in pixels of the upright picture, or of the straightened one.
        picture: width and height of the picture that `used` lies in.
        scale: pixels of the result for one pixel of `used`.
        remaining_scale: the part of `scale` that `pixels` still need.
        parts: of the swatch that the result shows; None if they were not measured.
        pixels_per_meter: of the result; None if the real width is unknown.
        sentence: the above in words.
        notes: what the artist should know.
        is_fitted: whether a part was chosen or the scale changed.
        maps: the other maps of the material by name, as large as `pixels`.
    """

    pixels: Pixels
    regions: Pixels | None
    used: Rectangle
    picture: tuple[int, int]
    scale: float
    remaining_scale: float
    parts: float | None
    pixels_per_meter: float | None
    sentence: str
    notes: tuple[str, ...]
    is_fitted: bool
    maps: Mapping[str, MaterialMap] = field(default_factory=dict)


@dataclass(frozen=True)
class _View:
    """The part of a photograph that is used so far, and where it lies.

    `regions` covers it at any size; `maps` are as large as `pixels`.
    """

    pixels: Pixels
    regions: Pixels | None
    opaque: Mask | None
    used: Rectangle
    picture: tuple[int, int]
    is_straight: bool = False
    maps: Mapping[str, MaterialMap] = field(default_factory=dict)

    def cropped(self, rectangle: Rectangle) -> _View:
        left, top, width, height = rectangle
        rows, columns = slice(top, top + height), slice(left, left + width)
        regions = self.regions
        if regions is not None:
            y, x = (n / m for n, m in zip(regions.shape[:2], self.pixels.shape[:2], strict=True))
            last_y, last_x = max(round(top * y) + 1, round((top + height) * y)), round((left + width) * x)
            regions = regions[round(top * y) : last_y, round(left * x) : max(round(left * x) + 1, last_x)]
        return _View(
            self.pixels[rows, columns],
            regions,
            None if self.opaque is None else self.opaque[rows, columns],
            (self.used[0] + left, self.used[1] + top, width, height),
            self.picture,
            self.is_straight,
            {name: replace(map, pixels=map.pixels[rows, columns]) for name, map in self.maps.items()},
        )


def prepare_swatch(
    decoded: Decoded,
    parameters: Mapping[str, Any],
    size: tuple[int, int],
    regions: Pixels | None = None,
    options: SwatchOptions = SwatchOptions(),
    *,
    maps: Mapping[str, MaterialMap] | None = None,
    enlarged_to: int = 0,
    measure: MeasureGrain = measure_grain,
) -> PreparedSwatch:
    """The swatch for a result of size (width, height), by the parameters crop, corners, lens, real_width and scale.

    Its regions and its maps, which are as large as the swatch, go the same way.
    With the automatic scale a smaller swatch is enlarged until its shorter side has `enlarged_to` pixels, as far as the
    result still shows as many parts as it should.

    Raises: WireError `invalid-parameter`, `invalid-image` or `invalid-labels`.
    """
    check_size("swatch", decoded.pixels, wire.MIN_PICTURE_SIDE)
    if regions is not None:
        _check_shape(regions, decoded.pixels)
    view = _geometry(decoded, regions, parameters, maps or {})
    check_size("the used part of the swatch", view.pixels, wire.MIN_PICTURE_SIDE)
    meters_across, real_width = view.pixels.shape[1], parameters["real_width"]
    view, notes = _without_transparency(view, options)
    width, height = size
    scale = parameters["scale"]
    if scale:
        fitted, enlarged = None, 1.0
    else:
        labels = None if view.regions is None else _rough_labels(view.regions, options)
        fitted = fit(view.pixels, height, width, labels, options.fit, measure)
        view = _fitted(view, fitted)
        enlarged = _enlargement(view, fitted, enlarged_to, options)
        scale = fitted.scale * enlarged
    density = scale * meters_across / real_width if real_width else None
    return PreparedSwatch(
        view.pixels,
        view.regions,
        view.used,
        view.picture,
        scale,
        enlarged if fitted else scale,
        fitted.parts / enlarged**2 if fitted else None,
        density,
        _sentence(view, scale, width, density),
        notes,
        fitted is not None and (scale != 1.0 or view.used[2:] != view.picture),
        view.maps,
    )


def count_parts(
    swatch: PreparedSwatch,
    size: tuple[int, int],
    options: SwatchOptions = SwatchOptions(),
    measure: MeasureGrain = measure_grain,
) -> float:
    """How many parts of the swatch a result of size (width, height) shows, measured if that was not done yet."""
    if swatch.parts is not None:
        return swatch.parts
    width, height = size
    part = shown_part(measure(swatch.pixels, options.fit.grain), height, width, options.fit)
    return width * height / (part * swatch.remaining_scale) ** 2


# ---------------------------------------------------------------------------------------------- geometry


def _check_shape(regions: Pixels, pixels: Pixels) -> None:
    """Raises WireError `invalid-labels` for a region map of another shape than the swatch."""
    (h, w), (height, width) = pixels.shape[:2], regions.shape[:2]
    if not geometry.has_same_shape((width, height), (w, h)):
        raise WireError(
            "invalid-labels",
            f"regions is {width}x{height} pixels, which is not the shape of the swatch ({w}x{h})",
            picture="regions",
        )


def _resized_labels(regions: Pixels, height: int, width: int) -> Pixels:
    """A label map at another size, in its own colors."""
    return np.asarray(Image.fromarray(regions).resize((width, height), Image.Resampling.NEAREST))


def _geometry(
    decoded: Decoded, regions: Pixels | None, parameters: Mapping[str, Any], maps: Mapping[str, MaterialMap]
) -> _View:
    """The photograph after crop, corners and lens; its regions, its maps and its opaque pixels go the same way."""
    height, width = decoded.pixels.shape[:2]
    crop = geometry.parse_crop(parameters["crop"]) if parameters["crop"] else None
    corners = geometry.parse_corners(parameters["corners"]) if parameters["corners"] else None
    lens = parameters["lens"]
    _check_inside(crop, corners, width, height)
    whole = _View(decoded.pixels, regions, decoded.opaque, (0, 0, width, height), (width, height), maps=maps)
    if corners is None and not lens:
        return whole if crop is None else whole.cropped(crop)
    if regions is not None:
        regions = _resized_labels(regions, height, width)
    mask = None if decoded.opaque is None else np.repeat(decoded.opaque[..., None], 3, 2).astype(np.uint8)

    def straightened(pixels: Any, role: wire.Role) -> Any:
        if pixels is None:
            return None
        if corners is not None:
            return straighten(pixels, corners, lens, role)
        return undistort(pixels, crop, lens, role)

    try:
        straight = straightened(decoded.pixels, "color")
        straight_regions, straight_mask = straightened(regions, "labels"), straightened(mask, "labels")
        straight_maps = {
            name: replace(map, pixels=straightened(map.pixels, map.type.role)) for name, map in maps.items()
        }
    except ValueError as error:  # the corners, without the distortion of the lens, are no quadrilateral
        raise WireError("invalid-parameter", str(error), parameter="corners") from None
    h, w = straight.shape[:2]
    opaque = None if straight_mask is None else straight_mask[..., 0] > 0
    return _View(straight, straight_regions, opaque, (0, 0, w, h), (w, h), True, straight_maps)


def _check_inside(crop: Rectangle | None, corners: geometry.Quad | None, width: int, height: int) -> None:
    if crop is not None and (crop[0] + crop[2] > width or crop[1] + crop[3] > height):
        raise WireError(
            "invalid-parameter",
            f"crop is {geometry.format_crop(*crop)}, which reaches to {crop[0] + crop[2]} x {crop[1] + crop[3]}; "
            f"it must lie inside the swatch of {width} x {height} pixels",
            parameter="crop",
        )
    for x, y in corners or ():
        if x > width or y > height:
            raise WireError(
                "invalid-parameter",
                f"a corner is at {x:g},{y:g}; it must lie inside the swatch of {width} x {height} pixels",
                parameter="corners",
            )


def _fitted(view: _View, fitted: Fit) -> _View:
    """The part of a view that fits, scaled."""
    part = view.cropped((fitted.left, fitted.top, fitted.width, fitted.height))
    if fitted.scale == 1.0:
        return part
    shortest = wire.MIN_PICTURE_SIDE
    width, height = (max(shortest, round(side * fitted.scale)) for side in (fitted.width, fitted.height))
    size = width, height
    pixels = np.asarray(Image.fromarray(part.pixels).resize(size, Image.Resampling.BICUBIC))
    maps = {name: replace(map, pixels=resized(map.pixels, size, map.type.role)) for name, map in part.maps.items()}
    return _View(pixels, part.regions, None, part.used, part.picture, part.is_straight, maps)


def _enlargement(view: _View, fitted: Fit, side: int, options: SwatchOptions) -> float:
    """The factor that enlarges a view to this shorter side while the result shows the wanted number of parts."""
    if fitted.scale < 1.0:
        return 1.0
    wanted = side / min(view.pixels.shape[:2])
    return float(max(1.0, min(wanted, math.sqrt(fitted.parts / options.fit.parts), options.most_enlarged)))


def _rough_labels(regions: Pixels, options: SwatchOptions) -> npt.NDArray[np.int64]:
    """Labels of a region map at a reduced size, good enough to choose a part that has all regions.

    The core finds the exact ones (`labels.snap`) once the part is known.
    """
    step = -(-max(regions.shape[:2]) // 512)
    small = regions[::step, ::step].astype(np.int64)
    colors, count = np.unique(small.reshape(-1, 3) // 8, axis=0, return_counts=True)
    chosen: list[Any] = []
    for color in colors[np.argsort(-count)][: max(1, int((count >= options.region_share * count.sum()).sum()))] * 8 + 4:
        if all(np.abs(color - other).max() > options.same_color for other in chosen):
            chosen.append(color)
    labels: npt.NDArray[np.int64] = np.stack([np.abs(small - color).sum(2) for color in chosen]).argmin(0)
    return labels


# ---------------------------------------------------------------------------------------------- transparency


def _without_transparency(view: _View, options: SwatchOptions) -> tuple[_View, tuple[str, ...]]:
    """The opaque rectangle of a view, or the view with its transparent pixels filled from it, and a note on it."""
    if view.opaque is None or view.opaque.all():
        return view, ()
    clear = 1.0 - float(view.opaque.mean())
    left, top, width, height = rectangle = _largest_opaque(view.opaque)
    if min(width, height) < wire.MIN_PICTURE_SIDE:
        raise WireError(
            "invalid-image",
            f"{clear:.0%} of the swatch is transparent, and the largest opaque rectangle has {width} x {height} "
            f"pixels; it must have at least {wire.MIN_PICTURE_SIDE} x {wire.MIN_PICTURE_SIDE}",
            picture="swatch",
        )
    if width * height >= options.opaque_share * int(view.opaque.sum()):
        note = f"{clear:.0%} of the swatch is transparent; the opaque {width} x {height} at {left}, {top} are used"
        return view.cropped(rectangle), (note,)
    rows, columns = (
        start + _mirrored(np.arange(n) - start, side)
        for start, side, n in zip((top, left), (height, width), view.opaque.shape, strict=True)
    )
    source = np.ix_(rows, columns)
    pixels = np.where(view.opaque[..., None], view.pixels, view.pixels[source])
    regions = view.regions
    if regions is not None:
        regions = _resized_labels(regions, *view.opaque.shape)
        regions = np.where(view.opaque[..., None], regions, regions[source])
    maps = {
        name: replace(map, pixels=np.where(view.opaque[..., None], map.pixels, map.pixels[source]))
        for name, map in view.maps.items()
    }
    note = f"{clear:.0%} of the swatch is transparent and was filled with its opaque part"
    return _View(pixels, regions, None, view.used, view.picture, view.is_straight, maps), (note,)


def _mirrored(places: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Places on an axis as places in 0..length - 1 of a strip that is repeated, every other copy mirrored."""
    phase = places % (2 * length)
    return np.where(phase < length, phase, 2 * length - 1 - phase)


def _largest_opaque(opaque: Mask, cells: int = 160) -> Rectangle:
    """The largest rectangle of opaque pixels, to a cell of the mask."""
    step = -(-max(opaque.shape) // cells)
    h, w = (side // step for side in opaque.shape)
    full = np.asarray(opaque[: h * step, : w * step].reshape(h, step, w, step).all((1, 3)))
    best, found = 0, (0, 0, 0, 0)
    heights: npt.NDArray[np.int64] = np.zeros(w, np.int64)
    for y in range(h):
        heights = np.where(full[y], heights + 1, 0)
        for x in np.nonzero(heights)[0]:  # the widest rectangle as high as this column
            lower, high = np.flatnonzero(heights < heights[x]), int(heights[x])
            left = int(lower[lower < x].max(initial=-1)) + 1
            right = int(lower[lower > x].min(initial=w))
            if high * (right - left) > best:
                best, found = high * (right - left), (left, y + 1 - high, right - left, high)
    left, top, width, height = (side * step for side in found)
    return left, top, width, height


# ---------------------------------------------------------------------------------------------- words


def _sentence(view: _View, scale: float, width: int, density: float | None) -> str:
    """What a result of this width shows of the photograph, for the artist."""
    used, whole = f"{view.used[2]} x {view.used[3]}", f"{view.picture[0]} x {view.picture[1]}"
    straight = "straightened " if view.is_straight else ""
    part = f"all of {straight}{whole}" if used == whole else f"{used} of {straight}{whole}"
    text = f"ses {part}, {_scale_in_words(scale)}"
    if density is None:
        return f"U{text}"
    return f"Shows {_meters(width / density)} at {density:.0f} px/m; u{text}"


def _meters(meters: float) -> str:
    return (
        f"{meters:.1f} m" if meters >= 1 else f"{100 * meters:.0f} cm" if meters >= 0.1 else f"{1000 * meters:.0f} mm"
    )


def _scale_in_words(scale: float) -> str:
    for value, words in ((1.0, "unscaled"), (0.5, "halved"), (1 / 3, "at a third"), (0.25, "at a quarter")):
        if abs(scale / value - 1) < 0.02:
            return words
    return f"enlarged to {scale:.0%}" if scale > 1 else f"at {scale:.0%}" if scale >= 0.1 else f"at {scale:.1%}"
