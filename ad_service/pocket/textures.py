"""Procedural textures for training pocket: numpy in, uint8 pictures out, every one a function of its seed alone.

A picture is a *relief* (height, elements and coordinates along and across each element), coloured from a random
palette, worn, lit from the side and given a camera's grain. No photograph and no downloaded data is involved.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating[Any]]
Ints = NDArray[np.int32]
Rng = np.random.Generator

SIZE = 384  # pixels a side of a stored texture
RENDER = 512  # it is rendered at this size, then reduced: edges are antialiased as in a photograph


@dataclass(frozen=True)
class Relief:
    """The shape of a surface: height in [0, 1]; `element` numbers stones, strips, leaves; u, v run inside each."""

    height: Array
    element: Ints
    u: Array
    v: Array


# -- numbers and noise --------------------------------------------------------------------------------------------


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


# -- the plane on which patterns are laid ---------------------------------------------------------------------------


def plane(rng: Rng, wobble: float = 1.0) -> tuple[Array, Array]:
    """Pixel coordinates after a random turn, perhaps a shear, a perspective or a twirl, and a fine wobble."""
    y, x = np.mgrid[0:RENDER, 0:RENDER].astype(np.float32)
    x, y = x - RENDER / 2, y - RENDER / 2
    if chance(rng, 0.12):  # seen at a slant, or larger on one side
        depth = 1 + rng.uniform(-0.6, 0.6) * x / RENDER + rng.uniform(-0.6, 0.6) * y / RENDER
        x, y = x / depth, y / depth
    angle = rng.normal(0, 0.03) if chance(rng, 0.6) else rng.uniform(0, 2 * np.pi)
    if chance(rng, 0.08):
        angle = angle + rng.uniform(-2, 2) * np.hypot(x, y) / RENDER
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if chance(rng, 0.2):
        x = x + rng.normal(0, 0.25) * y
    for strength, cells in (
        (rng.uniform(0, 3), rng.uniform(16, 60)),
        (rng.uniform(0, 14), rng.uniform(2, 8)),
    ):
        if chance(rng, 0.6):
            x = x + wobble * strength * (2 * fractal(rng, cells, 2) - 1)
            y = y + wobble * strength * (2 * fractal(rng, cells, 2) - 1)
    offset = rng.uniform(0, 4096, 2)
    return (x + offset[0]).astype(np.float32), (y + offset[1]).astype(np.float32)


def neighbours(reach: int = 1) -> list[tuple[int, int]]:
    """Offsets (dx, dy) of the cells around a cell, itself included."""
    return [(i, j) for j in range(-reach, reach + 1) for i in range(-reach, reach + 1)]


def voronoi(rng: Rng, x: Array, y: Array, jitter: float, norm: float = 2.0) -> tuple[Array, Array, Ints, Array, Array]:
    """Distances to the nearest and second nearest point, the nearest one's number and the offset from it.

    x and y are in cells; points sit on a grid, moved by up to `jitter` of a cell.
    """
    px, py = (rng.uniform(-jitter, jitter, (64, 64)).astype(np.float32) for _ in range(2))
    cx, cy = np.floor(x), np.floor(y)
    fx, fy = x - cx - 0.5, y - cy - 0.5
    ix, iy = cx.astype(np.int32), cy.astype(np.int32)
    f1 = np.full(x.shape, 9, np.float32)
    f2, element = f1.copy(), np.zeros(x.shape, np.int32)
    u, v = np.zeros_like(f1), np.zeros_like(f1)
    for dx, dy in neighbours():
        i, j = (ix + dx) % 64, (iy + dy) % 64
        du, dv = fx - dx - px[j, i], fy - dy - py[j, i]
        d = p_norm(du, dv, norm)
        closer = d < f1
        f2 = np.where(closer, f1, np.minimum(f2, d))
        f1 = np.where(closer, d, f1)
        element = np.where(closer, j * 64 + i, element)
        u, v = np.where(closer, du, u), np.where(closer, dv, v)
    return f1, f2, element, u, v


@dataclass(frozen=True)
class Shape:
    """Things laid one over another, in units of a cell: radii, roundness (norm), lobes, how they turn and stack."""

    length: float
    width: float
    norm: float
    lobes: int
    lobe_depth: float
    turn: float
    spread: float
    variation: float
    jitter: float
    stagger: float
    order: str  # "random", or "rows" for scales and slates
    dome: float


def overlapping(rng: Rng, x: Array, y: Array, s: Shape) -> tuple[Array, Array, Ints, Array, Array]:
    """Lay one shape on every cell; where several cover a pixel the uppermost shows.

    Returns rho (0 at a shape's middle, 1 at its rim, 2 where nothing lies), the level of the shape in [0, 1], its
    number, and coordinates inside it (u along its length, v across, both in radii).
    """
    tables = rng.random((6, 64, 64)).astype(np.float32)
    row = np.floor(y)
    xs = x + s.stagger * (row % 2)
    ix, iy = np.floor(xs).astype(np.int32), row.astype(np.int32)
    rho_top = np.full(x.shape, 2, np.float32)
    level = np.full(x.shape, -1, np.float32)
    element = np.zeros(x.shape, np.int32)
    u_top, v_top = np.zeros_like(x), np.zeros_like(x)
    for dx, dy in neighbours():
        shift = s.stagger * (((iy + dy) % 2) - (iy % 2)) if dy and s.stagger else 0.0
        i, j = (ix + dx) % 64, (iy + dy) % 64
        a, b, c, d, e, f = (t[j, i] for t in tables)
        du = xs + shift - ix - dx - 0.5 - (a - 0.5) * 2 * s.jitter
        dv = y - iy - dy - 0.5 - (b - 0.5) * 2 * s.jitter
        turn = s.turn + (c - 0.5) * 2 * s.spread
        cos, sin = np.cos(turn), np.sin(turn)
        scale = 1 - s.variation * d
        u = (du * cos + dv * sin) / (s.length * scale)
        v = (dv * cos - du * sin) / (s.width * scale * (1 - 0.5 * s.variation * e))
        rho = p_norm(u, v, s.norm)
        if s.lobes:
            rho = rho * (1 + s.lobe_depth * (1 + np.cos(s.lobes * np.arctan2(v, u) + np.pi)) / 2)
        rank = f if s.order == "random" else (0.5 - dy / 3) * 0.9 + 0.1 * f
        above = (rho < 1) & (rank > level)
        rho_top, level = np.where(above, rho, rho_top), np.where(above, rank, level)
        element = np.where(above, j * 64 + i, element)
        u_top, v_top = np.where(above, u, u_top), np.where(above, v, v_top)
    return rho_top, level, element, u_top, v_top


# -- families: each draws its own parameters and returns a Relief ---------------------------------------------------


def flat(height: Array, x: Array, y: Array) -> Relief:
    """A relief of one element only."""
    return Relief(height.astype(np.float32), np.zeros(height.shape, np.int32), x / 64, y / 64)


def clouds(rng: Rng) -> Relief:
    """Fractal or spectral noise, plain, ridged or warped: plaster, rust, rock, sand."""
    x, y = plane(rng)
    h = any_fractal(rng) if chance(rng, 0.5) else spectral(rng)
    kind = rng.integers(4)
    if kind == 1:
        h = 1 - np.abs(2 * h - 1)
    elif kind == 2:
        amount = log_uniform(rng, 4, 60)
        h = lookup(h, x + amount * any_fractal(rng, 2, 8), y + amount * any_fractal(rng, 2, 8))
    elif kind == 3:
        level = rng.uniform(0.3, 0.7)
        h = smoothstep(level - 0.08, level + 0.08, h) * rng.uniform(0.3, 0.9) + 0.2 * h
    return flat(stretch01(h), x, y)


def cells(rng: Rng) -> Relief:
    """Voronoi: cobbles, cracked mud, leather, foam."""
    x, y = plane(rng)
    size = log_uniform(rng, 14, 110)
    norm = 2.0 if chance(rng, 0.75) else rng.uniform(1.2, 5)
    f1, f2, element, u, v = voronoi(rng, x / size * rng.uniform(0.6, 1), y / size, rng.uniform(0.1, 0.5), norm)
    edge = f2 - f1
    gap = rng.uniform(0.02, 0.2)
    kind = rng.integers(4)
    if kind == 0:
        h = np.sqrt(np.clip(edge / rng.uniform(0.3, 0.8), 0, 1))
    elif kind == 1:
        h = smoothstep(gap * 0.4, gap * 0.4 + rng.uniform(0.03, 0.15), edge) * (0.7 + 0.3 * per_element(rng, element))
        h = h - rng.uniform(0, 0.25) * (u * rng.uniform(-1, 1) + v * rng.uniform(-1, 1))
    elif kind == 2:
        h = 1 - f1 / (f1.max() + 1e-6)
    else:
        h = smoothstep(gap * 0.5, gap * 0.5 + rng.uniform(0.1, 0.5), edge)
        h = h + rng.uniform(0, 0.4) * (any_fractal(rng, 12, 60) - 0.5)
    if kind in (1, 3) and chance(rng, 0.5):  # hair cracks inside the plates
        warp = rng.uniform(0.1, 0.5) * any_fractal(rng, 4, 16)
        g1, g2, *_ = voronoi(rng, 2.3 * (x / size + warp), 2.3 * (y / size + warp), 0.5)
        h = h - rng.uniform(0.1, 0.5) * (1 - smoothstep(0.0, 0.05, g2 - g1)) * (any_fractal(rng, 4, 9) > 0.5)
    return Relief(np.clip(h, 0, 1).astype(np.float32), element, u, v)


def caustics(rng: Rng) -> Relief:
    """Bright nets of light, as on the floor of a pool, and veins."""
    x, y = plane(rng)
    size = log_uniform(rng, 40, 160)
    total = np.zeros_like(x)
    for weight in (1.0, rng.uniform(0, 0.8)):
        warp = rng.uniform(0.2, 0.9)
        f1, f2, *_ = voronoi(
            rng,
            x / size + warp * any_fractal(rng, 3, 9),
            y / size + warp * any_fractal(rng, 3, 9),
            rng.uniform(0.3, 0.5),
        )
        total += weight * np.exp(-(f2 - f1) * log_uniform(rng, 4, 18)) * (0.3 + any_fractal(rng, 3, 10))
    return flat(stretch01(total + rng.uniform(0.2, 0.8) * any_fractal(rng, 2, 6)), x, y)


def stones(rng: Rng) -> Relief:
    """Beans, pebbles, coins, buttons: domed shapes heaped over one another."""
    x, y = plane(rng)
    size = log_uniform(rng, 24, 110)
    length = rng.uniform(0.5, 0.85)
    shape = Shape(
        length=length,
        width=length * rng.uniform(0.5, 1),
        norm=rng.choice([2.0, 2.0, 2.0, 2.6, 3.5]),
        lobes=0,
        lobe_depth=0.0,
        turn=rng.uniform(0, np.pi),
        spread=rng.choice([0.1, 0.6, 3.2]),
        variation=rng.uniform(0, 0.5),
        jitter=rng.uniform(0.05, 0.4),
        stagger=rng.choice([0.0, 0.5]),
        order="random",
        dome=rng.uniform(0.3, 1),
    )
    return heap(rng, x / size, y / size, shape, layers=int(rng.integers(1, 4)))


def discs(rng: Rng) -> Relief:
    """A regular grid of discs, studs or holes with room between them."""
    x, y = plane(rng, wobble=0.4)
    size = log_uniform(rng, 12, 70)
    radius = rng.uniform(0.25, 0.49)
    shape = Shape(
        length=radius,
        width=radius * rng.uniform(0.7, 1),
        norm=rng.choice([2.0, 2.0, 3.0, 1.2]),
        lobes=0,
        lobe_depth=0.0,
        turn=rng.choice([0, 0.8]),
        spread=0.0,
        variation=rng.uniform(0, 0.1),
        jitter=rng.uniform(0, 0.04),
        stagger=rng.choice([0.0, 0.5]),
        order="random",
        dome=rng.uniform(0, 1),
    )
    relief = heap(rng, x / size, y / size, shape, layers=1)
    return replace(relief, height=1 - relief.height) if chance(rng, 0.25) else relief


def leaves(rng: Rng) -> Relief:
    """Leaves, petals, feathers: lobed or pointed shapes, with a vein along the middle."""
    x, y = plane(rng)
    size = log_uniform(rng, 28, 110)
    length = rng.uniform(0.7, 0.95)
    shape = Shape(
        length=length,
        width=length * rng.uniform(0.3, 0.9),
        norm=rng.choice([2.0, 1.5, 1.2]),
        lobes=int(rng.choice([0, 0, 3, 5, 5])),
        lobe_depth=rng.uniform(0.2, 0.9),
        turn=rng.uniform(0, 2 * np.pi),
        spread=rng.choice([0.3, 0.9, 3.2]),
        variation=rng.uniform(0.1, 0.5),
        jitter=rng.uniform(0.2, 0.45),
        stagger=0.5,
        order="random",
        dome=rng.uniform(0, 0.5),
    )
    relief = heap(rng, x / size, y / size, shape, layers=int(rng.integers(2, 4)))
    vein = np.exp(-np.abs(relief.v) * 22)
    ribs = rng.uniform(0, 0.15) * np.sin(rng.uniform(12, 30) * (relief.u - np.abs(relief.v))) * (np.abs(relief.u) < 2)
    tilt = rng.uniform(0, 0.4) * relief.v * np.where(per_element(rng, relief.element) > 0.5, 1, -1)
    h = relief.height - rng.uniform(-0.3, 0.3) * vein + ribs * 0.5 + tilt
    return replace(relief, height=stretch01(h))


def scales(rng: Rng) -> Relief:
    """Rows that cover the rows behind them: scales, slates, feathers with an eye."""
    x, y = plane(rng)
    size = log_uniform(rng, 20, 100)
    shape = Shape(
        length=rng.uniform(0.5, 0.62),
        width=rng.uniform(0.75, 1.0),
        norm=rng.choice([2.0, 2.0, 3.0, 6.0]),
        lobes=0,
        lobe_depth=0.0,
        turn=0.0,
        spread=rng.uniform(0, 0.15),
        variation=rng.uniform(0, 0.15),
        jitter=rng.uniform(0, 0.08),
        stagger=0.5,
        order="rows",
        dome=rng.uniform(0, 0.6),
    )
    relief = heap(rng, x / size, y / size * rng.uniform(1, 1.6), shape, layers=1)
    return replace(relief, height=stretch01(relief.height + rng.uniform(0.2, 0.8) * relief.v))


def strokes(rng: Rng) -> Relief:
    """Grass, fur, straw, brush strokes: long thin shapes in several layers."""
    x, y = plane(rng)
    size = log_uniform(rng, 24, 90)
    shape = Shape(
        length=rng.uniform(0.8, 1.1),
        width=rng.uniform(0.06, 0.22),
        norm=rng.choice([2.0, 1.2, 4.0]),
        lobes=0,
        lobe_depth=0.0,
        turn=rng.uniform(0, np.pi),
        spread=rng.choice([0.15, 0.5, 3.2]),
        variation=rng.uniform(0.1, 0.5),
        jitter=0.45,
        stagger=0.5,
        order="random",
        dome=rng.uniform(0.3, 1),
    )
    return heap(rng, x / size, y / size, shape, layers=int(rng.integers(3, 6)))


def heap(rng: Rng, x: Array, y: Array, shape: Shape, layers: int) -> Relief:
    """Several layers of overlapping shapes; a shape's middle is raised by its dome above its rim."""
    height = rng.uniform(0, 0.25) * any_fractal(rng, 8, 60)
    element = np.zeros(x.shape, np.int32)
    u, v = np.full_like(x, 2), np.full_like(x, 2)
    for layer in range(layers):
        shift = rng.uniform(0, 64, 2)
        rho, level, number, su, sv = overlapping(rng, x + shift[0], y + shift[1], shape)
        on = rho < 1
        cap = np.sqrt(np.clip(1 - rho * rho, 0, 1)) if shape.norm <= 2 else 1 - rho**4
        top = (layer + level) / layers * (1 - 0.75 * shape.dome) + 0.25 + shape.dome * cap
        height = np.where(on, top, height)
        element = np.where(on, (number * 7 + layer * 977) % 4095 + 1, element)
        u, v = np.where(on, su, u), np.where(on, sv, v)
    return Relief(stretch01(height), element, u.astype(np.float32), v.astype(np.float32))


def bricks(rng: Rng) -> Relief:
    """Bricks, tiles, setts, planks: courses with joints, corners perhaps rounded."""
    x, y = plane(rng, wobble=0.5)
    width = log_uniform(rng, 24, 170)
    rise = max(14.0, width * rng.choice([1, 1, 0.5, 0.4, 0.33, 0.25, 0.12]))
    if chance(rng, 0.3):  # the sides of the courses are not straight
        ragged = rng.uniform(0.5, 2.5)
        x, y = x + ragged * any_fractal(rng, 20, 60), y + ragged * any_fractal(rng, 20, 60)
    row = np.floor(y / rise)
    shifts = rng.random(64) if chance(rng, 0.25) else np.arange(64) * rng.choice([0, 0, 0.5, 0.5, 0.33])
    xs = x / width + shifts[row.astype(np.int32) % 64].astype(np.float32)
    column = np.floor(xs)
    u, v = (xs - column - 0.5) * 2, (y / rise - row - 0.5) * 2
    half, tall = width / 2, rise / 2
    corner = rng.uniform(0, 0.45) * min(half, tall) if chance(rng, 0.6) else 0.5
    ax, ay = np.abs(u) * half - half + corner, np.abs(v) * tall - tall + corner
    distance = corner - np.hypot(np.maximum(ax, 0), np.maximum(ay, 0)) - np.minimum(np.maximum(ax, ay), 0)
    joint = rng.uniform(0.8, max(1.2, min(7, 0.16 * min(width, rise))))
    element = ((row * 131 + column * 17) % 4095 + 1).astype(np.int32)
    h = smoothstep(joint * 0.5, joint * 0.5 + log_uniform(rng, 1, 12), distance)
    h = h * (0.75 + 0.25 * per_element(rng, element))
    along, across = (u, v * rise / width) if chance(rng, 0.8) else (v, u)
    return Relief(h.astype(np.float32), np.where(distance > joint * 0.5, element, 0).astype(np.int32), along, across)


def weave(rng: Rng) -> Relief:
    """Cloth, basket, wicker: strips that pass over and under one another."""
    x, y = plane(rng, wobble=0.5)
    pitch = log_uniform(rng, 9, 64)
    ratio = rng.choice([1, 1, 1, 0.5, 0.33])
    a, b = x / pitch, y / (pitch * ratio)
    i, j = np.floor(a), np.floor(b)
    period, step = int(rng.choice([2, 2, 3, 4])), int(rng.choice([1, 1, 2]))
    float_length = int(rng.integers(1, period)) if period > 2 else 1
    over = np.mod(i + j * step, period) < float_length
    su, sv = 2 * (a - i) - 1, 2 * (b - j) - 1
    # Position along the visible piece of a strip: it bends down at both ends, where the other strip crosses it.
    run_h = (np.mod(i + j * step, period) + (su + 1) / 2) / float_length * 2 - 1
    rest = period - float_length
    run_v = (np.mod(i + j * step, period) - float_length + 0.5) / rest * 2 - 1 if rest > 1 else sv
    along = np.where(over, run_h, np.where(rest > 1, run_v, sv))
    across = np.where(over, sv, su)
    fill = rng.uniform(0.8, 1.0)
    profile = np.sqrt(np.clip(1 - np.abs(across / fill) ** rng.uniform(2, 6), 0, 1))
    h = profile * (1 - rng.uniform(0.3, 0.8) * np.abs(np.where(over, run_h, sv)) ** rng.uniform(1.5, 4))
    piece = np.where(over, j * 57 + np.floor((i + j * step) / period) * 13, i * 91 + j * 29 + 7)
    by_strip = np.where(over, j * 57, i * 91 + 2048)
    element = (piece if chance(rng, 0.6) else by_strip) % 4095 + 1
    return Relief(stretch01(h), element.astype(np.int32), along.astype(np.float32), across.astype(np.float32))


def herringbone(rng: Rng) -> Relief:
    """Parquet: blocks laid at right angles, in the herringbone or the basket pattern."""
    x, y = plane(rng, wobble=0.4)
    size = log_uniform(rng, 12, 48)
    a, b = x / size, y / size
    i, j = np.floor(a).astype(np.int32), np.floor(b).astype(np.int32)
    n = int(rng.choice([2, 3, 4]))
    if chance(rng, 0.5):
        phase = np.mod(i - j, 2 * n)
        flat_lying = phase < n
        run = np.where(flat_lying, phase + (a - i), np.mod(j - i - 1, 2 * n) + (b - j))
        start = np.where(flat_lying, i - phase, j - np.mod(j - i - 1, 2 * n))
        element = np.where(flat_lying, start * 31 + j * 67, start * 43 + i * 89 + 5)
    else:
        block = (np.floor(a / n) + np.floor(b / n)) % 2 == 0
        flat_lying = block
        run = np.where(block, np.mod(a, n), np.mod(b, n))
        element = np.where(block, np.floor(a / n) * 31 + j * 67, np.floor(b / n) * 43 + i * 89 + 5).astype(np.int32)
    across = np.where(flat_lying, b - j, a - i)
    distance = np.minimum(np.minimum(across, 1 - across), np.minimum(run, n - run)) * size
    joint = rng.uniform(0.6, max(1, 0.12 * size))
    h = smoothstep(joint * 0.5, joint * 0.5 + log_uniform(rng, 1, 0.5 * size), distance.astype(np.float32))
    return Relief(
        h,
        (np.mod(element, 4095) + 1).astype(np.int32),
        (2 * run / n - 1).astype(np.float32),
        (2 * across - 1).astype(np.float32),
    )


def wood(rng: Rng) -> Relief:
    """Rings cut lengthwise, or bark and fibre stretched in one direction."""
    x, y = plane(rng)
    if chance(rng, 0.5):
        rings = np.hypot(x - x.mean() + rng.uniform(-400, 400), (y - y.mean()) * rng.uniform(0.02, 0.3))
        rings = rings + rng.uniform(5, 60) * fractal(rng, 3, 4, 0.5, 0.3)
        h = np.mod(rings / rng.uniform(6, 36), 1) ** rng.uniform(0.5, 3)
    else:
        table = fractal(rng, rng.uniform(10, 50), 4, 0.6)
        h = lookup(table, x, y * rng.uniform(0.03, 0.2))
    fibre = lookup(fractal(rng, 90, 3, 0.7), x, y * 0.06)
    return flat(stretch01(h + rng.uniform(0.1, 0.7) * fibre), x, y)


def marble(rng: Rng) -> Relief:
    """Sines bent by noise: marble, agate, zebra, oil on water."""
    x, y = plane(rng)
    phase = x * rng.uniform(0, 0.12) + y * rng.uniform(0, 0.12) + rng.uniform(3, 22) * any_fractal(rng, 2, 6)
    h = np.sin(phase)
    if chance(rng, 0.5):
        h = 1 - np.abs(h) ** rng.uniform(0.3, 1)
    elif chance(rng, 0.4):
        h = np.clip(h * rng.uniform(2, 9), -1, 1)
    return flat(stretch01(h), x, y)


def waves(rng: Rng) -> Relief:
    """Regular waves: corrugated sheet, knit, gratings, checks, ribbed cloth."""
    x, y = plane(rng, wobble=0.6)
    p = log_uniform(rng, 7, 60)
    a, b = 2 * np.pi * x / p, 2 * np.pi * y / p * rng.choice([1, 1, 0.5, 2])
    kind = rng.integers(4)
    if kind == 0:
        h = np.sin(a)
    elif kind == 1:
        h = np.sin(a) * np.sin(b)
    elif kind == 2:
        h = np.sin(a + rng.uniform(0.5, 2.5) * np.abs(np.sin(b / 2)))
    else:
        h = np.maximum(np.cos(a), np.cos(b))
    if chance(rng, 0.4):
        h = np.clip(h * rng.uniform(1.5, 8), -1, 1)
    element = ((np.floor(x / p) * 37 + np.floor(y / p) * 101) % 4095 + 1).astype(np.int32)
    return Relief(stretch01(h), element, np.sin(a).astype(np.float32), np.sin(b).astype(np.float32))


FAMILIES: tuple[tuple[Callable[[Rng], Relief], float], ...] = (
    (clouds, 12),
    (cells, 14),
    (caustics, 5),
    (stones, 15),
    (discs, 5),
    (leaves, 8),
    (scales, 5),
    (strokes, 6),
    (bricks, 11),
    (weave, 9),
    (herringbone, 5),
    (wood, 6),
    (marble, 4),
    (waves, 5),
)


def any_relief(rng: Rng) -> Relief:
    """A relief of a family drawn by weight, often with finer noise on top."""
    weights = np.array([w for _, w in FAMILIES])
    relief = FAMILIES[int(rng.choice(len(FAMILIES), p=weights / weights.sum()))][0](rng)
    if chance(rng, 0.6):
        noise = spectral(rng) if chance(rng, 0.4) else any_fractal(rng, 8, 120)
        relief = replace(relief, height=stretch01(relief.height + rng.uniform(0.03, 0.35) * (noise - 0.5)))
    return relief


# -- colour, light, camera -----------------------------------------------------------------------------------------


def hsv_to_rgb(hue: Array, saturation: Array, value: Array) -> Array:
    """HSV in [0, 1] to RGB, on the last axis."""
    k = (np.array([5.0, 3.0, 1.0]) + hue[..., None] * 6) % 6
    chroma = saturation[..., None] * np.clip(np.minimum(k, 4 - k), 0, 1)
    return np.asarray(value[..., None] * (1 - chroma), np.float32)


def palette(rng: Rng, colours: int | None = None) -> Array:
    """(n, 3) colours that go together: earth and stone, foliage, any hue, grey, or two opposed hues."""
    n = colours or int(rng.integers(3, 7))
    kind = rng.choice(5, p=[0.36, 0.1, 0.3, 0.14, 0.1])
    base = (rng.uniform(0.01, 0.14), rng.uniform(0.16, 0.4), rng.random(), rng.random(), rng.random())[kind]
    hue = base + rng.normal(0, rng.choice([0.015, 0.04, 0.12]), n)
    if kind == 4:
        hue = hue + 0.5 * (rng.random(n) < 0.4)
    level = rng.uniform(0, 0.12) if kind == 3 else rng.uniform(0.05, (0.7, 0.8, 1, 0, 0.9)[kind])
    saturation = np.clip(level + rng.normal(0, 0.12 if kind != 3 else 0.03, n), 0, 1)
    value = rng.uniform(0.04, 1, n)
    value = np.sort(value) if chance(rng, 0.7) else value
    return hsv_to_rgb(hue % 1, saturation, value)


def ramp(rng: Rng, colours: Array, value: Array) -> Array:
    """Colour a map in [0, 1] through a ramp with the given colours at random places."""
    stops = np.sort(np.r_[0, rng.uniform(0, 1, len(colours) - 2), 1])
    table = np.stack([np.interp(np.linspace(0, 1, 512), stops, colours[:, c]) for c in range(3)], 1)
    return np.asarray(table[np.clip(value * 511, 0, 511).astype(np.int32)], np.float32)


def colour(rng: Rng, relief: Relief) -> Array:
    """Albedo (H, W, 3): by height, by element, with speckles and fibres inside the elements."""
    many = int(relief.element.max()) > 0
    own = per_element(rng, relief.element)
    noise = spectral(rng) if chance(rng, 0.3) else any_fractal(rng)
    parts = [
        (relief.height, rng.uniform(0, 1)),
        (noise, rng.uniform(0, 0.8)),
        (own, rng.uniform(0, 1.2) * many),
    ]
    value = sum((m * w for m, w in parts), np.zeros_like(noise)) / (sum(w for _, w in parts) + 1e-6)
    image = ramp(rng, palette(rng), stretch01(value) if chance(rng, 0.6) else value)
    if many:
        if chance(rng, 0.5):  # gaps have a colour of their own
            bare = (relief.element == 0) if chance(rng, 0.5) else (relief.height < rng.uniform(0.05, 0.25))
            image = np.where(bare[..., None], ramp(rng, palette(rng) * rng.uniform(0.2, 1), noise), image)
        if chance(rng, 0.5):  # each element brighter or darker, warmer or cooler
            tint = 1 + rng.uniform(0.05, 0.4) * (per_element(rng, relief.element + 11) - 0.5)
            warm = rng.uniform(0, 0.25) * (per_element(rng, relief.element + 23) - 0.5)
            image = image * np.stack([tint + warm, tint, tint - warm], -1)
        offset = 97 * per_element(rng, relief.element)
        if chance(rng, 0.35):  # speckles: a second colour inside the elements
            f = log_uniform(rng, 6, 40)
            spots = lookup(fractal(rng, 40, 3, 0.6, size=256), f * relief.u + offset, f * relief.v + offset)
            level = rng.uniform(0.5, 0.75)
            mask = smoothstep(level, level + rng.uniform(0.03, 0.2), spots) * rng.uniform(0.4, 1)
            image = image * (1 - mask[..., None]) + palette(rng)[0] * mask[..., None]
        if chance(rng, 0.35):  # fibres along the elements
            f = log_uniform(rng, 10, 60)
            fibre = lookup(fractal(rng, 64, 3, 0.7, size=256), 3 * relief.u + offset, f * relief.v + offset)
            image = image * (1 + rng.uniform(0.15, 0.7) * (fibre - 0.5))[..., None]
        if chance(rng, 0.15):  # an eye in the middle of each
            rho = np.hypot(relief.u, relief.v * rng.uniform(0.6, 1.4)) + rng.uniform(0, 0.15) * (noise - 0.5)
            rings = ramp(rng, palette(rng), np.clip(rho, 0, 1))
            eye = (rho < rng.uniform(0.3, 0.9))[..., None] & (relief.element > 0)[..., None]
            image = np.where(eye, rings, image)
    return np.clip(image, 0, 1).astype(np.float32)


def light(rng: Rng, image: Array, height: Array) -> Array:
    """Lambert and perhaps a gloss from one lamp, darker hollows, and shadows cast by what stands higher."""
    h = blur(height, 1) if chance(rng, 0.5) else height
    strength = log_uniform(rng, 4, 50)
    gy, gx = (strength * g for g in np.gradient(h))
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.3)
    lx, ly, lz = np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)
    length = np.sqrt(1 + gx * gx + gy * gy)
    shade = np.clip((lz - gx * lx - gy * ly) / length, 0, None) / max(lz, 0.3)
    if chance(rng, 0.6):
        slope = np.tan(elevation) * rng.uniform(0.01, 0.05)
        shadow = np.zeros_like(h)
        for step in (2, 4, 7, 11, 16):
            moved = np.roll(h, (round(-ly * step), round(-lx * step)), (0, 1))
            shadow = np.maximum(shadow, moved - h - slope * step)
        shade = shade * (1 - rng.uniform(0.3, 0.9) * smoothstep(0.0, 0.12, shadow))
    ambient = rng.uniform(0.15, 0.5)
    hollow = np.clip(1 + rng.uniform(0.3, 1.6) * (h - blur(h, rng.uniform(3, 14))), 0.25, 1.3)
    image = image * (hollow * (ambient + (1 - ambient) * shade))[..., None]
    if chance(rng, 0.35):
        half = np.array([lx, ly, lz + 1]) / np.sqrt(2 + 2 * lz)
        gloss = np.clip((half[2] - gx * half[0] - gy * half[1]) / length, 0, 1) ** log_uniform(rng, 6, 80)
        image = image + rng.uniform(0.1, 0.7) * gloss[..., None]
    return np.asarray(image, np.float32)


