"""A map of an exemplar painted on a picture: blended along cuts as its kind needs it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ad_service.core.canvas import pad
from ad_service.core.materials.correspondence import Correspondence
from ad_service.core.pipeline.transform import Channel, renormalize
from ad_service.core.quilting.source_maps import paint_places
from ad_service.core.steps import checkpoint


@dataclass(frozen=True)
class PaintOptions:
    """How maps are painted.

    Attributes:
        reach: pixels over which a step of the height along a cut is spread.
        edge: pixels at both sides of a border whose mean colors tell an edge of the material from a cut.
        least_edge: difference of two colors below which there is no edge, in units of pixel value.
        levels: points of the table by which values get their histogram back; a multiple of 255 keeps 8 bits exact.
        samples: pixels from which the histograms are taken.
        band_rows: rows that are painted at once; limits memory, does not change results.
    """

    reach: float = 24.0
    edge: int = 4
    least_edge: float = 0.05
    levels: int = 255 * 16
    samples: int = 1 << 17
    band_rows: int = 256


def paint(
    channel: Channel, correspondence: Correspondence, color: Tensor, options: PaintOptions = PaintOptions()
) -> Tensor:
    """A channel of the exemplar (C, h, w) as it lies on a picture, (C, H, W), in register with its color (3, H, W).

    The cells around a pixel are blended. Normals are blended as vectors and get unit length, heights meet without a
    step where the color has none, data keep their histogram.
    """
    c = correspondence
    picture = paint_places(c.places, channel.pixels, c.cell, c.tiles)
    if channel.kind == "normal":
        return renormalize(picture)
    if channel.kind == "height":
        return _without_steps(picture, channel.pixels, c, color, options)
    if channel.kind == "data":
        for values, source in zip(picture, channel.pixels, strict=True):
            _restore_histogram(values, _unblended(source, c, options.samples), options)
    return picture


def _unblended(source: Tensor, correspondence: Correspondence, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of the picture (rows and columns), and the values of a map (h, w) there without any blending."""
    cell = correspondence.cell
    height, width = (n * cell for n in correspondence.places.shape[1:])
    step = max(1, int((height * width / samples) ** 0.5) | 1)  # odd, to meet all pixels of a cell
    rows, columns = torch.arange(0, height, step), torch.arange(0, width, step)
    y, x = correspondence.places[:, rows[:, None] // cell, columns[None, :] // cell]
    y = (y + (rows % cell)[:, None]).clamp_max(source.shape[0] - 1)
    x = (x + (columns % cell)[None, :]).clamp_max(source.shape[1] - 1)
    return rows, columns, source[y, x]


def _restore_histogram(values: Tensor, unblended: tuple[Tensor, Tensor, Tensor], options: PaintOptions) -> None:
    """Give blended values (H, W) in [0, 1] the histogram of the unblended ones, in place: equal ranks, equal values."""
    rows, columns, wanted = unblended
    have, want = values[rows][:, columns].flatten().sort().values, wanted.flatten().sort().values
    points = torch.linspace(0, 1, options.levels + 1)
    rank = (torch.searchsorted(have, points) + torch.searchsorted(have, points, right=True)) / 2
    table = want[rank.long().clamp_max(len(want) - 1)]
    for y in range(0, len(values), options.band_rows):
        checkpoint()
        band = values[y : y + options.band_rows]
        at = (band.clamp(0, 1) * options.levels).clamp_max(options.levels - 1e-3)
        low = at.long()
        band.copy_(torch.lerp(table[low], table[low + 1], at - low))


def _without_steps(
    painted: Tensor, source: Tensor, correspondence: Correspondence, color: Tensor, options: PaintOptions
) -> Tensor:
    """Heights (C, H, W) whose slopes g are those of the pieces, near the painted ones: the screened Poisson equation.

    min |grad u - g|^2 + |u - painted|^2 / reach^2, as in gradient-domain compositing (Bhat et al. 2008), solved by
    Fourier transform on the torus. An axis that does not tile is mirrored.
    """
    out = torch.empty_like(painted)
    edges = [_edges(color, axis, correspondence.tiles, options) for axis in (0, 1)]
    for u, p, heights in zip(out, painted, source, strict=True):
        divergence = _divergence(p, heights, correspondence, edges, options)
        u.copy_(_solve_screened(p / options.reach**2 - divergence, options.reach, correspondence.tiles).clamp_(0, 1))
    return out


def _edges(color: Tensor, axis: int, tiles: tuple[bool, bool], options: PaintOptions) -> Tensor:
    """How much of an edge (H, W) in [0, 1] a color (3, H, W) has between each pixel and the one below or right of it.

    The colors of `options.edge` pixels at both sides differ by no more than their root mean square (0), or twice of it
    (1).
    """
    side, total = options.edge, torch.zeros(color.shape[1:])
    window = (side, 3) if axis == 0 else (3, side)
    for channel in color:
        checkpoint()
        means = F.avg_pool2d(pad(channel[None, None], side, tiles), window, 1)[0, 0]  # entry i: from i - side on
        middle = side - 1
        rows, columns = total.shape
        before = means[1:, middle:] if axis == 0 else means[middle:, 1:]
        after = means[1 + side :, middle:] if axis == 0 else means[middle:, 1 + side :]
        total += (after[:rows, :columns] - before[:rows, :columns]).square()
    scale = total.mean().sqrt().clamp_min(options.least_edge)
    return (total.sqrt_() / scale - 1).clamp_(0, 1)


def _divergence(
    painted: Tensor, heights: Tensor, correspondence: Correspondence, edges: list[Tensor], options: PaintOptions
) -> Tensor:
    """The divergence (H, W) of the slopes of painted heights (H, W), without the steps of cuts.

    Between two pixels the slope is that of the painted heights as far as a piece of the map (h, w) at one of the two
    has such a slope there, or the color has an edge (H, W): an edge that is in the material stays. It is 0 over a
    border that does not tile.
    """
    cell, places = correspondence.cell, correspondence.places
    height, width = (n * cell for n in places.shape[1:])
    out = torch.zeros(height, width)
    columns = torch.arange(width)
    for top in range(0, height, options.band_rows):
        checkpoint()
        rows = torch.arange(top - 1, min(top + options.band_rows, height) + 1)  # one row more on both sides
        inside = rows % height if correspondence.tiles[0] else rows.clamp(0, height - 1)
        y, x = places[:, inside[:, None] // cell, columns[None, :] // cell]
        y, x = y + (inside % cell)[:, None], x + (columns % cell)[None, :]

        def at(down: int, right: int, y: Tensor = y, x: Tensor = x) -> Tensor:
            return heights[(y + down).clamp(0, len(heights) - 1), (x + right).clamp(0, heights.shape[1] - 1)]

        here, picture = at(0, 0), painted[inside]
        down, right = (edge[inside] for edge in edges)
        to_right = _allowed(picture.roll(-1, 1) - picture, at(0, 1) - here, (here - at(0, -1)).roll(-1, 1), right)
        to_below = _allowed(picture[1:] - picture[:-1], (at(1, 0) - here)[:-1], (here - at(-1, 0))[1:], down[:-1])
        if not correspondence.tiles[1]:
            to_right[:, -1] = 0
        if not correspondence.tiles[0]:
            to_below[(rows[:-1] < 0) | (rows[:-1] == height - 1)] = 0
        band = slice(top, top + len(rows) - 2)
        out[band] = (to_right - to_right.roll(1, 1))[1:-1] + to_below[1:] - to_below[:-1]
    return out


def _allowed(slope: Tensor, one: Tensor, other: Tensor, edge: Tensor) -> Tensor:
    """A slope, limited to between 0 and those that two pieces have at the same place, as far as there is no edge."""
    limited = slope.clamp(torch.minimum(one, other).clamp_max(0), torch.maximum(one, other).clamp_min(0))
    return torch.lerp(limited, slope, edge)


def _solve_screened(right_side: Tensor, reach: float, tiles: tuple[bool, bool]) -> Tensor:
    """u (H, W) with u / reach^2 - laplace u = right_side; periodic along tiling axes, without flux over other edges."""
    height, width = right_side.shape
    for axis, tile in enumerate(tiles):
        if not tile:
            right_side = torch.cat([right_side, right_side.flip(axis)], axis)
    fy, fx = torch.fft.fftfreq(right_side.shape[0]), torch.fft.rfftfreq(right_side.shape[1])
    laplace = (2 - 2 * torch.cos(2 * torch.pi * fy))[:, None] + (2 - 2 * torch.cos(2 * torch.pi * fx))[None, :]
    spectrum = torch.fft.rfft2(right_side)
    spectrum /= laplace + 1 / reach**2
    return torch.fft.irfft2(spectrum, right_side.shape)[:height, :width]
