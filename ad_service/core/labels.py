"""Label maps: which region each pixel belongs to, read from the colors of a picture and resized to token grids.

Real label maps have JPEG noise and soft edges; `snap` finds the few colors that were meant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Colors = npt.NDArray[np.int64]


RegionOf = Callable[[Sequence[int], Sequence[Sequence[int]]], "int | None"]
"""The index of the region of a palette that a color means, or None: the rule that the service and the add-on share."""


class LabelError(ValueError):
    """A label map that cannot be used: a color or a label that does not belong to any region of the swatch."""


@dataclass(frozen=True)
class LabelOptions:
    """Thresholds of `snap`, as Euclidean RGB distances (0 to 255 a channel) where nothing else is said.

    Set on painted maps of 1 to 8 colors: hard ones are read exactly, JPEG of quality 50 to 95 to 99.0 - 99.5 % of the
    pixels, blurred ones (radius 1 to 8) to 95 % or better.

    Attributes:
        max_labels: colors that a map has at most.
        min_thin_pixels: pixels that a color without a flat area must have, such as a line.
        noisy_reach: colors nearer than this are the same color in a noisy map.
        clean_reach: the same in a map that is clean except for soft edges.
        near: distance up to which a pixel counts as near to its color.
        min_near_share: share of pixels that must be near to their colors; a map with fewer is a photograph.
        min_noise_share: share of the pixels off the main colors that must be within `clean_reach` of them for a map to
            be noisy; in a map with soft edges most are farther away.
        main_share: share of the pixels that a main color has at least.
        flat_spread: value range in a 3 x 3 neighborhood at which a pixel weighs half as much as a flat one.
        min_mass: least weight of a color's pixels, as a share of all, and its bounds in pixels.
        min_flat_share: share of a color's weight that must lie in flat places.
        speck: largest number of equal labels in 5 x 5 pixels that is a speck of noise.
    """

    max_labels: int = 16
    min_thin_pixels: int = 16
    noisy_reach: float = 40.0
    clean_reach: float = 12.0
    near: float = 24.0
    min_near_share: float = 0.3
    min_noise_share: float = 0.25
    main_share: float = 0.0005
    flat_spread: float = 16.0
    min_mass: tuple[float, float, float] = (2e-4, 24.0, 256.0)
    min_flat_share: float = 0.3
    speck: int = 4


@dataclass(frozen=True)
class LabelMap:
    """Labels (h, w) int64 in [0, n), and the color of each label, palette (n, 3) uint8, in the order of its bytes."""

    labels: Tensor
    palette: Tensor


def hex_color(color: Sequence[int] | Tensor) -> str:
    """#rrggbb of three numbers in 0..255."""
    red, green, blue = (int(c) for c in color)
    return f"#{red:02x}{green:02x}{blue:02x}"


def snap(picture: Pixels, name: str = "label map", options: LabelOptions = LabelOptions()) -> LabelMap:
    """The few real colors of a label map, and the one of them that each pixel was meant to be.

    A color is real if it has at least one flat area: colors along the ramp between two others, and the noise around a
    color, belong to their nearest real one. Hard maps of at most `options.max_labels` colors are read exactly.

    Args:
        picture: (h, w, 3) uint8.
        name: what errors call the picture.
        options: thresholds.

    Raises:
        LabelError: the array is not an RGB picture, or a picture without areas of plain color.
    """
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise LabelError(f"the {name} must be an RGB picture (h, w, 3): got {picture.shape}")
    colors, index, counts = _unique(picture)
    noisy = len(colors) > options.max_labels and _is_noisy(colors, counts, options)
    reach = options.noisy_reach if noisy else options.clean_reach
    if len(colors) <= options.max_labels:
        chosen = _hard_colors(colors, index, counts, options)
    else:
        spread = _local_range(picture)
        chosen = _soft_colors(colors, index, spread, reach, options)
    distance = _distances(colors, colors[chosen])
    gap = distance.min(1)
    near = counts[gap <= options.near].sum() / counts.sum()
    if near < options.min_near_share:
        raise LabelError(
            f"only {near:.0%} of the pixels of the {name} are near a color that it has areas of, expected at least "
            f"{options.min_near_share:.0%}: it looks like a photograph; paint each region in one plain color"
        )
    labels = torch.from_numpy(distance.argmin(1)[index])
    if len(chosen) > 2 and len(colors) > len(chosen):
        labels = _assign_edges(labels, index, distance, reach, noisy)
    if noisy:
        labels = _drop_specks(labels, torch.from_numpy(spread > 0), options)
    return LabelMap(labels, torch.from_numpy(colors[chosen].astype(np.uint8)))


