"""What the data folder keeps: the oldest pictures go first, never what a job needs or somebody used just now."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ad_service.storage.blobs import BlobStore
from ad_service.storage.cleanup import CleanupOptions, clean, delete_job, usage
from ad_service.storage.jobs import Jobs
from blender_addon.wire import JobRequest, Result, WireError

SIZE = 1000
DAY = 24 * 3600.0


class Folder:
    """A record and a store of a data folder, filled by a test."""

    def __init__(self, path: Path) -> None:
        self.store, self.jobs = BlobStore(path / "blobs"), Jobs(path / "jobs.sqlite")

    def blob(self, name: str, age: float = 0.0) -> str:
        """A blob of SIZE bytes that was used `age` seconds ago."""
        sha = self.store.put(name.encode().ljust(SIZE))
        os.utime(self.store.path(sha), (time.time() - age, time.time() - age))
        return sha

    def job(self, name: str, age: float = 0.0, swatch: str | None = None) -> str:
        """A job with its own swatch that succeeded `age` seconds ago; returns the sha256 of its result."""
        self.waiting(name, age, swatch)
        self.jobs.claim("local-1")
        result = self.blob(f"result of {name}", age)
        self.jobs.succeed(name, Result({"image": result}))
        self.jobs._db.execute("UPDATE jobs SET updated = ? WHERE id = ?", (time.time() - age, name))
        return result

    def waiting(self, name: str, age: float = 0.0, swatch: str | None = None) -> str:
        """A job that waits; returns the sha256 of its swatch."""
        sha = swatch or self.blob(f"swatch of {name}", age)
        self.jobs.submit(name, JobRequest.parse({"kind": "synthesize", "inputs": {"swatch": sha}}))
        return sha

    def has(self, sha: str) -> bool:
        return self.store.path(sha).exists()

    def names(self) -> list[str]:
        return sorted(status.id for status in self.jobs.newest(-1))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    made.jobs.close()


def test_below_the_budget_nothing_is_removed(folder: Folder) -> None:
    for i in range(3):
        folder.job(str(i), age=10 * DAY)
    assert clean(folder.store, folder.jobs, 6 * SIZE) == 0
    assert usage(folder.store, 6 * SIZE).pictures == 6


def test_above_the_budget_the_oldest_jobs_go_with_their_pictures(folder: Folder) -> None:
    results = [folder.job(str(i), age=(10 - i) * DAY) for i in range(4)]
    assert clean(folder.store, folder.jobs, 4 * SIZE) == 2
    assert [folder.has(sha) for sha in results] == [False, False, True, True]
    assert folder.names() == ["2", "3"]
    assert usage(folder.store, 4 * SIZE).bytes == 4 * SIZE


def test_pictures_of_no_job_go_before_jobs(folder: Folder) -> None:
    result, uploaded = folder.job("a", age=10 * DAY), folder.blob("uploaded", age=2 * 3600)
    assert clean(folder.store, folder.jobs, 2 * SIZE) == 1
    assert folder.has(result) and not folder.has(uploaded)


def test_a_job_that_waits_or_runs_keeps_its_pictures_above_the_budget(folder: Folder) -> None:
    used = folder.blob("swatch", age=10 * DAY)
    result = folder.job("done", age=10 * DAY, swatch=used)
    swatches = [folder.waiting("runs", age=10 * DAY), folder.waiting("waits", swatch=used)]
    folder.jobs.claim("local-1")
    clean(folder.store, folder.jobs, 0)
    assert all(folder.has(sha) for sha in swatches) and not folder.has(result)
    assert folder.names() == ["runs", "waits"]


def test_results_within_the_grace_time_are_kept_above_the_budget(folder: Folder) -> None:
    ended_now, used_now = folder.job("ended now"), folder.job("used now", age=10 * DAY)
    folder.store.has(used_now)
    uploaded = folder.blob("uploaded now")
    clean(folder.store, folder.jobs, 0)
    assert folder.has(ended_now) and folder.has(used_now) and folder.has(uploaded)


def test_a_picture_of_two_jobs_stays_with_the_second(folder: Folder) -> None:
    shared = folder.blob("shared", age=10 * DAY)
    folder.job("old", age=10 * DAY, swatch=shared)
    folder.job("new", age=5 * DAY, swatch=shared)
    clean(folder.store, folder.jobs, 2 * SIZE)
    assert folder.has(shared) and folder.names() == ["new"]


def test_pictures_that_no_job_named_are_removed_after_a_day(folder: Folder) -> None:
    old, young = folder.blob("old", age=2 * DAY), folder.blob("young", age=3600)
    assert clean(folder.store, folder.jobs, None) == 1
    assert not folder.has(old) and folder.has(young)


def test_only_the_newest_jobs_are_remembered(folder: Folder) -> None:
    results = [folder.job(str(i), age=3 * DAY) for i in range(5)]
    clean(folder.store, folder.jobs, None, CleanupOptions(jobs=2))
    assert folder.names() == ["3", "4"]
    assert [folder.has(sha) for sha in results] == [False] * 3 + [True] * 2


def test_a_deleted_job_frees_its_result_at_once_and_its_old_swatch(folder: Folder) -> None:
    result = folder.job("a", age=DAY)
    swatch = str(folder.jobs.get("a").request["inputs"]["swatch"])
    delete_job(folder.store, folder.jobs, "a")
    assert not folder.has(result) and not folder.has(swatch)
    with pytest.raises(WireError):
        delete_job(folder.store, folder.jobs, "a")


def test_a_deleted_job_leaves_a_swatch_that_was_just_uploaded_again(folder: Folder) -> None:
    folder.job("a", age=DAY)
    swatch = str(folder.jobs.get("a").request["inputs"]["swatch"])
    folder.store.has(swatch)
    delete_job(folder.store, folder.jobs, "a")
    assert folder.has(swatch)


def test_the_default_budget_is_a_tenth_of_what_is_free(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.blob("a")
    for free, limit in ((100 * 10**9 - SIZE, 10 * 10**9), (10**15, 20 * 10**9)):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: type("Disk", (), {"free": free}))
        assert usage(folder.store, None).limit == limit


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_jumps_loses_nothing_that_is_needed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    result, waiting = folder.job("done"), folder.waiting("waits")
    now = time.time() + days * DAY
    monkeypatch.setattr("time.time", lambda: now)
    other = folder.waiting("submitted after the jump")
    clean(folder.store, folder.jobs, limit=10**9)
    assert folder.has(result) and folder.has(waiting) and folder.has(other)
    assert [status.id for status in folder.jobs.newest()] == ["submitted after the jump", "waits", "done"]
    claimed = folder.jobs.claim("local-1")
    assert claimed is not None and claimed.id == "waits"
    assert folder.jobs.succeed("waits", Result({"image": result})).state == "succeeded"


def test_times_in_the_future_do_not_keep_pictures_above_the_budget(folder: Folder) -> None:
    unused = folder.blob("of a clock that was a year ahead", age=-365 * DAY)
    results = [folder.job(name, age=-365 * DAY) for name in ("a", "b")]
    clean(folder.store, folder.jobs, limit=2 * SIZE)
    assert not folder.has(unused) and not folder.has(results[0]) and folder.has(results[1])


def test_a_draft_from_the_future_is_removed(folder: Folder) -> None:
    draft = folder.store.folder / ".incoming-ahead"
    draft.parent.mkdir(exist_ok=True)
    draft.touch()
    os.utime(draft, (time.time() + 365 * DAY,) * 2)
    clean(folder.store, folder.jobs, limit=None)
    assert not draft.exists()
