"""The figures of estimates against true maps, beside those of simple guesses, and what they look like under two lamps.

python -m ad_service.maps.training.evaluate --materials DIR
python -m ad_service.maps.training.evaluate --materials DIR --sheet OUT.png --names brick_4,rock_2
"""

from __future__ import annotations

import argparse
import math
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ad_service.core.materials.estimate import EstimatedMaps, estimate, load_network, normal_of, slope, slope_of
from ad_service.core.materials.estimate_network import LUMINANCE, MapsNetwork
from ad_service.core.pixels import to_uint8
from ad_service.maps import WEIGHTS
from ad_service.maps.training.materials import Surface, read_surfaces

BLUR = 3.0
"""Standard deviation, in pixels, of the blur before slopes are compared."""
TORUS = (True, True)
LUMINANCE_RELIEF = 10.0
"""Pixels from black to white if the luminance is taken for the height."""
LAMPS = ((-0.6, 0.6, 0.55), (0.8, 0.1, 0.45))
"""Directions to the two lamps of a sheet: right, up, towards the viewer."""
TILE = 256
"""Pixels a side of a picture on a sheet."""


@dataclass(frozen=True)
class Figures:
    """Figures of one material; NaN where it lacks the map.

    Attributes:
        slopes: correlation of the normals' slopes, blurred by 3 pixels; mean of x and y.
        blurred: angle between the blurred normals, degrees.
        detail: angle between the normals at full detail, degrees.
        roughness: mean absolute difference.
        height: correlation.
    """

    slopes: float
    blurred: float
    detail: float
    roughness: float
    height: float


def blur(x: Tensor, sigma: float = BLUR) -> Tensor:
    """Gaussian blur on the torus: (..., h, w)."""
    h, w = x.shape[-2:]
    f2 = torch.fft.fftfreq(h)[:, None] ** 2 + torch.fft.rfftfreq(w)[None] ** 2
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * torch.exp(-2 * (torch.pi * sigma) ** 2 * f2), s=(h, w))
    return blurred


def angle(a: Tensor, b: Tensor) -> float:
    """Mean angle in degrees between vectors (3, h, w) of any length."""
    a, b = F.normalize(a, dim=0), F.normalize(b, dim=0)
    return float((torch.linalg.vector_norm(a - b, dim=0) / 2).clamp(max=1).asin().mean()) * 360 / math.pi


