"""Label maps: which pixels of the swatch and of the layout belong to which region.

A map is an image painted in the flat colors of the regions. A map to be painted over the swatch starts as the swatch in
gray; pixels that stay gray belong to the first region. Functions on arrays come first, then functions on scenes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from bpy.types import Image, Scene

from ..wire.colors import MAX_COLOR_DISTANCE
from ..wire.errors import LocalError
from . import image_io

PALETTE = (
    (230, 60, 50),
    (40, 120, 230),
    (60, 190, 70),
    (250, 200, 30),
    (160, 70, 200),
    (0, 200, 200),
    (250, 130, 20),
    (250, 120, 190),
    (140, 230, 60),
    (130, 70, 20),
    (90, 90, 250),
    (200, 0, 110),
)
ROUNDING_DISTANCE = 3.5
"""RGB distance by which rounding moves a color: two levels in each channel."""
GRAY_SWATCH = "distill_underlay"
"""Custom property of a map that started as the gray swatch."""
MAX_CLUSTER_SIDE = 1024
"""Largest side of the copy of the swatch that is clustered by color."""
MAX_LAYOUT_SIDE = 1024
"""Largest side of a new layout; the service scales it to the texture."""
TITLES = {"regions": "region map", "layout": "layout"}
"""Names of the maps in the panel and in errors."""

Color = tuple[int, int, int]


# ---------------------------------------------------------------------------------------------- arrays


def labels_in(pixels: np.ndarray, colors: Sequence[Color], reach: float = MAX_COLOR_DISTANCE) -> np.ndarray:
    """Label (height, width) of each pixel by the rule of `region_of_color`: the nearest color within `reach`, or -1."""
    packed = pixels[..., :3].astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    labels = np.full(packed.shape, -1, np.int16)
    for index, (red, green, blue) in enumerate(colors):
        labels[packed == red * 65536 + green * 256 + blue] = index
    unknown = labels < 0
    if unknown.any():
        labels[unknown] = nearest_labels(pixels[unknown], colors, reach)
    return labels


def nearest_labels(pixels: np.ndarray, colors: Sequence[Color], reach: float = np.inf) -> np.ndarray:
    """Labels (...) of pixels (..., 3 or 4): the index of the nearest color, the first of equals; -1 beyond `reach`."""
    best = np.full(pixels.shape[:-1], np.nextafter(np.float32(reach**2), np.float32(np.inf)), np.float32)
    labels = np.full(pixels.shape[:-1], -1, np.int16)
    for index, color in enumerate(colors):
        distance = ((pixels[..., :3].astype(np.float32) - np.array(color, np.float32)) ** 2).sum(-1)
        closer = distance < best
        labels[closer], best[closer] = index, distance[closer]
    return labels


def label_pixels(labels: np.ndarray, colors: Sequence[Color]) -> np.ndarray:
    """Pixels (height, width, 3) of a label map."""
    return np.array(colors, np.uint8)[labels]


def flat_colors(pixels: np.ndarray, most: int = len(PALETTE), smallest_share: float = 0.005) -> list[Color]:
    """At most `most` flat colors of a label map, the most frequent first, without those of blurred edges and noise.

    Args:
        smallest_share: fraction of the pixels that a color must have.
    """
    flat = pixels[..., :3].reshape(-1, 3)
    cells = flat.astype(np.int64) // 32 @ np.array([64, 8, 1])
    counts = np.bincount(cells, minlength=512)
    colors: list[Color] = []
    for cell in np.argsort(counts)[::-1]:
        if counts[cell] < smallest_share * len(flat) or len(colors) == most:
            break
        red, green, blue = (int(v) for v in np.median(flat[cells == cell], axis=0).round())
        if all(max(abs(red - r), abs(green - g), abs(blue - b)) > 48 for r, g, b in colors):
            colors.append((red, green, blue))
    return colors


def cluster_by_color(pixels: np.ndarray, count: int) -> np.ndarray:
    """Label (height, width) of each pixel by k-means of the colors of a small, blurred copy. Label 0 is the largest."""
    height, width = pixels.shape[:2]
    coarse = -(-max(height, width) // MAX_CLUSTER_SIDE)
    pixels = pixels[::coarse, ::coarse]
    step = max(1, min(pixels.shape[:2]) // 128)
    color = _blurred(pixels[..., :3].astype(np.float32), step)
    small = color[::step, ::step].reshape(-1, 3)
    order = np.argsort(small.sum(-1))
    centers = small[order[((np.arange(count) + 0.5) / count * len(order)).astype(int)]]
    for _ in range(25):
        nearest = ((small[:, None] - centers) ** 2).sum(-1).argmin(-1)
        centers = np.stack([small[nearest == k].mean(0) if (nearest == k).any() else centers[k] for k in range(count)])
    centers = centers[np.argsort(np.bincount(nearest, minlength=count))[::-1]]
    labels = nearest_labels(color, [tuple(c) for c in centers])
    return labels.repeat(coarse, 0).repeat(coarse, 1)[:height, :width]


def _blurred(picture: np.ndarray, radius: int) -> np.ndarray:
    """A box blur of (height, width, channels) with a radius in pixels."""
    for axis in (0, 1):
        padding = [(radius + 1, radius) if a == axis else (0, 0) for a in range(picture.ndim)]
        sums = np.pad(picture, padding, mode="edge").cumsum(axis, dtype=np.float64)
        length = picture.shape[axis]
        upper = np.take(sums, range(2 * radius + 1, 2 * radius + 1 + length), axis)
        picture = ((upper - np.take(sums, range(length), axis)) / (2 * radius + 1)).astype(np.float32)
    return picture


# ---------------------------------------------------------------------------------------------- scenes


def colors_of(scene: Scene) -> list[Color]:
    """The colors of the regions, 0 to 255."""
    return [color_bytes(region.color) for region in scene.distill.regions]


def color_bytes(color: Sequence[float]) -> Color:
    red, green, blue = (int(c * 255 + 0.5) for c in color[:3])
    return red, green, blue


def add_region(scene: Scene, name: str = "", color: Color | None = None) -> int:
    """Adds a region, with an unused color unless one is given; returns its index."""
    used = colors_of(scene)
    if color is None:
        color = next((c for c in PALETTE if c not in used), None) or _unused_color(used)
    region = scene.distill.regions.add()
    names = {r.name for r in scene.distill.regions}
    region.name = name or next(f"Region {n}" for n in range(1, len(names) + 2) if f"Region {n}" not in names)
    region.color = [c / 255 for c in color]
    scene.distill.region_index = len(scene.distill.regions) - 1
    return scene.distill.region_index


def _unused_color(used: Sequence[Color]) -> Color:
    """The color of a coarse RGB grid that is farthest from all used ones."""
    axis = np.linspace(0, 255, 6).astype(int)
    grid = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    distance = ((grid[:, None] - np.array(used)) ** 2).sum(-1).min(-1)
    red, green, blue = (int(c) for c in grid[distance.argmax()])
    return red, green, blue


def remember_colors(scene: Scene) -> None:
    """Stores the current colors, so that a region keeps its pixels when the artist changes its color."""
    for region, color in zip(scene.distill.regions, colors_of(scene), strict=True):
        if (word := bytes(color).hex()) not in region.painted.split():
            region.painted = f"{region.painted} {word}".lstrip()


def update_colors(scene: Scene, picture: str) -> Image:
    """Repaints the pixels of a map that have former colors of the regions in their current colors."""
    image = getattr(scene.distill, f"image_{picture}")
    pixels = image_io.pixels_of(image, TITLES[picture])
    if _update_colors(scene, pixels):
        image = image_io.replace_pixels(image, pixels[..., :3])
        setattr(scene.distill, f"image_{picture}", image)
    return image


def _update_colors(scene: Scene, pixels: np.ndarray) -> bool:
    """The same for pixels (height, width, 4), in place; returns whether any had a former color."""
    current = colors_of(scene)
    stored = [(bytes.fromhex(w), i) for i, r in enumerate(scene.distill.regions) for w in r.painted.split()]
    former = [(np.array(list(color), np.uint8), i) for color, i in stored if tuple(color) not in current]
    changed = False
    for color, index in former:
        here = (pixels[..., :3] == color).all(-1)
        if here.any():
            pixels[here, :3], changed = current[index], True
    return changed


def map_over_swatch(scene: Scene) -> Image:
    """A new region map: the swatch in gray, to be painted over. Pixels that stay gray belong to the first region."""
    swatch = scene.distill.image_swatch
    pixels = image_io.pixels_of(swatch, "swatch")
    gray = (pixels[..., :3] @ np.array([0.299, 0.587, 0.114]) * 0.7 + 40).astype(np.uint8)
    image = image_io.new_image(
        f"{swatch.name.rsplit('.', 1)[0]} regions", image_io.encode_png(np.stack([gray] * 3, -1))
    )
    image[GRAY_SWATCH] = True
    scene.distill.image_regions = image
    return image


def map_by_color(scene: Scene) -> Image:
    """A new region map: the pixels of the swatch, clustered by color."""
    swatch = scene.distill.image_swatch
    colors = colors_of(scene)
    labels = cluster_by_color(image_io.pixels_of(swatch, "swatch"), len(colors))
    image = image_io.new_image(
        f"{swatch.name.rsplit('.', 1)[0]} regions", image_io.encode_png(label_pixels(labels, colors))
    )
    scene.distill.image_regions = image
    return image


def new_layout(scene: Scene, width: int, height: int) -> Image:
    """A new layout with the aspect ratio of the output, filled with the first region."""
    scale = min(1.0, MAX_LAYOUT_SIDE / max(width, height))
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    pixels = label_pixels(np.zeros(shape, int), colors_of(scene)[:1])
    image = image_io.new_image("Layout", image_io.encode_png(pixels))
    scene.distill.image_layout = image
    return image


def fill(scene: Scene, picture: str, region: int, box: Sequence[float]) -> Image:
    """Fills a rectangle of the map `regions` or `layout` with a region. `box`: left, bottom, right, top in [0, 1]."""
    name = f"image_{picture}"
    pixels = image_io.pixels_of(getattr(scene.distill, name), TITLES[picture])
    height, width = pixels.shape[:2]
    left, bottom, right, top = box
    rows = slice(round((1 - top) * height), round((1 - bottom) * height))
    pixels[rows, round(left * width) : round(right * width), :3] = colors_of(scene)[region]
    pixels[..., 3] = 255
    image = image_io.replace_pixels(getattr(scene.distill, name), pixels[..., :3])
    setattr(scene.distill, name, image)
    return image


def assign(scene: Scene, picture: str, labels: np.ndarray) -> Image:
    """Replaces the map `regions` or `layout` by an array of region indices (height, width), top row first."""
    pixels = label_pixels(np.asarray(labels, int), colors_of(scene))
    old = getattr(scene.distill, f"image_{picture}")
    name = TITLES[picture].title()
    image = image_io.replace_pixels(old, pixels) if old else image_io.new_image(name, image_io.encode_png(pixels))
    if GRAY_SWATCH in image:
        del image[GRAY_SWATCH]
    setattr(scene.distill, f"image_{picture}", image)
    return image


def clean(scene: Scene, picture: str) -> Image:
    """Replaces every pixel of a map by the nearest region's color; gray of the swatch becomes the first region."""
    return assign(scene, picture, _labels(scene, picture, snap=True))


