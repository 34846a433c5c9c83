"""The jobs that a service works on, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bpy.app.translations import pgettext_iface as tr

from .. import wire
from ..link.records import JobRecord, duration

SHOWN_ELAPSED = 3.0
"""Seconds after which a job without an estimate shows how long it has run."""


def describe(status: wire.JobStatus) -> str:
    """`Synthesize 8192 x 8192`: what a job of another program makes."""
    kind = wire.KINDS.get(str(status.request.get("kind")))
    parameters = status.request.get("parameters", {})
    title = tr(kind.title) if kind else str(status.request.get("kind"))
    width, height = parameters.get("width"), parameters.get("height")
    return f"{title} {width} x {height}" if width and height else title


def state_of(status: wire.JobStatus) -> str:
    """`waiting`, or how much of the job is done: `12%`."""
    return tr("waiting") if status.state == "queued" else f"{status.progress:.0%}"


def progress_text(record: JobRecord, elapsed: float) -> str:
    """`Step 12 of 50, 8 s left`; while the time left is not known, how many seconds the job has run so far."""
    message = record.message or record.state.capitalize()
    if record.state != "running":
        return message
    if record.seconds_left is not None:
        return tr("{}, {} left").format(message, duration(record.seconds_left))
    return tr("{}, {} so far").format(message, duration(elapsed)) if elapsed >= SHOWN_ELAPSED else message


def waiting_text(job: str, queue: Sequence[wire.JobStatus], titles: Mapping[str, str]) -> str:
    """How many jobs run before a waiting one, and which is the first; empty if none does.

    `titles` are the titles of the jobs that this Blender knows; the others are described.
    """
    ids = [status.id for status in queue]
    before = queue[: ids.index(job)] if job in ids else ()
    if not before:
        return ""
    first = before[0]
    name = titles.get(first.id) or tr("{} of another program").format(describe(first))
    text = (
        tr("Waiting: 1 job before it, {} ({})") if len(before) == 1 else tr("Waiting: {} jobs before it, first {} ({})")
    )
    values = (name, state_of(first)) if len(before) == 1 else (len(before), name, state_of(first))
    return text.format(*values)
