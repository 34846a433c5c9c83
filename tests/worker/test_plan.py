"""Plans: what a job would use, and what an artist should know before it runs."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ad_service.worker import plan as plan_module
from ad_service.worker.plan import Pictures, make_plan
from blender_addon.wire import Plan, WireError
from tests.support import tiny_checkpoints
from tests.support.photographs import tiles


def plan(pictures: dict[str, Any], kind: str = "synthesize", data_dir: Path | None = None, **parameters: Any) -> Plan:
    blobs: dict[str, bytes] = {}
    inputs = {}
    for name, pixels in pictures.items():
        buffer = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
        inputs[name] = hashlib.sha256(buffer.getvalue()).hexdigest()
        blobs[inputs[name]] = buffer.getvalue()
    return make_plan({"kind": kind, "parameters": parameters, "inputs": inputs}, Pictures(blobs.__getitem__), data_dir)


def halves(vertical: bool) -> Any:
    layout = np.zeros((64, 96, 3))
    layout[:, :48] = (200, 0, 0)
    return layout if vertical else layout.swapaxes(0, 1)


def test_a_small_swatch_is_used_as_it_is_without_notes() -> None:
    found = plan({"swatch": tiles(300, 400, 40)})
    assert (found.crop, found.scale, found.width, found.height) == ((0, 0, 400, 300), 1.0, 512, 512)
    assert found.notes == () and found.pixels_per_meter is None
    assert found.memory_bytes == 767_000_000


def test_a_picture_is_decoded_and_measured_once_for_several_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer, calls = io.BytesIO(), list[str]()
    Image.fromarray(tiles(300, 400, 40).astype(np.uint8)).save(buffer, "PNG")
    for name in ("decode", "measure_grain"):
        function = getattr(plan_module, name)
        monkeypatch.setattr(plan_module, name, lambda *a, n=name, f=function: calls.append(n) or f(*a))
    pictures = Pictures(lambda _sha: buffer.getvalue())
    body = {"kind": "synthesize", "inputs": {"swatch": "a" * 64}}
    for parameters in ({"width": 256}, {"width": 512}, {"scale": 0.5}, {"even_light": 0.5}):
        make_plan({**body, "parameters": parameters}, pictures)
    assert calls == ["decode", "measure_grain"]
    make_plan({**body, "parameters": {"crop": "0,0,200,200"}}, pictures)
    assert calls == ["decode", "measure_grain", "measure_grain"]


def test_the_memory_of_stable_diffusion_is_estimated(tmp_path: Path) -> None:
    tiny_checkpoints.tiny_sd15(tmp_path / "models" / "small")
    needs = [
        plan({"swatch": tiles(300, 400, 40)}, data_dir=tmp_path, model="small", precision=p) for p in ("auto", "fp32")
    ]
    assert 6e9 < (needs[0].memory_bytes or 0) < (needs[1].memory_bytes or 0) < 13e9
    assert plan({"swatch": tiles(300, 400, 40)}, data_dir=tmp_path, model="absent").memory_bytes is None


def test_a_small_swatch_is_enlarged_for_stable_diffusion(tmp_path: Path) -> None:
    tiny_checkpoints.tiny_sd15(tmp_path / "models" / "small")
    fine, coarse = ({"swatch": tiles(200, 260, part)} for part in (20, 60))
    assert plan(fine, data_dir=tmp_path, model="pocket").scale == 1.0
    assert plan(fine, data_dir=tmp_path, model="small").scale == pytest.approx(512 / 200)
    assert 1.0 < plan(coarse, data_dir=tmp_path, model="small").scale < 512 / 200
    assert plan(fine, data_dir=tmp_path, model="small", scale=1.0).scale == 1.0


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
