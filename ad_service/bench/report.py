"""The benchmark's report, as JSON and as Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

IN_FULL = "measured in full"


@dataclass(frozen=True)
class Run:
    """One schedule, measured in full or scaled from a part of it.

    `memory` is in bytes, `phases` are seconds, `seams` the ratios along y and x. None: not measured.
    """

    measured: str
    forwards: int
    backwards: int
    seconds: float
    memory: int | None
    peak_share: float
    seams: tuple[float, float] | None
    patch_distance: float | None
    phases: dict[str, float]


@dataclass(frozen=True)
class Row:
    """A case at a size: ours, and the paper's schedule if it was run.

    `factors` of the ratio, counted in operations: "at_equal_steps" for fewer windows, and "fewer_passes" over them.
    """

    case: str
    title: str
    width: int
    height: int
    dtype: str
    peak_flops: float
    ours: Run
    reference: Run | None
    factors: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is."""
        return None if self.reference is None else self.reference.seconds / self.ours.seconds


@dataclass(frozen=True)
class Report:
    """All rows of one run, and the machine."""

    command: str
    device: str
    torch: str
    threads: int
    rows: tuple[Row, ...]

    def json(self) -> str:
        document = asdict(self)
        for row, measured in zip(document["rows"], self.rows, strict=True):
            row["ratio"] = measured.ratio
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def read(cls, text: str) -> Report:
        """The report that `json` wrote."""
        document: dict[str, Any] = json.loads(text)
        rows = []
        for row in document.pop("rows"):
            del row["ratio"]
            runs = {name: row[name] and _run(row[name]) for name in ("ours", "reference")}
            rows.append(Row(**{**row, **runs}))
        return cls(**document, rows=tuple(rows))

    def markdown(self) -> str:
        """The command, the table and where it was measured. Without the paper's schedule the table is of growth."""
        compared = any(row.reference for row in self.rows)
        lines = [f"    {self.command}", "", *(_comparison(self.rows) if compared else _growth(self.rows)), ""]
        formats = sorted({f"{row.title} in {row.dtype}: {row.peak_flops / 1e9:,.0f} GFLOP/s" for row in self.rows})
        where = f"{self.device}, {self.threads} thread{'s' * (self.threads != 1)}, torch {self.torch}"
        return "\n".join([*lines, f"{where}. Peak of a matrix product: {'; '.join(formats)}."]) + "\n"


def _run(document: dict[str, Any]) -> Run:
    seams = document["seams"]
    return Run(**{**document, "seams": seams and tuple(seams)})


def _comparison(rows: Sequence[Row]) -> Iterator[str]:
    split = any(row.factors for row in rows)  # reports of version 0.2 have none
    yield (
        "| model | size | schedule | passes forward + back | seconds | of these sampling | ours is faster "
        f"{'| at equal steps x fewer passes ' * split}| memory | of peak | seam y, x | patch distance |"
    )
    yield "|---" * (11 + split) + "|"
    for row in rows:
        head = f"| {row.title} | {row.width}x{row.height} |"
        if row.reference is not None:
            yield f"{head} paper, {_cost(row.reference)} | {'| ' * split}| {_quality(row.reference)} |"
            head = "| | |"
        faster = "" if row.ratio is None else f"**{row.ratio:.3g} times**"
        factors = " x ".join(f"{factor:.3g}" for factor in row.factors.values())
        yield f"{head} ours, {_cost(row.ours)} | {faster} |{f' {factors} |' * split} {_quality(row.ours)} |"


def _growth(rows: Sequence[Row]) -> Iterator[str]:
    """Each size beside the first one of its case."""
    yield (
        "| model | size | schedule | passes forward + back | seconds | to the first | of these sampling "
        "| memory | to the first |"
    )
    yield "|---" * 9 + "|"
    first: dict[str, Run] = {}
    for row in rows:
        ours, one = row.ours, first.setdefault(row.case, row.ours)
        memory = "" if ours.memory is None or not one.memory else f"{ours.memory / one.memory:.2f}"
        yield (
            f"| {row.title} | {row.width}x{row.height} | ours, {ours.measured} | {_passes(ours)} "
            f"| {_seconds(ours.seconds)} | {ours.seconds / one.seconds:.2f} | {_seconds(ours.phases['sampling'])} "
            f"| {_megabytes(ours)} | {memory} |"
        )


def _cost(run: Run) -> str:
    return f"{run.measured} | {_passes(run)} | {_seconds(run.seconds)} | {_seconds(run.phases['sampling'])}"


def _passes(run: Run) -> str:
    return f"{run.forwards:,} + {run.backwards:,}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f}" if seconds < 100 else f"{seconds:,.0f}"


def _megabytes(run: Run) -> str:
    return "" if run.memory is None else f"{run.memory / 2**20:,.0f} MB"


def _quality(run: Run) -> str:
    seams = "" if run.seams is None else ", ".join(f"{ratio:.2f}" for ratio in run.seams)
    distance = "" if run.patch_distance is None else f"{run.patch_distance:.4f}"
    return f"{_megabytes(run)} | {run.peak_share:.0%} | {seams} | {distance}"
