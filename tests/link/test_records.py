"""What the panel says of a job, in words."""

from __future__ import annotations

from blender_addon.link.records import FIGURES, SEAMS, Record, read_journal, write_journal

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


def record(metrics: dict[str, float]) -> Record:
    return Record("a", "synthesize", "Beans", {}, "file", state="succeeded", metrics=metrics)


def test_figures_are_told_beside_the_swatchs_own() -> None:
    assert record(METRICS).told(FIGURES)[:4] == [
        "Differs by 0.0027 (halves 0.0075)",
        "Sharpness 0.96 (swatch 1)",
        "Copied 71%",
        "Repeats 0.12 (swatch 0.10)",
    ]


def test_a_seam_is_told_of_the_axes_that_tile() -> None:
    assert record(METRICS).told(SEAMS) == ["Seam X 1.00"]


def test_what_a_result_does_not_say_or_only_half_is_left_out() -> None:
    assert len(record(METRICS).told(FIGURES)) == 4  # an agreement without its ceiling tells nothing
    assert record({}).told(FIGURES) == []


def test_the_figures_of_a_result_outlast_the_file() -> None:
    _, (again,) = read_journal(write_journal("file", [record(METRICS)]))
    assert again.told(FIGURES) == record(METRICS).told(FIGURES)
