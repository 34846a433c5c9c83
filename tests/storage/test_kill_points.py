"""A process that ends before or after any write, sync, rename or commit loses nothing that it has confirmed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ad_service.storage.blobs import BlobStore
from ad_service.storage.cleanup import clean, delete_job
from ad_service.storage.jobs import Jobs
from blender_addon import wire
from blender_addon.wire import JobRequest, Result, WireError
from tests.support.faults import killed_at

SWATCH, RESULT = (hashlib.sha256(data).hexdigest() for data in (b"swatch", b"result"))

pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir() or not hasattr(os, "fork"), reason="needs Linux")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: a kill loses nothing that was written, and a hundred folders need no disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def check_integrity(folder: Path) -> None:
    with sqlite3.connect(folder / "jobs.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


# ---------------------------------------------------------------------------------------------- each point of one life


def live(folder: Path, confirm: Callable[[str], None], prepare: Callable[[Jobs], None]) -> None:
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
    check_integrity(folder)


def test_what_was_confirmed_is_there_after_a_kill_at_any_point(memory: Path) -> None:
    point, killed = 0, True
    while killed:
        point += 1
        folder = memory / str(point)
        folder.mkdir()
        text, killed = killed_at(point, lambda confirm, prepare, folder=folder: live(folder, confirm, prepare))  # type: ignore[misc]
        check(folder, text.split())
    assert point > 60 and text.split()[-1] == "deleted"


# ---------------------------------------------------------------------------------------------- many lives at random


def live_at_random(folder: Path, seed: int, confirm: Callable[[str], None], prepare: Callable[[Jobs], None]) -> None:
    """Twenty random changes of a data folder by clients, workers, restarts and cleaning, each confirmed as JSON."""
    rng = random.Random(seed)
    store, jobs = BlobStore(folder / "blobs"), Jobs(folder / "jobs.sqlite")
    prepare(jobs)
    jobs.recover()
    for _ in range(20):
        action = rng.choice(("submit", "submit", "finish", "finish", "crash", "cancel", "delete", "clean", "restart"))
        known = jobs.newest(-1)
        one = rng.choice(known).id if known else ""
        if action == "submit":
            swatch = rng.randbytes(8)
            job = JobRequest.parse({"kind": "synthesize", "inputs": {"swatch": store.put(swatch)}})
            with suppress(WireError):  # a full queue
                status, _ = jobs.submit(swatch.hex(), job)
                confirm(json.dumps(["accepted", status.id]))
        elif action in ("finish", "crash"):
            if (claimed := jobs.claim("local-1")) is None:
                continue
            jobs.progress(claimed.id, rng.random(), "Step", preview=store.put(b"preview" + rng.randbytes(4)))
            if action == "finish" and rng.random() < 0.8:
                jobs.succeed(claimed.id, Result({"image": store.put(b"result" + rng.randbytes(4))}))
            elif action == "finish":
                jobs.fail(claimed.id, WireError("nan-output", "at step 3").problem())
            else:
                jobs.crash(claimed.id, "with exit code 3")
            confirm(json.dumps(["status", jobs.get(claimed.id).document()]))
        elif action == "cancel" and known:
            confirm(json.dumps(["status", jobs.cancel(one).document()]))
        elif action == "delete" and known:
            confirm(json.dumps(["deleting", one]))
            with suppress(WireError):  # it has not ended
                delete_job(store, jobs, one)
                confirm(json.dumps(["deleted", one]))
        elif action == "clean":
            clean(store, jobs, None)
        elif action == "restart":
            jobs.suspend()
            jobs.close()
            jobs = Jobs(folder / "jobs.sqlite")
            prepare(jobs)
            jobs.recover()


class Confirmed:
    """What the lives of a data folder have confirmed."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.deleting: set[str] = set()
        self.deleted: set[str] = set()
        self.final: dict[str, Any] = {}

    def read(self, text: str) -> None:
        for line in text.splitlines():
            what, value = json.loads(line)
            if what != "status":
                getattr(self, what).add(value)
            elif value["state"] in wire.FINAL_STATES:
                self.final[value["id"]] = value

    def check(self, folder: Path) -> None:
        store, jobs = BlobStore(folder / "blobs"), Jobs(folder / "jobs.sqlite")
        found = {status.id: status for status in jobs.newest(-1)}
        assert self.accepted - self.deleting <= set(found), "an accepted job is lost"
        assert not self.deleted & set(found), "a deleted job is back"
        for job, status in self.final.items():
            assert job not in found or json.loads(json.dumps(found[job].document())) == status, "an ended job changed"
        for status in found.values():
            for sha in status.result.outputs.values() if status.result else ():
                store.check(sha)
            for sha in status.request["inputs"].values() if not status.final else ():
                store.check(sha)
        jobs.close()
        check_integrity(folder)


@pytest.mark.parametrize("kills", [60, pytest.param(2000, marks=pytest.mark.soak)])
def test_random_changes_and_kills_lose_nothing(memory: Path, kills: int) -> None:
    rng, confirmed, killed = random.Random(0), Confirmed(), 0
    seed = 0
    while killed < kills:
        seed += 1
        if seed % 100 == 0:
            confirmed, memory = Confirmed(), memory / "next"  # with few jobs a life is short
            memory.mkdir()
        text, ended = killed_at(
            rng.randrange(1, 400),
            lambda confirm, prepare, folder=memory, seed=seed: live_at_random(folder, seed, confirm, prepare),  # type: ignore[misc]
        )
        killed += ended
        confirmed.read(text)
        confirmed.check(memory)
    assert confirmed.accepted
