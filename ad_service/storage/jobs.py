"""The record of jobs in SQLite: the request of each job, its state and its result.

A job moves `queued -> running -> succeeded | failed | canceled`, with `canceling` between running and the end of a job
that the artist cancels. A final state never changes. Every change raises the job's revision and is committed before
the listeners are called.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

from ad_service.storage.files import is_older
from blender_addon import wire
from blender_addon.wire import JobRequest, JobStatus, Result, WireError

MAX_CRASHES = 2
"""A job fails when its worker process died this many times."""

MAX_ATTEMPTS = 5
"""A job that was started this many times and never ended fails when the service starts again."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
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
    updated REAL NOT NULL,
    worker TEXT,
    phase TEXT NOT NULL DEFAULT '',
    artist TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
CREATE TABLE IF NOT EXISTS turns (artist TEXT PRIMARY KEY, turn INTEGER NOT NULL);
"""
_SCHEMA_VERSION = 3

_OLD_COLUMNS = (
    "number, id, request, state, revision, attempt, crashes, progress, message, seconds_left, preview, result, problem,"
    " created, updated"
)
_MIGRATIONS = {
    # Version 1 had a digest of the request, and no worker and phase. Old SQLite cannot drop a column, so the table is
    # copied.
    1: f"""
ALTER TABLE jobs RENAME TO old_jobs;
DROP INDEX jobs_by_state;
{_SCHEMA}
INSERT INTO jobs ({_OLD_COLUMNS}) SELECT {_OLD_COLUMNS} FROM old_jobs;
UPDATE jobs SET state = 'canceling' WHERE state = 'cancelling';
DROP TABLE old_jobs;
""",
    # Version 2 had no artists.
    2: f"ALTER TABLE jobs ADD COLUMN artist TEXT NOT NULL DEFAULT ''; {_SCHEMA}",
}
"""SQL that turns the schema of a version into the present one. Version 0 is an empty file."""

_LAST_NUMBER = 2**63 - 1
_INCREMENTAL = 2
"""The value of SQLite's `auto_vacuum` with which `compact` can return pages of removed jobs to the disk."""

Listener = Callable[[str], None]


