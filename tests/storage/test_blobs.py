"""Blobs are named by their contents and appear complete or not at all; a full disk is reported."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from ad_service.storage.blobs import BlobStore
from blender_addon.wire import WireError


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files(store: BlobStore) -> list[Path]:
    return [path for path in store.folder.rglob("*") if path.is_file()]


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_stored_blob_is_read_back(store: BlobStore) -> None:
    sha = store.put(b"bricks")
    assert sha == sha_of(b"bricks")
    assert store.has(sha)
    assert store.read(sha) == b"bricks"


def test_putting_twice_keeps_one_file(store: BlobStore) -> None:
    store.put(b"bricks")
    store.put(b"bricks")
    assert len(files(store)) == 1


def test_a_blob_is_received_in_chunks(store: BlobStore) -> None:
    with store.writer(sha_of(b"bricks")) as writer:
        writer.write(b"bri")
        assert not store.has(sha_of(b"bricks"))
        writer.write(b"cks")
    assert store.read(sha_of(b"bricks")) == b"bricks"


def test_bytes_with_another_sha256_are_rejected_and_leave_no_file(store: BlobStore) -> None:
    with pytest.raises(WireError, match=sha_of(b"bricks")) as caught, store.writer(sha_of(b"bricks")) as writer:
        writer.write(b"brick")
    assert caught.value.code == "blob-mismatch"
    assert files(store) == []


def test_an_interrupted_write_leaves_no_file(store: BlobStore) -> None:
    with pytest.raises(ConnectionError), store.writer(sha_of(b"bricks")) as writer:
        writer.write(b"bri")
        raise ConnectionError
    assert files(store) == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_a_sha256_names_a_blob(store: BlobStore, name: str) -> None:
    with pytest.raises(WireError) as caught:
        store.path(name)
    assert caught.value.code == "invalid-request"


def test_the_error_for_a_missing_blob_names_its_purpose(store: BlobStore) -> None:
    with pytest.raises(WireError, match="the picture 'swatch' 0000") as caught:
        store.require("0" * 64, "the picture 'swatch'")
    assert caught.value.code == "blob-missing"


def test_a_full_disk_is_reported_and_leaves_no_file(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WireError, match=str(store.folder)) as caught:
        store.put(b"bricks")
    assert caught.value.code == "disk-full"
    assert files(store) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_disk_that_is_full_at_the_last_byte_is_reported(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open
    monkeypatch.setattr(os, "open", lambda name, flags, mode: real_open("/dev/full", os.O_WRONLY))
    with pytest.raises(WireError) as caught:
        store.put(b"few bytes, which stay in the buffer until the end")
    assert caught.value.code == "disk-full"


def test_a_blob_damaged_on_the_disk_counts_as_missing_and_can_be_stored_again(store: BlobStore) -> None:
    sha = store.put(b"bricks")
    store.path(sha).write_bytes(b"bri")
    with pytest.raises(WireError, match=f"{sha} was damaged") as caught:
        store.read(sha)
    assert caught.value.code == "blob-missing"
    assert not store.has(sha)
    store.put(b"bricks")
    assert store.read(sha) == b"bricks"


def test_storing_a_blob_again_replaces_a_damaged_one(store: BlobStore) -> None:
    sha = store.put(b"bricks")
    store.path(sha).write_bytes(b"bri")
    store.put(b"bricks")
    assert store.read(sha) == b"bricks"


def test_a_blob_is_found_on_a_disk_that_cannot_be_written(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = store.put(b"bricks")

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", read_only)
    assert store.has(sha) and not store.has("0" * 64)
    store.check(sha)
    assert store.read(sha) == b"bricks"


def test_only_drafts_that_nobody_writes_to_are_removed(store: BlobStore) -> None:
    sha = store.put(b"bricks")
    old = [store.folder / "incoming-of-0.1", store.folder / sha[:2] / ".incoming-left-behind"]
    others = [store.folder / "notes.txt", store.path(sha)]
    for path in old + others:
        path.touch()
        os.utime(path, (time.time() - 1000, time.time() - 1000))
    recent = store.folder / sha[:2] / ".incoming-being-written"
    recent.touch()
    assert store.remove_drafts(500) == 2
    assert not any(path.exists() for path in old) and recent.exists() and all(path.exists() for path in others)