def material(rng: Rng) -> tuple[Array, Array]:
    """One lit material: picture (H, W, 3) and height (H, W)."""
    relief = any_relief(rng)
    image = colour(rng, relief)
    if chance(rng, 0.5):  # fine relief: pores, grit
        pores = fractal(rng, rng.uniform(60, 200), 2, 0.8)
        relief = replace(relief, height=relief.height + rng.uniform(0.01, 0.08) * (pores - 0.5))
        image = image * (1 + rng.uniform(0, 0.5) * (pores - 0.5))[..., None]
    if chance(rng, 0.75):
        image = light(rng, image, relief.height)
    return image, relief.height


def peel(rng: Rng, upper: Array, lower: Array) -> Array:
    """One material flakes off another: a ragged mask, a lit rim and a shadow below it."""
    field = any_fractal(rng, 2, 10) if chance(rng, 0.7) else spectral(rng)
    level, soft = rng.uniform(0.35, 0.7), rng.choice([0.01, 0.02, 0.15])
    mask = smoothstep(level - soft, level + soft, field)
    shift = (int(rng.integers(-4, 5)), int(rng.integers(-4, 5)))
    rim = (np.roll(mask, shift, (0, 1)) - mask)[..., None] * rng.uniform(0, 0.6)
    return np.asarray((upper * (1 - mask[..., None]) + lower * mask[..., None]) * (1 - rim), np.float32)


