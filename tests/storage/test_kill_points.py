"""A process that ends before or after any write, sync, rename or commit loses nothing that it has confirmed."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ad_service.storage.blobs import BlobStore
from ad_service.storage.cleanup import clean, delete_job
from ad_service.storage.jobs import Jobs
from blender_addon.wire import JobRequest, Result

SWATCH, RESULT = (hashlib.sha256(data).hexdigest() for data in (b"swatch", b"result"))
KILLED = 9


def live(folder: Path, confirm: Callable[[str], object], prepare: Callable[[Jobs], object]) -> None:
    """The life of a job "a" in a data folder; `confirm` is called after each step that a client learns of."""
    store, jobs = BlobStore(folder / "blobs"), Jobs(folder / "jobs.sqlite")
    prepare(jobs)
    store.put(b"swatch")
    confirm("uploaded")
    jobs.submit("a", JobRequest.parse({"kind": "synthesize", "inputs": {"swatch": SWATCH}}))
    confirm("accepted")
    jobs.claim("local-1")
    jobs.progress("a", 0.5, "Step 1 of 2")
    store.put(b"result")
    jobs.succeed("a", Result({"image": RESULT}))
    confirm("succeeded")
    clean(store, jobs, None)
    confirm("cleaned")
    delete_job(store, jobs, "a")
    confirm("deleted")
    jobs.close()


def killed_at(folder: Path, point: int) -> tuple[list[str], bool]:
    """Lives in a child that ends at a point; returns what it confirmed, and whether it was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        hits = 0

        def hit(*_: object) -> None:
            nonlocal hits
            hits += 1
            if hits == point:
                os._exit(KILLED)

        def around(function: Callable[..., Any]) -> Callable[..., Any]:
            def hit_around(*arguments: Any) -> Any:
                hit()
                value = function(*arguments)
                hit()
                return value

            return hit_around

        os.fsync = around(os.fsync)
        for name in ("replace", "unlink", "mkdir"):
            original = getattr(Path, name)
            setattr(
                Path,
                name,
                lambda self, *a, original=original, **k: around(lambda *b: original(self, *b, **k))(*a),
            )
        live(
            folder,
            lambda what: os.write(writer, f"{what} ".encode()),
            lambda jobs: jobs._db.set_trace_callback(hit),  # before each statement
        )
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as confirmed:
        words = confirmed.read().split()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, KILLED)
    return words, os.waitstatus_to_exitcode(status) == KILLED


def check(folder: Path, confirmed: list[str]) -> None:
    """What was confirmed is there after a restart, and nothing is half there."""
    store, jobs = BlobStore(folder / "blobs"), Jobs(folder / "jobs.sqlite")
    jobs.recover()
    states = {status.id: status.state for status in jobs.newest(-1)}
    for file in store.files():
        store.check(file.sha)
    if "uploaded" in confirmed and "deleted" not in confirmed:
        assert store.has(SWATCH)
    if "succeeded" in confirmed and "cleaned" not in confirmed:
        assert states == {"a": "succeeded"} and store.read(RESULT) == b"result"
    elif "accepted" in confirmed and "succeeded" not in confirmed:
        assert states in ({"a": "queued"}, {"a": "succeeded"})
    elif "deleted" in confirmed:
        assert states == {}
    if states.get("a") == "succeeded":
        assert store.has(RESULT)
    jobs.close()
    with sqlite3.connect(folder / "jobs.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: a kill loses nothing that was written, and a hundred folders need no disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.skipif(not Path("/dev/shm").is_dir() or not hasattr(os, "fork"), reason="needs Linux")
def test_what_was_confirmed_is_there_after_a_kill_at_any_point(memory: Path) -> None:
    point, killed = 0, True
    while killed:
        point += 1
        folder = memory / str(point)
        folder.mkdir()
        confirmed, killed = killed_at(folder, point)
        check(folder, confirmed)
    assert point > 60 and confirmed[-1] == "deleted"
