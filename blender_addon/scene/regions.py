"""Label maps of a scene: which pixels of the swatch and of the layout belong to which region.

A map is an image painted in the flat colors of the regions. A map to be painted over the swatch starts as the swatch in
gray; pixels that stay gray belong to the first region.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import bpy
import numpy as np
from bpy.types import Image, Scene

from ..wire.colors import MAX_COLOR_DISTANCE, PALETTE
from ..wire.errors import LocalError
from ..wire.geometry import has_same_shape
from . import image_io, label_arrays, map_history
from .label_arrays import Color

ROUNDING_DISTANCE = 3.5
"""RGB distance by which rounding moves a color: two levels in each channel."""
GRAY_SWATCH = "distill_underlay"
"""Custom property of a map that started as the gray swatch."""
MAX_MAP_SIDE = 2048
"""Largest side of a new map over the swatch; the service scales it to the swatch."""
MAX_LAYOUT_SIDE = 1024
"""Largest side of a new layout; the service scales it to the texture."""
QUICK_PIXELS = 1024 * 1024
"""Pixels of a map that are read at once: in 0.03 s."""
TITLES = {"regions": "region map", "layout": "layout"}
"""Names of the maps in the panel and in errors."""


@dataclass(frozen=True)
class ReadMap:
    """A map as it is now.

    What a color means is found for each of its distinct colors, not for each pixel.

    Attributes:
        packed: colors with alpha (height, width).
        distinct: the distinct colors (n,), without alpha.
        found: the region of each of them, or -1 for a color of no region.
        nearest: the same, with the nearest region for a color of none.
        between: whether it is a color of no region between those of two, as in the edge of a soft stroke.
    """

    packed: np.ndarray
    distinct: np.ndarray
    found: np.ndarray
    nearest: np.ndarray
    between: np.ndarray

    def plane(self, values: np.ndarray) -> np.ndarray:
        """The values (height, width) of the pixels, of values (n,) of the distinct colors."""
        return label_arrays.look_up(self.packed & 0xFFFFFF, self.distinct, values)

    @property
    def labels(self) -> np.ndarray:
        """The region of each pixel (height, width), or -1."""
        return self.plane(self.found)

    @property
    def snapped(self) -> np.ndarray:
        """The region of each pixel (height, width), the nearest one for a color of none."""
        return self.plane(self.nearest)

    def share(self, which: np.ndarray) -> float:
        """The part of the pixels with one of some distinct colors (n,)."""
        return float(self.plane(which).mean()) if which.any() else 0.0


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


def remove_region(scene: Scene) -> None:
    """Removes the active region."""
    settings = scene.distill
    settings.regions.remove(settings.region_index)
    settings.region_index = max(0, min(settings.region_index, len(settings.regions) - 1))


def set_up(scene: Scene, width: int, height: int) -> None:
    """Adds what is missing to paint a layout: two regions, the region map by color, the layout of a texture's size."""
    settings = scene.distill
    while len(settings.regions) < 2:
        add_region(scene)
    if settings.image_regions is None and settings.image_swatch is not None:
        map_by_color(scene)
    if settings.image_layout is None:
        settings.region_index = 0
        new_layout(scene, width, height)
        settings.region_index = 1  # the layout is filled with the first


def is_default_name(name: str) -> bool:
    """Whether a region still has the name that `add_region` gave it."""
    return re.fullmatch(r"Region \d+", name) is not None


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


def read_map(scene: Scene, picture: str) -> ReadMap:
    """Reads a map; raises LocalError if it has no usable pixels."""
    return copy_map(scene, picture)()


