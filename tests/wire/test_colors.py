"""The rule for painted colors: the nearest region's color, if it is near enough."""

from __future__ import annotations

from blender_addon.wire.colors import MAX_COLOR_DISTANCE, region_of_color

PALETTE = [(0, 0, 0), (0, 0, 255), (255, 0, 0)]


def test_a_color_means_the_nearest_region() -> None:
    assert [region_of_color(color, PALETTE) for color in PALETTE] == [0, 1, 2]
    assert region_of_color((250, 8, 4), PALETTE) == 2
    assert region_of_color((3, 0, 0), [(1, 0, 0), (4, 0, 0)]) == 1


def test_the_first_of_equally_near_regions_counts() -> None:
    assert region_of_color((1, 0, 0), [(2, 0, 0), (0, 0, 0)]) == 0


def test_a_color_far_from_all_regions_means_none() -> None:
    assert region_of_color((0, int(MAX_COLOR_DISTANCE), 0), PALETTE) == 0
    assert region_of_color((0, int(MAX_COLOR_DISTANCE) + 1, 0), PALETTE) is None
