"""The one background thread: takes orders from a queue, talks HTTP, hands news back through `pump`. No bpy.

The main thread orders (`connect`, `submit`, `watch`, `cancel`) and never waits; a timer, a script or a test calls
`pump` to take the news. A job that was submitted or watched gives exactly one `Ended`, except when `close` comes first.
"""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import wire
from ..wire.errors import LocalError
from . import client

SERVICE_ERRORS = ("service-unreachable", "unauthorized", "version-mismatch")
"""What is wrong with the service and not with one job."""
LOOK_SECONDS = 0.5
"""How long one look at a job waits for news: an order waits at most so long for its turn."""
IDLE_SECONDS = 20.0
"""How often a service that has nothing to do is asked whether it is still there."""
START_SECONDS = 90.0
"""How long a service that was started may take until it answers."""
RIVAL_SECONDS = 3.0
"""How long to look on when it ended at once: it does so when another one, just started, holds the data folder."""
READY_SECONDS = 180.0
"""How long its worker may take after that until the device is known."""


@dataclass(frozen=True)
class Found:
    """The service answers."""

    status: client.Status


@dataclass(frozen=True)
class Starting:
    """The service was started, or is looked for again; the text says which."""

    message: str


@dataclass(frozen=True)
class Lost:
    """The service cannot be used; the error says why."""

    error: wire.WireError


@dataclass(frozen=True)
class Submitted:
    """The service has taken the job; `request` is its document, by which it can be asked for again."""

    job: str
    request: Mapping[str, Any]


@dataclass(frozen=True)
class Moved:
    """A job that has not ended changed its state or its progress."""

    job: str
    status: wire.JobStatus


@dataclass(frozen=True)
class Waiting:
    """Nothing is heard of the job for a moment; the text says why."""

    job: str
    message: str


@dataclass(frozen=True)
class Preview:
    """The newest picture of a running job."""

    job: str
    png: bytes


@dataclass(frozen=True)
class Ended:
    """The one end of a job: pictures by name (and its status) when it succeeded, an error when it failed."""

    job: str
    state: str
    status: wire.JobStatus | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    error: wire.WireError | None = None


News = Found | Starting | Lost | Submitted | Moved | Waiting | Preview | Ended
PictureSource = Callable[[], bytes]
"""Gives a picture's bytes; called on the thread, so that encoding does not hold up the interface."""


@dataclass
class _Watched:
    """What the thread knows of a job that it follows."""

    revision: int = -1
    preview: str | None = None