def copy_map(scene: Scene, picture: str) -> Callable[[], ReadMap]:
    """Copies the pixels of a map, and returns a function that reads them on any thread.

    Raises LocalError if it has no usable pixels.
    """
    image = map_of(scene, picture)
    pixels_of = image_io.copy_pixels(image)
    colors, former, over_swatch = colors_of(scene), _former_colors(scene), bool(image.get(GRAY_SWATCH))

    def read() -> ReadMap:
        pixels = pixels_of()
        distinct = label_arrays.distinct_colors(label_arrays.pack(pixels))
        rgb = label_arrays.unpack(distinct)
        labels = label_arrays.nearest_labels(rgb, colors, ROUNDING_DISTANCE if over_swatch else MAX_COLOR_DISTANCE)
        for color, index in former.items():
            labels[distinct == color] = index
        unknown = labels < 0
        nearest = labels.copy()
        nearest[unknown] = label_arrays.nearest_labels(rgb[unknown], colors)
        if over_swatch:  # gray is the first region; other colors, such as edges of soft strokes, the nearest one
            gray = rgb.max(-1).astype(int) - rgb.min(-1) <= 24
            labels = nearest = np.where(unknown & gray, 0, nearest).astype(labels.dtype)
            unknown = np.zeros(len(rgb), bool)
        between = np.zeros(len(rgb), bool)
        between[unknown] = label_arrays.near_ramp(rgb[unknown], colors)
        return ReadMap(pixels.view("<u4")[..., 0], distinct, labels, nearest, between)

    return read


def map_of(scene: Scene, picture: str) -> Image:
    """The image of the map `regions` or `layout`; raises LocalError if it has no usable pixels."""
    return image_io.check_usable(getattr(scene.distill, f"image_{picture}"), TITLES[picture])


def _former_colors(scene: Scene) -> dict[int, int]:
    """The region of each packed color that a region had before and no region has now."""
    stored = [(tuple(bytes.fromhex(w)), i) for i, r in enumerate(scene.distill.regions) for w in r.painted.split()]
    current = colors_of(scene)
    return {r | g << 8 | b << 16: i for (r, g, b), i in stored if (r, g, b) not in current}


def update_colors(scene: Scene, picture: str) -> Image:
    """Repaints the pixels of a map that have former colors of the regions in their current colors."""
    image = map_of(scene, picture)
    former = _former_colors(scene)
    if not former:
        return image
    before = image_io.pixels_of(image, TITLES[picture]).view("<u4")[..., 0]
    after, current = before.copy(), label_arrays.opaque(colors_of(scene))
    for color, index in former.items():
        after[before & 0xFFFFFF == color] = current[index]
    return image if (after == before).all() else map_history.write(scene, picture, before, after)