def regions_from_map(scene: Scene, picture: str) -> int:
    """Replaces the list of regions by the flat colors of a map that was painted elsewhere; returns how many."""
    found = flat_colors(image_io.pixels_of(getattr(scene.distill, f"image_{picture}"), TITLES[picture]))
    if len(found) < 2:
        raise LocalError(
            "invalid-labels",
            f"The {TITLES[picture]} has fewer than two flat colors; paint each region in one flat color",
        )
    names = dict(zip(colors_of(scene), (r.name for r in scene.distill.regions), strict=True))
    scene.distill.regions.clear()
    for color in found:
        add_region(scene, names.get(color, ""), color)
    scene.distill.region_index = 0
    return len(found)


def is_stretched(image: Image, width: int, height: int) -> bool:
    """Whether an image has another aspect ratio than a size, beyond rounding (2%)."""
    w, h = image.size
    return abs(w * height - h * width) > max(w * height, h * width) / 50


def label_sources(scene: Scene) -> dict[str, Callable[[], bytes]]:
    """The pictures `regions` and `layout` as label maps; raises LocalError if they do not fit together."""
    colors = colors_of(scene)
    if len(colors) < 2:
        raise LocalError("invalid-labels", f"A layout needs at least two regions, there are {len(colors)}; add one")
    if len(set(colors)) < len(colors):
        twice = next(i for i, c in enumerate(colors) if c in colors[:i])
        raise LocalError(
            "invalid-labels",
            f"The region “{_name(scene, twice)}” has the same color as another region; choose a different color",
        )
    labels = {picture: _labels(scene, picture) for picture in ("regions", "layout")}
    swatch, regions_map = scene.distill.image_swatch, scene.distill.image_regions
    if swatch is not None and is_stretched(regions_map, *swatch.size):
        sizes = [f"{image.size[0]} x {image.size[1]}" for image in (regions_map, swatch)]
        raise LocalError(
            "invalid-labels",
            f"The region map is {sizes[0]}, but the swatch is {sizes[1]}, another aspect ratio; create a new one",
        )
    missing = np.setdiff1d(labels["layout"], labels["regions"])
    if len(missing):
        raise LocalError(
            "invalid-labels",
            f"The region “{_name(scene, missing[0])}” is painted in the layout but has no pixel in the region map; "
            "paint it there as well",
        )
    return {
        picture: functools.cache(lambda m=m: image_io.encode_png(label_pixels(m, colors)))
        for picture, m in labels.items()
    }


