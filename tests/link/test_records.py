"""Metrics in words, and the journal of jobs in a .blend file."""

from __future__ import annotations

import json

from blender_addon import wire
from blender_addon.link.records import (
    JobRecord,
    Rating,
    rated_metrics,
    read_journal,
    write_journal,
)

METRICS = {
    "seam_x": 0.998,
    "patch_distance": 0.00273,
    "swatch_halves_distance": 0.0075,
    "sharpness": 0.964,
    "copy_share": 0.707,
    "repetition": 0.12,
    "swatch_repetition": 0.1,
    "label_agreement": 0.981,
}

JOURNAL_0_1_0 = """{"document": "f2a5b8c4-1f0e-4c55-9a58-0d3f2a1c9f77", "jobs": [
{"job": "0b8e7a52-5a3c-4c0f-8f39-0a7c8e6d4b21", "kind": "synthesize", "title": "cobbles 7",
 "parameters": {"model": "pocket", "width": 512, "height": 512, "tile": "xy", "seed": 7, "scale": 1.0,
  "even_light": 0.0, "preset": "standard", "detail": "auto", "method": "optimise", "start": "auto", "strength": 0.0,
  "steps": 0, "iterations": 0, "learning_rate": 0.0, "content_weight": -1.0, "precision": "auto"},
 "document": "f2a5b8c4-1f0e-4c55-9a58-0d3f2a1c9f77", "material": "Path", "state": "succeeded", "fraction": 1.0,
 "message": "Finishing", "seconds_left": null, "code": "", "sentence": "",
 "request": {"wire": 1, "kind": "synthesize", "parameters": {"method": "optimise", "seed": 7},
  "inputs": {"swatch": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}},
 "metrics": {"seam_x": 1.02}, "notes": ["A note."], "seconds": 12.5, "landed": true},
{"job": "7d1c2f94-3c1b-4a07-b1a5-6f4e9c8b2d10", "kind": "synthesize", "title": "cobbles 8",
 "parameters": {"seed": 8}, "document": "f2a5b8c4-1f0e-4c55-9a58-0d3f2a1c9f77", "material": "", "state": "cancelling",
 "fraction": 0.4, "message": "Cancelling", "seconds_left": 3.0, "code": "", "sentence": "", "request": {},
 "metrics": {}, "notes": [], "seconds": 0.0, "landed": false}]}"""
"""What version 0.1.0 stored in a .blend file."""


def record(metrics: dict[str, float]) -> JobRecord:
    return JobRecord("a", "synthesize", "Beans", {}, "file", state="succeeded", metrics=metrics)


def texts(values: dict[str, float]) -> list[str]:
    return [text for text, _, _ in rated_metrics(values)]


def test_metrics_are_shown_with_the_values_of_the_swatch() -> None:
    assert texts(METRICS)[2:] == [
        "Patch distance 0.3% (swatch 0.8%)",
        "Sharpness 0.96 (swatch 1)",
        "Repetition 0.12 (swatch 0.10)",
    ]


def test_verbatim_copies_come_first() -> None:
    assert texts(METRICS)[0] == "Verbatim copies 71%"


def test_seams_are_shown_for_the_tiling_axes_only() -> None:
    assert [text for text in texts(METRICS) if "Seam" in text] == ["Seam X 1.00"]


def test_a_metric_with_a_missing_value_is_not_shown() -> None:
    assert len(texts(METRICS)) == 5  # label_agreement_ceiling is missing
    assert texts({}) == []


def test_every_metric_has_a_tooltip() -> None:
    assert all(len(text) > 20 for _, text, _ in rated_metrics(METRICS))


def test_metrics_are_rated_against_the_swatch() -> None:
    ratings = {text.split(" ")[0]: rating for text, _, rating in rated_metrics(METRICS)}
    assert ratings["Patch"] == ratings["Sharpness"] == ratings["Seam"] == ratings["Repetition"] == Rating.GOOD
    assert ratings["Verbatim"] == Rating.FAIR
    worse = {**METRICS, "seam_x": 2.13, "sharpness": 0.5, "copy_share": 0.95}
    ratings = {text.split(" ")[0]: rating for text, _, rating in rated_metrics(worse)}
    assert ratings["Seam"] == ratings["Sharpness"] == ratings["Verbatim"] == Rating.POOR


def test_the_journal_keeps_all_fields_of_a_record() -> None:
    original = record(METRICS)
    original.imported, original.notes = True, ["A note."]
    document, (restored,) = read_journal(write_journal("file", [original]))
    assert (document, restored) == ("file", original)


def test_a_text_that_is_not_a_journal_gives_no_records() -> None:
    for text in ("", "{}", "[]", '{"document": "a", "jobs": [{}]}', '{"document": "a", "jobs": [1]}'):
        assert read_journal(text) == ("", [])


def test_a_journal_of_version_0_1_0_is_read() -> None:
    document, (done, canceled) = read_journal(JOURNAL_0_1_0)
    assert document == done.document == canceled.document
    assert (done.imported, done.state, done.metrics["seam_x"], done.seed) == (True, "succeeded", 1.02, 7)
    assert (canceled.imported, canceled.state, canceled.active) == (False, "canceling", True)
    assert wire.JobRequest.parse(done.request).parameters["method"] == "optimize"


def test_the_journal_has_the_keys_of_version_0_1_0() -> None:
    (old, _), (new,) = json.loads(JOURNAL_0_1_0)["jobs"], json.loads(write_journal("file", [record({})]))["jobs"]
    assert set(new) == {*old, "materials", "sources", "regions", "origins"}