def match(picture: Pixels, palette: Tensor, region_of: RegionOf, options: LabelOptions = LabelOptions()) -> Tensor:
    """Labels (H, W) of a painted layout (H, W, 3) uint8, by the palette (n, 3) of the swatch's regions.

    The layout's own colors are found by `snap`; `region_of(color, palette)` is the index of the region that each of
    them means, or None.

    Raises:
        LabelError: a color of the layout is far from all regions' colors, or see `snap`.
    """
    painted = snap(picture, "layout", options)
    regions = palette.tolist()
    label_of = torch.zeros(len(painted.palette), dtype=torch.long)
    for i, color in enumerate(painted.palette.tolist()):
        region = region_of(color, regions)
        if region is None:
            share = float((painted.labels == i).float().mean())
            raise LabelError(
                f"the layout's color {hex_color(color)} ({share:.1%} of its pixels) is not one of the regions' colors; "
                f"paint it in one of them: {', '.join(hex_color(c) for c in regions)}"
            )
        label_of[i] = region
    return label_of[painted.labels]


def used(labels: Tensor) -> list[int]:
    """The labels that occur in a map, in ascending order."""
    return [int(i) for i in torch.bincount(labels.flatten()).nonzero()[:, 0]]


def check(layout: Tensor, regions: Tensor, palette: Tensor | None = None, since: str = "") -> None:
    """Raise LabelError for a label of the layout (H, W) that no pixel of the swatch's regions (h, w) has.

    With a palette (n, 3) the message has the labels' colors; `since` is appended to say when the label was lost.
    """

    def name(label: int) -> str:
        if palette is None or label >= len(palette):
            return f"label {label}"
        return f"label {label} ({hex_color(palette[label])})"

    present = used(regions)
    for label in used(layout):
        if label not in present:
            known = ", ".join(name(i) for i in present)
            raise LabelError(
                f"the layout uses {name(label)}, which no pixel of the swatch's regions has{since}: {known}"
            )


def resize(labels: Tensor, height: int, width: int) -> Tensor:
    """Labels (height, width): the majority of the pixels under each cell, the nearest pixel if the map grows.

    With equal shares the label of the cell's middle pixel is taken, then the lower one.
    """
    h, w = labels.shape
    rows = (torch.arange(height, device=labels.device) * 2 + 1) * h // (2 * height)
    columns = (torch.arange(width, device=labels.device) * 2 + 1) * w // (2 * width)
    middle = labels[rows][:, columns]
    if height >= h and width >= w:
        return middle
    best = torch.full(middle.shape, -1.0, device=labels.device)
    out = middle.clone()
    for label in used(labels):
        share = F.adaptive_avg_pool2d((labels == label).float()[None], (height, width))[0]
        share = share + 1e-5 * (middle == label)
        out = torch.where(share > best, label, out)
        best = torch.maximum(best, share)
    return out


