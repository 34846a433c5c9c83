"""A background thread that talks HTTP, so that Blender's main thread never waits. No bpy.

The main thread queues commands (`connect`, `submit`, `watch`, `cancel`, `plan`) and takes the resulting events
(events.py) with `take_events`, from a timer, a script or a test. A job that was submitted or watched ends with exactly
one `JobEnded`, unless `close` comes first.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .. import wire
from ..wire.errors import LocalError
from . import client
from .events import (
    BlobsFetched,
    Event,
    JobEnded,
    JobProgressed,
    JobSubmitted,
    JobWaiting,
    ModelsChanged,
    PictureSource,
    PlanReceived,
    PreviewReceived,
    QueueChanged,
    ServiceFound,
    ServiceLost,
    ServiceStarting,
)

SERVICE_ERRORS = ("service-unreachable", "unauthorized", "version-mismatch")
"""Errors that concern the service and not a single job."""
POLL_SECONDS = 0.5
"""How long one request for a job's status may wait for a change; a new command waits at most this long."""
IDLE_SECONDS = 20.0
"""Interval of status requests to a service without jobs of ours."""
START_SECONDS = 90.0
"""Timeout until a service that was started responds."""
OTHER_SERVICE_SECONDS = 3.0
"""How long to keep looking after a started service exits: it does so if another one has locked the data folder."""
READY_SECONDS = 180.0
"""Timeout until the service's worker knows its device."""
REFRESH_SECONDS = 2.0
"""Interval of requests for the active jobs and the models, while jobs run or models are downloaded."""
STATUS_SECONDS = 10.0
"""Interval of requests for the status of a ready service while jobs run."""
MAX_RESTARTS = 3
"""How often a service that stops under jobs is started again until the artist does something."""


@dataclass
class _WatchedJob:
    """The last revision and preview (a sha256) that were reported of a job."""

    revision: int = -1
    preview: str | None = None


