"""Label maps: which part of a picture each pixel belongs to, read from a picture's colours and carried to token grids.

A map from the world is JPEG-noisy and soft at its edges; `snap` finds the few colours that were meant. Pure functions
of tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_LABELS = 16
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Colours = npt.NDArray[np.int64]

NOISY_REACH = 40.0  # colours nearer than this are one where a map is noisy
CLEAN_REACH = 12.0  # and where it is clean but for soft edges
NEAR, LEAST_NEAR = 24.0, 0.3  # a map with fewer pixels than this so near to its colours is a photograph
FAR = 64.0  # a layout colour farther than this from every region colour is none of them


class LabelError(ValueError):
    """A label map that cannot be used: a colour or a label that nothing of the swatch belongs to."""


@dataclass(frozen=True)
class LabelMap:
    """Labels (h, w) int64 in [0, n), and the colour of each label, palette (n, 3) uint8, ordered by its bytes."""

    labels: Tensor
    palette: Tensor


def hex_colour(colour: Any) -> str:
    """#rrggbb of three numbers in 0..255."""
    red, green, blue = (int(c) for c in colour)
    return f"#{red:02x}{green:02x}{blue:02x}"


def snap(picture: Pixels, name: str = "label map") -> LabelMap:
    """The few real colours of a label map (h, w, 3), and which of them each pixel was meant to be.

    A colour is real if it has an area of its own: colours along the ramp between two others, and the noise around a
    colour, belong to their nearest real one. Hard maps of at most 16 colours come back exactly.
    Raises LabelError for a picture that has no such colours; `name` is what the message calls it.
    """
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise LabelError(f"the {name} should be an RGB picture (h, w, 3): got {picture.shape}")
    colours, index, counts = _unique(picture)
    noisy = len(colours) > MAX_LABELS and _is_noisy(colours, counts)
    if len(colours) <= MAX_LABELS:
        chosen = _hard_colours(colours, index, counts)
    else:
        spread = _local_range(picture)
        chosen = _soft_colours(colours, index, spread, noisy)
    distance = _distances(colours, colours[chosen])
    gap = distance.min(1)
    near = counts[gap <= NEAR].sum() / counts.sum()
    if near < LEAST_NEAR:
        raise LabelError(
            f"only {near:.0%} of the pixels of the {name} are near a colour that it has areas of, expected at least "
            f"{LEAST_NEAR:.0%}: it looks like a photograph; paint each region in one plain colour"
        )
    labels = torch.from_numpy(distance.argmin(1)[index])
    if len(chosen) > 2 and len(colours) > len(chosen):
        labels = _mend_edges(labels, index, distance, noisy)
    if noisy:
        labels = _drop_specks(labels, torch.from_numpy(spread > 0))
    return LabelMap(labels, torch.from_numpy(colours[chosen].astype(np.uint8)))


def match(picture: Pixels, palette: Tensor) -> Tensor:
    """Labels (H, W) of a painted layout, by the palette (n, 3) of the swatch's regions.

    Raises LabelError for a colour of the layout that is far from all of them.
    """
    painted = snap(picture, "layout")
    gap = torch.cdist(painted.palette.float(), palette.float())
    distance, nearest = gap.min(1)
    for i in (distance > FAR).nonzero()[:, 0].tolist():
        share = float((painted.labels == i).float().mean())
        known = ", ".join(hex_colour(c) for c in palette)
        raise LabelError(
            f"the layout's colour {hex_colour(painted.palette[i])} ({share:.1%} of its pixels) is none of the "
            f"regions' colours: {known}"
        )
    return nearest[painted.labels]


def used(labels: Tensor) -> list[int]:
    """The labels that a map has, in order."""
    return [int(i) for i in torch.bincount(labels.flatten()).nonzero()[:, 0]]


def check(layout: Tensor, regions: Tensor, palette: Tensor | None = None, since: str = "") -> None:
    """Raise LabelError for a label of the layout (H, W) that no pixel of the swatch's regions (h, w) has.

    The message names labels by their colours if it is given the palette (n, 3), and says since when they are lost.
    """

    def name(label: int) -> str:
        if palette is None or label >= len(palette):
            return f"label {label}"
        return f"label {label} ({hex_colour(palette[label])})"

    present = used(regions)
    for label in used(layout):
        if label not in present:
            known = ", ".join(name(i) for i in present)
            raise LabelError(
                f"the layout uses {name(label)}, which no pixel of the swatch's regions has{since}: {known}"
            )


def shares(labels: Tensor, grid: tuple[int, int], count: int) -> Tensor:
    """How much of each cell of a grid (h, w) each label covers: (count, h, w), sums to 1 over the labels."""
    return torch.stack([F.adaptive_avg_pool2d((labels == i).float()[None], grid)[0] for i in range(count)])


