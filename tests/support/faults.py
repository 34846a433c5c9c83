"""Points at which a process can be killed or its disk can fail: around each sync, rename, deletion and statement."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ad_service.storage.blobs import BlobWriter
from ad_service.storage.jobs import Jobs

KILLED = 9
"""Exit code of a child that was killed at a point."""


def at_points(hit: Callable[[], None]) -> Callable[[Jobs], None]:
    """Calls `hit` before and after each change of a file in this process.

    Returns a function that does the same before each statement of a record.
    """

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def hit_around(*arguments: Any, **options: Any) -> Any:
            hit()
            value = function(*arguments, **options)
            hit()
            return value

        return hit_around

    os.fsync = around(os.fsync)
    for name in ("replace", "unlink", "mkdir"):
        setattr(Path, name, around(getattr(Path, name)))
    return lambda jobs: jobs._db.set_trace_callback(lambda _: hit())


def killed_at(point: int, live: Callable[[Callable[[str], None], Callable[[Jobs], None]], None]) -> tuple[str, bool]:
    """Calls `live` in a child that ends at a point, counted from 1; returns what it confirmed and whether it ended so.

    `live` gets a function that confirms a text, and one that adds the statements of a record to the points.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        hits = 0

        def hit() -> None:
            nonlocal hits
            hits += 1
            if hits == point:
                os._exit(KILLED)

        try:
            live(lambda text: void(os.write(writer, f"{text}\n".encode())), at_points(hit))
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as confirmed:
        text = confirmed.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED)
    return text, code == KILLED


def void(_: object) -> None:
    """Nothing."""


class FailingRecord:
    """A connection to a record, whose statements that write can fail."""

    def __init__(self, connection: Any, fail: Callable[[str], None]) -> None:
        self._connection = connection
        self._fail = fail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *parameters: Any) -> Any:
        if statement.lstrip().split(" ")[0] in ("BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT"):
            self._fail("statement")
        return self._connection.execute(statement, *parameters)

    def executescript(self, script: str) -> Any:
        self._fail("statement")
        return self._connection.executescript(script)


class Disk:
    """A disk that fails from a point on, counted from 1, until `repair`."""

    def __init__(self, file_error: int, record_error: Exception) -> None:
        self._file_error = file_error
        self._record_error = record_error
        self._points = 0
        self._fails_at = 0

    def fail_at(self, point: int) -> None:
        self._points, self._fails_at = 0, point

    def repair(self) -> bool:
        """Whether the disk had failed."""
        failed, self._fails_at = 0 < self._fails_at <= self._points, 0
        return failed

    def check(self, what: str = "file") -> None:
        self._points += 1
        if 0 < self._fails_at <= self._points:
            raise (
                self._record_error if what == "statement" else OSError(self._file_error, os.strerror(self._file_error))
            )

    @contextmanager
    def around(self, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Files and a record are on this disk inside the block."""
        with monkeypatch.context() as patch:
            for owner, name in (
                (os, "fsync"),
                (os, "open"),
                (os, "utime"),
                *((Path, name) for name in ("replace", "unlink", "mkdir", "rmdir")),
                (BlobWriter, "write"),
            ):
                patch.setattr(owner, name, self._failing(getattr(owner, name), name))
            patch.setattr(jobs, "_db", FailingRecord(jobs._db, self.check))
            yield

    def _failing(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def failing(*arguments: Any, **options: Any) -> Any:
            reads = name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR)
            removes = name in ("unlink", "rmdir") and self._file_error != errno.EROFS  # a full disk can be emptied
            if not reads and not removes:
                self.check()
            return function(*arguments, **options)

        return failing