def map_over_swatch(scene: Scene) -> Image:
    """A new region map: the swatch in gray, to be painted over. Pixels that stay gray belong to the first region."""
    swatch = image_io.check_usable(scene.distill.image_swatch, "swatch")
    pixels = image_io.pixels_of(swatch, "swatch", -(-max(swatch.size) // MAX_MAP_SIDE))
    gray = label_arrays.muted_gray(pixels)
    image = image_io.new_image(_map_name(swatch), image_io.encode_labels(gray, [(v, v, v) for v in range(256)], True))
    image[GRAY_SWATCH] = True
    scene.distill.image_regions = image
    return image


def _map_name(swatch: Image) -> str:
    return f"{swatch.name.rsplit('.', 1)[0]} regions"


def map_by_color(scene: Scene) -> Image:
    """A region map: the pixels of the swatch, clustered by color."""
    swatch = image_io.check_usable(scene.distill.image_swatch, "swatch")
    pixels = image_io.pixels_of(swatch, "swatch", -(-max(swatch.size) // label_arrays.DEFAULTS.cluster_side))
    return assign(scene, "regions", label_arrays.cluster_by_color(pixels, len(scene.distill.regions)))


def map_of_parts(scene: Scene, png: bytes) -> Image:
    """The region map from a picture with a flat color for each part: the largest part is the first region.

    Regions that are missing are added. Raises LocalError if the picture has more colors than there are parts.
    """
    picture = image_io.new_image("parts", png)
    packed = label_arrays.pack(image_io.pixels_of(picture, "picture of parts"))
    bpy.data.images.remove(picture)
    distinct, counts = np.unique(packed, return_counts=True)
    if len(distinct) > len(PALETTE):
        raise LocalError("invalid-labels", f"The picture of parts has {len(distinct)} colors; at most {len(PALETTE)}")
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), np.int16)
    rank[order] = np.arange(len(order))
    while len(scene.distill.regions) < len(order):
        add_region(scene)
    scene.distill.region_index = 0
    return assign(scene, "regions", label_arrays.look_up(packed, distinct, rank))


def new_layout(scene: Scene, width: int, height: int) -> Image:
    """A new layout with the aspect ratio of the output, filled with the first region."""
    labels = np.zeros(layout_shape(width, height), int)
    image = image_io.new_image("Layout", image_io.encode_labels(labels, colors_of(scene)[:1]))
    scene.distill.image_layout = image
    return image


def layout_shape(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of a new layout for a texture of that size."""
    scale = min(1.0, MAX_LAYOUT_SIDE / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


def fill(scene: Scene, picture: str, region: int, box: Sequence[float]) -> Image:
    """Fills a rectangle of the map `regions` or `layout` with a region. `box`: left, bottom, right, top in [0, 1]."""
    before = image_io.pixels_of(map_of(scene, picture), TITLES[picture]).view("<u4")[..., 0]
    height, width = before.shape
    left, bottom, right, top = box
    rows = slice(round((1 - top) * height), round((1 - bottom) * height))
    after = before.copy()
    after[rows, round(left * width) : round(right * width)] = label_arrays.opaque(colors_of(scene))[region]
    return map_history.write(scene, picture, before, after)


def flood(scene: Scene, picture: str, region: int, point: tuple[float, float], tiles: tuple[bool, bool]) -> Image:
    """Fills the connected area around a point (u, v) in [0, 1) with a region. `tiles`: over the borders of (y, x)."""
    found = read_map(scene, picture)
    labels = found.labels
    area = label_arrays.connected(labels, *_pixel_at(labels, point), tiles)
    after = np.where(area, label_arrays.opaque(colors_of(scene))[region], found.packed)
    return map_history.write(scene, picture, found.packed, after)


def region_at(scene: Scene, picture: str, point: tuple[float, float]) -> int:
    """The index of the region of the pixel at a point (u, v) in [0, 1), or -1 if its color belongs to none."""
    labels = read_map(scene, picture).labels
    return int(labels[_pixel_at(labels, point)])


def _pixel_at(labels: np.ndarray, point: tuple[float, float]) -> tuple[int, int]:
    height, width = labels.shape
    return min(height - 1, int((1 - point[1]) * height)), min(width - 1, int(point[0] * width))


def meet_edges(scene: Scene, tiles: tuple[bool, bool]) -> Image:
    """Makes opposite edges of the layout alike along the axes that tile (y, x)."""
    found = read_map(scene, "layout")
    labels = label_arrays.meet_edges(found.snapped, tiles)
    return map_history.write(scene, "layout", found.packed, label_arrays.opaque(colors_of(scene))[labels])


def assign(scene: Scene, picture: str, labels: np.ndarray) -> Image:
    """Replaces the map `regions` or `layout` by an array of region indices (height, width), top row first."""
    image = getattr(scene.distill, f"image_{picture}")
    labels, colors = np.asarray(labels), colors_of(scene)
    if image is not None and image.packed_file is not None and tuple(image.size) == labels.shape[::-1]:
        before = image_io.pixels_of(image, TITLES[picture]).view("<u4")[..., 0]
        return map_history.write(scene, picture, before, label_arrays.opaque(colors)[labels])
    swatch = scene.distill.image_swatch
    name = _map_name(swatch) if picture == "regions" and swatch is not None else TITLES[picture].title()
    image = image_io.new_image(name, image_io.encode_labels(labels, colors))
    setattr(scene.distill, f"image_{picture}", image)
    return image


def clean(scene: Scene, picture: str) -> Image:
    """Replaces every pixel of a map by the nearest region's color; gray of the swatch becomes the first region."""
    found = read_map(scene, picture)
    after = found.plane(label_arrays.opaque(colors_of(scene))[found.nearest])
    return map_history.write(scene, picture, found.packed, after)


def regions_from_map(scene: Scene, picture: str) -> int:
    """Replaces the list of regions by the flat colors of a map that was painted elsewhere; returns how many.

    Pixels of that map that have none of these colors, such as noise of a JPEG, get the nearest one.
    """
    found = label_arrays.flat_colors(image_io.pixels_of(map_of(scene, picture), TITLES[picture]))
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
    clean(scene, picture)
    return len(found)


def is_stretched(image: Image, width: int, height: int) -> bool:
    """Whether an image has another aspect ratio than a size, see `has_same_shape`."""
    return not has_same_shape((image.size[0], image.size[1]), (width, height))


def label_sources(scene: Scene) -> dict[str, Callable[[], bytes]]:
    """The pictures `regions` and `layout` as label maps; raises LocalError if they do not fit together.

    The pixels of a map beyond QUICK_PIXELS are checked by the first of the functions, on the thread that calls it.
    """
    colors = colors_of(scene)
    if len(colors) < 2:
        raise LocalError("invalid-labels", f"A layout needs at least two regions, there are {len(colors)}; add one")
    if len(set(colors)) < len(colors):
        twice = next(i for i, c in enumerate(colors) if c in colors[:i])
        raise LocalError(
            "invalid-labels",
            f"The region “{_name(scene, twice)}” has the same color as another region; choose a different color",
        )
    swatch, regions_map = scene.distill.image_swatch, map_of(scene, "regions")
    if swatch is not None and is_stretched(regions_map, *swatch.size):
        sizes = [f"{image.size[0]} x {image.size[1]}" for image in (regions_map, swatch)]
        raise LocalError(
            "invalid-labels",
            f"The region map is {sizes[0]}, but the swatch is {sizes[1]}, another aspect ratio; create a new one",
        )
    copied = {picture: copy_map(scene, picture) for picture in ("regions", "layout")}
    images = {picture: map_of(scene, picture) for picture in copied}
    titles = {picture: f"{TITLES[picture]} “{image.name}”" for picture, image in images.items()}
    names = [region.name for region in scene.distill.regions]

    @functools.cache
    def checked() -> dict[str, np.ndarray]:
        found = {picture: _labels(picture, copied[picture](), titles[picture]) for picture in copied}
        counts = {picture: np.bincount(labels.ravel(), minlength=len(colors)) for picture, labels in found.items()}
        missing = np.flatnonzero((counts["layout"] > 0) & (counts["regions"] == 0))
        if len(missing):
            raise LocalError(
                "invalid-labels",
                f"The region “{names[missing[0]]}” is painted in the layout but has no pixel in the region map; "
                "paint it there as well",
            )
        return found

    if max(image.size[0] * image.size[1] for image in images.values()) <= QUICK_PIXELS:
        checked()
    return {
        picture: functools.cache(lambda p=picture: image_io.encode_labels(checked()[p], colors)) for picture in copied
    }


def _labels(picture: str, found: ReadMap, title: str) -> np.ndarray:
    """The labels (height, width) of a map, with soft edges snapped; raises LocalError if other colors are left."""
    other = (found.found < 0) & ~found.between
    share = found.share(other)
    if share <= label_arrays.DEFAULTS.max_other_share:
        return found.snapped
    places = np.argwhere(found.plane(other))
    red, green, blue = label_arrays.unpack(found.packed[tuple(places[len(places) // 2])])
    raise LocalError(
        "invalid-labels",
        f"{max(share, 0.0001):.2%} of the pixels of the {title} do not have the color of a "
        f"region, such as #{red:02x}{green:02x}{blue:02x}; press Clean Up to give them the nearest color",
        unclean=picture,
    )


def _name(scene: Scene, index: int) -> str:
    return scene.distill.regions[int(index)].name
