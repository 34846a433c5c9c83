"""Numbers and noise for procedural textures: numpy in, numpy out, every one a function of a generator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating[Any]]
Ints = NDArray[np.int32]
Rng = np.random.Generator

RENDER = 512
"""Pixels a side of a relief. A texture is reduced from it: its edges are antialiased as in a photograph."""


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """A number whose logarithm is uniform: sizes and frequencies have no preferred octave."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def chance(rng: Rng, p: float) -> bool:
    """True with probability p."""
    return bool(rng.random() < p)


def stretch01(a: Array) -> Array:
    """Scale to [0, 1] between the 1st and the 99th percentile, clipped."""
    low, high = np.percentile(a[::4, ::4], (1, 99))
    return np.asarray(np.clip((a - low) / (high - low + 1e-6), 0, 1), np.float32)


def smoothstep(low: float, high: float, a: Array) -> Array:
    """0 below low, 1 above high, a cubic between."""
    x = np.clip((a - low) / (high - low), 0, 1)
    return np.asarray(x * x * (3 - 2 * x), np.float32)


def fractal(
    rng: Rng,
    cells: float,
    octaves: int = 5,
    persistence: float = 0.5,
    stretch: float = 1.0,
    size: int = RENDER,
) -> Array:
    """Fractal value noise in [0, 1]: `cells` across the picture in the first octave, stretched along y."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        columns, rows = cells * 2**octave, cells * stretch * 2**octave
        if max(columns, rows) > size:
            break
        grid = rng.standard_normal((max(2, int(rows)) + 1, max(2, int(columns)) + 1)).astype(np.float32)
        resized = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
        total += persistence**octave * np.asarray(resized)
    return stretch01(total)


def any_fractal(rng: Rng, low: float = 2, high: float = 24) -> Array:
    """Fractal noise of random size and roughness."""
    return fractal(rng, log_uniform(rng, low, high), int(rng.integers(2, 7)), rng.uniform(0.35, 0.8))


def spectral(rng: Rng) -> Array:
    """Gaussian noise with a random spectrum, a power law or a band, perhaps stretched in one direction."""
    n = RENDER
    spectrum = np.fft.rfft2(rng.standard_normal((n, n)).astype(np.float32))
    fy, fx = np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None]
    angle = rng.uniform(0, np.pi)
    flat = log_uniform(rng, 0.06, 1) if chance(rng, 0.5) else 1.0
    along = (fx * np.cos(angle) + fy * np.sin(angle)) / flat
    across = fy * np.cos(angle) - fx * np.sin(angle)
    radius = np.sqrt(along**2 + across**2) + 1e-4
    if chance(rng, 0.4):
        weight = np.exp(-((np.log(radius / log_uniform(rng, 0.012, 0.2)) / rng.uniform(0.15, 0.6)) ** 2))
    else:
        weight = radius ** -rng.uniform(0.6, 2.2)
    weight[0, 0] = 0
    return stretch01(np.fft.irfft2(spectrum * weight, s=(n, n)).astype(np.float32))


def lookup(table: Array, u: Array, v: Array) -> Array:
    """Read a square table at real coordinates, bilinear, wrapping round."""
    n = len(table)
    u0, v0 = np.floor(u), np.floor(v)
    a, b = u - u0, v - v0
    i, j = u0.astype(np.int32) % n, v0.astype(np.int32) % n
    i1, j1 = (i + 1) % n, (j + 1) % n
    top = table[j, i] * (1 - a) + table[j, i1] * a
    low = table[j1, i] * (1 - a) + table[j1, i1] * a
    return (top * (1 - b) + low * b).astype(np.float32)


def p_norm(u: Array, v: Array, p: float) -> Array:
    """(|u|^p + |v|^p)^(1/p): a circle for 2, a diamond near 1, a square above."""
    if p == 2:
        return np.sqrt(u * u + v * v)
    return (np.abs(u) ** p + np.abs(v) ** p) ** (1 / p)


def per_element(rng: Rng, element: Ints) -> Array:
    """One uniform number in [0, 1) for each element, spread over its pixels."""
    return rng.random(4096).astype(np.float32)[element % 4096]


def blur(a: Array, radius: float) -> Array:
    """Box blur applied twice, about a Gaussian of that radius; edges are repeated."""
    r = max(1, round(radius))
    for axis in (0, 1, 0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (r + 1, r)
        c = np.cumsum(np.pad(a, pad, mode="edge"), axis=axis, dtype=np.float64)
        n = a.shape[axis]
        a = ((np.take(c, range(2 * r + 1, 2 * r + 1 + n), axis) - np.take(c, range(n), axis)) / (2 * r + 1)).astype(
            np.float32
        )
    return a