def pearson(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of all numbers; 0 if one of them is constant."""
    a, b = (t.double() - t.double().mean() for t in (a, b))
    norm = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / norm if norm > 1e-9 else 0.0


def figures(surface: Surface, normal: Tensor, height: Tensor, roughness: Tensor) -> Figures:
    """Compare a normal map (3, h, w), height and roughness (1, h, w), all in [0, 1], with a material's own."""
    nan = math.nan
    correlated = blurred = detail = nan
    if surface.normal is not None:
        true = surface.normal.float() / 255
        a, b = blur(slope_of(normal)), blur(slope_of(true))
        correlated = (pearson(a[0], b[0]) + pearson(a[1], b[1])) / 2
        vectors, true_vectors = (F.normalize(2 * m - 1, dim=0) for m in (normal, true))
        blurred, detail = angle(blur(vectors), blur(true_vectors)), angle(vectors, true_vectors)
    rough = nan if surface.roughness is None else float((roughness - surface.roughness.float() / 255).abs().mean())
    high = nan if surface.height is None else pearson(height, surface.height.float())
    return Figures(correlated, blurred, detail, rough, high)


def mean(rows: list[Figures]) -> Figures:
    """Mean of each figure over the materials that have it."""
    columns = torch.tensor([astuple(row) for row in rows], dtype=torch.float64)
    return Figures(*columns.nanmean(0).tolist())


def of_network(network: MapsNetwork, surfaces: list[Surface]) -> tuple[list[Figures], list[EstimatedMaps]]:
    """Figures and maps of estimates from the colors alone."""
    maps = [estimate(network, surface.color.float() / 255, TORUS) for surface in surfaces]
    rows = [figures(s, m.normal, m.height, m.roughness) for s, m in zip(surfaces, maps, strict=True)]
    return rows, maps


def of_guesses(surfaces: list[Surface], roughness: float) -> dict[str, Figures]:
    """Mean figures of a flat surface, and of the luminance as height, with one roughness for all."""
    flat, luminance = [], []
    for surface in surfaces:
        height = (surface.color.float() / 255 * torch.tensor(LUMINANCE)[:, None, None]).sum(0, keepdim=True)
        rough = torch.full_like(height, roughness)
        flat.append(figures(surface, normal_of(torch.zeros(2, *height.shape[1:])), torch.zeros_like(height), rough))
        normal = normal_of(slope(LUMINANCE_RELIEF * height, TORUS))
        luminance.append(figures(surface, normal, height, rough))
    return {"flat": mean(flat), "luminance": mean(luminance)}


def lit(color: Tensor, normal: Tensor, roughness: Tensor, lamp: tuple[float, float, float]) -> Tensor:
    """A surface under a lamp, Lambert and a GGX highlight: all (C, h, w) in [0, 1]; (3, h, w)."""
    n = F.normalize(2 * normal - 1, dim=0)
    light = F.normalize(torch.tensor(lamp), dim=0)
    half = F.normalize(light + torch.tensor([0.0, 0.0, 1.0]), dim=0)
    diffuse = (n * light[:, None, None]).sum(0, keepdim=True).clamp_min(0)
    a2 = roughness.clamp_min(0.1) ** 4
    near = (n * half[:, None, None]).sum(0, keepdim=True).clamp_min(0) ** 2
    shine = 0.04 * a2 / (torch.pi * (near * (a2 - 1) + 1) ** 2).clamp_min(1e-4)
    linear = color**2.2 * (0.12 + 1.3 * diffuse) + shine * diffuse
    return linear.clamp(0, 1) ** (1 / 2.2)


def row_of_sheet(surface: Surface, maps: EstimatedMaps) -> Tensor:
    """Color, true and estimated normal, height and roughness, and both lit by two lamps: uint8 (TILE, n * TILE, 3)."""

    def true(m: Tensor | None) -> Tensor:
        return torch.zeros(1, *surface.color.shape[1:]) if m is None else m.float() / 255

    color, normal, rough = true(surface.color), true(surface.normal), true(surface.roughness)
    height = true(surface.height)
    height = (height - height.mean()) / (6 * height.std() + 1e-3) + 0.5
    guess = (maps.height - maps.height.mean()) / (6 * maps.height.std() + 1e-3) + 0.5
    pictures = [color, normal, maps.normal, height, guess, rough, maps.roughness]
    for lamp in LAMPS:
        pictures += [lit(color, normal, rough, lamp), lit(color, maps.normal, maps.roughness, lamp)]
    side = min(*color.shape[1:], 2 * TILE)
    cut = [p.expand(3, -1, -1)[:, :side, :side] for p in pictures]
    return to_uint8(torch.cat([F.interpolate(p[None], (TILE, TILE), mode="area")[0] for p in cut], 2))


def main(argv: list[str] | None = None) -> None:
    """Command line; prints one line for each held-out material, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--materials", type=Path, required=True, metavar="DIR")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="maps and lit renders of held-out materials")
    parser.add_argument("--names", default="", help="materials on the sheet, separated by commas (default: all)")
    args = parser.parse_args(argv)
    training, held_out = read_surfaces(args.materials)
    rows, maps = of_network(load_network(args.weights), held_out)
    columns = [f.name for f in fields(Figures)]
    print(f"{'':32}" + "".join(f"{c:>11}" for c in columns))
    level = torch.tensor([float(s.roughness.float().mean()) / 255 for s in training if s.roughness is not None])
    means = {**of_guesses(held_out, float(level.median())), "estimate": mean(rows)}
    for name, row in [*((s.name, r) for s, r in zip(held_out, rows, strict=True)), *means.items()]:
        print(f"{name:32}" + "".join(f"{v:11.3f}" for v in astuple(row)))
    if args.sheet:
        names = args.names.split(",") if args.names else [s.name for s in held_out]
        shown = [row_of_sheet(s, m) for s, m in zip(held_out, maps, strict=True) if s.name in names]
        Image.fromarray(torch.cat(shown).numpy()).save(args.sheet)


if __name__ == "__main__":
    main()
