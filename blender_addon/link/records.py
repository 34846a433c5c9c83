"""What is known of a job, and the journal by which a file finds its results again. No bpy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .. import wire

SEAMS = ("Seam X {seam_x:.2f}", "Seam Y {seam_y:.2f}")
FIGURES = (
    "Differs by {patch_distance:.4f} (halves {swatch_halves_distance:.4f})",
    "Sharpness {sharpness:.2f} (swatch 1)",
    "Copied {copy_share:.0%}",
    "Repeats {repetition:.2f} (swatch {swatch_repetition:.2f})",
    "Layout obeyed {label_agreement:.2f} (swatch {label_agreement_ceiling:.2f})",
    "Content kept {content_correlation:.2f}",
    "Decoder {round_trip_psnr:.1f} dB, fitted {round_trip_psnr_fitted:.1f} dB",
)
"""What the panel says of a result's metrics, the seams always and the others when unfolded; the README explains them.

What stands in brackets is the swatch's own, which no result need surpass.
"""


@dataclass
class Record:
    """A job as the panel shows it and as the file keeps it. Datablocks are named, never referred to."""

    job: str
    kind: str
    title: str
    parameters: Mapping[str, Any]
    document: str
    """The file that it belongs to."""
    material: str = ""
    state: str = "queued"
    fraction: float = 0.0
    message: str = ""
    seconds_left: float | None = None
    code: str = ""
    """The error's type in wire.ERRORS, when it failed."""
    sentence: str = ""
    """What went wrong and what to do about it, when it failed."""
    request: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    landed: bool = False
    """Whether its pictures have been in the file (they may have been removed since)."""

    @property
    def active(self) -> bool:
        return self.state not in wire.FINAL_STATES

    @property
    def seed(self) -> int:
        return int(self.parameters.get("seed", 0))

    def fail(self, error: wire.WireError) -> None:
        self.state, self.code, self.sentence = "failed", error.code, error.sentence

    def told(self, figures: Sequence[str]) -> list[str]:
        """Those of SEAMS or FIGURES that this result has, in words."""
        return list(self._told(figures))

    def _told(self, figures: Sequence[str]) -> Iterator[str]:
        for text in figures:
            with suppress(KeyError):
                yield text.format_map(self.metrics)

    def progress_text(self) -> str:
        """`Step 12 of 50, 8 s left`."""
        parts = [self.message or self.state.capitalize()]
        if self.state == "running" and self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """`8 s`, `3 min`, `1.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def write_journal(document: str, records: Iterable[Record]) -> str:
    """The text that a file keeps."""
    return json.dumps({"document": document, "jobs": [asdict(r) for r in records]})


def read_journal(text: str) -> tuple[str, list[Record]]:
    """The document's name and its jobs; ("", []) for a text that is no journal."""
    try:
        journal = json.loads(text)
        known = {f.name for f in fields(Record)}
        jobs = [Record(**{k: v for k, v in job.items() if k in known}) for job in journal["jobs"]]
        return str(journal["document"]), jobs
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", []
