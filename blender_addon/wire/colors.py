"""The colors of regions, and which region a painted color means: how both sides write and read label maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

PALETTE = (
    (230, 60, 50),
    (40, 120, 230),
    (60, 190, 70),
    (250, 200, 30),
    (160, 70, 200),
    (0, 200, 200),
    (250, 130, 20),
    (250, 120, 190),
    (140, 230, 60),
    (130, 70, 20),
    (90, 90, 250),
    (200, 0, 110),
)
"""Colors that are easy to distinguish: those of new regions, and of the parts in a suggested map, the largest first."""
MAX_COLOR_DISTANCE = 64.0
"""Euclidean RGB distance (0 to 255 a channel) up to which a color can mean a region's color: a quarter of one channel's
range, well above the 40 levels by which JPEG of low quality moves a plain color."""


def region_of_color(color: Sequence[int], palette: Sequence[Sequence[int]]) -> int | None:
    """The index of the region that a painted color means, or None.

    It is the region whose color is nearest (Euclidean, RGB of 0 to 255 a channel; the first of equally near ones), if
    that is at most MAX_COLOR_DISTANCE away.
    """
    distances = [math.dist(color, region) for region in palette]
    nearest = min(range(len(palette)), key=distances.__getitem__)
    return nearest if distances[nearest] <= MAX_COLOR_DISTANCE else None
