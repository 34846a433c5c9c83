"""The contract: requests are checked and completed, statuses and errors survive as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blender_addon import wire
from blender_addon.wire import JobRequest, JobStatus, Result, WireError

SHA = "0" * 64


def body(**parameters: Any) -> dict[str, Any]:
    return {"kind": "synthesize", "parameters": parameters, "inputs": {"swatch": SHA}}


def refused(document: Any) -> WireError:
    with pytest.raises(WireError) as caught:
        JobRequest.parse(document)
    return caught.value


@pytest.mark.parametrize("kind", wire.KINDS.values(), ids=lambda kind: kind.name)
def test_every_default_passes_its_own_check(kind: wire.JobKind) -> None:
    for parameter in kind.parameters:
        assert parameter.check(parameter.default) == parameter.default
        assert parameter.help and not parameter.help.endswith(".")


def test_a_request_is_completed_with_every_default() -> None:
    request = JobRequest.parse({"kind": "synthesize", "inputs": {"swatch": SHA}})
    assert request.parameters == {p.name: p.default for p in wire.SYNTHESIZE.parameters}


def test_a_request_parses_its_own_document() -> None:
    request = JobRequest.parse(body(width=1024, seed=7, tile="x"))
    again = JobRequest.parse(request.document())
    assert again == request


def test_a_whole_float_is_an_int() -> None:
    width = JobRequest.parse(body(width=1024.0)).parameters["width"]
    assert width == 1024 and isinstance(width, int)


def test_automatic_values_lie_outside_of_the_bounds_and_are_taken() -> None:
    assert JobRequest.parse(body(content_weight=-1)).parameters["content_weight"] == -1.0
    assert refused(body(content_weight=-0.5)).code == "invalid-parameter"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"width": 60}, ["width", "60", "64", "16384"]),
        ({"width": 100}, ["width", "100", "multiple of 8"]),
        ({"width": 512.5}, ["width", "512.5", "whole"]),
        ({"width": "512"}, ["width", "'512'", "number"]),
        ({"width": True}, ["width", "True"]),
        ({"width": math.inf}, ["width", "inf"]),
        ({"scale": math.nan}, ["scale", "nan"]),
        ({"scale": 10**400}, ["scale", "0.01"]),
        ({"seed": 2**31}, ["seed", "2147483648", "2147483647"]),
        ({"tile": "yx"}, ["tile", "'yx'", "none, x, y, xy"]),
        ({"tile": []}, ["tile", "[]"]),
        ({"model": ""}, ["model", "''"]),
        ({"model": "a\0b"}, ["model"]),
        ({"model": "a\ud800"}, ["model", "Unicode"]),
        ({"widht": 512}, ["widht", "width"]),
        ({"crop": "0,0,16,64"}, ["crop", "'0,0,16,64'", "at least 32"]),
        ({"crop": "0,0,64"}, ["crop", "left,top,width,height"]),
        ({"crop": "0.5,0,64,64"}, ["crop"]),
        ({"crop": "16000,0,900,64"}, ["crop", "16384"]),
        ({"crop": [0, 0, 64, 64]}, ["crop"]),
        ({"corners": "0,0 9,0 9,9"}, ["corners", "x,y x,y x,y x,y"]),
        ({"corners": "9,0 0,0 0,9 9,9"}, ["corners", "top left, top right"]),
        ({"corners": "0,0 9,nan 9,9 0,9"}, ["corners"]),
        ({"corners": "-5,0 9,0 9,9 0,9"}, ["corners", "16384"]),
        ({"real_width": 0.0001}, ["real_width", "0.001"]),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value_and_its_bounds(parameters: dict[str, Any], words: list[str]) -> None:
    error = refused(body(**parameters))
    assert error.code == "invalid-parameter"
    for word in words:
        assert word in error.detail


@pytest.mark.parametrize("long", ["x" * 100_000, [[7] * 100_000], 10**4000], ids=["text", "list", "number"])
def test_a_long_value_is_shown_by_its_beginning(long: Any) -> None:
    for wrong in (body(model=long), body(seed=long), body() | {"kind": long}, body() | {"inputs": {"swatch": long}}):
        assert len(refused(wrong).detail) < 400
    assert len(refused(body(**{"x" * 100_000: 1})).detail) < 500


def test_a_picture_that_needs_another_is_refused_without_it() -> None:
    for name in ("layout", "regions"):
        assert refused({"kind": "synthesize", "inputs": {"swatch": SHA, name: SHA}}).code == "invalid-labels"
    both = {"kind": "synthesize", "inputs": {"swatch": SHA, "layout": SHA, "regions": SHA}}
    assert set(JobRequest.parse(both).inputs) == {"swatch", "regions", "layout"}


def restyling(**parameters: Any) -> dict[str, Any]:
    return {"kind": "restyle", "parameters": parameters, "inputs": {"content": SHA, "swatch": SHA}}


def test_a_restyling_has_the_size_of_its_content_by_default() -> None:
    assert JobRequest.parse(restyling()).parameters["width"] == 0
    assert JobRequest.parse(restyling(width=128)).parameters["width"] == 128
    for width in (-8, 8, 56, 100):
        assert refused(restyling(width=width)).code == "invalid-parameter"


def test_a_restyling_needs_both_its_pictures_and_takes_no_others() -> None:
    for name in ("content", "swatch"):
        lacking = {k: v for k, v in restyling()["inputs"].items() if k != name}
        assert name in refused({"kind": "restyle", "inputs": lacking}).detail
    extra = restyling()["inputs"] | {"layout": SHA}
    assert "layout" in refused({"kind": "restyle", "inputs": extra}).detail


def test_only_restyling_has_the_method_preview() -> None:
    assert JobRequest.parse(restyling(method="preview")).parameters["method"] == "preview"
    assert "'preview'" in refused(body(method="preview")).detail
    assert "start" in refused(restyling(start="quilt")).detail


@pytest.mark.parametrize("sha", ["", "0" * 63, "G" * 64, "/etc/passwd", None, 5, "0" * 64 + "\n"])
def test_a_picture_is_named_only_by_its_sha256(sha: Any) -> None:
    assert refused({"kind": "synthesize", "inputs": {"swatch": sha}}).code == "invalid-request"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_a_request_or_a_wire_error(document: Any) -> None:
    for attempt in (document, {"kind": "synthesize", "parameters": document, "inputs": document}):
        with pytest.raises(WireError):
            JobRequest.parse(attempt)


def test_a_status_parses_its_own_document_and_ignores_newer_fields() -> None:
    status = JobStatus(
        "a", body(), "succeeded", 5, 1, 1.0, "Done", 1.0, 2.0, None, SHA, Result({"image": SHA}, {}, ("note",), 1.0)
    )
    assert JobStatus.parse({**status.document(), "mood": "good"}) == status
    assert status.final


@pytest.mark.parametrize("row", wire.ERRORS.values(), ids=lambda row: row.name)
def test_every_error_says_what_to_do_and_survives_as_a_problem(row: wire.ErrorType) -> None:
    error = WireError(row.name, "swatch is 3x3 pixels")
    assert error.sentence == f"swatch is 3x3 pixels. {row.remedy}"
    again = WireError.from_problem(error.problem())
    assert (again.code, again.detail) == (error.code, error.detail)
    assert 400 <= row.status < 600


def test_the_data_of_an_error_survives_as_a_problem() -> None:
    error = WireError("invalid-parameter", "seed is -1", parameter="seed")
    assert WireError.from_problem(error.problem()).data == {"parameter": "seed"}
    assert "data" not in WireError("internal", "no data").problem()


def test_the_data_of_an_error_can_have_any_names() -> None:
    data = {"code": 1, "detail": "x", "self": None, "cls": 2}
    assert WireError.from_problem({"type": "internal", "detail": "a", "data": data}).data == data


@pytest.mark.parametrize(
    ("document", "data"),
    [
        (body(seed=-1), {"parameter": "seed", "minimum": 0, "maximum": wire.MAX_SEED}),
        (body(tile="yx"), {"parameter": "tile", "choices": ["none", "x", "y", "xy"]}),
        (body(model=""), {"parameter": "model"}),
        (body(widht=8), {"parameter": "widht"}),
        ({"kind": "synthesize"}, {"picture": "swatch"}),
        ({"kind": "synthesize", "inputs": {"swatch": SHA, "layout": SHA}}, {"picture": "layout"}),
        ({"kind": "synthesize", "inputs": {"swatch": 5}}, {"picture": "swatch"}),
        ({"kind": "synthesize", "inputs": {"swatch": SHA, "content": SHA}}, {"picture": "content"}),
    ],
)
def test_an_error_names_its_parameter_or_picture_in_its_data(document: dict[str, Any], data: dict[str, Any]) -> None:
    assert refused(document).data == data


def test_a_text_that_is_no_number_is_an_error_with_the_parameters_bounds() -> None:
    with pytest.raises(WireError, match=r"width is '1\.5'; it must be a whole number") as caught:
        wire.SYNTHESIZE.parameter("width").parse("1.5")
    assert caught.value.data == {"parameter": "width", "minimum": 64, "maximum": 16384}


def test_jobs_of_this_and_older_versions_are_read_and_others_are_refused() -> None:
    assert JobRequest.parse(body()).document()["wire"] == wire.VERSION == 3
    for version in (1, 2, 3):
        assert JobRequest.parse(body(scale=1.0) | {"wire": version}) == JobRequest.parse(body(scale=1.0))
    for other in (0, 4, 99, True, "2", None, []):
        assert refused(body() | {"wire": other}).code == "version-mismatch"


def test_a_job_of_an_older_version_without_a_scale_keeps_the_scale_of_the_swatch() -> None:
    for version, scale in ((1, 1.0), (2, 1.0), (3, 0.0)):
        assert JobRequest.parse(body() | {"wire": version}).parameters["scale"] == scale
    assert JobRequest.parse(body()).parameters["scale"] == 0.0


def test_a_crop_and_corners_together_are_refused() -> None:
    corners = "10,10 90,12 95,80 8,90"
    error = refused(body(crop="0,0,64,64", corners=corners))
    assert error.code == "invalid-parameter" and error.data["parameter"] == "crop"
    assert "0,0,64,64" in error.detail and corners in error.detail
    assert JobRequest.parse(body(crop="", corners=corners)).parameters["corners"] == corners


def test_a_plan_survives_json_and_ignores_what_a_newer_service_adds() -> None:
    plan = wire.Plan((0, 10, 200, 100), 0.5, 512, 256, "uses all", None, 3.5, None, ("one",))
    assert wire.Plan.parse(json.loads(json.dumps(asdict(plan))) | {"later": 1}) == plan


def test_a_problem_of_an_unknown_type_is_internal() -> None:
    assert WireError.from_problem({"type": "about:blank", "title": "Bad Gateway"}).code == "internal"