def condense(labels: Tensor, height: int, width: int) -> Tensor:
    """Like `resize`, but a label too thin for the cells keeps one: the cell with most of it, or the nearest free one.

    A label is lost only if there are fewer cells than labels.
    """
    small = resize(labels, height, width)
    y = torch.arange(height, device=labels.device)[:, None]
    x = torch.arange(width, device=labels.device)[None, :]
    for label in used(labels):
        if bool((small == label).any()):
            continue
        share = F.adaptive_avg_pool2d((labels == label).float()[None], (height, width))[0]
        best = int(share.argmax())
        distance = (y - best // width).square() + (x - best % width).square()
        counts = torch.bincount(small.flatten(), minlength=label + 1)
        free = counts[small] > 1
        if not bool(free.any()):
            break
        spot = int(torch.where(free, share - 2 * distance, -torch.inf).argmax())
        small.view(-1)[spot] = label
    return small


def tokens(labels: Tensor, grid: tuple[int, int], count: int) -> Tensor:
    """The label (h*w,) of each token of an attention grid (h, w), by majority.

    Raises LabelError for a label outside of 0 .. count - 1.
    """
    if int(labels.max()) >= count or int(labels.min()) < 0:
        raise LabelError(f"labels run from {int(labels.min())} to {int(labels.max())}, expected 0 to {count - 1}")
    return resize(labels, *grid).flatten()


def membership(labels: Tensor, grid: tuple[int, int], count: int) -> Tensor:
    """Which tokens of the swatch are keys of which label: (count, h*w) bool.

    A token is a key of its majority label. A label too small for the grid shares the token that has most of it; a
    label without pixels has no key.
    """
    out = F.one_hot(tokens(labels, grid, count), count).bool().T.contiguous()
    for label in (~out.any(1)).nonzero()[:, 0].tolist():
        share = F.adaptive_avg_pool2d((labels == label).float()[None], grid)[0].flatten()
        if float(share.max()) > 0:
            out[label, share.argmax()] = True
    return out


# ---------------------------------------------------------------------------------------------- finding the colors


def _unique(picture: Pixels) -> tuple[Colors, Ints, Ints]:
    """The colors (n, 3) of a picture in the order of their bytes, their index (h, w) per pixel, and their counts."""
    packed = picture[..., 0].astype(np.int32) << 16
    packed |= picture[..., 1].astype(np.int32) << 8
    packed |= picture[..., 2]
    values, index, counts = np.unique(packed, return_inverse=True, return_counts=True)
    colors = np.stack([values >> 16, values >> 8 & 255, values & 255], 1).astype(np.int64)
    return colors, index.reshape(packed.shape), counts


def _hard_colors(colors: Colors, index: Ints, counts: Ints, options: LabelOptions) -> list[int]:
    """Of a few exact colors: those with an area of their own, and thin ones that are not between two others."""
    labels = torch.from_numpy(index)
    solid = used(labels[_inside_area(labels)])
    order = [int(i) for i in np.argsort(-counts, kind="stable")]
    chosen = [i for i in order if i in solid] or order[:1]
    for i in order:
        thin = i not in solid and i not in chosen and counts[i] >= options.min_thin_pixels
        if thin and not _on_ramp(colors[i], colors[chosen], options.clean_reach):
            chosen.append(i)
    return sorted(chosen)


def _inside_area(labels: Tensor) -> Tensor:
    """Where (h, w) all eight neighbors have the label of the pixel."""
    x = labels.float()[None]
    return (_greatest(x, 3) == -_greatest(-x, 3))[0]


def _greatest(x: Tensor, side: int) -> Tensor:
    """The largest value in the side x side neighborhood of each pixel (C, h, w), within the picture."""
    x = F.max_pool2d(x, (side, 1), 1, (side // 2, 0))
    return F.max_pool2d(x, (1, side), 1, (0, side // 2))


def _on_ramp(color: Colors, others: Colors, reach: float) -> bool:
    """Whether a color is nearer than `reach` to one of the others or to the line between two of them."""
    if _distances(color[None], others).min() < reach:
        return True
    for i in range(len(others)):
        for j in range(i):
            a, ray = others[i].astype(float), (others[j] - others[i]).astype(float)
            along = np.clip(((color - a) @ ray) / (ray @ ray), 0, 1)
            if np.linalg.norm(a + along * ray - color) < reach:
                return True
    return False


def _is_noisy(colors: Colors, counts: Ints, options: LabelOptions) -> bool:
    """Whether the pixels off the most frequent colors are off by little, as in a JPEG, and not on soft edges."""
    order = np.argsort(-counts, kind="stable")
    main: list[int] = []
    for i in order[:256]:
        if counts[i] < options.main_share * counts.sum() or len(main) == options.max_labels:
            break
        if not main or _distances(colors[[i]], colors[main]).min() > options.clean_reach:
            main.append(int(i))
    if not main:
        return True
    distance = _distances(colors, colors[main]).min(1)
    off = counts[distance > 0].sum()
    close = counts[(distance > 0) & (distance <= options.clean_reach)].sum()
    return bool(close > options.min_noise_share * off)


def _soft_colors(colors: Colors, index: Ints, spread: Floats, reach: float, options: LabelOptions) -> list[int]:
    """Peaks of the color histogram, where flat pixels weigh more and a peak outweighs its surroundings.

    Along a ramp the surroundings of a color hold more pixels than its own ball, so that a ramp has no peak except at
    its ends. A soft stroke has one at its ridge, which does not count unless it is flat somewhere.
    """
    mass = np.bincount(
        index.ravel(), weights=(1 / (1 + (spread / options.flat_spread) ** 2)).ravel(), minlength=len(colors)
    )
    quiet = 1 if np.median(spread) <= 1 else 10
    level = np.bincount(index[spread <= quiet], minlength=len(colors))
    peaks = _peaks(colors, mass, level, index.size, reach, options)
    chosen = [p for p, flat in peaks.items() if flat]
    for p, flat in peaks.items():
        if not flat and (not chosen or not _on_ramp(colors[p], colors[chosen], reach)):
            chosen.append(p)
    return sorted(chosen[: options.max_labels]) or [int(np.bincount(index.ravel()).argmax())]


def _peaks(
    colors: Colors, mass: npt.NDArray[Any], level: Ints, pixels: int, reach: float, options: LabelOptions
) -> dict[int, bool]:
    """Indices of the peaks of a color histogram, heaviest first, and whether each has flat pixels enough.

    `mass` (n,) is the weight of each color, `level` (n,) how many of its pixels are flat. Peaks are searched in coarse
    cells of the histogram; pixels within `reach` of a peak belong to it.
    """
    ball = 0.4 * reach
    share, lowest, highest = options.min_mass
    least = min(max(lowest, share * pixels), highest)
    cells = (colors // int(ball)) @ np.array([1 << 16, 1 << 8, 1])
    cells = np.unique(cells, return_inverse=True)[1].reshape(-1)
    alive = mass > 0
    peaks: dict[int, bool] = {}
    for _ in range(8 * options.max_labels):
        live = np.where(alive, mass, 0)
        weight = np.bincount(cells, weights=live)
        heaviest = int(weight.argmax())
        if weight[heaviest] < 0.25 * least or len(peaks) == 2 * options.max_labels:
            break
        seed = int(np.where(cells == heaviest, live, 0).argmax())
        distance = np.linalg.norm(colors - colors[seed], axis=1)
        inner, outer = distance <= ball, distance <= reach
        own, around = mass[inner].sum(), mass[outer & ~inner].sum()
        if own >= least and own > around:
            flat = level[inner].sum() >= max(lowest, options.min_flat_share * own)
            peaks[seed] = bool(flat or own > 10 * around + 100)
            alive &= ~outer
        else:
            alive &= ~inner
    return peaks


def _local_range(picture: Pixels) -> Floats:
    """Largest minus smallest value in the 3 x 3 neighborhood (h, w), the largest of the channels."""
    spread = torch.zeros(picture.shape[:2])
    for channel in range(3):
        x = torch.tensor(picture[..., channel]).float()[None]
        spread = torch.maximum(spread, (_greatest(x, 3) + _greatest(-x, 3))[0])
    out: Floats = spread.numpy()
    return out


def _distances(colors: Colors, palette: Colors) -> Floats:
    """Euclidean distances (n, m) of colors (n, 3) to those of a palette (m, 3)."""
    out: Floats = np.linalg.norm((colors[:, None] - palette[None]).astype(np.float32), axis=2)
    return out


def _assign_edges(labels: Tensor, index: Ints, distance: Floats, reach: float, noisy: bool) -> Tensor:
    """Keep the ramp between two labels from getting a third label.

    A pixel farther than `reach` from its color takes the nearest color that an area within four pixels of it has.
    `distance` (n, m) is that of each color to each label's, `index` (h, w) the color of each pixel.
    """
    gap = distance.min(1)
    doubtful = torch.from_numpy((gap > reach)[index])
    area = labels if noisy else torch.where(torch.from_numpy((gap == 0)[index]), labels, -1)
    area = torch.where(_inside_area(area), area, -1)
    cost = torch.from_numpy(distance[index[doubtful.numpy()]]).clone()  # (doubtful pixels, m)
    for label in range(cost.shape[1]):
        near = _greatest((area == label).float()[None], 9)[0] > 0
        cost[~near[doubtful], label] = torch.inf
    best, label_of = cost.min(1)
    labels[doubtful] = torch.where(best < torch.inf, label_of, labels[doubtful])
    return labels


def _drop_specks(labels: Tensor, uneven: Tensor, options: LabelOptions) -> Tensor:
    """Give uneven pixels that have at most `options.speck` equal labels in 5 x 5 the majority label there."""
    best, majority, own = torch.full(labels.shape, -1.0), labels.clone(), torch.zeros(labels.shape)
    for label in used(labels):
        hot = labels == label
        kin = F.avg_pool2d(hot.float()[None], (5, 1), 1, (2, 0), count_include_pad=False)
        kin = F.avg_pool2d(kin, (1, 5), 1, (0, 2), count_include_pad=False)[0]
        own[hot] = kin[hot]
        majority[kin > best] = label
        best = torch.maximum(best, kin)
    return torch.where((own < (options.speck + 0.5) / 25) & uneven, majority, labels)