class Tasks:
    """One thread, its orders and its news. `patience` is how long a service may be away before its jobs fail here."""

    def __init__(self, patience: float = 20.0) -> None:
        self.patience = patience
        self._orders: queue.Queue[tuple[Callable[[], None], str | None]] = queue.Queue()
        self._news: queue.Queue[News] = queue.Queue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._place = client.Place()
        self._client: client.Client | None = None
        self._watched: dict[str, _Watched] = {}
        self._away_since: float | None = None

    # ---------------------------------------------------------------------- the main thread's side

    def connect(self, place: client.Place, may_start: bool = False) -> None:
        """Look for the service anew; start it if it is not there and that is allowed."""
        self._order(lambda: self._connect(place, may_start))

    def submit(
        self,
        job: str,
        kind: str,
        parameters: Mapping[str, Any],
        pictures: Mapping[str, PictureSource],
        place: client.Place,
        may_start: bool = False,
    ) -> None:
        """Send the pictures and the job, then follow it."""
        self._order(lambda: self._submit(job, kind, parameters, pictures, place, may_start), job)

    def resubmit(self, job: str, request: Mapping[str, Any], place: client.Place) -> None:
        """Ask again for what was asked before, whose pictures the service has; then follow it."""
        self._order(lambda: self._resubmit(job, request, place), job)

    def watch(self, job: str, place: client.Place) -> None:
        """Follow a job that was submitted earlier, in this Blender or in another."""
        self._order(lambda: self._watch(job, place), job)

    def cancel(self, job: str) -> None:
        self._order(lambda: self._cancel(job), job)

    def pump(self) -> list[News]:
        """The news since the last call, oldest first. Never waits."""
        news: list[News] = []
        while not self._news.empty():  # nobody else takes from it
            news.append(self._news.get_nowait())
        return news

    def close(self, timeout: float = 10.0) -> bool:
        """End the thread and wait for it; says whether it has ended. Jobs on the service go on."""
        self._closing.set()
        self._orders.put((lambda: None, None))
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def _order(self, order: Callable[[], None], job: str | None = None) -> None:
        if self._closing.is_set():
            raise RuntimeError("these tasks are closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="texture-distiller", daemon=True)
            self._thread.start()
        self._orders.put((order, job))

    # ---------------------------------------------------------------------- the thread's side

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                order, job = self._orders.get(not self._watched, IDLE_SECONDS if self._client else None)
            except queue.Empty:
                order, job = self._look_around if self._watched else self._check, None
            try:
                order()
            except wire.WireError as error:
                self._fail(job, error)
            except Exception as error:  # the thread must outlive a defect, and the artist must hear of it
                self._fail(job, wire.WireError("internal", f"The add-on stumbled: {type(error).__name__}: {error}"))
        if self._client is not None:
            self._client.close()

    def _tell(self, news: News) -> None:
        self._news.put(news)

    def _connect(self, place: client.Place, may_start: bool) -> None:
        self._forget_client()
        self._go_to(place)
        self._service(may_start)

    def _service(self, may_start: bool = False) -> client.Client:
        """The client in use, or a newly found one; raises WireError when there is no service."""
        if self._client is not None:
            return self._client
        try:
            found = client.find(self._place)
            status = found.status()
        except wire.WireError as error:
            if error.code != "service-unreachable" or isinstance(error, LocalError):
                raise
            if self._place.url:
                todo = "start it there, or clear the address in the preferences"
                raise LocalError(error.code, f"{error.detail}; {todo}") from error
            if not client.executable_of(self._place):
                todo = "run `python install.py blender`, or choose its program in the preferences"
                raise LocalError(error.code, f"{error.detail}; {todo}") from error
            if not may_start:
                raise
            found, status = self._start()
        self._client = found
        self._tell(Found(self._until_ready(found, status)))
        return found

    def _start(self) -> tuple[client.Client, client.Status]:
        """Start the service and wait until it answers."""
        self._tell(Starting("Starting the service"))
        process = client.start(self._place)
        last_seen = time.monotonic()
        end = last_seen + START_SECONDS
        error = wire.WireError("service-unreachable", f"The service gave no answer in {START_SECONDS:g} seconds")
        while time.monotonic() < end and not self._closing.wait(0.3):
            try:
                found = client.find(self._place)
                return found, found.status()
            except wire.WireError as latest:
                if latest.code != "service-unreachable":
                    raise
            if process.poll() is None:
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > RIVAL_SECONDS:
                words = client.last_words(self._place) or f"exit status {process.returncode}"
                raise wire.WireError("service-unreachable", f"The service ended while it started: {words}")
        _let_go(process)
        raise error

    def _check(self) -> None:
        """Whether the service is still there, while nothing is to be done."""
        if self._client is not None:
            self._tell(Found(self._client.status()))

    def _until_ready(self, found: client.Client, status: client.Status) -> client.Status:
        """The status once the worker knows its device, or the last one when that takes too long."""
        end = time.monotonic() + READY_SECONDS
        while not status.ready and time.monotonic() < end and self._orders.empty():
            self._tell(Starting(status.device or "The service is getting ready"))
            if self._closing.wait(0.5):
                break
            status = found.status()
        return status

    def _go_to(self, place: client.Place) -> None:
        """Look for the service there from now on."""
        if place != self._place:
            self._forget_client()
        self._place = place

    def _forget_client(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def _submit(
        self,
        job: str,
        kind: str,
        parameters: Mapping[str, Any],
        pictures: Mapping[str, PictureSource],
        place: client.Place,
        may_start: bool,
    ) -> None:
        self._go_to(place)
        service = self._fresh_service(may_start)
        inputs = {}
        for name, source in pictures.items():
            self._tell(Waiting(job, f"Sending the {name}"))
            inputs[name] = service.send_blob(source())
        request = wire.JobRequest.parse({"kind": kind, "parameters": parameters, "inputs": inputs})
        self._follow(job, service.submit(job, request))

    def _resubmit(self, job: str, request: Mapping[str, Any], place: client.Place) -> None:
        self._go_to(place)
        self._follow(job, self._fresh_service().submit(job, wire.JobRequest.parse(request)))

    def _fresh_service(self, may_start: bool = False) -> client.Client:
        """A client that answered just now: the one in use may belong to a service that has gone since."""
        if self._client is not None:
            try:
                self._client.status()
            except wire.WireError as error:
                if error.code not in SERVICE_ERRORS:
                    raise
                self._forget_client()
        return self._service(may_start)

    def _follow(self, job: str, status: wire.JobStatus) -> None:
        """Tell that the service has the job; what goes wrong from now on is met at the next look."""
        self._tell(Submitted(job, status.request))
        self._watched[job] = _Watched()

    def _watch(self, job: str, place: client.Place) -> None:
        self._go_to(place)
        self._watched.setdefault(job, _Watched())

    def _cancel(self, job: str) -> None:
        try:
            status = self._service().cancel(job)
        except wire.WireError as error:
            if error.code != "service-unreachable":
                raise
            self._watched.pop(job, None)  # nobody is there who could run it on
            self._tell(Ended(job, "canceled"))
            return
        if job in self._watched:
            self._hear(job, status)

    def _look_around(self) -> None:
        """One look at every job that is followed. It waits for news of one of them: the first that runs."""
        try:
            service = self._service()
            jobs = list(self._watched)
            for job in jobs[1:]:
                self._look(service, job, 0.0)
            if jobs and self._orders.empty() and jobs[0] in self._watched:
                self._look(service, jobs[0], LOOK_SECONDS)
        except wire.WireError as error:
            self._away(error)
            return
        self._away_since = None

    def _look(self, service: client.Client, job: str, wait: float) -> None:
        try:
            self._hear(job, service.look(job, wait, self._watched[job].revision))
        except wire.WireError as error:
            if error.code in SERVICE_ERRORS:
                raise
            self._fail(job, error)

    def _away(self, error: wire.WireError) -> None:
        """The service does not answer: look for it again for a while, then give its jobs up."""
        self._forget_client()
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since < self.patience and error.code != "version-mismatch":
            for job in self._watched:
                self._tell(Waiting(job, "The service does not answer; looking for it again"))
            self._closing.wait(0.5)
            return
        self._away_since = None
        self._tell(Lost(error))
        for job in list(self._watched):
            self._fail(job, error)

    def _hear(self, job: str, status: wire.JobStatus) -> None:
        """Tell what is new in a job's status; fetch the pictures that it names."""
        watched = self._watched[job]
        if status.revision == watched.revision:
            return
        if not status.final:
            watched.revision = status.revision
            self._tell(Moved(job, status))
            if status.preview and status.preview != watched.preview:
                watched.preview = status.preview
                self._fetch_preview(job, status.preview)
        elif status.state == "succeeded" and status.result is not None:
            pictures = {name: self._service().fetch_blob(sha) for name, sha in status.result.outputs.items()}
            del self._watched[job]
            self._tell(Ended(job, status.state, status, pictures))
        else:
            del self._watched[job]
            error = wire.WireError.from_problem(status.problem) if status.problem else None
            self._tell(Ended(job, status.state, status, error=error))

    def _fetch_preview(self, job: str, sha: str) -> None:
        """A preview that has been replaced meanwhile is no loss."""
        try:
            self._tell(Preview(job, self._service().fetch_blob(sha)))
        except wire.WireError as error:
            if error.code != "not-found":
                raise

    def _fail(self, job: str | None, error: wire.WireError) -> None:
        if job is None or error.code in SERVICE_ERRORS:
            self._forget_client()
            self._tell(Lost(error))
        if job is not None:
            self._watched.pop(job, None)
            self._tell(Ended(job, "failed", error=error))


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """End a service that never answered."""
    process.terminate()
