"""Fixtures of the training's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ad_service.pocket.training import textures
from ad_service.pocket.training.settings import Budget, Run
from tests.support.tiny_training import TINY, write_materials


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """The first three drawn textures."""
    return np.stack([textures.texture(seed) for seed in range(3)])


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny materials."""
    return write_materials(tmp_path_factory.mktemp("photographs"))


@pytest.fixture
def run(tmp_path: Path, pictures: np.ndarray) -> Run:
    """A tiny run whose textures are drawn."""
    np.save(tmp_path / "textures.npy", pictures)
    return Run(tmp_path, TINY, codec_budget=Budget(steps=4), unet_budget=Budget(steps=4), save_every=0)
