"""Content-addressed blobs in one folder: a picture's name is the sha256 of its bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from blender_addon.wire import SHA256, WireError

_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}


class Store:
    """Blobs under `folder`, which is made for the first of them.

    Any number of processes may read and write: a blob appears whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha: str) -> Path:
        """Where the blob lies, or would. Raises WireError `invalid-request` for what is no sha256."""
        if not SHA256.fullmatch(sha):
            raise WireError("invalid-request", f"blob {sha!r} is not named by a sha256 in lower-case hex")
        return self.folder / sha[:2] / sha

    def has(self, sha: str) -> bool:
        """Whether the blob is here. One that is asked for counts as used, so that pruning spares it."""
        try:
            os.utime(self.path(sha))
        except FileNotFoundError:
            return False
        return True

    def require(self, sha: str, what: str) -> Path:
        """The blob's path; raises WireError `blob-missing` naming `what` it is for."""
        if not self.has(sha):
            raise WireError("blob-missing", f"{what} {sha} is not in the service's store")
        return self.path(sha)

    def read(self, sha: str) -> bytes:
        """The blob's bytes; raises WireError `blob-missing`. One that the disk spoiled is removed, to be sent again."""
        data = self.require(sha, "the blob").read_bytes()
        if hashlib.sha256(data).hexdigest() != sha:
            self.remove(sha)
            raise WireError("blob-missing", f"the blob {sha} was damaged on the disk of {self.folder}")
        return data

    def put(self, data: bytes) -> str:
        """Keeps the bytes and returns their sha256."""
        sha = hashlib.sha256(data).hexdigest()
        with self.writer(sha) as writer:
            writer.write(data)
        return sha

    def remove(self, sha: str) -> None:
        """Forgets a blob that nobody needs any more."""
        with suppress(OSError):
            self.path(sha).unlink()

    @contextmanager
    def writer(self, sha: str) -> Iterator[Writer]:
        """Takes a blob in pieces; leaving the block checks its sha256 and makes it appear, an error leaves no trace."""
        target = self.path(sha)
        with disk_errors(self.folder):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix="incoming-", dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    writer = Writer(file)
                    yield writer
                    writer.finish(sha)
                _replace(Path(name), target)
            finally:
                with suppress(OSError):
                    Path(name).unlink()

    def prune(self, keep: Container[str], older_than: float) -> int:
        """Removes blobs not in `keep` that nobody used for `older_than` seconds; returns how many.

        What a broken write left goes with them.
        """
        limit = time.time() - older_than
        removed = 0
        for path in [*self.folder.glob("incoming-*"), *self.folder.glob("??/*")]:
            with suppress(OSError):
                if path.name not in keep and path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
        return removed


class Writer:
    """The open end of one blob; see `Store.writer`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def finish(self, sha: str) -> None:
        got = self._hash.hexdigest()
        if got != sha:
            raise WireError("blob-mismatch", f"{self.size} bytes arrived with sha256 {got}, expected {sha}")
        self._file.flush()
        os.fsync(self._file.fileno())


def _replace(source: Path, target: Path) -> None:
    """A blob that is there already is written anew, since it may be damaged."""
    try:
        source.replace(target)
    except PermissionError:
        if not target.exists():  # Windows replaces no file that somebody reads
            raise


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A full disk becomes WireError `disk-full` that names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise WireError("disk-full", f"no space is left on the disk of {folder}") from error
        raise
