"""What Blender knows of a job, its metrics in words, and the journal of jobs in a .blend file. No bpy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from string import Formatter
from typing import Any

from .. import wire


class Rating(Enum):
    """How good a measurement is, for its icon."""

    GOOD = "good"
    FAIR = "fair"
    POOR = "poor"
    NONE = "not rated"


@dataclass(frozen=True)
class RatingOptions:
    """(good, poor) limits of measurements: up to the first is good, beyond the second is poor, in between is fair.

    Seams, patch distance and blur: the ten results of docs/experiments.md (pocket, 512 pixels), which look good, have
    seams up to 1.02, patch distances up to 0.52 of that between the halves of the swatch, and a sharpness from 0.95.
    Copies: pocket has 0.71 (beans) and 0.78 (paving), where single parts are recognized beside the swatch.
    """

    copies: tuple[float, float] = (0.3, 0.8)
    """Share of verbatim copies."""
    seam: tuple[float, float] = (1.15, 1.5)
    """Step across the edge over the mean step inside; 2 is a visible cut."""
    patch_distance: tuple[float, float] = (1.0, 2.0)
    """Patch distance over that between the swatch's own halves. Above 1 it is no longer one more piece of it."""
    blur: tuple[float, float] = (0.15, 0.35)
    """What sharpness lacks to 1. Below 0.65 the result is visibly soft beside the swatch."""
    repetition: tuple[float, float] = (0.1, 0.25)
    """Repetition above the swatch's own."""
    layout_lost: tuple[float, float] = (0.1, 0.25)
    """What the layout match lacks to the swatch's own."""

    def rate(self, limits: tuple[float, float], value: float) -> Rating:
        return Rating.GOOD if value <= limits[0] else Rating.FAIR if value <= limits[1] else Rating.POOR


@dataclass(frozen=True)
class Metric:
    """A line of text about a result, a format string over its metrics, and what it means.

    `rate` returns how good the metrics are; None for those that are neither good nor bad.
    """

    text: str
    help: str
    rate: Callable[[RatingOptions, Mapping[str, float]], Rating] | None = None

    @property
    def names(self) -> set[str]:
        """The metrics that the text contains."""
        return {name for _, name, _, _ in Formatter().parse(self.text) if name}


METRICS = (
    Metric(
        "Verbatim copies {copy_share:.0%}",
        "How much of the result is copied pixel by pixel from the swatch, in blocks of 32 pixels. Lower is better",
        lambda o, m: o.rate(o.copies, m["copy_share"]),
    ),
    Metric(
        "Seam X {seam_x:.2f}",
        "How visible the seam between left and right edge is. Near 1: there is no seam",
        lambda o, m: o.rate(o.seam, m["seam_x"]),
    ),
    Metric(
        "Seam Y {seam_y:.2f}",
        "How visible the seam between top and bottom edge is. Near 1: there is no seam",
        lambda o, m: o.rate(o.seam, m["seam_y"]),
    ),
    Metric(
        "Patch distance {patch_distance:.1%} (swatch {swatch_halves_distance:.1%})",
        "How much small patches of the result differ from patches of the swatch. Lower is better; the number in "
        "parentheses is the difference between the swatch's own halves",
        lambda o, m: o.rate(o.patch_distance, m["patch_distance"] / max(m["swatch_halves_distance"], 1e-6)),
    ),
    Metric(
        "Sharpness {sharpness:.2f} (swatch 1)",
        "How crisp the finest detail is compared with the swatch. Near 1 is best; lower is blurrier",
        lambda o, m: o.rate(o.blur, 1 - m["sharpness"]),
    ),
    Metric(
        "Repetition {repetition:.2f} (swatch {swatch_repetition:.2f})",
        "How strongly the texture repeats inside one tile. 1 is an exact repetition; the number in parentheses is the "
        "swatch's own, which regular materials such as bricks have too",
        lambda o, m: o.rate(o.repetition, m["repetition"] - m["swatch_repetition"]),
    ),
    Metric(
        "Layout match {label_agreement:.2f} (swatch {label_agreement_ceiling:.2f})",
        "How well the materials follow the painted layout. Higher is better; the number in parentheses is the most "
        "that can be expected, measured on the swatch",
        lambda o, m: o.rate(o.layout_lost, m["label_agreement_ceiling"] - m["label_agreement"]),
    ),
    Metric(
        "Structure kept {content_correlation:.2f}",
        "How much of the structure of the restyled image is still visible. 1: all of it",
    ),
    Metric(
        "Decoder {round_trip_psnr:.1f} dB, fitted {round_trip_psnr_fitted:.1f} dB",
        "How exactly the model can reproduce the swatch, before and after fitting its decoder. Higher is better",
    ),
)
"""What is measured, what interests artists most first."""


