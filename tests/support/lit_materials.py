"""Renders of a material under two lights, and contact sheets of a swatch beside its result, to judge maps by eye.

    python -m tests.support.lit_materials SWATCH.jpg RESULT.png SHEET.png normal=swatch_normal.png roughness=...

The result's maps are expected beside it, as the command line writes them: RESULT-normal.png, RESULT-roughness.png.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Floats = npt.NDArray[np.floating[Any]]

LIGHTS = ((-0.6, 0.5, 0.62), (0.75, -0.3, 0.58))
"""Directions (right, up, out of the picture) of the two lights."""


def lit(color: Floats, normal: Floats | None, roughness: Floats | None, light: tuple[float, float, float]) -> Floats:
    """sRGB (h, w, 3) of a plane seen from above: Lambert and GGX (Walter et al. 2007), a light far away, some sky.

    All inputs in [0, 1]: color (h, w, 3) in sRGB, OpenGL normals (h, w, 3), roughness (h, w, 1).
    """
    n = np.array([0.0, 0.0, 1.0]) if normal is None else normal * 2 - 1
    n = n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-6)
    rough: Any = np.float64(0.7) if roughness is None else roughness[..., 0]
    to_light = np.array(light) / np.linalg.norm(light)
    half = to_light + np.array((0.0, 0.0, 1.0))
    half /= np.linalg.norm(half)
    n_l, n_h, n_v = (np.clip(n @ np.array(v), 0.0, 1.0) for v in (to_light, half, (0.0, 0.0, 1.0)))
    alpha = np.clip(rough, 0.05, 1.0) ** 2
    spread = alpha**2 / (np.pi * (n_h**2 * (alpha**2 - 1) + 1) ** 2)
    shadowing = 0.25 / ((n_l * (1 - alpha / 2) + alpha / 2) * (n_v * (1 - alpha / 2) + alpha / 2))
    glossy = 0.04 * spread * shadowing * n_l
    albedo = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    linear = albedo * (2.4 * n_l + 0.25 * n_v)[..., None] + 2.4 * glossy[..., None]
    out: Floats = np.clip(
        np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055), 0, 1
    )
    return out


def sheet(materials: list[tuple[str, dict[str, Floats]]], side: int = 384) -> Image.Image:
    """A row for each material (its title and its maps by name, `color` among them): two lit renders, then the maps."""
    names = ["color", *sorted({name for _, maps in materials for name in maps} - {"color"})]
    page = Image.new("RGB", ((2 + len(names)) * (side + 4), len(materials) * (side + 18)), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for row, (title, maps) in enumerate(materials):
        roughness = maps.get("roughness")
        renders = [lit(maps["color"], maps.get("normal"), roughness, light) for light in LIGHTS]
        top = row * (side + 18)
        draw.text((2, top + 3), title, (0, 0, 0))
        for column, picture in enumerate([*renders, *(maps.get(name) for name in names)]):
            if picture is None:
                continue
            pixels = (np.repeat(picture, 3, 2) if picture.shape[2] == 1 else picture)[:side, :side]
            page.paste(Image.fromarray(np.rint(pixels * 255).astype(np.uint8)), (column * (side + 4), top + 18))
    return page


def read(path: Path) -> Floats:
    """A picture (h, w, C) in [0, 1]."""
    image = Image.open(path)
    pixels = np.asarray(image if image.mode == "L" or image.mode.startswith("I;16") else image.convert("RGB"))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return pixels / np.float64(np.iinfo(pixels.dtype).max)


def main() -> None:
    swatch, result, out = (Path(argument) for argument in sys.argv[1:4])
    files = dict(argument.split("=", 1) for argument in sys.argv[4:])
    ours = {"color": read(swatch), **{name: read(Path(file)) for name, file in files.items()}}
    theirs = {"color": read(result)}
    for name in files:
        theirs[name] = read(result.with_name(f"{result.stem}-{name}.png"))
    sheet([("swatch", ours), ("result", theirs)], min(512, *theirs["color"].shape[:2])).save(out)


if __name__ == "__main__":
    main()
