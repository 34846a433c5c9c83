"""GPDM, the reference without a network: its loss falls, and its result has the patches of the swatch."""

from __future__ import annotations

import torch

from ad_service.core import metrics
from tests.support.gpdm import descend, generate
from tests.support.tiny_models import noise, seeded, texture


def test_the_loss_falls_on_a_torus_of_any_size() -> None:
    swatch, start = texture(48, 64), 0.5 + 0.2 * noise(3, 40, 56)
    made, losses = descend(start, swatch, seeded(), steps=100)
    assert made.shape == start.shape
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert not torch.equal(made, start)


def test_a_result_has_the_patches_of_its_swatch() -> None:
    swatch = texture(64, 80)
    made = generate(swatch, 72, 64, seeded(), steps=40)
    assert made.shape == (3, 72, 64)
    assert metrics.patch_distance(made, swatch) < 2 * metrics.halves_distance(swatch)


def test_the_edges_of_a_result_are_like_its_other_borders() -> None:
    edges = [metrics.seam(generate(texture(64, 64, seed), 56, 56, seeded(seed), steps=20)) for seed in range(5)]
    ratios = [ratio for edge in edges for ratio in (edge.y.single.ratio, edge.x.single.ratio)]
    assert sum(ratios) / len(ratios) < 1.15