def rated_metrics(
    values: Mapping[str, float],
    options: RatingOptions = RatingOptions(),
) -> list[tuple[str, str, Rating]]:
    """(text, help, rating) of each metric whose values are all given."""
    found = [m for m in METRICS if m.names <= values.keys()]
    return [(m.text.format_map(values), m.help, m.rate(options, values) if m.rate else Rating.NONE) for m in found]


@dataclass
class JobRecord:
    """A job as the panel shows it and as the file stores it. Datablocks are given by name."""

    job: str
    kind: str
    title: str
    parameters: Mapping[str, Any]
    document: str
    """The id of the file that the job belongs to."""
    material: str = ""
    """Name of the material that gets the result, in journals of version 0.2.0."""
    materials: Mapping[str, str] = field(default_factory=dict)
    """The ids of the materials that get the result, with their names when the job was submitted."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """The names of the images that the job's pictures were made of."""
    regions: Sequence[Sequence[str]] = field(default_factory=list)
    """(name, color in hex) of each region of the job's label maps."""
    state: str = "queued"
    fraction: float = 0.0
    message: str = ""
    seconds_left: float | None = None
    code: str = ""
    """The error's name in wire.ERRORS, if the job failed."""
    sentence: str = ""
    """What went wrong and what to do about it, if the job failed."""
    request: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    seconds: float = 0.0
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where each map of the result comes from, by name, see wire.Origin."""
    imported: bool = False
    """Whether the result was imported into the file. Its images may have been deleted since."""

    @property
    def active(self) -> bool:
        return self.state not in wire.FINAL_STATES

    @property
    def seed(self) -> int:
        return int(self.parameters.get("seed", 0))

    def fail(self, error: wire.WireError) -> None:
        self.state, self.code, self.sentence = "failed", error.code, error.sentence


def duration(seconds: float) -> str:
    """`8 s`, `3 min`, `1.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


_STORED_KEYS = {"imported": "landed"}
"""Attributes of JobRecord that have another name in the journal."""
_OLD_STATES = {"cancelling": "canceling"}
"""States in journals of version 0.1.0 that have another name now."""


def write_journal(document: str, records: Iterable[JobRecord]) -> str:
    """The journal of a file as JSON."""
    jobs = [{_STORED_KEYS.get(name, name): value for name, value in asdict(r).items()} for r in records]
    return json.dumps({"document": document, "jobs": jobs})


def read_journal(text: str) -> tuple[str, list[JobRecord]]:
    """The file's id and its jobs; ("", []) if the text is not a journal."""
    try:
        journal = json.loads(text)
        return str(journal["document"]), [_read_record(job) for job in journal["jobs"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", []


def _read_record(job: Mapping[str, Any]) -> JobRecord:
    keys = {f.name: _STORED_KEYS.get(f.name, f.name) for f in fields(JobRecord)}
    record = JobRecord(**{name: job[key] for name, key in keys.items() if key in job})
    record.state = _OLD_STATES.get(record.state, record.state)
    return record