class BackgroundThread:
    """One thread with a queue of commands and a queue of events, and a short-lived one for plans.

    `reconnect_timeout` is how many seconds the service may be unreachable before its jobs fail here.
    """

    def __init__(self, reconnect_timeout: float = 20.0) -> None:
        self.reconnect_timeout = reconnect_timeout
        self._commands: queue.Queue[tuple[Callable[[], None], str | None]] = queue.Queue()
        self._events: queue.Queue[Event] = queue.Queue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._address = client.ServiceAddress()
        self._client: client.Client | None = None
        self._watched: dict[str, _WatchedJob] = {}
        self._unreachable_since: float | None = None
        self._plan_wanted: Hashable = None
        self._plan_lock = threading.Lock()
        self._next_plan: Callable[[], None] | None = None
        self._is_planning = False
        self._started = False
        self._restarts = 0
        self._refreshed = self._status_time = 0.0
        self._status: client.ServiceStatus | None = None
        self._queue_known: tuple[wire.JobStatus, ...] = ()
        self._models: tuple[wire.ModelEntry, ...] = ()

    # ---------------------------------------------------------------------- called on the main thread

    def connect(self, address: client.ServiceAddress, may_start: bool = False) -> None:
        """Connect to the service again; start it if it is not running and `may_start` is True."""
        self._queue(lambda: self._connect(address, may_start))

    def submit(
        self,
        job: str,
        kind: str,
        parameters: Mapping[str, Any],
        pictures: Mapping[str, PictureSource],
        address: client.ServiceAddress,
        may_start: bool = False,
        stored: Mapping[str, str] | None = None,
    ) -> None:
        """Upload the pictures, submit the job, then watch it. `stored`: the sha256 of those that the service has."""
        self._queue(lambda: self._submit(job, kind, parameters, pictures, address, may_start, stored or {}), job)

    def resubmit(
        self,
        job: str,
        request: Mapping[str, Any],
        address: client.ServiceAddress,
        pictures: Mapping[str, PictureSource] | None = None,
        may_start: bool = False,
    ) -> None:
        """Submit an earlier request, then watch the job. `pictures` are uploaded; the service has the other ones."""
        self._queue(lambda: self._resubmit(job, request, address, pictures or {}, may_start), job)

    def fetch(self, key: str, blobs: Mapping[str, str], address: client.ServiceAddress, may_start: bool) -> None:
        """Download blobs, given by their sha256; a `BlobsFetched` event with the same key has those that exist."""
        self._queue(lambda: self._fetch(key, blobs, address, may_start))

    def watch(self, job: str, address: client.ServiceAddress) -> None:
        """Watch a job that was submitted earlier, by this Blender or another."""
        self._queue(lambda: self._watch(job, address), job)

    def cancel(self, job: str) -> None:
        self._queue(lambda: self._cancel(job), job)

    def cancel_foreign(self, job: str) -> None:
        """Cancel a job of another program; a `QueueChanged` event has the jobs that are left, or the error."""
        self._queue(lambda: self._cancel_foreign(job))

    def plan(
        self, key: Hashable, kind: str, parameters: Mapping[str, Any], pictures: Mapping[str, PictureSource]
    ) -> None:
        """Request the plan of a job from the service, which is not started. A later call replaces one that waits.

        The service needs 8 s for a photograph of 12 megapixels, so plans have a separate thread and client.
        """
        self._plan_wanted = key
        self._queue(lambda: self._begin_plan(key, kind, parameters, pictures))

    def fetch_model(self, name: str, token: str, address: client.ServiceAddress, may_start: bool = False) -> None:
        """Begin the download of a model; `token` is the artist's own token of the hub, or empty."""
        self._queue(lambda: self._change_models(address, may_start, lambda c: c.fetch_model(name, token)))

    def cancel_model(self, name: str, address: client.ServiceAddress) -> None:
        """End the download of a model."""
        self._queue(lambda: self._change_models(address, False, lambda c: c.cancel_model(name)))

    def take_events(self) -> Iterator[Event]:
        """Takes the events one after the other, oldest first. Never waits. Those not taken stay for the next call."""
        while not self._events.empty():  # this is the only consumer
            yield self._events.get_nowait()

    def close(self, timeout: float = 10.0) -> bool:
        """Stop the thread; returns whether it ended within `timeout` seconds. Jobs on the service continue."""
        self._closing.set()
        self._commands.put((lambda: None, None))
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def _queue(self, command: Callable[[], None], job: str | None = None) -> None:
        if self._closing.is_set():
            raise RuntimeError("this BackgroundThread is closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="texture-distiller", daemon=True)
            self._thread.start()
        self._commands.put((command, job))

    # ---------------------------------------------------------------------- runs on the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                command, job = self._commands.get(not self._watched, self._idle_seconds())
                self._restarts = 0
            except queue.Empty:
                command, job = self._poll_jobs if self._watched else self._check_service, None
            try:
                command()
            except wire.WireError as error:
                self._fail(job, error)
            except Exception as error:  # a defect must not end the thread without a message
                problem = f"Unexpected error in the add-on: {type(error).__name__}: {error}"
                self._fail(job, wire.WireError("internal", problem))
        if self._client is not None:
            self._client.close()

    def _idle_seconds(self) -> float | None:
        """How long to wait for a command while no job is watched."""
        if self._client is None:
            return None
        downloading = any(model.state == "downloading" for model in self._models)
        return REFRESH_SECONDS if downloading or self._queue_known else IDLE_SECONDS

    def _send(self, event: Event) -> None:
        self._events.put(event)

    def _connect(self, address: client.ServiceAddress, may_start: bool) -> None:
        self._forget_client()
        self._set_address(address)
        self._service(may_start)

    def _service(self, may_start: bool = False) -> client.Client:
        """The current client or a new one; raises WireError if the service cannot be reached."""
        if self._client is not None:
            return self._client
        try:
            found = client.find(self._address)
            status = found.status()
        except wire.WireError as error:
            if error.code != "service-unreachable" or isinstance(error, LocalError):
                raise
            if self._address.url:
                remedy = "start it there, or clear the address in the preferences"
                raise LocalError(error.code, f"{error.detail}; {remedy}") from error
            if not client.executable_of(self._address):
                remedy = "run `python install.py blender`, or choose its program in the preferences"
                raise LocalError(error.code, f"{error.detail}; {remedy}") from error
            if not may_start:
                raise
            found, status = self._start_service()
        self._client = found
        self._set_status(self._wait_until_ready(found, status))
        self._refresh(found)
        return found

    def _set_status(self, status: client.ServiceStatus) -> None:
        self._status, self._status_time = status, time.monotonic()
        self._send(ServiceFound(status))

    def _refresh(self, service: client.Client) -> None:
        """Report the active jobs and the models where they changed."""
        self._refreshed = time.monotonic()
        if (jobs := service.active_jobs()) != self._queue_known:
            self._queue_known = jobs
            self._send(QueueChanged(jobs))
        if (found := service.models()) != self._models:
            self._models = found
            self._send(ModelsChanged(found))

    def _change_models(
        self,
        address: client.ServiceAddress,
        may_start: bool,
        change: Callable[[client.Client], tuple[wire.ModelEntry, ...]],
    ) -> None:
        """Report the models after a change, or why it was refused."""
        self._set_address(address)
        service = self._checked_service(may_start)
        try:
            self._models = change(service)
            self._send(ModelsChanged(self._models))
        except wire.WireError as error:
            if error.code in SERVICE_ERRORS:
                raise
            self._send(ModelsChanged(self._models, error))

    def _start_service(self) -> tuple[client.Client, client.ServiceStatus]:
        """Start the service and wait until it responds; raises WireError if it does not."""
        self._send(ServiceStarting("Starting the service"))
        process = client.start(self._address)
        last_seen = time.monotonic()
        end = last_seen + START_SECONDS
        while time.monotonic() < end and not self._closing.wait(0.3):
            try:
                found = client.find(self._address)
                status = found.status()
                self._started = True
                return found, status
            except wire.WireError as error:
                if error.code != "service-unreachable":
                    raise
            if process.poll() is None:
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > OTHER_SERVICE_SECONDS:
                reason = client.last_log_line(self._address) or f"exit status {process.returncode}"
                raise wire.WireError("service-unreachable", f"The service stopped while it started: {reason}")
        process.terminate()
        raise wire.WireError("service-unreachable", f"The service did not respond within {START_SECONDS:g} seconds")

    def _check_service(self) -> None:
        """Report the status of the service, which has no jobs of ours."""
        if self._client is not None:
            self._set_status(self._client.status())
            self._refresh(self._client)

    def _wait_until_ready(self, found: client.Client, status: client.ServiceStatus) -> client.ServiceStatus:
        """The status once the worker knows its device, or the last one after READY_SECONDS or with a new command."""
        end = time.monotonic() + READY_SECONDS
        while not status.ready and time.monotonic() < end and self._commands.empty():
            self._send(ServiceStarting(status.device or "The service is getting ready"))
            if self._closing.wait(0.5):
                break
            status = found.status()
        return status

    def _set_address(self, address: client.ServiceAddress) -> None:
        if address != self._address:
            self._forget_client()
        self._address = address

    def _forget_client(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = self._status = None
        if self._queue_known:
            self._queue_known = ()
            self._send(QueueChanged(()))

    def _submit(
        self,
        job: str,
        kind: str,
        parameters: Mapping[str, Any],
        pictures: Mapping[str, PictureSource],
        address: client.ServiceAddress,
        may_start: bool,
        stored: Mapping[str, str],
    ) -> None:
        self._set_address(address)
        service = self._checked_service(may_start)
        inputs = dict(stored)
        for name, source in pictures.items():
            self._send(JobWaiting(job, f"Uploading the {name}"))
            inputs[name] = service.upload(source())
        request = wire.JobRequest.parse({"kind": kind, "parameters": parameters, "inputs": inputs})
        self._on_submitted(job, service.submit(job, request))

    def _begin_plan(
        self, key: Hashable, kind: str, parameters: Mapping[str, Any], pictures: Mapping[str, PictureSource]
    ) -> None:
        """Let the plans' thread make a plan next, in place of one that waits."""
        if key != self._plan_wanted:
            return
        service = self._service().copy()
        with self._plan_lock:
            self._next_plan = lambda: self._plan(service, key, kind, parameters, pictures)
            if not self._is_planning:
                self._is_planning = True
                threading.Thread(target=self._make_plans, name="texture-distiller-plans", daemon=True).start()

    def _make_plans(self) -> None:
        """Make plans until none waits. Runs on a thread that `close` does not wait for."""
        while True:
            with self._plan_lock:
                plan, self._next_plan = self._next_plan, None
                if plan is None or self._closing.is_set():
                    self._is_planning = False
                    return
            plan()

    def _plan(
        self,
        service: client.Client,
        key: Hashable,
        kind: str,
        parameters: Mapping[str, Any],
        pictures: Mapping[str, PictureSource],
    ) -> None:
        try:
            inputs = {name: service.upload(source()) for name, source in pictures.items()}
            request = wire.JobRequest.parse({"kind": kind, "parameters": parameters, "inputs": inputs})
            event = PlanReceived(key, service.plan(request))
        except wire.WireError as error:
            event = PlanReceived(key, error=error)
        except Exception as error:  # a defect must not end the thread without a message
            problem = f"Unexpected error in the add-on: {type(error).__name__}: {error}"
            event = PlanReceived(key, error=wire.WireError("internal", problem))
        finally:
            service.close()
        if event.error is not None and event.error.code in SERVICE_ERRORS:
            self._commands.put((lambda: self._check_after_plan(event), None))
        else:
            self._send(event)

    def _check_after_plan(self, event: PlanReceived) -> None:
        """Report that the service is lost, or the error of a plan if it is not."""
        if self._client is not None:
            self._client.status()
        self._send(event)

    def _resubmit(
        self,
        job: str,
        request: Mapping[str, Any],
        address: client.ServiceAddress,
        pictures: Mapping[str, PictureSource],
        may_start: bool,
    ) -> None:
        self._set_address(address)
        service = self._checked_service(may_start)
        for source in pictures.values():
            service.upload(source())
        self._on_submitted(job, service.submit(job, wire.JobRequest.parse(request)))

    def _fetch(self, key: str, blobs: Mapping[str, str], address: client.ServiceAddress, may_start: bool) -> None:
        self._set_address(address)
        found: dict[str, bytes] = {}
        try:
            service = self._checked_service(may_start)
            for name, sha in blobs.items():
                if (data := self._download(service, sha)) is not None:
                    found[name] = data
        except wire.WireError as error:
            self._send(BlobsFetched(key, found, error))
            return
        self._send(BlobsFetched(key, found))

    def _download(self, service: client.Client, sha: str) -> bytes | None:
        """A blob, or None if the service does not have it."""
        try:
            return service.download(sha)
        except wire.WireError as error:
            if error.code not in ("not-found", "blob-missing"):
                raise
            return None

    def _checked_service(self, may_start: bool = False) -> client.Client:
        """A client whose service responded just now: the service of the current one may have stopped."""
        if self._client is not None:
            try:
                self._client.status()
            except wire.WireError as error:
                if error.code not in SERVICE_ERRORS:
                    raise
                self._forget_client()
        return self._service(may_start)

    def _on_submitted(self, job: str, status: wire.JobStatus) -> None:
        """Report that the service has the job and watch it; the next poll reports any error."""
        self._send(JobSubmitted(job, status.request))
        self._watched[job] = _WatchedJob()

    def _watch(self, job: str, address: client.ServiceAddress) -> None:
        self._set_address(address)
        self._watched.setdefault(job, _WatchedJob())

    def _cancel(self, job: str) -> None:
        try:
            status = self._service().cancel(job)
        except wire.WireError as error:
            if error.code != "service-unreachable":
                raise
            self._watched.pop(job, None)  # no service is running that could continue it
            self._send(JobEnded(job, "canceled"))
            return
        if job in self._watched:
            self._on_status(job, status)
        self._refresh(self._service())

    def _cancel_foreign(self, job: str) -> None:
        service = self._checked_service()
        try:
            service.cancel(job)
        except wire.WireError as error:
            if error.code in SERVICE_ERRORS:
                raise
            self._send(QueueChanged(self._queue_known, error))
        self._refresh(service)

    def _poll_jobs(self) -> None:
        """Request the status of every watched job. Waits for a change of the first one only."""
        try:
            service = self._service()
            jobs = list(self._watched)
            for job in jobs[1:]:
                self._poll_job(service, job, 0.0)
            now = time.monotonic()
            ready = self._status is not None and self._status.ready
            if now - self._status_time > (STATUS_SECONDS if ready else REFRESH_SECONDS):
                self._set_status(service.status())
            if now - self._refreshed > REFRESH_SECONDS:
                self._refresh(service)
            if jobs and self._commands.empty() and jobs[0] in self._watched:
                self._poll_job(service, jobs[0], POLL_SECONDS)
        except wire.WireError as error:
            self._on_unreachable(error)
            return
        self._unreachable_since = None

    def _poll_job(self, service: client.Client, job: str, wait: float) -> None:
        try:
            self._on_status(job, service.job_status(job, wait, self._watched[job].revision))
        except wire.WireError as error:
            if error.code in SERVICE_ERRORS:
                raise
            self._fail(job, error)

    def _on_unreachable(self, error: wire.WireError) -> None:
        """Start the service again if it was started from here, or try to reconnect; after the timeout fail all jobs."""
        self._forget_client()
        if error.code == "service-unreachable" and self._may_restart():
            self._restarts += 1
            for job in self._watched:
                self._send(JobWaiting(job, "The service stopped and is started again"))
            try:
                self._start_service()
                return
            except wire.WireError as failure:
                error = failure
        now = time.monotonic()
        if self._unreachable_since is None:
            self._unreachable_since = now
        if now - self._unreachable_since < self.reconnect_timeout and error.code != "version-mismatch":
            for job in self._watched:
                self._send(JobWaiting(job, "The service does not respond; reconnecting"))
            self._closing.wait(0.5)
            return
        self._unreachable_since = None
        self._send(ServiceLost(error))
        for job in list(self._watched):
            self._fail(job, error)

    def _may_restart(self) -> bool:
        return self._started and self._address.restart and not self._address.url and self._restarts < MAX_RESTARTS

    def _on_status(self, job: str, status: wire.JobStatus) -> None:
        """Report a status with a new revision, and download the pictures that it names."""
        watched = self._watched[job]
        if status.revision == watched.revision:
            return
        if not status.final:
            watched.revision = status.revision
            self._send(JobProgressed(job, status))
            if status.preview and status.preview != watched.preview:
                watched.preview = status.preview
                self._download_preview(job, status.preview)
        elif status.state == "succeeded" and status.result is not None:
            pictures = {name: self._service().download(sha) for name, sha in status.result.outputs.items()}
            del self._watched[job]
            self._send(JobEnded(job, status.state, status, pictures))
        else:
            del self._watched[job]
            error = wire.WireError.from_problem(status.problem) if status.problem else None
            self._send(JobEnded(job, status.state, status, error=error))

    def _download_preview(self, job: str, sha: str) -> None:
        """Report a preview, unless the service has deleted it for a newer one."""
        if (png := self._download(self._service(), sha)) is not None:
            self._send(PreviewReceived(job, png))

    def _fail(self, job: str | None, error: wire.WireError) -> None:
        if job is None or error.code in SERVICE_ERRORS:
            self._forget_client()
            self._send(ServiceLost(error))
        if job is not None:
            self._watched.pop(job, None)
            self._send(JobEnded(job, "failed", error=error))