def _labels(scene: Scene, picture: str, snap: bool = False) -> np.ndarray:
    """The labels (height, width) of a map; raises LocalError if pixels have no region's color and `snap` is False."""
    image = getattr(scene.distill, f"image_{picture}")
    pixels = image_io.pixels_of(image, TITLES[picture])
    _update_colors(scene, pixels)
    colors = colors_of(scene)
    over_swatch = image.get(GRAY_SWATCH)
    labels = labels_in(pixels, colors, ROUNDING_DISTANCE if over_swatch else MAX_COLOR_DISTANCE)
    if (labels >= 0).all():
        return labels
    if over_swatch:
        return _labels_over_swatch(pixels, labels, colors)
    if snap:
        return nearest_labels(pixels, colors)
    unknown = np.argwhere(labels < 0)
    y, x = unknown[len(unknown) // 2]
    red, green, blue = pixels[y, x, :3]
    share = len(unknown) / labels.size
    raise LocalError(
        "invalid-labels",
        f"{max(share, 0.0001):.2%} of the pixels of the {TITLES[picture]} “{image.name}” do not have the color of a "
        f"region, such as #{red:02x}{green:02x}{blue:02x}; press Clean Up to give them the nearest color",
        unclean=picture,
    )


def _labels_over_swatch(pixels: np.ndarray, labels: np.ndarray, colors: Sequence[Color]) -> np.ndarray:
    """Labels with gray pixels in the first region, and others, such as edges of soft strokes, in the nearest one."""
    rgb = pixels[..., :3].astype(np.int16)
    gray = rgb.max(-1) - rgb.min(-1) <= 24
    return np.where(labels < 0, np.where(gray, 0, nearest_labels(pixels, colors)), labels)


def _name(scene: Scene, index: int) -> str:
    return scene.distill.regions[int(index)].name
