"""UDIM images: a result over several UV tiles, as one large torus or repeated in every tile."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import bpy
import numpy as np
from bpy.types import Image

from ..wire.errors import LocalError
from . import image_io, results
from .materials import JOB, OUTPUT

COLUMNS = 10
"""Tiles in a row of the UDIM scheme; tile (u, v) has the number 1001 + u + 10 v."""
UDIM = "udim "
"""Prefix of OUTPUT of UDIM images, which are made of the picture with the rest of the name."""


def pieces(pixels: np.ndarray, columns: int, rows: int, repeat: bool) -> dict[int, np.ndarray]:
    """The tiles of a texture by UDIM number. `pixels`: (height, width, channels), top row first.

    With `repeat` every tile is the whole texture. Otherwise the texture is cut into columns x rows equal parts, so that
    neighboring tiles continue each other, and the outer edges too if the texture tiles.
    Raises LocalError if its width or height is not divisible.
    """
    height, width = pixels.shape[:2]
    if repeat:
        return {number(u, v): pixels for v in range(rows) for u in range(columns)}
    if width % columns or height % rows:
        raise LocalError(
            "invalid-image",
            f"{width} x {height} pixels cannot be cut into {columns} x {rows} equal tiles; choose a size of "
            f"{columns} x {rows} times the size of a tile",
        )
    w, h = width // columns, height // rows
    bottoms = [height - (v + 1) * h for v in range(rows)]
    return {
        number(u, v): pixels[bottoms[v] : bottoms[v] + h, u * w : (u + 1) * w]
        for v in range(rows)
        for u in range(columns)
    }


def number(u: int, v: int) -> int:
    """The UDIM number of the tile at column u and row v, from 0."""
    return 1001 + u + COLUMNS * v


def tiled_images(images: Mapping[str, Image], columns: int, rows: int, repeat: bool) -> dict[str, Image]:
    """UDIM images of a result's pictures, packed. Raises LocalError as `pieces`."""
    return {output: _tiled(image, output, columns, rows, repeat) for output, image in images.items()}


def _tiled(image: Image, output: str, columns: int, rows: int, repeat: bool) -> Image:
    tiles = pieces(image_io.pixels_of(image, "result")[..., :3], columns, rows, repeat)
    with tempfile.TemporaryDirectory(prefix="distill-udim-") as folder:
        stem = Path(folder) / "tile"
        for tile, pixels in tiles.items():
            Path(f"{stem}.{tile}.png").write_bytes(image_io.encode_png(np.ascontiguousarray(pixels)))
        found = bpy.data.images.load(f"{stem}.1001.png")
        found.name = f"{image.name} {columns} x {rows} tiles"
        found.source = "TILED"
        found.filepath = f"{stem}.<UDIM>.png"
        for tile in tiles:
            if tile != 1001:
                found.tiles.new(tile)
        if results.is_data(output):
            found.colorspace_settings.name = "Non-Color"
        found.pack()
    found.use_fake_user = True
    found[JOB], found[OUTPUT] = image[JOB], f"{UDIM}{output}"
    for key in ("distill_request", "distill_parameters"):
        found[key] = image.get(key, "{}")
    return found
