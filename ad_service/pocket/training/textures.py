"""Procedural textures for training pocket: numpy in, uint8 pictures out, every one a function of its seed alone.

A picture is a relief, colored from a random palette, worn, lit from the side and given a camera's grain. No photograph
and no downloaded data is involved.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ad_service.pocket.training.noise import (
    Array,
    Rng,
    any_fractal,
    blur,
    chance,
    fractal,
    log_uniform,
    lookup,
    per_element,
    smoothstep,
    spectral,
    stretch01,
)
from ad_service.pocket.training.reliefs import Relief, any_relief

SIZE = 384
"""Pixels a side of a texture."""


def hsv_to_rgb(hue: Array, saturation: Array, value: Array) -> Array:
    """HSV in [0, 1] to RGB, on the last axis."""
    k = (np.array([5.0, 3.0, 1.0]) + hue[..., None] * 6) % 6
    chroma = saturation[..., None] * np.clip(np.minimum(k, 4 - k), 0, 1)
    return np.asarray(value[..., None] * (1 - chroma), np.float32)


def palette(rng: Rng, colors: int | None = None) -> Array:
    """(n, 3) colors that go together: earth and stone, foliage, any hue, gray, or two opposed hues."""
    n = colors or int(rng.integers(3, 7))
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


def ramp(rng: Rng, colors: Array, value: Array) -> Array:
    """Color a map in [0, 1] through a ramp with the given colors at random places."""
    stops = np.sort(np.r_[0, rng.uniform(0, 1, len(colors) - 2), 1])
    table = np.stack([np.interp(np.linspace(0, 1, 512), stops, colors[:, c]) for c in range(3)], 1)
    return np.asarray(table[np.clip(value * 511, 0, 511).astype(np.int32)], np.float32)


def color(rng: Rng, relief: Relief) -> Array:
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
        if chance(rng, 0.5):  # gaps have another color
            bare = (relief.element == 0) if chance(rng, 0.5) else (relief.height < rng.uniform(0.05, 0.25))
            image = np.where(bare[..., None], ramp(rng, palette(rng) * rng.uniform(0.2, 1), noise), image)
        if chance(rng, 0.5):  # each element brighter or darker, warmer or cooler
            tint = 1 + rng.uniform(0.05, 0.4) * (per_element(rng, relief.element + 11) - 0.5)
            warm = rng.uniform(0, 0.25) * (per_element(rng, relief.element + 23) - 0.5)
            image = image * np.stack([tint + warm, tint, tint - warm], -1)
        offset = 97 * per_element(rng, relief.element)
        if chance(rng, 0.35):  # speckles: a second color inside the elements
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
    image = color(rng, relief)
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
