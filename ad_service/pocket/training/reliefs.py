"""Reliefs: the shapes of surfaces that procedural textures are made of. Numpy in, numpy out, a function of a generator.

A relief is a height with the *elements* that lie in it (stones, bricks, leaves) and coordinates inside each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ad_service.pocket.training.noise import (
    RENDER,
    Array,
    Ints,
    Rng,
    any_fractal,
    chance,
    fractal,
    log_uniform,
    lookup,
    p_norm,
    per_element,
    smoothstep,
    spectral,
    stretch01,
)


@dataclass(frozen=True)
class Relief:
    """The shape of a surface: height in [0, 1]; `element` numbers stones, strips, leaves; u, v run inside each."""

    height: Array
    element: Ints
    u: Array
    v: Array


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


def neighbors(reach: int = 1) -> list[tuple[int, int]]:
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
    for dx, dy in neighbors():
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
    for dx, dy in neighbors():
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
