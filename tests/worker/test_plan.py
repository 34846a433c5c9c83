"""Plans: what a job would use, and what an artist should know before it runs."""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ad_service.worker.plan import make_plan
from blender_addon.wire import Plan, WireError
from tests.support.photographs import tiles


def plan(pictures: dict[str, Any], kind: str = "synthesize", **parameters: Any) -> Plan:
    blobs: dict[str, bytes] = {}
    inputs = {}
    for name, pixels in pictures.items():
        buffer = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
        inputs[name] = hashlib.sha256(buffer.getvalue()).hexdigest()
        blobs[inputs[name]] = buffer.getvalue()
    return make_plan({"kind": kind, "parameters": parameters, "inputs": inputs}, blobs.__getitem__)


def halves(vertical: bool) -> Any:
    layout = np.zeros((64, 96, 3))
    layout[:, :48] = (200, 0, 0)
    return layout if vertical else layout.swapaxes(0, 1)


def test_a_small_swatch_is_used_as_it_is_without_notes() -> None:
    found = plan({"swatch": tiles(300, 400, 40)})
    assert (found.crop, found.scale, found.width, found.height) == ((0, 0, 400, 300), 1.0, 512, 512)
    assert found.notes == () and found.pixels_per_meter is None
    assert found.memory_bytes == 767_000_000


def test_a_plan_checks_the_maps_and_counts_their_memory() -> None:
    swatch = tiles(300, 400, 40)
    found = plan({"swatch": swatch, "map:roughness": swatch[::2, ::2].mean(2), "map:wear": swatch[..., 0]})
    assert found.notes == ("map:roughness is 200x150 pixels and was resized to the swatch's 400x300",)
    assert found.memory_bytes == 767_000_000 + 2 * 13 * 512 * 512
    with pytest.raises(WireError, match="map:normal is not a normal map"):
        plan({"swatch": swatch, "map:normal": swatch[..., 0]})


def test_a_job_without_a_size_has_no_plan() -> None:
    with pytest.raises(WireError, match="suggest_regions") as caught:
        plan({"swatch": tiles(300, 400, 40)}, "suggest_regions", parts=2)
    assert caught.value.code == "invalid-request"


def test_sizes_are_rounded_with_a_note() -> None:
    found = plan({"swatch": tiles(300, 400, 40)}, width=500, height=300)
    assert (found.width, found.height) == (496, 304)
    (note,) = found.notes
    assert "500 x 300 becomes 496 x 304" in note and "multiples of 8" in note


def test_a_layout_that_does_not_meet_itself_is_noted_for_each_tiling_axis() -> None:
    pictures = {"swatch": tiles(96, 96, 12), "regions": halves(True)[:, :64].repeat(1, 1), "layout": halves(True)}
    pictures["regions"] = np.resize(halves(True), (64, 96, 3))[:64, 16:80]
    (note,) = plan(pictures, tile="xy").notes
    assert "left and right edges of the layout differ along 100%" in note and "seam" in note
    assert plan(pictures, tile="y").notes == ()
    pictures["layout"] = halves(False)
    assert "top and bottom" in plan(pictures, tile="y").notes[0]


def test_few_parts_at_an_explicit_scale_are_noted() -> None:
    (note,) = plan({"swatch": tiles(1200, 1200, 300)}, scale=1.0).notes
    assert re.search("about [2-4] of the swatch's parts", note) and "automatic scale shows more" in note
    assert plan({"swatch": tiles(1200, 1200, 300)}).notes == ()


def test_a_restyling_has_the_size_of_its_content() -> None:
    found = plan({"swatch": tiles(96, 96, 12), "content": np.zeros((100, 203, 3))}, "restyle")
    assert (found.width, found.height) == (200, 104) or (found.width, found.height) == (200, 96)


@pytest.mark.parametrize("parameters", [{"width": "big"}, {"seed": -1}, {"crop": "0,0,999,999"}])
def test_an_invalid_job_has_no_plan(parameters: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        plan({"swatch": tiles(96, 96, 12)}, **parameters)
    assert caught.value.code == "invalid-parameter"
