"""Training of the network that estimates maps: drawn materials, crops that turn with their normals, a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ad_service.core.materials.estimate import load_network, normal_of, slope
from ad_service.maps.training import train
from ad_service.maps.training.crops import sample, turn
from ad_service.maps.training.evaluate import figures
from ad_service.maps.training.materials import Surface, agrees, draw_surface, read_surface, slopes
from ad_service.maps.training.objective import corner_slopes, corners


def hill(n: int = 128) -> torch.Tensor:
    """A height (1, n, n) in pixels: a wave that tiles, along x only."""
    return (8 * torch.sin(torch.arange(n) * 2 * torch.pi / n)).expand(1, n, n)


def surface(height: torch.Tensor) -> Surface:
    normal = (normal_of(slope(height, (True, True))) * 255).round().byte()
    color = torch.full((3, *height.shape[1:]), 128, dtype=torch.uint8)
    return Surface("hill", color, normal, None, ((height - height.min()) / 16 * 255).byte())


def test_slopes_of_a_normal_map_are_those_of_its_height() -> None:
    expected = slope(hill(), (True, True))
    torch.testing.assert_close(slopes(surface(hill()).normal), expected, atol=0.02, rtol=0)


def test_slopes_at_the_corners_of_cells_match_the_pixels() -> None:
    found = sample(surface(hill(256)), 1.0, False, torch.Generator())
    assert found is not None
    true = corners(found.channels[None, 17:19].float())
    height = torch.nn.functional.avg_pool2d(hill(256)[None], 4)
    torch.testing.assert_close(corner_slopes(height), true, atol=0.02, rtol=0)


def test_normals_that_are_not_those_of_the_height_are_noticed() -> None:
    own = surface(hill())
    assert own.normal is not None and own.height is not None
    assert agrees(own.normal, own.height)
    assert not agrees(own.normal, own.height.transpose(1, 2))


def test_a_turned_crop_has_the_slopes_of_the_turned_height() -> None:
    height = hill() + 3 * torch.randn(1, 128, 128, generator=torch.Generator().manual_seed(0))
    both = turn(torch.cat([slope(height, (True, True)), height]), 1, True)
    torch.testing.assert_close(both[:2], slope(both[2:], (True, True)), atol=1e-4, rtol=0)


def test_figures_of_the_truth_are_perfect_and_of_a_flat_surface_are_not() -> None:
    own = surface(hill())
    assert own.normal is not None and own.height is not None
    rough = torch.zeros(1, 128, 128)
    perfect = figures(own, own.normal.float() / 255, own.height.float() / 255, rough)
    assert perfect.detail < 0.01
    assert perfect.height == pytest.approx(1)
    flat = figures(own, torch.tensor([0.5, 0.5, 1.0])[:, None, None].expand(3, 128, 128), rough, rough)
    assert (flat.height, flat.slopes) == (0, pytest.approx(0, abs=0.1))
    assert flat.detail > 5


def test_a_folder_without_a_color_is_no_material(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "height.jpg")
    assert read_surface(tmp_path) is None


def test_a_drawn_material_is_a_function_of_its_seed() -> None:
    first, second = draw_surface(3), draw_surface(3)
    assert torch.equal(first.color, second.color)
    assert first.normal is not None and second.normal is not None and torch.equal(first.normal, second.normal)


def test_training_on_drawn_materials_writes_weights_that_load(tmp_path: Path) -> None:
    train.main(["--out", str(tmp_path), "--drawn", "2", "--minutes", "0.01", "--workers", "1", "--threads", "2"])
    path = tmp_path / "maps.safetensors"
    assert path.stat().st_size < 10e6
    height, roughness, _ = load_network(path)(torch.zeros(1, 17, 16, 16))
    assert torch.isfinite(height).all() and torch.isfinite(roughness).all()