def camera(rng: Rng, image: Array) -> NDArray[np.uint8]:
    """Reduce to SIZE, expose, and add the grain of a sensor; uint8 (SIZE, SIZE, 3)."""
    image = np.clip(image, 0, 1) ** rng.uniform(0.6, 1.5)
    if chance(rng, 0.6):
        low, high = np.percentile(image[::4, ::4], (1, 99))
        image = (image - low) / (high - low + 0.05) * rng.uniform(0.6, 1) + rng.uniform(0, 0.12)
    picture = Image.fromarray(np.uint8(np.clip(image, 0, 1) * 255 + 0.5))
    resample = Image.Resampling.LANCZOS if chance(rng, 0.6) else Image.Resampling.BOX
    out = np.asarray(picture.resize((SIZE, SIZE), resample), np.float32)
    if chance(rng, 0.5):
        channels = 3 if chance(rng, 0.3) else 1
        out = out + rng.standard_normal((SIZE, SIZE, channels)).astype(np.float32) * rng.uniform(1, 10)
    return np.asarray(np.clip(out, 0, 255) + 0.499, np.uint8)


def texture(seed: int) -> NDArray[np.uint8]:
    """The texture of that seed: (SIZE, SIZE, 3) uint8."""
    rng = np.random.default_rng(seed)
    image, _ = material(rng)
    if chance(rng, 0.18):
        image = peel(rng, image, material(rng)[0])
    return camera(rng, image)


def write_textures(path: Path, count: int, seed: int, workers: int) -> None:
    """Write `count` textures into one .npy file (count, SIZE, SIZE, 3), in `workers` processes.

    The file appears under its name only when it is whole.
    """
    part = path.with_suffix(".part")
    out = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(count, SIZE, SIZE, 3))
    with ProcessPoolExecutor(workers) as pool:
        for i, picture in enumerate(pool.map(texture, (seed * 1_000_003 + i for i in range(count)), chunksize=8)):
            out[i] = picture
    out.flush()
    part.replace(path)
