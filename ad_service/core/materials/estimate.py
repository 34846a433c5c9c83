"""Maps of a surface estimated from its color: height, the normal that is its slope, roughness, and the color unlit.

The network works at a limited resolution and is circular where the picture tiles, so the maps tile as well. A map that
is given is kept, and the other of height and normal follows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from ad_service.core.materials.estimate_network import (
    CELL,
    CONTRAST_FLOOR,
    GRID,
    MapsNetwork,
    Tiles,
    features,
    log_luminance,
)
from ad_service.core.steps import checkpoint

GAMMA = 2.2


@dataclass(frozen=True)
class EstimateOptions:
    """How maps are estimated.

    Attributes:
        side: the network sees the picture with at most side x side pixels. It was trained on 320 to 1,070 of them.
        smallest: a shorter side of the picture is enlarged to this for the network.
        detail: factor on the part of the luminance's fine detail that is taken for relief.
        flat_depth: part of the picture's mean side; a relief that is less deep does not fill the height's range.
        lit: part of the variance of the luminance's detail that one lamp must explain for shade to be removed.
        unlit_part: part of the shade that is removed.
        least_spread: standard deviation of the luminance below which a picture shows nothing.
    """

    side: int = 1024
    smallest: int = 128
    detail: float = 0.5
    flat_depth: float = 0.01
    lit: float = 0.04
    unlit_part: float = 0.8
    least_spread: float = 0.004


@dataclass(frozen=True)
class EstimatedMaps:
    """The maps of a surface.

    Attributes:
        albedo: (3, h, w) in [0, 1], sRGB: the picture without the light and shade of the relief.
        normal: (3, h, w) in [0, 1], OpenGL: the slope of the height times the strength.
        roughness: (1, h, w) in [0, 1].
        height: (1, h, w) in [0, 1].
        depth: pixels from black to white of the height.
    """

    albedo: Tensor
    normal: Tensor
    roughness: Tensor
    height: Tensor
    depth: float


def load_network(path: Path) -> MapsNetwork:
    """The trained network, in 32 bit, for inference. Raises OSError if the file is missing."""
    network = MapsNetwork()
    network.load_state_dict({name: weight.float() for name, weight in load_file(path).items()}, strict=False)
    return network.requires_grad_(False).eval()


def slope(height: Tensor, tiles: Tiles) -> Tensor:
    """Slopes (2, h, w) along x (right) and y (up) of a height (1, h, w) in pixels, by central differences.

    At an edge that does not tile the difference is one-sided.
    """

    def difference(axis: int, tile: bool) -> Tensor:
        if tile:
            return (height.roll(-1, axis) - height.roll(1, axis)) / 2
        return torch.gradient(height, dim=axis)[0] if height.shape[axis] > 1 else torch.zeros_like(height)

    return torch.cat([difference(2, tiles[1]), -difference(1, tiles[0])])


def normal_of(slopes: Tensor) -> Tensor:
    """An OpenGL normal map (3, h, w) in [0, 1] of slopes (2, h, w) along x and y."""
    return F.normalize(torch.cat([-slopes, torch.ones_like(slopes[:1])]), dim=0) / 2 + 0.5


def slope_of(normal: Tensor) -> Tensor:
    """Slopes (2, h, w) along x and y of an OpenGL normal map (3, h, w) in [0, 1]; at most 10."""
    x, y, z = 2 * normal - 1
    return -torch.stack([x, y]) / torch.maximum(z, 0.1 * (x * x + y * y + z * z).sqrt()).clamp_min(1e-3)


def integrate(slopes: Tensor, tiles: Tiles) -> Tensor:
    """The height (1, h, w) in pixels, of mean 0, whose slopes are nearest to those given (2, h, w), in least squares.

    Poisson's equation by FFT (Frankot and Chellappa 1988); along an axis that does not tile, on the mirrored picture.
    """
    h, w = slopes.shape[1:]
    x, down = slopes[0], -slopes[1]
    for axis, tile in enumerate(tiles):
        if not tile:  # an even height has an odd slope along that axis
            x, down = (
                torch.cat([m, -m.flip(axis) if odd else m.flip(axis)], axis)
                for m, odd in ((x, axis == 1), (down, axis == 0))
            )
    rows, columns = x.shape
    fy = torch.sin(2 * torch.pi * torch.fft.fftfreq(rows))[:, None]
    fx = torch.sin(2 * torch.pi * torch.fft.rfftfreq(columns))[None]
    power = fx**2 + fy**2
    spectrum = -1j * (fx * torch.fft.rfft2(x) + fy * torch.fft.rfft2(down)) / power.clamp_min(1e-9)
    spectrum[power < 1e-9] = 0
    return torch.fft.irfft2(spectrum, s=(rows, columns))[None, :h, :w]


def estimate(
    network: MapsNetwork,
    picture: Tensor,
    tiles: Tiles = (False, False),
    strength: float = 1.0,
    given: Mapping[str, Tensor] | None = None,
    options: EstimateOptions = EstimateOptions(),
) -> EstimatedMaps:
    """The maps of a photographed surface.

    Args:
        network: on its device; the maps are on the picture's.
        picture: (3, h, w) in [0, 1], sRGB.
        tiles: whether y and x of the picture tile; the maps then do too.
        strength: factor on the slopes of an estimated normal.
        given: maps that are known, by name: normal (3, h, w) OpenGL, roughness or height (1, h, w), all in [0, 1].
            They are returned as they are. A normal without a height is integrated; a height without a normal gives its
            slope, as steep on average as the network's estimate.
        options: sizes and limits.
    """
    given = given or {}
    h, w = picture.shape[1:]
    relief, roughness = _predict(network, picture, tiles, options)
    checkpoint()
    if "height" in given:
        rise = _root_mean_square(slope(given["height"], tiles))
        depth = _root_mean_square(slope(relief, tiles)) / rise if rise > 1e-6 else 0.0
        relief = given["height"] * depth
    elif "normal" in given:
        relief = integrate(slope_of(given["normal"]), tiles)
    slopes = slope(relief, tiles)
    checkpoint()
    low, high = relief.min(), relief.max()
    depth = max(float(high - low), options.flat_depth * math.sqrt(h * w))
    return EstimatedMaps(
        albedo=without_shade(picture, slopes, options),
        normal=given.get("normal", normal_of(strength * slopes)),
        roughness=given.get("roughness", roughness),
        height=given.get("height", (relief - (low + high) / 2) / depth + 0.5),
        depth=depth * strength,
    )


@torch.no_grad()
def _predict(network: MapsNetwork, picture: Tensor, tiles: Tiles, options: EstimateOptions) -> tuple[Tensor, Tensor]:
    """Height (1, h, w) in pixels and roughness (1, h, w) in [0, 1], from the network at its own size."""
    h, w = picture.shape[1:]
    rows, columns = working_size(h, w, options)
    small = resample(picture, rows, columns, tiles).clamp(0, 1)
    device = next(network.parameters()).device
    cells = features(small[None].to(device), tiles)
    checkpoint()
    height, roughness, gain = (m[0].to(picture.device) for m in network(cells, tiles))
    checkpoint()
    scale = math.sqrt(h * w / (rows * columns))
    relief = resample(height, h, w, tiles) + options.detail * resample(gain, h, w, tiles) * _fine_luminance(
        picture, small, tiles
    )
    return relief * scale, resample(roughness, h, w, tiles).clamp(0, 1)


def _fine_luminance(picture: Tensor, small: Tensor, tiles: Tiles) -> Tensor:
    """The luminance's detail below the network's cells (1, h, w), in units of its deviation, octave by octave halved.

    What is half as wide is half as deep.
    """
    log = log_luminance(picture[None])[0]
    log = log / (log_luminance(small[None]).var() + CONTRAST_FLOOR**2).sqrt()
    h, w = log.shape[1:]
    rows, columns = (n // CELL for n in small.shape[1:])
    low, detail, weight = resample(log, rows, columns, tiles), torch.zeros(1, rows, columns), 0.5
    while (rows, columns) != (h, w):
        checkpoint()
        rows, columns = (n if 3 * m > 2 * n else 2 * m for n, m in ((h, rows), (w, columns)))
        level = resample(log, rows, columns, tiles)
        detail = resample(detail, rows, columns, tiles) + weight * (level - resample(low, rows, columns, tiles))
        low, weight = level, weight / 2
    return detail


def resample(x: Tensor, height: int, width: int, tiles: Tiles) -> Tensor:
    """Channels (C, h, w) at another size, bicubic; across the edge where an axis tiles. May overshoot."""
    for axis, (length, tile) in enumerate(zip((height, width), tiles, strict=True), 1):
        old = x.shape[axis]
        if old == length:
            continue
        margin = new_margin = 0
        if tile:  # whole pixels of both sizes
            whole = old // math.gcd(old, length)
            margin = min(old, -(-4 * max(1, math.ceil(old / length)) // whole) * whole)
            new_margin = margin * length // old
            x = x.index_select(axis, torch.arange(-margin, old + margin, device=x.device) % old)
        size = [*x.shape[1:]]
        size[axis - 1] = length + 2 * new_margin
        x = F.interpolate(x[None], size, mode="bicubic", antialias=True)[0].narrow(axis, new_margin, length)
    return x


def working_size(height: int, width: int, options: EstimateOptions) -> tuple[int, int]:
    """Rows and columns of a picture as the network sees it: multiples of GRID, at most side x side pixels."""
    scale = min(1.0, options.side / math.sqrt(height * width))
    scale = max(scale, options.smallest / min(height, width))
    return tuple(max(GRID, round(n * scale / GRID) * GRID) for n in (height, width))


def without_shade(picture: Tensor, slopes: Tensor, options: EstimateOptions = EstimateOptions()) -> Tensor:
    """A picture without the light and shade that one lamp from the side gives its relief.

    The logarithm of the luminance is fitted by the slopes along x and y: a lamp brightens the slopes that face it and
    darkens the others, while colors do not know where the lamp is. Without such a relation the picture is unchanged.

    Args:
        picture: (3, h, w) in [0, 1], sRGB.
        slopes: (2, h, w) along x (right) and y (up).
    """
    log = GAMMA * log_luminance(picture[None])[0]
    tilt = (slopes / (1 + slopes.square().sum(0, keepdim=True)).sqrt()).flatten(1)  # sine of the angle
    tilt = tilt - tilt.mean(1, keepdim=True)
    detail = (log - log.mean()).flatten()
    covariance = tilt @ tilt.T + 1e-6 * tilt.shape[1] * torch.eye(2)
    lamp = torch.linalg.solve(covariance, tilt @ detail)
    shade = lamp @ tilt
    explained = float(shade.square().sum() / detail.square().sum().clamp_min(1e-6))
    part = options.unlit_part * min(1.0, max(0.0, explained / options.lit - 1))
    if part == 0:
        return picture
    gain = (-part / GAMMA * shade).clamp(-0.7, 0.7).exp().view(1, *picture.shape[1:])
    return (picture * gain).clamp(0, 1)


def _root_mean_square(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
