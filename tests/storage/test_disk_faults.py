"""A disk that is full or read-only from any write on: a named error, nothing half done, and work goes on afterwards."""

from __future__ import annotations

import errno
import hashlib
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from ad_service.storage.blobs import BlobStore
from ad_service.storage.cleanup import clean, delete_job
from ad_service.storage.jobs import Jobs
from blender_addon.wire import JobRequest, Result, WireError
from tests.support.faults import Disk

SWATCH, RESULT = (hashlib.sha256(data).hexdigest() for data in (b"swatch", b"result"))
REQUEST = JobRequest.parse({"kind": "synthesize", "inputs": {"swatch": SWATCH}})

FULL = (errno.ENOSPC, sqlite3.OperationalError("database or disk is full"))
READ_ONLY = (errno.EROFS, sqlite3.OperationalError("attempt to write a readonly database"))


def steps(store: BlobStore, jobs: Jobs) -> list[tuple[Callable[[], object], str | None]]:
    """The life of a job "a": each change of the data folder, and the job's state after it."""
    return [
        (lambda: store.put(b"swatch"), None),
        (lambda: jobs.submit("a", REQUEST), "queued"),
        (lambda: jobs.claim("local-1"), "running"),
        (lambda: jobs.progress("a", 0.5, "Step 1 of 2"), "running"),
        (lambda: jobs.crash("a", "with exit code 3"), "queued"),
        (lambda: jobs.claim("local-1"), "running"),
        (lambda: store.put(b"result"), "running"),
        (lambda: jobs.succeed("a", Result({"image": RESULT})), "succeeded"),
        (lambda: clean(store, jobs, None), "succeeded"),
        (lambda: delete_job(store, jobs, "a"), None),
    ]


def state(jobs: Jobs) -> str | None:
    return next((status.state for status in jobs.newest()), None)


@pytest.mark.parametrize(("file_error", "record_error"), [FULL, READ_ONLY], ids=["full", "read-only"])
def test_a_disk_that_fails_at_any_write_stops_one_step_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_error: int, record_error: sqlite3.OperationalError
) -> None:
    store, jobs = BlobStore(tmp_path / "blobs"), Jobs(tmp_path / "jobs.sqlite")
    disk, faults = Disk(file_error, record_error), 0
    with disk.around(jobs, monkeypatch):
        for step, after in steps(store, jobs):
            before, point = state(jobs), 0
            failed = True
            while failed:
                point += 1
                disk.fail_at(point)
                try:
                    step()
                except WireError as error:
                    assert (error.code, file_error) == ("disk-full", errno.ENOSPC)
                except (OSError, sqlite3.OperationalError) as error:
                    assert file_error == errno.EROFS, error
                still_readable = state(jobs)
                assert not store.has(RESULT) or store.read(RESULT) == b"result"
                failed = disk.repair()
                assert still_readable == state(jobs)
                assert state(jobs) in (before, after)
                assert list(tmp_path.rglob(".incoming-*")) == [] or file_error == errno.EROFS
                store.remove_drafts(0.0)
                faults += failed
                if failed and state(jobs) == after != before:
                    break  # the record was changed, and only what follows it failed
            assert state(jobs) == after
    assert faults > 30
    assert jobs._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    jobs.close()


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.soak)])
def test_a_record_with_flipped_bytes_is_used_or_named(tmp_path: Path, count: int) -> None:
    file = tmp_path / "jobs.sqlite"
    jobs = Jobs(file)
    for i in range(20):
        jobs.submit(str(i), REQUEST)
        jobs.claim("local-1")
        jobs.succeed(str(i), Result({"image": RESULT}, {"seam_x": 1.0}, ("a note",)))
    jobs.close()
    whole, rng = file.read_bytes(), random.Random(0)
    for _ in range(count):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 4, 64))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(damaged)) :]
        file.write_bytes(damaged)
        try:
            jobs = Jobs(file)
        except RuntimeError as error:
            assert "jobs.sqlite" in str(error)
        else:
            jobs.recover()
            assert all(status.document() for status in jobs.newest(-1))
            jobs.close()
        for rest in ("-wal", "-shm"):
            Path(f"{file}{rest}").unlink(missing_ok=True)
