"""Blobs are named by their contents, appear whole or not at all, and a full disk is told as such."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import time
from pathlib import Path

import pytest

from ad_service.storage.blobs import Store
from blender_addon.wire import WireError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "blobs")


def files(store: Store) -> list[Path]:
    return [path for path in store.folder.rglob("*") if path.is_file()]


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_was_put_is_read_back(store: Store) -> None:
    sha = store.put(b"bricks")
    assert sha == sha_of(b"bricks")
    assert store.has(sha)
    assert store.read(sha) == b"bricks"


def test_putting_twice_keeps_one_file(store: Store) -> None:
    store.put(b"bricks")
    store.put(b"bricks")
    assert len(files(store)) == 1


def test_a_blob_comes_in_pieces(store: Store) -> None:
    with store.writer(sha_of(b"bricks")) as writer:
        writer.write(b"bri")
        assert not store.has(sha_of(b"bricks"))
        writer.write(b"cks")
    assert store.read(sha_of(b"bricks")) == b"bricks"


def test_other_bytes_than_announced_are_refused_and_leave_nothing(store: Store) -> None:
    with pytest.raises(WireError, match=sha_of(b"bricks")) as caught, store.writer(sha_of(b"bricks")) as writer:
        writer.write(b"brick")
    assert caught.value.code == "blob-mismatch"
    assert files(store) == []


def test_a_write_that_breaks_off_leaves_nothing(store: Store) -> None:
    with pytest.raises(ConnectionError), store.writer(sha_of(b"bricks")) as writer:
        writer.write(b"bri")
        raise ConnectionError
    assert files(store) == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_a_sha256_names_a_blob(store: Store, name: str) -> None:
    with pytest.raises(WireError) as caught:
        store.path(name)
    assert caught.value.code == "invalid-request"


def test_a_missing_blob_is_named_with_what_it_is_for(store: Store) -> None:
    with pytest.raises(WireError, match="the picture 'swatch' 0000") as caught:
        store.require("0" * 64, "the picture 'swatch'")
    assert caught.value.code == "blob-missing"


def test_a_full_disk_is_told_as_such_and_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WireError, match=str(store.folder)) as caught:
        store.put(b"bricks")
    assert caught.value.code == "disk-full"
    assert files(store) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_disk_that_is_full_at_the_last_byte_is_told_as_such(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(handle: int, mode: str) -> io.BufferedWriter:
        os.close(handle)
        return Path("/dev/full").open(mode)  # type: ignore[return-value]

    monkeypatch.setattr(os, "fdopen", opened)
    with pytest.raises(WireError) as caught:
        store.put(b"few bytes, which wait in the buffer until the end")
    assert caught.value.code == "disk-full"


def test_a_blob_that_the_disk_spoiled_is_missing_and_can_be_sent_again(store: Store) -> None:
    sha = store.put(b"bricks")
    store.path(sha).write_bytes(b"bri")
    with pytest.raises(WireError, match=f"{sha} was damaged") as caught:
        store.read(sha)
    assert caught.value.code == "blob-missing"
    assert not store.has(sha)
    store.put(b"bricks")
    assert store.read(sha) == b"bricks"


def test_sending_a_blob_again_mends_what_the_disk_spoiled(store: Store) -> None:
    sha = store.put(b"bricks")
    store.path(sha).write_bytes(b"bri")
    store.put(b"bricks")
    assert store.read(sha) == b"bricks"


def test_pruning_spares_what_is_named_and_what_was_used_lately(store: Store) -> None:
    named, old, asked_for = store.put(b"named"), store.put(b"old"), store.put(b"asked for")
    (store.folder / "incoming-left-behind").touch()
    for path in files(store):
        os.utime(path, (time.time() - 1000, time.time() - 1000))
    store.has(asked_for)
    assert store.prune({named}, older_than=500) == 2
    assert [store.path(sha).exists() for sha in (named, old, asked_for)] == [True, False, True]
