"""No seam anywhere: not where the picture wraps, nor where windows or decoder tiles met, nor at an edge that is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ad_service.core import SynthesizeRequest, metrics
from ad_service.core.backbone import codec
from ad_service.core.canvas import Window, windows
from ad_service.core.pipeline.options import PipelineOptions
from ad_service.core.pipeline.synthesize import synthesize
from ad_service.core.quilting.quilt import QuiltOptions
from ad_service.core.sampling import samplers
from tests.support.tiny_models import SHIPPED, backbone, end, texture

SIDE = 192
PIECE = 64
"""Pixels along the side of a window and of a decoder tile, so that three of them meet along each axis."""


@dataclass(frozen=True)
class Made:
    """A picture (3, SIDE, SIDE), and the rows and columns before which windows and tiles began or ended last."""

    picture: Tensor
    factor: int
    window_borders: tuple[set[int], set[int]]

    @property
    def tile_borders(self) -> tuple[set[int], set[int]]:
        inner = set(range(PIECE, SIDE, PIECE))
        return inner, inner


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a picture in small windows and tiles, and leaves its edge where it was.

    Two window grids that disagree are softer where both count alike: a network of real weights needs steps enough.
    """
    monkeypatch.setattr(metrics, "copy_share", lambda *_: 0.0)
    options = PipelineOptions(quilt=QuiltOptions(refinements=2.0), move_edge=False)
    cut: list[list[Window]] = []

    def noting(*given: Any) -> list[Window]:
        cut.append(windows(*given))
        return cut[-1]

    monkeypatch.setattr(samplers, "windows", noting)

    def make(name: str, seed: int, **asked: Any) -> Made:
        model = backbone(name)
        factor = model.family.factor
        monkeypatch.setattr(codec, "decode", partial(codec_decode, side=PIECE // factor))
        model = replace(model, family=replace(model.family, window=PIECE // factor))
        asked = {"steps": 3, "detail": "off"} | asked
        request = SynthesizeRequest(swatch=texture(96, 128, seed), height=SIDE, width=SIDE, seed=seed, **asked)
        _, made = end(synthesize(model, request, options=options))
        rows, columns = (
            {at * factor % SIDE for w in cut[-1] for at in (start(w), start(w) + length(w))}
            for start, length in ((lambda w: w.y, lambda w: w.height), (lambda w: w.x, lambda w: w.width))
        )
        return Made(made.color.permute(2, 0, 1).float() / 255, factor, (rows, columns))

    codec_decode = codec.decode
    return make


@dataclass(frozen=True)
class Standing:
    """Borders among all of their picture: mean ratio to the others' difference, mean share that differ less."""

    ratio: float
    rank: float


def standing(pictures: Sequence[Made], borders: Sequence[tuple[set[int], set[int]]], kind: str) -> Standing:
    """Of the single or band borders at the given rows and columns, against all others between two latents."""
    ratios, ranks = [], []
    for made, both in zip(pictures, borders, strict=True):
        for axis, asked in enumerate(both):
            between = range(0, SIDE, made.factor)
            edges = metrics.seam_at(made.picture, between, axis)
            difference = torch.tensor([getattr(edge, kind).difference for edge in edges])
            here = torch.tensor([at in asked for at in between])
            ratios += (difference[here] / difference[~here].mean()).tolist()
            ranks += [float((difference[~here] < d).double().mean()) for d in difference[here]]
    return Standing(sum(ratios) / len(ratios), sum(ranks) / len(ranks))


CASES = {
    "sd15 optimizes noise": ("sd15", {"start": "noise", "method": "optimize"}),
    "sd15 samples noise": ("sd15", {"start": "noise", "method": "sample"}),
    "pocket samples noise": (SHIPPED, {"start": "noise", "method": "sample", "steps": 8}),
    "pocket mends a quilt": (SHIPPED, {"start": "quilt", "detail": "pixels"}),
}


@pytest.mark.parametrize("case", CASES)
def test_borders_of_windows_and_tiles_are_not_visible(case: str, make: Any) -> None:
    name, asked = CASES[case]
    pictures = [make(name, seed, **asked) for seed in range(3)]
    for borders in (
        [({0}, {0})] * 3,
        [made.window_borders for made in pictures],
        [made.tile_borders for made in pictures],
    ):
        for kind in ("single", "band"):
            found = standing(pictures, borders, kind)
            assert 0.9 < found.ratio < 1.08
            assert 0.1 < found.rank < 0.9


def test_an_edge_that_does_not_tile_looks_like_the_inside(make: Any) -> None:
    ratios, steps = [], []
    for seed in range(2):
        made = make(SHIPPED, seed, tile_y=False, detail="auto")
        rough = (made.picture - made.picture.roll(1, 1)).abs().mean((0, 2))
        ratios += [float(rough[part].mean() / rough[16:-16].mean()) for part in (slice(1, 9), slice(-8, None))]
        bright = made.picture.mean((0, 2)).view(-1, 8).mean(1)
        steps += [abs(float(bright[end] - bright.mean())) / float(bright.std()) for end in (0, -1)]
        assert int(rough.argmax()) == 0, "its two ends have nothing to do with each other"
    assert 0.85 < sum(ratios) / len(ratios) < 1.15
    assert sum(steps) / len(steps) < 1.5  # the mean distance of a normal number from its mean is 0.8 deviations
