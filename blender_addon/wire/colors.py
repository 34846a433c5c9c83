"""Which region a painted color means: the rule by which both the service and the add-on read label maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
