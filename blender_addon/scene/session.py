"""The jobs of this Blender: events of the background thread become records, previews and results.

`current()` is the one object that knows the service and the jobs, of all files. A timer calls `pump`; scripts and tests
call `pump` or `wait` themselves, since timers do not run in background mode. No reference to a datablock is kept
between calls, since undo and opening another file would invalidate it.
"""

from __future__ import annotations

import re
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import bpy
import bpy.utils.previews
from bpy.app.handlers import persistent
from bpy.app.translations import pgettext_iface as tr
from bpy.types import Scene

from .. import wire
from ..link import background, client, events
from ..link.client import ServiceStatus
from ..link.records import JobRecord, read_journal, write_journal
from ..wire.errors import LocalError
from . import (
    image_io,
    materials,
    pixel_buffer,
    plans,
    preferences,
    properties,
    queue,
    recall,
    requests,
    results,
    swatch,
    windows,
)
from .requests import JobDraft

MAX_JOURNAL_JOBS = 200
"""How many jobs the journal of a file holds."""
MAX_PREVIEWS = 200
"""How many previews are kept in memory."""
NOTICE_SECONDS = 20.0
"""How long the status bar shows that a result is ready."""
REFUSALS = ("invalid-labels", "invalid-image")
"""Errors of pictures that were not uploaded. The panel shows them with what corrects them, and no failed job."""


@dataclass(frozen=True)
class Notice:
    """A text in the status bar until a time of time.monotonic()."""

    text: str
    until: float
    icon: str = "CHECKMARK"

    @property
    def current(self) -> bool:
        return time.monotonic() < self.until


