"""Kinds of value: each checks, reads from text, writes as text and describes itself, also one that no job has yet."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ad_service.cli import main
from blender_addon import wire
from blender_addon.wire import Choice, Corners, Crop, Integer, JobRequest, Number, Parameter, Rows, Text, WireError

WEIGHTS = Parameter("adapters", Rows(0.0, 2.0), (), "Adapters and their weights")
VALUES: list[tuple[Any, Any]] = [
    (Number(0.25, 4.0), 1.5),
    (Integer(64, 512, 8), 128),
    (Text(), "mine"),
    (Choice(("none", "x")), "x"),
    (Crop(32, 4096), "10,20,300,400"),
    (Corners(4096), "10,10 90.25,12 95,80 8,90"),
    (Rows(0.0, 2.0), (("moss", 1.0), ("C:\\rust:old", 0.5))),
]


@pytest.mark.parametrize(("value", "example"), VALUES, ids=lambda v: getattr(v, "kind", ""))
def test_a_value_survives_its_text_and_its_check(value: Any, example: Any) -> None:
    assert value.check(value.parse(value.format(example))) == example
    assert value.check(example) == value.nearest(example) == example
    assert value.range() and value.schema()["type"]


def test_numbers_go_to_the_nearest_accepted_one() -> None:
    assert [Integer(64, 512, 8).nearest(side) for side in (1, 99, 101, 9999)] == [64, 96, 104, 512]
    assert Number(0.0, 1.0).nearest(0.10000000149011612) == 0.1, "what 32 bits made of 0.1"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("moss:3", ["'moss'", "between 0.0 and 2.0"]),
        ("moss:heavy", ["'moss:heavy'", "a number"]),
        ("moss,moss", ["once"]),
        (",".join(f"a{i}" for i in range(17)), ["16"]),
    ],
)
def test_wrong_rows_are_named_with_what_is_expected(given: str, words: list[str]) -> None:
    with pytest.raises(WireError) as caught:
        WEIGHTS.parse(given)
    assert caught.value.code == "invalid-parameter"
    for word in ("adapters", *words):
        assert word in caught.value.detail


@pytest.mark.parametrize("rows", [5, "moss", [["moss"]], [["moss", True]], [["", 1.0]], [[1.0, "moss"]], None])
def test_json_that_is_not_rows_is_refused(rows: Any) -> None:
    with pytest.raises(WireError, match="adapters"):
        WEIGHTS.check(rows)


def test_a_kind_of_value_needs_no_other_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Request, JSON form, capabilities, schema and command line take a parameter of rows without knowing rows."""
    kind = replace(wire.SYNTHESIZE, parameters=(*wire.SYNTHESIZE.parameters, WEIGHTS))
    monkeypatch.setitem(wire.KINDS, "synthesize", kind)
    body = {"kind": "synthesize", "parameters": {"adapters": [["moss", 0.5]]}, "inputs": {"swatch": "0" * 64}}
    request = JobRequest.parse(body)
    assert request.parameters["adapters"] == (("moss", 0.5),)
    assert JobRequest.parse(json.loads(json.dumps(request.document()))) == request
    assert kind.document().parameters[-1].schema["items"]["prefixItems"][0] == {"type": "string"}
    with pytest.raises(SystemExit):
        main(["synthesize", "--help"])
    assert "--adapters" in capsys.readouterr().out


def test_an_old_name_of_a_choice_is_read_as_its_new_one() -> None:
    body = {"kind": "synthesize", "parameters": {"method": "optimise"}, "inputs": {"swatch": "0" * 64}}
    assert JobRequest.parse(body).parameters["method"] == "optimize"


def test_automatic_values_are_accepted_outside_of_the_bounds() -> None:
    weight = wire.SYNTHESIZE.parameter("content_weight")
    assert weight.check(-1) == -1.0 and isinstance(weight.check(-1), float)
    assert weight.given(-1.0) is None and weight.given(0.0) == 0.0
