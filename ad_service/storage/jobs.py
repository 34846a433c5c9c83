"""The record of jobs in SQLite: what was asked, in which state it is, how it ended.

A job moves `queued -> running -> succeeded | failed | canceled`, with `canceling` between running and its end when the
artist asked for it. A final state never changes. Every change raises the job's revision and is committed before
anyone is told.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ad_service.worker import protocol
from blender_addon import wire
from blender_addon.wire import JobRequest, JobStatus, WireError

MAX_CRASHES = 2
"""A job that took its worker down this often fails."""

MAX_ATTEMPTS = 5
"""A job that was begun this often and never ended fails when the service starts again."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    revision INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    progress REAL NOT NULL,
    message TEXT NOT NULL,
    seconds_left REAL,
    preview TEXT,
    result TEXT,
    problem TEXT,
    created REAL NOT NULL,
    updated REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
"""
_SCHEMA_VERSION = 1

Listener = Callable[[str], None]


class Jobs:
    """All jobs of one data folder. Safe to use from several threads; one process at a time (see settings)."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.RLock()
        self._listeners: set[Listener] = set()
        self.file = file
        try:
            self._open(file)
            self.blobs()  # reads every job
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise RuntimeError(
                f"{file} cannot be used ({error}); make it writable, or move it away to begin with an empty history"
            ) from error

    def _open(self, file: Path) -> None:
        with _disk_full(file):
            self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > _SCHEMA_VERSION:
                raise RuntimeError(f"{file} was written by a newer version of the service; update this one")
            self._db.executescript(f"{_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION};")
            if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("it is damaged")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # ---------------------------------------------------------------------- what clients do

    def submit(self, job: str, request: JobRequest) -> tuple[JobStatus, bool]:
        """Queues a new job; for one that is known already, returns it as it is. The flag says whether it is new.

        Raises WireError `conflict` if the name belongs to another request, `queue-full` if too many wait.
        """
        with self._change() as changed:
            row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
            if row is not None:
                if row["digest"] != request.digest():
                    raise WireError("conflict", f"job {job} exists and asks for something else")
                return _status(row), False
            (waiting,) = self._db.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()
            if waiting >= wire.MAX_QUEUE:
                raise WireError("queue-full", f"{waiting} jobs are waiting, which is the most there may be")
            now = time.time()
            self._db.execute(
                "INSERT INTO jobs (id, digest, request, state, revision, attempt, crashes, progress, message, created,"
                " updated) VALUES (?, ?, ?, 'queued', 1, 1, 0, 0, 'Waiting', ?, ?)",
                (job, request.digest(), json.dumps(request.document()), now, now),
            )
            changed.append(job)
            return self.get(job), True

    def get(self, job: str) -> JobStatus:
        """The job as it is now; raises WireError `not-found`."""
        return _status(self._row(job))

    def newest(self, limit: int = 50) -> list[JobStatus]:
        with self._lock:
            rows = self._db.execute("SELECT * FROM jobs ORDER BY number DESC LIMIT ?", (limit,)).fetchall()
        return [_status(row) for row in rows]

    def cancel(self, job: str) -> JobStatus:
        """Asks for the job's end: at once if it waits, soon if it runs. One that has ended stays as it ended."""
        with self._change() as changed:
            state = self._row(job)["state"]
            if state == "queued":
                self._end(job, changed, "canceled", "Canceled")
            elif state == "running":
                self._update(job, changed, state="canceling", message="Canceling", seconds_left=None)
            return self.get(job)

    # ---------------------------------------------------------------------- what the worker does

    def claim(self) -> JobStatus | None:
        """Takes the job that waits longest and marks it running; None if none waits."""
        with self._change() as changed:
            row = self._db.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1").fetchone()
            if row is None:
                return None
            self._update(row["id"], changed, state="running", message="Starting")
            return self.get(row["id"])

    def progress(self, event: protocol.Progress) -> None:
        """Notes how far a running job is; late news of a job that does not run are dropped."""
        with self._change(durable=False) as changed:
            row = self._row(event.job)
            if row["state"] != "running":
                return
            self._update(
                event.job,
                changed,
                progress=min(1.0, max(row["progress"], event.fraction)),
                message=event.message,
                seconds_left=event.seconds_left,
                preview=event.preview or row["preview"],
            )

    def finish(self, event: protocol.Succeeded | protocol.Failed | protocol.Canceled) -> JobStatus:
        """Ends a job that runs; one that has ended stays as it ended."""
        with self._change() as changed:
            if self._row(event.job)["state"] in ("running", "canceling"):
                if isinstance(event, protocol.Succeeded):
                    self._end(event.job, changed, "succeeded", "Done", progress=1.0, result=asdict(event.result))
                elif isinstance(event, protocol.Failed):
                    message = str(event.problem.get("title", "Failed"))
                    self._end(event.job, changed, "failed", message, problem=dict(event.problem))
                else:
                    self._end(event.job, changed, "canceled", "Canceled")
            return self.get(event.job)

    def crashed(self, job: str, how: str) -> JobStatus:
        """The worker died while it ran this job: try again, fail if that happened before, or end as canceled."""
        with self._change() as changed:
            row = self._row(job)
            crashes = row["crashes"] + 1
            if row["state"] == "canceling":
                self._end(job, changed, "canceled", "Canceled")
            elif row["state"] == "running" and crashes >= MAX_CRASHES:
                error = WireError("worker-crashed", f"the worker process died {crashes} times on this job, last {how}")
                self._end(job, changed, "failed", error.type.title, problem=error.problem(), crashes=crashes)
            elif row["state"] == "running":
                self._requeue(row, changed, "Waiting to try again: the worker died", crashes)
            return self.get(job)

    def fail_waiting(self, error: WireError) -> None:
        """Fails every job that waits, when there is no hope of a worker."""
        with self._change() as changed:
            for row in self._db.execute("SELECT id FROM jobs WHERE state = 'queued'").fetchall():
                self._end(row["id"], changed, "failed", error.type.title, problem=error.problem())

    # ---------------------------------------------------------------------- house-keeping

    def recover(self) -> None:
        """After a restart: what ran waits again, what was being canceled is canceled."""
        with self._change() as changed:
            for row in self._db.execute("SELECT * FROM jobs WHERE state IN ('running', 'canceling')").fetchall():
                if row["state"] == "canceling":
                    self._end(row["id"], changed, "canceled", "Canceled")
                elif row["attempt"] >= MAX_ATTEMPTS:
                    error = WireError("interrupted", f"the service stopped {row['attempt']} times during this job")
                    self._end(row["id"], changed, "failed", error.type.title, problem=error.problem())
                else:
                    self._requeue(row, changed, "Waiting: the service was stopped", row["crashes"])

    def forget(self, keep: int) -> None:
        """Removes the oldest jobs that have ended, all but the newest `keep` of them."""
        with self._change():
            self._db.execute(
                "DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE state IN ('succeeded', 'failed',"
                " 'canceled') ORDER BY number DESC LIMIT -1 OFFSET ?)",
                (keep,),
            )

    def blobs(self) -> set[str]:
        """The sha256 of every picture that some job names."""
        named: set[str] = set()
        for status in self.newest(limit=-1):
            named.update(status.request["inputs"].values())
            named.update(status.result.outputs.values() if status.result else ())
            named.update([status.preview] if status.preview else ())
        return named

    @contextmanager
    def listener(self, listener: Listener) -> Iterator[None]:
        """While inside, `listener(job)` is called after each committed change, from the thread that made it."""
        with self._lock:
            self._listeners.add(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.discard(listener)

    # ---------------------------------------------------------------------- the one way to change a row

    @contextmanager
    def _change(self, *, durable: bool = True) -> Iterator[list[str]]:
        """One transaction. The jobs put into the list are announced after the commit.

        A durable one survives a power failure; the others wait for no disk.
        """
        changed: list[str] = []
        with self._lock, _disk_full(self.file):
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield changed
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            listeners = list(self._listeners)
        for job in dict.fromkeys(changed):
            for listener in listeners:
                listener(job)

    def _row(self, job: str) -> sqlite3.Row:
        with self._lock:
            row: sqlite3.Row | None = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
        if row is None:
            raise WireError("not-found", f"there is no job {job}")
        return row

    def _update(self, job: str, changed: list[str], **columns: Any) -> None:
        columns["updated"] = time.time()
        assignments = ", ".join(f"{name} = ?" for name in columns)
        values = [json.dumps(value) if isinstance(value, dict) else value for value in columns.values()]
        self._db.execute(f"UPDATE jobs SET revision = revision + 1, {assignments} WHERE id = ?", (*values, job))
        changed.append(job)

    def _end(self, job: str, changed: list[str], state: str, message: str, **columns: Any) -> None:
        self._update(job, changed, state=state, message=message, seconds_left=None, **columns)

    def _requeue(self, row: sqlite3.Row, changed: list[str], message: str, crashes: int) -> None:
        self._update(
            row["id"],
            changed,
            state="queued",
            attempt=row["attempt"] + 1,
            crashes=crashes,
            progress=0.0,
            message=message,
            seconds_left=None,
        )


@contextmanager
def _disk_full(file: Path) -> Iterator[None]:
    """SQLite's way to say that the disk is full becomes WireError `disk-full`."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise WireError("disk-full", f"no space is left on the disk of {file}") from error
        raise


def _status(row: sqlite3.Row) -> JobStatus:
    document = {name: row[name] for name in row.keys()}  # noqa: SIM118  a Row iterates over its values
    for name in ("request", "result", "problem"):
        document[name] = json.loads(document[name]) if document[name] is not None else None
    return JobStatus.parse(document)