class Session:
    """The service's status and the jobs, those of files that were closed included."""

    def __init__(self) -> None:
        self.thread = background.BackgroundThread()
        self.plans = plans.Plans()
        self.records: dict[str, JobRecord] = {}
        self.downloaded: dict[str, events.JobEnded] = {}
        self.document = ""
        self.status: ServiceStatus | None = None
        self.error: wire.WireError | None = None
        self.service_message = ""
        self.connecting = False
        self._recalls: dict[str, tuple[JobRecord, Mapping[str, str]]] = {}
        self._side_jobs: dict[str, Callable[[events.JobEnded], None]] = {}
        self.queue: tuple[wire.JobStatus, ...] = ()
        self.models: tuple[wire.ModelEntry, ...] = ()
        self.notice = Notice("", 0.0)
        self._looking = False
        self._running_since: dict[str, float] = {}
        self._unsent: dict[str, JobDraft] = {}
        self._preview_keys: dict[str, str] = {}
        self._previews: bpy.utils.previews.ImagePreviewCollection | None = None

    # ---------------------------------------------------------------------- commands

    def connect(self) -> None:
        """Connect to the service, and start it if it is not running."""
        self.connecting, self.error, self.service_message = True, None, "Connecting to the service"
        self.thread.connect(preferences.service_address(), may_start=True)

    def look(self, may_start: bool = False) -> None:
        """Connect to the service of this machine if it seems to run, or start it. It is no error if that fails."""
        if self.status is not None or self.connecting or self._looking:
            return
        address = preferences.service_address()
        may_start = may_start and not address.url and bool(client.executable_of(address))
        if may_start or client.is_announced(address):
            self._looking = True
            self.thread.connect(address, may_start)

    def submit(self, draft: JobDraft, targets: Mapping[str, str]) -> JobRecord:
        """Submit a job; `targets` are the materials that get the result: names by id."""
        title = self.free_title(draft.title)
        record = JobRecord(str(uuid.uuid4()), draft.kind, title, draft.parameters, self.document, materials=targets)
        record.sources, record.regions = draft.sources, draft.regions
        record.message = "Uploading"
        self.records[record.job] = record
        self._submit(record, draft)
        return record

    def _submit(self, record: JobRecord, draft: JobDraft) -> None:
        self._unsent[record.job] = draft
        address, may_start = preferences.service_address(), preferences.may_start()
        self.thread.submit(record.job, draft.kind, draft.parameters, draft.pictures, address, may_start)

    def submit_side_job(
        self,
        kind: str,
        parameters: Mapping[str, Any],
        pictures: Mapping[str, events.PictureSource],
        on_end: Callable[[events.JobEnded], None],
    ) -> str:
        """Submit a job whose result is no texture and which has no record; returns its id.

        `on_end` gets its end on the main thread, unless it is canceled or another file is opened before. A WireError
        that `on_end` raises is shown in the panel.
        """
        job = str(uuid.uuid4())
        self._side_jobs[job] = on_end
        address, may_start = preferences.service_address(), preferences.may_start()
        self.thread.submit(job, kind, parameters, pictures, address, may_start)
        return job

    def cancel_side_job(self, job: str) -> None:
        """Cancel a side job; nothing if it has ended."""
        if self._side_jobs.pop(job, None) is not None:
            self.thread.cancel(job)

    def is_side_job(self, job: str) -> bool:
        """Whether a side job of that id has not ended."""
        return job in self._side_jobs

    def can_retry(self, record: JobRecord) -> bool:
        """Whether an ended job can run again: its request or its pictures are known."""
        return bool(record.request) or record.job in self._unsent

    def retry(self, record: JobRecord) -> JobRecord:
        """Submit a failed job again, or watch it again if only the service was unreachable."""
        if record.code == "service-unreachable" and record.request:
            return self.watch(record)
        if record.job in self._unsent:
            record.state, record.code, record.sentence, record.message = "queued", "", "", "Uploading"
            self._submit(record, self._unsent[record.job])
            return record
        del self.records[record.job]
        new = self._copy(record, record.request)
        self.thread.resubmit(new.job, new.request, preferences.service_address())
        return new

    def vary(self, record: JobRecord, pictures: Mapping[str, events.PictureSource], seed: int) -> JobRecord:
        """Submit a job again with another seed. The result is not applied to a material.

        `pictures` are those of its pictures that are still in the file; the service has the others.
        """
        parameters = {**record.parameters, "seed": seed}
        new = self._copy(record, {**record.request, "parameters": parameters})
        new.parameters = parameters
        stem = re.sub(r"(, seed)? \d+( \(\d+\))?$", "", record.title)
        new.title, new.materials, new.material = self.free_title(f"{stem}, seed {seed}"), {}, ""
        address, may_start = preferences.service_address(), preferences.may_start()
        self.thread.resubmit(new.job, new.request, address, pictures, may_start)
        return new

    def recall(self, scene: Scene, record: JobRecord) -> bool:
        """Set the panel as it was for a job; returns whether that is done, or waits for pictures from the service."""
        missing = recall.bring_back(scene, record)
        if missing:
            self._recalls[record.job] = record, missing
            address, may_start = preferences.service_address(), preferences.may_start()
            self.thread.fetch(record.job, missing, address, may_start)
        return not missing

    def _copy(self, record: JobRecord, request: Mapping[str, Any]) -> JobRecord:
        """A new job like another one, in the open file."""
        new = JobRecord(str(uuid.uuid4()), record.kind, record.title, record.parameters, self.document, record.material)
        new.materials, new.sources, new.regions = record.materials, record.sources, record.regions
        new.request, new.message = request, "Uploading"
        self.records[new.job] = new
        return new

    def free_title(self, title: str) -> str:
        """A title that no job and no image of the open file has: with (2) or a higher number behind it if needed."""
        taken = {record.title for record in self.of_this_file()} | {image.name for image in bpy.data.images}
        return next(t for n in count(1) if (t := title if n == 1 else f"{title} ({n})") not in taken)

    def watch(self, record: JobRecord) -> JobRecord:
        """Watch a job that was submitted before, and download its result."""
        record.state, record.code, record.sentence, record.message = "queued", "", "", "Looking for the result"
        record.imported = False
        self.thread.watch(record.job, preferences.service_address())
        return record

    def cancel(self, record: JobRecord) -> None:
        record.state, record.message = "canceling", "Canceling"
        self.thread.cancel(record.job)

    def cancel_foreign(self, job: str) -> None:
        """Cancel a job of another program on the same service."""
        self.thread.cancel_foreign(job)

    def fetch_model(self, name: str) -> None:
        """Begin the download of a model in the service."""
        address, may_start = preferences.service_address(), preferences.may_start()
        self.thread.fetch_model(name, preferences.hub_token(), address, may_start)

    def cancel_model(self, name: str) -> None:
        """End the download of a model, or remove the message about a failed one."""
        self.thread.cancel_model(name, preferences.service_address())

    def remove(self, record: JobRecord) -> None:
        """Remove an ended job from the list."""
        self.records.pop(record.job, None)
        self._forget_details()
        self.save_journal()

    def _forget_details(self) -> None:
        """Drop what belongs to jobs that are no longer listed."""
        for details in (self._unsent, self.downloaded, self._running_since, self._preview_keys):
            for job in details.keys() - self.records.keys():
                del details[job]

    def show_error(self, error: wire.WireError) -> None:
        """Show an error in the panel."""
        self.error = error

    # ---------------------------------------------------------------------- queries

    def of_this_file(self) -> list[JobRecord]:
        """The jobs of the open file, newest first."""
        return [r for r in reversed(self.records.values()) if r.document == self.document]

    def of_other_files(self) -> list[JobRecord]:
        """Jobs of closed files that are active, or whose result was downloaded and not imported."""
        return [r for r in self.records.values() if r.document != self.document]

    def drawn_state(self) -> object:
        """What the panel shows that changes without an event: the notice, and seconds of jobs without an estimate."""
        running = [r for r in self.of_this_file() if r.state == "running" and r.seconds_left is None]
        return self.notice.current, int(time.monotonic()) if running else 0

    def progress_text(self, record: JobRecord) -> str:
        """What a job does now, and the time that it needs or has taken."""
        return queue.progress_text(record, time.monotonic() - self._running_since.get(record.job, time.monotonic()))

    def model(self, name: str) -> wire.ModelEntry | None:
        """The model of a name, ignoring case; None if the service does not know it, or has not been asked."""
        return next((model for model in self.models if model.name.casefold() == name.casefold()), None)

    def foreign_jobs(self) -> list[wire.JobStatus]:
        """The jobs of other programs that wait or run on the service."""
        return [status for status in self.queue if status.id not in self.records]

    def busy(self) -> bool:
        """Whether more events are expected, of this file's jobs or of the service."""
        return (
            self.connecting
            or bool(self._recalls)
            or bool(self._side_jobs)
            or any(r.active or r.job in self.downloaded for r in self.of_this_file())
        )

    @property
    def is_recalling(self) -> bool:
        """Whether pictures of a result are being downloaded to the panel; a job would mix them with those before."""
        return bool(self._recalls)

    def preview_icon(self, job: str) -> int:
        """The icon id of a job's newest preview, or 0."""
        key = self._preview_keys.get(job)
        return int(self._previews[key].icon_id) if self._previews is not None and key else 0

    # ---------------------------------------------------------------------- events

    def on_event(self, event: events.Event) -> None:
        """Update the service's status or the event's job."""
        match event:
            case events.ServiceFound(status):
                self.status, self.service_message, self.connecting, self._looking = status, "", False, False
                if self.error is not None and self.error.code in background.SERVICE_ERRORS:
                    self.error = None
                self._resume_jobs()
            case events.ServiceStarting(message):
                self.service_message = message
            case events.BlobsFetched(key, blobs, error):
                self._on_blobs(key, blobs, error)
            case events.ServiceLost(error):
                self.status, self.service_message, self.connecting = None, "", False
                if not (self._looking and error.code == "service-unreachable"):
                    self.error = error
                self._looking = False
            case events.PlanReceived():
                self.plans.on_plan(event)
            case events.QueueChanged(jobs, refusal):
                self.queue = jobs
                if refusal is not None:
                    self.show_error(refusal)
            case events.ModelsChanged(found, refusal):
                self._on_models(found, refusal)
            case _ if event.job in self.records:
                self._on_job_event(self.records[event.job], event)
            case events.JobEnded(job) if job in self._side_jobs:
                try:
                    self._side_jobs.pop(job)(event)
                except wire.WireError as problem:
                    self.show_error(problem)

    def _resume_jobs(self) -> None:
        """Continue the jobs that failed only because the service was not reached."""
        for record in self.of_this_file():
            if record.state == "failed" and record.code == "service-unreachable" and self.can_retry(record):
                self.retry(record)

    def _on_models(self, found: tuple[wire.ModelEntry, ...], refusal: wire.WireError | None) -> None:
        before = {model.name: model.state for model in self.models}
        self.models = found
        for model in found:
            if model.state == "installed" and before.get(model.name) == "downloading":
                self.announce(tr("The model {} is installed").format(model.title))
        if refusal is not None:
            self.show_error(refusal)

    def announce(self, text: str, icon: str = "CHECKMARK") -> None:
        """Show a text in the status bar for NOTICE_SECONDS."""
        self.notice = Notice(text, time.monotonic() + NOTICE_SECONDS, icon)

    def announce_layout_off(self) -> None:
        """Say why the box of *Regions and Layout* is no longer ticked, after another swatch was chosen."""
        self.announce(tr("Regions and Layout is off: its map belongs to the earlier swatch"), "INFO")

    def _on_blobs(self, key: str, blobs: Mapping[str, bytes], error: wire.WireError | None) -> None:
        if key not in self._recalls:  # another file was opened meanwhile
            return
        record, missing = self._recalls.pop(key)
        try:
            if error is not None:
                raise error
            recall.complete(bpy.context.scene, record, missing, blobs)
        except wire.WireError as problem:
            self.show_error(problem)
        windows.push_undo(f"Again Exactly {record.title}")

    def _on_job_event(self, record: JobRecord, event: events.Event) -> None:
        match event:
            case events.JobSubmitted(_, request):
                record.request = request
                self._unsent.pop(record.job, None)
                self.save_journal()
            case events.JobProgressed(_, status):
                if record.state != "canceling" or status.state != "queued":
                    record.state = status.state
                if status.state == "running":
                    self._running_since.setdefault(record.job, time.monotonic())
                record.fraction, record.message = status.progress, status.message
                record.seconds_left = status.seconds_left
            case events.JobWaiting(_, message):
                record.message, record.seconds_left = message, None
            case events.PreviewReceived(_, png):
                self._show_preview(record.job, png)
            case events.JobEnded():
                self._on_end(record, event)

    def _on_end(self, record: JobRecord, event: events.JobEnded) -> None:
        refused = isinstance(event.error, LocalError) and event.error.code in REFUSALS
        if event.error is not None and refused and record.job in self._unsent:
            self.remove(record)  # it was never submitted
            self.show_error(event.error)
            return
        record.state, record.fraction, record.seconds_left = event.state, 1.0, None
        self._running_since.pop(record.job, None)
        if event.error is not None:
            record.fail(event.error)
            self.announce(tr("{} failed").format(record.title), "ERROR")
        if event.state == "succeeded" and event.status is not None and event.status.result is not None:
            result = event.status.result
            record.metrics, record.notes, record.seconds = dict(result.metrics), result.notes, result.seconds
            self.downloaded[record.job] = event
        self.save_journal()

    def _show_preview(self, job: str, png: bytes) -> None:
        if bpy.app.background:
            return
        if self._previews is None:
            self._previews = bpy.utils.previews.new()
        if len(self._previews) > MAX_PREVIEWS:  # Blender cannot remove single previews
            self._previews.clear()
            self._preview_keys.clear()
        key = f"{job} {len(self._previews)}"
        path = Path(bpy.app.tempdir) / f"distill {key}.png"
        path.write_bytes(png)  # Blender removes the folder when it exits
        preview = self._previews.load(key, str(path), "IMAGE")
        # Reading the sizes loads it now. Blender would load it later in a job that redraws every editor.
        tuple(preview.icon_size), tuple(preview.image_size)
        self._preview_keys[job] = key

    def import_downloaded(self) -> int:
        """Import the downloaded results of the open file, each as one undo step; returns how many."""
        imported = 0
        for job in list(self.downloaded):
            record = self.records.get(job)
            if record is None:
                del self.downloaded[job]
            elif record.document == self.document and not windows.is_modal_operator_running():
                if record.materials or not results.is_chosen_one_shown(bpy.context):
                    bpy.context.window_manager.distill_result = job
                try:
                    results.import_result(record, self.downloaded.pop(job).pictures)
                    self.announce(tr("{} is ready").format(record.title))
                except wire.WireError as error:
                    if error.detail not in requests.warnings(bpy.context):  # the panel shows it already
                        self.show_error(error)
                windows.push_undo(f"Import {record.title}")
                imported += 1
        if imported:
            self.save_journal()
        return imported

    # ---------------------------------------------------------------------- files

    def save_journal(self) -> None:
        """Write the open file's jobs into its scenes. Undo reverts that, saving writes it again."""
        text = write_journal(self.document, reversed(self.of_this_file()[:MAX_JOURNAL_JOBS]))
        for scene in bpy.data.scenes:
            if scene.library is None:
                scene.distill.journal = text

    def open_file(self) -> None:
        """Drop what the closed file waited for beside its jobs, and read the journal of the opened one."""
        self._recalls.clear()
        self.plans = plans.Plans()
        for job in list(self._side_jobs):
            self.cancel_side_job(job)
        self.load_journal()

    def load_journal(self) -> None:
        """Read the jobs of the file that was opened, and watch those without a result. Other files' jobs continue."""
        document, stored = "", list[JobRecord]()
        for scene in bpy.data.scenes:
            document, stored = read_journal(scene.distill.journal)
            if document:
                break
        self.document = document or str(uuid.uuid4())
        known = {r.job: r for r in self.records.values() if r.active or r.job in self.downloaded}
        self.records = {r.job: r for r in stored} | known
        for record in stored:
            has_result = record.state == "succeeded" and not record.imported
            if record.job not in known and (record.active or has_result):
                self.watch(record)
        self._forget_details()
        self.error = None

    def close(self) -> None:
        """Stop the thread. Jobs on the service continue."""
        self.thread.close()
        if self._previews is not None:
            bpy.utils.previews.remove(self._previews)
            self._previews = None