def resize(labels: Tensor, height: int, width: int) -> Tensor:
    """Labels (height, width): the majority of the pixels under each cell, the nearest pixel where the map grows.

    Of equal shares the label of the cell's middle pixel wins, then the lower one.
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
    """Like `resize`, but a label too thin for the cells keeps one: the one that shows most of it, or the next free one.

    A label is lost only where there are fewer cells than labels.
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
    """The label (h*w,) of each token of an attention grid (h, w), by majority; `count` is how many labels there are."""
    if int(labels.max()) >= count or int(labels.min()) < 0:
        raise LabelError(f"labels run from {int(labels.min())} to {int(labels.max())}, expected 0 to {count - 1}")
    return resize(labels, *grid).flatten()


def membership(labels: Tensor, grid: tuple[int, int], count: int) -> Tensor:
    """Which tokens (count, h*w) of the swatch are keys of which label.

    A token is a key of its majority label. A label too small for the grid shares the token that has most of it; a
    label with no pixel has no key.
    """
    out = F.one_hot(tokens(labels, grid, count), count).bool().T.contiguous()
    for label in (~out.any(1)).nonzero()[:, 0].tolist():
        share = F.adaptive_avg_pool2d((labels == label).float()[None], grid)[0].flatten()
        if float(share.max()) > 0:
            out[label, share.argmax()] = True
    return out


# Finding the real colours -------------------------------------------------------------------------------------------


def _unique(picture: Pixels) -> tuple[Colours, Ints, Ints]:
    """The colours (n, 3) of a picture in the order of their bytes, which of them each pixel has, and their counts."""
    packed = picture[..., 0].astype(np.int32) << 16
    packed |= picture[..., 1].astype(np.int32) << 8
    packed |= picture[..., 2]
    values, index, counts = np.unique(packed, return_inverse=True, return_counts=True)
    colours = np.stack([values >> 16, values >> 8 & 255, values & 255], 1).astype(np.int64)
    return colours, index.reshape(packed.shape), counts


def _hard_colours(colours: Colours, index: Ints, counts: Ints) -> list[int]:
    """Of at most 16 exact colours: those with an area of their own, and thin ones that lie on no ramp."""
    labels = torch.from_numpy(index)
    solid = used(labels[_inside_area(labels)])
    order = [int(i) for i in np.argsort(-counts, kind="stable")]
    chosen = [i for i in order if i in solid] or order[:1]
    for i in order:
        thin = i not in solid and i not in chosen and counts[i] >= MAX_LABELS
        if thin and not _on_ramp(colours[i], colours[chosen]):
            chosen.append(i)
    return sorted(chosen)


def _inside_area(labels: Tensor) -> Tensor:
    """Where (h, w) all eight neighbours have a pixel's label."""
    x = labels.float()[None]
    return (_greatest(x, 3) == -_greatest(-x, 3))[0]


