"""Training data: drawn textures, photographed materials, crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ad_service.pocket.training import crops, noise, reliefs, textures
from ad_service.pocket.training.crops import Source
from ad_service.pocket.training.photographs import (
    Material,
    crop_material,
    is_held_out,
    read_material,
    read_materials,
    relight,
    turn,
)
from tests.support.tiny_training import HELD_OUT, TRAINING, generator, save


def test_texture_depends_on_its_seed_alone(pictures: np.ndarray) -> None:
    assert pictures.shape == (3, textures.SIZE, textures.SIZE, 3)
    assert pictures.dtype == np.uint8
    assert np.array_equal(textures.texture(1), pictures[1])
    assert not np.array_equal(pictures[0], pictures[1])


@pytest.mark.parametrize("family", [f for f, _ in reliefs.FAMILIES], ids=lambda f: f.__name__)
def test_every_family_gives_a_relief_with_detail(family) -> None:
    relief = family(np.random.default_rng(5))
    for part in (relief.height, relief.element, relief.u, relief.v):
        assert part.shape == (noise.RENDER, noise.RENDER)
        assert np.isfinite(part).all()
    assert relief.height.std() > 0.01
    assert relief.element.min() >= 0


def test_textures_file_does_not_depend_on_the_number_of_workers(tmp_path: Path, pictures: np.ndarray) -> None:
    textures.write_textures(tmp_path / "textures.npy", 2, 0, workers=2)
    assert np.array_equal(np.load(tmp_path / "textures.npy"), pictures[:2])
    assert [p.name for p in tmp_path.iterdir()] == ["textures.npy"]


def test_crops_of_one_call_come_from_one_texture_and_follow_the_generator() -> None:
    flat = torch.full((2, 96, 96, 3), 40, dtype=torch.uint8)
    flat[1] = 200
    first = crops.crop_textures(flat, generator(3), 4, 32)
    assert first.shape == (4, 3, 32, 32)
    assert torch.equal(first, crops.crop_textures(flat, generator(3), 4, 32))
    assert torch.allclose(first, first[:1].expand_as(first))


def test_materials_are_read_and_split_by_name(photographs: Path) -> None:
    training, held_out = read_materials(photographs)
    assert [m.name for m in training] == list(TRAINING)
    assert [m.name for m in held_out] == list(HELD_OUT)
    bark, slate, wool = training
    assert bark.normal is not None and slate.height is not None
    assert bark.normal.shape == bark.color.shape == (272, 272, 3)
    assert slate.height.shape == (272, 272)
    assert wool.normal is None
    assert wool.color.shape == (272, 304, 3)


def test_split_depends_on_the_name_alone_and_holds_out_a_fifth() -> None:
    names = [f"material_{i}" for i in range(2000)]
    share = np.mean([is_held_out(name) for name in names])
    assert share == pytest.approx(0.2, abs=0.03)
    assert not is_held_out("Bricks010")
    assert is_held_out("Rock015")


def test_invalid_folders_of_photographs_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no photographs to train on"):
        read_materials(tmp_path)
    save(tmp_path / "small.png", np.zeros((100, 400, 3)))
    with pytest.raises(ValueError, match="fewer than 256 pixels"):
        read_materials(tmp_path)


def test_maps_of_another_size_are_left_out(tmp_path: Path) -> None:
    save(tmp_path / "bark" / "color.png", np.zeros((300, 300, 3)))
    save(tmp_path / "bark" / "normal_gl.png", np.zeros((150, 150, 3)))
    material = read_material(tmp_path / "bark")
    assert material is not None
    assert material.normal is None


def test_relighting_a_flat_surface_changes_nothing() -> None:
    color = torch.rand(3, 40, 40, generator=generator())
    flat = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 40, 40)
    for seed in range(5):
        relit = relight(color, flat, torch.full((1, 40, 40), 0.7), generator(seed))
        assert torch.allclose(relit, color, atol=1e-5)


def test_slopes_towards_the_lamp_are_brighter_than_slopes_away() -> None:
    color = torch.full((3, 8, 8), 0.5)
    right, left = (torch.tensor([x, 0.0, 0.8])[:, None, None].expand(3, 8, 8) for x in (0.6, -0.6))
    for seed in range(5):
        a, b = (relight(color, n, None, generator(seed)).mean() for n in (right, left))
        assert min(a, b) < 0.5 or max(a, b) > 0.5
        assert abs(a - b) > 1e-3


def test_hollows_become_darker() -> None:
    height = torch.ones(1, 40, 40)
    height[:, 18:22, 18:22] = 0
    relit = relight(torch.full((3, 40, 40), 0.5), None, height, generator(2))
    assert relit[:, 20, 20].mean() < relit[:, 2, 2].mean()


@pytest.mark.parametrize("size", [64, 192, 250, 384])
def test_crops_of_materials_have_their_size_and_range(size: int, photographs: Path) -> None:
    material = read_materials(photographs)[0][0]
    for seed in range(8):
        crop = crop_material(material, size, generator(seed))
        assert crop.shape == (3, size, size)
        assert -1 <= crop.min() < crop.max() <= 1
        assert torch.equal(crop, crop_material(material, size, generator(seed)))


def test_turning_by_zero_takes_the_middle() -> None:
    image = torch.rand(1, 3, 20, 20, generator=generator())
    assert torch.allclose(turn(image, 10, 0.0), image[..., 5:15, 5:15], atol=1e-4)


def test_share_of_photographs() -> None:
    textures_, color = torch.full((1, 96, 96, 3), 255, dtype=torch.uint8), torch.zeros(300, 300, 3, dtype=torch.uint8)
    source = Source(textures_, [Material("black", color)], photograph_share=0.7)
    black = [bool(source.crop(32, generator(seed)).mean() < 0) for seed in range(200)]
    assert np.mean(black) == pytest.approx(0.7, abs=0.1)
    assert all(Source(textures_).crop(32, generator(seed)).mean() > 0 for seed in range(10))