_current = Session()


def current() -> Session:
    """The session of this Blender, from `start` to `stop`."""
    return _current


def pump() -> int:
    """Handle the events since the last call and import results; returns the number of events. Never waits."""
    if not _current.document:
        _current.load_journal()
    handled = 0
    for event in _current.thread.take_events():
        _current.on_event(event)
        handled += 1
    if _current.import_downloaded() or handled:
        windows.redraw()
    if (scene := bpy.context.scene) is not None and scene.library is None:
        if swatch.follow(scene):
            _current.announce_layout_off()
        _current.plans.update(_current.thread, _current.status is not None)
    return handled


def wait(timeout: float = 600.0) -> bool:
    """Pump until no job of this file is active; returns whether that happened within `timeout` seconds. For scripts."""
    end = time.monotonic() + timeout
    while True:
        pump()
        if not _current.busy():
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.05)


# ---------------------------------------------------------------------------------------------- called by Blender

_drawn_state: object = None
"""What `Session.drawn_state` was when the panel was last drawn because of it."""


def _on_timer() -> float:
    global _drawn_state
    try:
        pixel_buffer.release()
        pump()
        if swatch.was_chosen():  # what of it is used is to be seen before the first job
            _current.look(preferences.may_start())
        if (state := _current.drawn_state()) != _drawn_state:
            _drawn_state = state
            windows.redraw()
    except Exception as error:  # Blender removes a timer that raises
        traceback.print_exc()
        problem = f"Unexpected error in the add-on: {type(error).__name__}: {error}"
        _current.show_error(wire.WireError("internal", problem))
    return 0.2 if _current.busy() or _current.of_other_files() or _current.plans.is_pending else 0.5