class Jobs:
    """All jobs of one data folder, for any number of threads of one process at a time (see settings.one_service).

    Args:
        file: the database, which is created if it is missing.
        max_queue: how many jobs of one artist may wait.

    Raises: RuntimeError if the file is damaged, cannot be read, or was written by a newer version.
    """

    def __init__(self, file: Path, max_queue: int = wire.MAX_QUEUE) -> None:
        self.max_queue = max_queue
        self._lock = threading.RLock()
        self._listeners: set[Listener] = set()
        self.file = file
        try:
            self._open(file)
            self.blobs()  # reads every job, so that a damaged one is found now
        except (sqlite3.DatabaseError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise RuntimeError(
                f"{file} cannot be used ({type(error).__name__}: {error}); "
                "make it writable, or move it away to start with an empty history"
            ) from error

    def _open(self, file: Path) -> None:
        with _disk_full(file):
            self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > _SCHEMA_VERSION:
                raise RuntimeError(f"{file} was written by a newer version of the service; update this one")
            script = _MIGRATIONS.get(version, _SCHEMA)
            self._db.executescript(f"BEGIN; {script} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
            if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("it is damaged")
            if self._db.execute("PRAGMA auto_vacuum").fetchone() != (_INCREMENTAL,):
                with suppress(sqlite3.OperationalError):  # a full disk; the file can be used, but does not shrink
                    self._db.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
                    self._db.execute("VACUUM")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # ---------------------------------------------------------------------- for clients

    def submit(
        self, job: str, request: JobRequest, artist: str = "", max_queue: int | None = None
    ) -> tuple[JobStatus, bool]:
        """Queues a new job, or returns the job that has this id already. The flag is True for a new job.

        Args:
            artist: whose job it is; empty for the service's owner.
            max_queue: how many jobs of this artist may wait; None is the limit for everybody.

        Raises: WireError `conflict` if the id belongs to another request or artist, `queue-full` if too many jobs wait.
        """
        limit = self.max_queue if max_queue is None else max_queue
        with self._change() as changed:
            row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
            if row is not None:
                if row["artist"] != artist or not _is_request(row["request"], request):
                    raise WireError("conflict", f"job {job} exists with another request")
                return _status(row), False
            (waiting,) = self._db.execute(
                "SELECT count(*) FROM jobs WHERE state = 'queued' AND artist = ?", (artist,)
            ).fetchone()
            if waiting >= limit:
                whose = f" of {artist}" if artist else ""
                raise WireError("queue-full", f"{waiting} jobs{whose} are waiting; {limit} is the limit")
            now = time.time()
            self._db.execute(
                "INSERT INTO jobs (id, request, state, revision, attempt, crashes, progress, message, created, updated,"
                " artist) VALUES (?, ?, 'queued', 1, 1, 0, 0, 'Waiting', ?, ?, ?)",
                (job, json.dumps(request.document()), now, now, artist),
            )
            changed.append(job)
            return self.get(job), True

    def get(self, job: str) -> JobStatus:
        """The job's present status. Raises: WireError `not-found`."""
        return _status(self._row(job))

    def newest(self, limit: int = 50, before: str | None = None, artist: str | None = None) -> list[JobStatus]:
        """The jobs submitted last, newest first; all of them for a limit of -1.

        Args:
            before: id of a job; only jobs submitted before it are returned.
            artist: only jobs of this artist are returned; None for those of all.

        Raises: WireError `not-found` if the job `before` does not exist.
        """
        number = _LAST_NUMBER if before is None else self._row(before)["number"]
        whose, values = ("", ()) if artist is None else (" AND artist = ?", (artist,))
        query = f"SELECT * FROM jobs WHERE number < ?{whose} ORDER BY number DESC LIMIT ?"
        with self._lock:
            rows = self._db.execute(query, (number, *values, limit)).fetchall()
        return [_status(row) for row in rows]

    def active(self, artist: str | None = None) -> list[JobStatus]:
        """The jobs that wait or run, of one artist or of all, in the order in which they are run."""
        with self._lock:
            states = ", ".join(f"'{state}'" for state in wire.ACTIVE_STATES)
            rows = self._db.execute(f"SELECT * FROM jobs WHERE state IN ({states}) ORDER BY number").fetchall()
            turns = dict(self._db.execute("SELECT artist, turn FROM turns").fetchall())
        running = [row for row in rows if row["state"] != "queued"]
        queued = _in_turns([row for row in rows if row["state"] == "queued"], turns)
        return [_status(row) for row in (*running, *queued) if artist in (None, row["artist"])]

    def cancel(self, job: str) -> JobStatus:
        """Cancels a job: at once if it waits; a running job becomes `canceling`. Other jobs do not change."""
        with self._change() as changed:
            state = self._row(job)["state"]
            if state == "queued":
                self._end(job, changed, "canceled", "Canceled")
            elif state == "running":
                self._update(job, changed, state="canceling", message="Canceling", seconds_left=None)
            return self.get(job)

    # ---------------------------------------------------------------------- for the scheduler

    def claim(self, worker: str) -> JobStatus | None:
        """Marks the next job as running on a worker, and returns it; None if no job waits.

        It is the oldest one of the artist whose last turn is longest ago, so that a long queue of one artist does not
        delay the others.
        """
        with self._change() as changed:
            row = self._db.execute(
                "SELECT id, artist FROM jobs LEFT JOIN turns USING (artist) WHERE state = 'queued'"
                " ORDER BY coalesce(turn, 0), number LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            self._db.execute(
                "INSERT OR REPLACE INTO turns SELECT ?, 1 + coalesce(max(turn), 0) FROM turns", (row["artist"],)
            )
            self._update(row["id"], changed, state="running", message="Starting", worker=worker)
            return self.get(row["id"])

    def progress(
        self,
        job: str,
        fraction: float,
        message: str,
        *,
        phase: str = "",
        seconds_left: float | None = None,
        preview: str | None = None,
    ) -> None:
        """Records how far a running job is; a job in any other state does not change.

        Args:
            fraction: in [0, 1]; progress never decreases.
            preview: sha256 of a new preview; None keeps the last one.
        """
        with self._change(durable=False) as changed:
            row = self._row(job)
            if row["state"] != "running":
                return
            self._update(
                job,
                changed,
                progress=min(1.0, max(row["progress"], fraction)),
                message=message,
                phase=phase,
                seconds_left=seconds_left,
                preview=preview or row["preview"],
            )

    def succeed(self, job: str, result: Result) -> JobStatus:
        """Ends a running job with its result; a job in any other state does not change."""
        return self._finish(job, "succeeded", "Done", progress=1.0, result=asdict(result))

    def fail(self, job: str, problem: Mapping[str, Any]) -> JobStatus:
        """Ends a running job with a problem (WireError.problem); a job in any other state does not change."""
        return self._finish(job, "failed", str(problem.get("title", "Failed")), problem=dict(problem))

    def confirm_cancel(self, job: str) -> JobStatus:
        """Ends a running job that its worker has stopped; a job in any other state does not change."""
        return self._finish(job, "canceled", "Canceled")

    def _finish(self, job: str, state: str, message: str, **columns: Any) -> JobStatus:
        with self._change() as changed:
            if self._row(job)["state"] in ("running", "canceling"):
                self._end(job, changed, state, message, **columns)
            return self.get(job)

    def crash(self, job: str, reason: str) -> JobStatus:
        """Queues a job again whose worker died; fails it after MAX_CRASHES, ends it if it was being canceled.

        Args:
            reason: how the worker ended, such as "with exit code 3".
        """
        with self._change() as changed:
            row = self._row(job)
            crashes = row["crashes"] + 1
            if row["state"] == "canceling":
                self._end(job, changed, "canceled", "Canceled")
            elif row["state"] == "running" and crashes >= MAX_CRASHES:
                error = WireError(
                    "worker-crashed",
                    f"the worker process died {crashes} times during this job, the last time {reason}",
                    crashes=crashes,
                )
                self._end(job, changed, "failed", error.type.title, problem=error.problem(), crashes=crashes)
            elif row["state"] == "running":
                message = "Waiting for another try: the worker process died"
                self._requeue(row, changed, message, attempt=row["attempt"] + 1, crashes=crashes)
            return self.get(job)

    def unclaim(self, job: str) -> JobStatus:
        """Queues a job again that its worker never received; ends it if it was being canceled."""
        with self._change() as changed:
            row = self._row(job)
            if row["state"] == "canceling":
                self._end(job, changed, "canceled", "Canceled")
            elif row["state"] == "running":
                self._requeue(row, changed, "Waiting")
            return self.get(job)

    def fail_waiting(self, error: WireError) -> None:
        """Fails every job that waits."""
        with self._change() as changed:
            for row in self._db.execute("SELECT id FROM jobs WHERE state = 'queued'").fetchall():
                self._end(row["id"], changed, "failed", error.type.title, problem=error.problem())

    # ---------------------------------------------------------------------- maintenance

    def recover(self) -> None:
        """After a restart of the service: queues running jobs again and ends those that were being canceled."""
        with self._change() as changed:
            for row in self._db.execute("SELECT * FROM jobs WHERE state IN ('running', 'canceling')").fetchall():
                if row["state"] == "canceling":
                    self._end(row["id"], changed, "canceled", "Canceled")
                elif row["attempt"] >= MAX_ATTEMPTS:
                    error = WireError("interrupted", f"the service stopped {row['attempt']} times during this job")
                    self._end(row["id"], changed, "failed", error.type.title, problem=error.problem())
                else:
                    self._requeue(row, changed, "Waiting: the service was stopped", attempt=row["attempt"] + 1)

    def suspend(self) -> None:
        """When the service stops: queues running jobs again without counting an attempt; ends canceled ones."""
        with self._change() as changed:
            for row in self._db.execute("SELECT * FROM jobs WHERE state IN ('running', 'canceling')").fetchall():
                if row["state"] == "canceling":
                    self._end(row["id"], changed, "canceled", "Canceled")
                else:
                    self._requeue(row, changed, "Waiting: the service was stopped")

    def forget(self, keep: int) -> int:
        """Removes jobs that have ended, except the newest `keep` of them; returns how many it removed."""
        with self._change():
            return self._db.execute(
                f"DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE state IN {wire.FINAL_STATES}"
                " ORDER BY number DESC LIMIT -1 OFFSET ?)",
                (keep,),
            ).rowcount

    def delete(self, job: str) -> JobStatus:
        """Removes a job that has ended and returns its last status; its blobs stay.

        Raises: WireError `not-found`, or `conflict` for a job that waits or runs.
        """
        with self._change():
            status = self.get(job)
            if not status.final:
                raise WireError("conflict", f"job {job} is {status.state}, so that it cannot be deleted", job=job)
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job,))
            return status

    def ended_before(self, seconds: float) -> list[str]:
        """The ids of jobs that ended more than some seconds ago (see files.is_older), the oldest first."""
        query = f"SELECT id, updated FROM jobs WHERE state IN {wire.FINAL_STATES} ORDER BY number"
        with self._lock:
            return [row["id"] for row in self._db.execute(query).fetchall() if is_older(row["updated"], seconds)]

    def blobs(self) -> set[str]:
        """The sha256 of every input, output and preview in the record."""
        return set().union(*(blobs_of(status) for status in self.newest(limit=-1)))

    def compact(self) -> None:
        """Returns the disk space of removed jobs."""
        with self._lock, _disk_full(self.file):
            self._db.executescript(
                "PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);"
            )  # execute frees 1 page

    @contextmanager
    def listener(self, listener: Listener) -> Iterator[None]:
        """Calls `listener(job)` after each committed change inside the block, in the thread that made the change."""
        with self._lock:
            self._listeners.add(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.discard(listener)

    # ---------------------------------------------------------------------- changing rows

    @contextmanager
    def _change(self, *, durable: bool = True) -> Iterator[list[str]]:
        """One transaction; the listeners are called for the ids in the yielded list after the commit.

        A durable change survives a power failure. Others do not wait for the disk.
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
        self._update(job, changed, state=state, message=message, seconds_left=None, phase="", **columns)

    def _requeue(self, row: sqlite3.Row, changed: list[str], message: str, **columns: Any) -> None:
        self._update(
            row["id"],
            changed,
            state="queued",
            progress=0.0,
            message=message,
            seconds_left=None,
            worker=None,
            phase="",
            **columns,
        )


def _in_turns(rows: Sequence[sqlite3.Row], turns: Mapping[str, int]) -> list[sqlite3.Row]:
    """Jobs that wait, given oldest first, in the order in which `Jobs.claim` takes them.

    Args:
        turns: the number of each artist's last turn.
    """
    waiting: dict[str, deque[sqlite3.Row]] = {}
    for row in rows:
        waiting.setdefault(row["artist"], deque()).append(row)
    order = [(turns.get(artist, 0), queue[0]["number"], artist) for artist, queue in waiting.items()]
    heapify(order)
    turn, sorted_ = max(turns.values(), default=0), []
    while order:
        _, _, artist = heappop(order)
        sorted_.append(waiting[artist].popleft())
        turn += 1
        if waiting[artist]:
            heappush(order, (turn, waiting[artist][0]["number"], artist))
    return sorted_


def _is_request(stored: str, request: JobRequest) -> bool:
    """Whether a stored request is this one, also if an older version stored it with other names or fewer defaults."""
    try:
        return JobRequest.parse(json.loads(stored)) == request
    except WireError:
        return False


@contextmanager
def _disk_full(file: Path) -> Iterator[None]:
    """Turns SQLite's error for a full disk into WireError `disk-full`."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error):  # Python 3.10 has no error codes of SQLite
            raise WireError("disk-full", f"no space is left on the disk of {file}", folder=str(file.parent)) from error
        raise


def blobs_of(status: JobStatus) -> set[str]:
    """The sha256 of a job's inputs, outputs and preview."""
    outputs = status.result.outputs.values() if status.result else ()
    return {*status.request["inputs"].values(), *outputs, *([status.preview] if status.preview else [])}


def _status(row: sqlite3.Row) -> JobStatus:
    document = {name: row[name] for name in row.keys()}  # noqa: SIM118  a Row iterates over its values
    for name in ("request", "result", "problem"):
        document[name] = _document(document[name]) if document[name] is not None else None
    return JobStatus.parse(document)


def _document(text: str) -> Any:
    """A JSON document; half characters, which no response can contain, become question marks."""
    document = json.loads(text)
    if "\\ud" in text:
        document = json.loads(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))
    return document
