"""The maps of a material among a job's inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blender_addon import wire
from blender_addon.wire import WireError, jobs

SHA = "0" * 64
KIND = replace(wire.SYNTHESIZE, maps_over="swatch")


def test_a_map_with_a_meaning_has_the_role_of_its_pixels() -> None:
    assert KIND.picture("map:normal").role == "normal"
    assert KIND.picture("map:emission").role == "color"


def test_a_map_of_any_other_name_is_data() -> None:
    assert wire.map_type("wear_2").title == "Wear 2"
    assert KIND.picture("map:wear_2").role == "data"


@pytest.mark.parametrize("name", ["map:", "map:Normal", "map:a b", "map:../x", "map:2d", "normal", "map:" + "a" * 33])
def test_a_name_that_no_map_can_have_is_rejected(name: str) -> None:
    assert wire.map_name(name) is None
    with pytest.raises(WireError, match="takes no picture"):
        jobs._checked_inputs(KIND, {"swatch": SHA, name: SHA})


def test_a_job_that_takes_no_maps_rejects_them() -> None:
    with pytest.raises(WireError, match="takes no picture 'map:normal'"):
        jobs._checked_inputs(wire.SUGGEST_REGIONS, {"swatch": SHA, "map:normal": SHA})


def test_a_job_takes_at_most_sixteen_maps() -> None:
    maps = {wire.map_input(f"a{number}"): SHA for number in range(wire.MAX_MAPS + 1)}
    with pytest.raises(WireError, match="17 maps are given; 16 are the limit"):
        jobs._checked_inputs(KIND, {"swatch": SHA, **maps})
    maps.popitem()
    assert len(jobs._checked_inputs(KIND, {"swatch": SHA, **maps})) == 17