def _greatest(x: Tensor, side: int) -> Tensor:
    """The greatest value in the side x side neighbourhood of each pixel (C, h, w), within the picture."""
    x = F.max_pool2d(x, (side, 1), 1, (side // 2, 0))
    return F.max_pool2d(x, (1, side), 1, (0, side // 2))


def _on_ramp(colour: Colours, others: Colours, reach: float = CLEAN_REACH) -> bool:
    """Whether a colour is one of the others or lies on the line between two of them."""
    if _distances(colour[None], others).min() < reach:
        return True
    for i in range(len(others)):
        for j in range(i):
            a, ray = others[i].astype(float), (others[j] - others[i]).astype(float)
            along = np.clip(((colour - a) @ ray) / (ray @ ray), 0, 1)
            if np.linalg.norm(a + along * ray - colour) < reach:
                return True
    return False


def _is_noisy(colours: Colours, counts: Ints) -> bool:
    """Whether the pixels that miss the commonest colours miss them by little, as JPEG's do, or lie on soft edges."""
    order = np.argsort(-counts, kind="stable")
    main: list[int] = []
    for i in order[:256]:
        if counts[i] < 0.0005 * counts.sum() or len(main) == MAX_LABELS:
            break
        if not main or _distances(colours[[i]], colours[main]).min() > CLEAN_REACH:
            main.append(int(i))
    if not main:
        return True
    distance = _distances(colours, colours[main]).min(1)
    missed = counts[distance > 0].sum()
    return bool(counts[(distance > 0) & (distance <= CLEAN_REACH)].sum() > 0.25 * missed)


def _soft_colours(colours: Colours, index: Ints, spread: Floats, noisy: bool) -> list[int]:
    """Peaks of the colour histogram, where flat pixels weigh more and a peak outweighs its surroundings.

    Along a ramp the surroundings of a colour hold more pixels than its own ball, so that a ramp has no peak but at its
    ends. A soft stroke has one at its ridge, which does not count unless it is flat somewhere.
    """
    reach = NOISY_REACH if noisy else CLEAN_REACH
    ball = 0.4 * reach
    mass = np.bincount(index.ravel(), weights=(1 / (1 + (spread / 16) ** 2)).ravel(), minlength=len(colours))
    quiet = 1 if np.median(spread) <= 1 else 10
    level = np.bincount(index[spread <= quiet], minlength=len(colours))
    least = min(max(24.0, 2e-4 * index.size), 256.0)
    # peaks are looked for in coarse cells of the histogram, heaviest first
    cells = (colours // int(ball)) @ np.array([1 << 16, 1 << 8, 1])
    cells = np.unique(cells, return_inverse=True)[1].reshape(-1)
    alive = mass > 0
    peaks: list[int] = []
    flat: list[bool] = []
    for _ in range(8 * MAX_LABELS):
        live = np.where(alive, mass, 0)
        weight = np.bincount(cells, weights=live)
        heaviest = int(weight.argmax())
        if weight[heaviest] < 0.25 * least or len(peaks) == 2 * MAX_LABELS:
            break
        seed = int(np.where(cells == heaviest, live, 0).argmax())
        distance = np.linalg.norm(colours - colours[seed], axis=1)
        inner, outer = distance <= ball, distance <= reach
        own, around = mass[inner].sum(), mass[outer & ~inner].sum()
        if own >= least and own > around:
            peaks.append(seed)
            flat.append(bool(level[inner].sum() >= max(24, 0.3 * own) or own > 10 * around + 100))
            alive &= ~outer
        else:
            alive &= ~inner
    chosen = [p for p, solid in zip(peaks, flat, strict=True) if solid]
    for p, solid in zip(peaks, flat, strict=True):
        if not solid and (not chosen or not _on_ramp(colours[p], colours[chosen], reach)):
            chosen.append(p)
    return sorted(chosen[:MAX_LABELS]) or [int(np.bincount(index.ravel()).argmax())]


def _local_range(picture: Pixels) -> Floats:
    """Largest minus smallest value in the 3 by 3 neighbourhood (h, w), the worst of the channels."""
    spread = torch.zeros(picture.shape[:2])
    for channel in range(3):
        x = torch.tensor(picture[..., channel]).float()[None]
        spread = torch.maximum(spread, (_greatest(x, 3) + _greatest(-x, 3))[0])
    out: Floats = spread.numpy()
    return out


def _distances(colours: Colours, palette: Colours) -> Floats:
    """Euclidean distances (n, m) of colours (n, 3) to those of a palette (m, 3)."""
    out: Floats = np.linalg.norm((colours[:, None] - palette[None]).astype(np.float32), axis=2)
    return out


def _mend_edges(labels: Tensor, index: Ints, distance: Floats, noisy: bool) -> Tensor:
    """Keep the ramp between two labels from showing a third.

    A pixel far off its colour takes the nearest colour that an area within four pixels of it has. `distance` (n, m) is
    that of each colour to each label's, `index` (h, w) the colour of each pixel.
    """
    gap = distance.min(1)
    doubtful = torch.from_numpy((gap > (NOISY_REACH if noisy else CLEAN_REACH))[index])
    area = labels if noisy else torch.where(torch.from_numpy((gap == 0)[index]), labels, -1)
    area = torch.where(_inside_area(area), area, -1)
    cost = torch.from_numpy(distance[index[doubtful.numpy()]]).clone()  # (pixels in doubt, m)
    for label in range(cost.shape[1]):
        near = _greatest((area == label).float()[None], 9)[0] > 0
        cost[~near[doubtful], label] = torch.inf
    best, label_of = cost.min(1)
    labels[doubtful] = torch.where(best < torch.inf, label_of, labels[doubtful])
    return labels


def _drop_specks(labels: Tensor, uneven: Tensor) -> Tensor:
    """Pixels of an uneven place that have at most four of their kind in 5 x 5 join the majority there."""
    most, majority, own = torch.full(labels.shape, -1.0), labels.clone(), torch.zeros(labels.shape)
    for label in used(labels):
        hot = labels == label
        kin = F.avg_pool2d(hot.float()[None], (5, 1), 1, (2, 0), count_include_pad=False)
        kin = F.avg_pool2d(kin, (1, 5), 1, (0, 2), count_include_pad=False)[0]
        own[hot] = kin[hot]
        majority[kin > most] = label
        most = torch.maximum(most, kin)
    return torch.where((own < 4.5 / 25) & uneven, majority, labels)
