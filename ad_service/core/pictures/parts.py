"""The parts of a material: a label map of a swatch by clusters of color and texture, smoothed by minimum cuts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import maxflow
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.pixels import from_uint8
from ad_service.core.quilting.cuts import DOWN, RIGHT

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PartsOptions:
    """How parts are found.

    Set on two photographs with label maps of two parts (intersection over union 0.92 for stone and ivy and 0.68 for
    smoke; clusters by color alone reach 0.65 and 0.55), and by eye on eight more.

    Attributes:
        side: longest side of the reduced copy, whose pixels are clustered.
        color_radii: radii of the blurs, as parts of `side`, over which color is averaged.
        texture_radii: the same for contrast and orientation.
        color_weights: of the lightness, and of each chroma.
        texture_weight: of contrast and of each component of the orientation.
        spread: range of a feature, in standard deviations, beyond which values are cut off.
        restarts: how often the clustering starts, from other pixels each time.
        samples: pixels that are clustered.
        rounds: rounds of k-means.
        smoothness: cost of a border of one pixel between two parts, relative to the mean distance of clusters.
        edge_contrast: difference of the features at which a border costs 1/e of that.
        sweeps: rounds of cuts over all parts.
    """

    side: int = 320
    color_radii: tuple[float, ...] = (1 / 200, 1 / 50, 1 / 20)
    texture_radii: tuple[float, ...] = (1 / 100, 1 / 40, 1 / 16)
    color_weights: tuple[float, float] = (1.0, 1.0)
    texture_weight: float = 0.66
    spread: float = 3.0
    restarts: int = 6
    samples: int = 6000
    rounds: int = 20
    smoothness: float = 1.4
    edge_contrast: float = 0.5
    sweeps: int = 2


def parts(pixels: Pixels, count: int, options: PartsOptions = PartsOptions()) -> Tensor:
    """Labels (h, w) int64 in [0, count) of a swatch's parts, the largest part first.

    Args:
        pixels: the swatch (h, w, 3) uint8. Time and memory depend on the reduced copy, except for the last step.
        count: number of parts; fewer are found in a picture with fewer colors.
    """
    h, w = pixels.shape[:2]
    small = _reduced(pixels, options.side)
    color = lab(small)
    features = _features(color, options)
    centers = _clusters(features, count, options)
    distance = torch.cdist(features.flatten(1).T, centers).square().T.reshape(len(centers), *color.shape[1:])
    labels = _smoothed(distance.numpy(), color, options)
    order = torch.bincount(labels.flatten(), minlength=count).argsort(descending=True, stable=True)
    return _enlarged(order.argsort()[labels], h, w)


def lab(picture: Tensor) -> Tensor:
    """CIE L*a*b* (3, h, w), D65, of a picture (3, h, w) in sRGB (IEC 61966-2-1)."""
    linear = torch.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
    to_xyz = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    white = torch.tensor([0.9505, 1.0, 1.089])
    xyz = torch.einsum("xc,chw->xhw", to_xyz / white[:, None], linear)
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp_min(1e-9) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return torch.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _reduced(pixels: Pixels, side: int) -> Tensor:
    """A copy (3, h, w) in [0, 1] with a longest side of at most `side`, by averages."""
    coarse = max(1, max(pixels.shape[:2]) // (2 * side))  # 12 megapixels need not become floats
    picture = from_uint8(pixels[::coarse, ::coarse])
    h, w = picture.shape[1:]
    scale = min(1.0, side / max(h, w))
    return F.interpolate(picture[None], (max(1, round(h * scale)), max(1, round(w * scale))), mode="area")[0]


def _features(color: Tensor, options: PartsOptions) -> Tensor:
    """Color, contrast and orientation (C, h, w) around each pixel, each cut off and weighted."""
    side = max(color.shape[1:])
    light, chroma = options.color_weights
    found: list[tuple[Tensor, float]] = []
    for part in options.color_radii:
        blurred = _blurred(color, part * side)
        found += [(blurred[:1], light), (blurred[1:], chroma)]
    gray = color[:1]
    dy = F.pad(gray[:, 2:] - gray[:, :-2], (0, 0, 1, 1))
    dx = F.pad(gray[:, :, 2:] - gray[:, :, :-2], (1, 1))
    tensor = torch.cat([dx.square() - dy.square(), 2 * dx * dy, dx.square() + dy.square()])
    for part in options.texture_radii:
        radius = part * side
        contrast = (_blurred(gray.square(), radius) - _blurred(gray, radius).square()).clamp_min(0).sqrt()
        a, b, energy = _blurred(tensor, radius)
        directed = torch.stack([a, b]) / (energy + 4.0)
        found += [((contrast + 1).log(), options.texture_weight), (directed, options.texture_weight)]
    scaled = []
    for feature, weight in found:
        deviation = feature.std((1, 2), keepdim=True).pow(2).mean(0, keepdim=True).sqrt()  # both chromas alike
        z = (feature - feature.mean((1, 2), keepdim=True)) / deviation.clamp_min(1e-3)
        scaled.append(z.clamp(-options.spread, options.spread) * weight / math.sqrt(len(feature)))
    return torch.cat(scaled)


def _blurred(x: Tensor, radius: float) -> Tensor:
    """A Gaussian blur of (C, h, w) whose standard deviation is `radius` pixels."""
    reach = min(max(1, math.ceil(2.5 * radius)), min(x.shape[1:]) - 1)
    kernel = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * max(radius, 0.3) ** 2))
    kernel = (kernel / kernel.sum()).expand(len(x), 1, 1, -1)
    x = F.conv2d(F.pad(x[None], (reach, reach, 0, 0), "reflect"), kernel, groups=len(x))
    return F.conv2d(F.pad(x, (0, 0, reach, reach), "reflect"), kernel.transpose(2, 3), groups=kernel.shape[0])[0]


def _clusters(features: Tensor, count: int, options: PartsOptions) -> Tensor:
    """Centers (count, C) by k-means from k-means++ starts, the best of several (Arthur and Vassilvitskii 2007)."""
    generator = torch.Generator().manual_seed(0)
    points = features.flatten(1).T
    chosen = torch.randperm(len(points), generator=generator)[: options.samples]
    points = points[chosen]
    best, lowest = points[:count], math.inf
    for _ in range(options.restarts):
        centers = points[torch.randint(len(points), (1,), generator=generator)]
        while len(centers) < count:
            far = torch.cdist(points, centers).min(1).values.square() + 1e-9
            centers = torch.cat([centers, points[torch.multinomial(far, 1, generator=generator)]])
        for _ in range(options.rounds):
            nearest = torch.cdist(points, centers).argmin(1)
            hot = F.one_hot(nearest, count).float()
            total = hot.sum(0)[:, None]
            centers = torch.where(total > 0, hot.T @ points / total.clamp_min(1), centers)
        cost = float(torch.cdist(points, centers).min(1).values.square().sum())
        if cost < lowest:
            best, lowest = centers, cost
    return best


def _smoothed(distance: Floats, color: Tensor, options: PartsOptions) -> Tensor:
    """Labels (h, w) that are near to their clusters and have short borders along edges of the picture.

    Minimizes sum D(x_p) + sum w_pq [x_p != x_q] by expansion moves (Boykov, Veksler and Zabih 2001).
    """
    labels = distance.argmin(0)
    scale = float(distance.min(0).mean()) + 1e-6
    distance = distance / scale
    step = (color / color.flatten(1).std(1).norm().clamp_min(1e-3)).numpy()
    weights = []
    for axis in (1, 2):
        apart = np.square(np.diff(step, axis=axis)).sum(0)
        weight = options.smoothness * np.exp(-apart / options.edge_contrast**2)
        weights.append(np.pad(weight, [(0, 1), (0, 0)] if axis == 1 else [(0, 0), (0, 1)]))
    for _ in range(options.sweeps):
        for label in range(len(distance)):
            labels = _expand(labels, label, distance, weights)
    return torch.from_numpy(labels)


def _expand(labels: Ints, label: int, distance: Floats, weights: list[Floats]) -> Ints:
    """The best labels that differ from the given ones only by pixels that take `label`."""
    graph = maxflow.GraphFloat(labels.size, 2 * labels.size)
    nodes = graph.add_grid_nodes(labels.shape)
    keep = np.take_along_axis(distance, labels[None], 0)[0]  # cost of x = 0
    take = distance[label].copy()  # cost of x = 1
    for axis, (weight, structure) in enumerate(zip(weights, (DOWN, RIGHT), strict=True)):
        first = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        second = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        w = weight[first]
        a, b = labels[first], labels[second]
        both_old, second_new, first_new = w * (a != b), w * (a != label), w * (b != label)
        take[first] += first_new - both_old  # Kolmogorov and Zabih 2004, with E(1, 1) = 0
        take[second] -= first_new
        edges = np.zeros(labels.shape)
        edges[first] = first_new + second_new - both_old
        graph.add_grid_edges(nodes, edges, structure)
    price = take - keep
    graph.add_grid_tedges(nodes, price.clip(0), (-price).clip(0))
    graph.maxflow()
    return np.where(graph.get_grid_segments(nodes), label, labels)


def _enlarged(labels: Tensor, height: int, width: int) -> Tensor:
    """Labels (height, width) with smooth borders: the label with the largest share in a bilinear enlargement."""
    if labels.shape == (height, width):
        return labels
    best = torch.full((height, width), -torch.inf)
    out = torch.zeros((height, width), dtype=torch.int64)
    for label in range(int(labels.max()) + 1):
        share = F.interpolate((labels == label).float()[None, None], (height, width), mode="bilinear")[0, 0]
        out[share > best] = label
        best = torch.maximum(best, share)
    return out