def _on_start() -> None:
    """Connect to a service that runs already, so that the panel shows its device."""
    _current.look()


@persistent
def _on_load(*_args: object) -> None:
    swatch.start()
    _current.open_file()


@persistent
def _on_save(*_args: object) -> None:
    """Pack images that would be lost: ours that were painted on, and swatches without a file. Write the journal."""
    if not _current.document:
        _current.load_journal()
    maps = {getattr(s.distill, f"image_{name}") for s in bpy.data.scenes for name in properties.LABEL_MAPS}
    swatches = {s.distill.image_swatch for s in bpy.data.scenes}
    painted = [
        image
        for image in bpy.data.images
        if image.is_dirty
        and image.library is None
        and (image in maps or materials.JOB in image or (image in swatches and not image.filepath))
    ]
    if painted:
        with windows.busy_cursor(bpy.context):  # 4096 x 4096 pixels take up to a second
            for image in painted:
                image_io.pack_painted(image)
                image.pop(image_io.SIZE, None)  # the artist may have scaled it
    _current.save_journal()


def start() -> None:
    """Begin a session. Called when the add-on is enabled."""
    global _current
    _current = Session()
    swatch.start()
    bpy.app.handlers.load_post.append(_on_load)
    bpy.app.handlers.save_pre.append(_on_save)
    if not bpy.app.background:
        bpy.app.timers.register(_on_start, first_interval=1.0, persistent=True)  # Blender may start with a file
        bpy.app.timers.register(_on_timer, first_interval=0.5, persistent=True)


def stop() -> None:
    """End the session. Called when the add-on is disabled."""
    for timer in (_on_timer, _on_start):
        if bpy.app.timers.is_registered(timer):
            bpy.app.timers.unregister(timer)
    bpy.app.handlers.save_pre.remove(_on_save)
    bpy.app.handlers.load_post.remove(_on_load)
    _current.close()
