"""Content-addressed blobs in one folder: the name of a blob is the sha256 of its bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ad_service.storage.files import atomic_writer, disk_errors, is_older, remove_drafts
from blender_addon.wire import SHA256, WireError

_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class BlobFile:
    """A blob on the disk: its name, its size in bytes, and when it was last used, in seconds since 1970."""

    sha: str
    size: int
    used: float


class BlobStore:
    """Blobs under `folder`, which is created for the first of them.

    Any number of processes may read and write: a blob appears complete or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha: str) -> Path:
        """The blob's path, whether it exists or not.

        Raises: WireError `invalid-request` if `sha` is not a sha256 in lower-case hex.
        """
        if not SHA256.fullmatch(sha):
            raise WireError("invalid-request", f"blob name is {sha!r}; it must be a sha256 in lower-case hex")
        return self.folder / sha[:2] / sha

    def has(self, sha: str) -> bool:
        """Whether the blob exists. Asking marks it as used, where the file system can be written."""
        path = self.path(sha)
        with suppress(OSError):
            os.utime(path)
        return path.is_file()

    def size(self, sha: str) -> int:
        """The blob's bytes on the disk; 0 if it does not exist."""
        try:
            return self.path(sha).stat().st_size
        except OSError:
            return 0

    def require(self, sha: str, what: str) -> Path:
        """The path of an existing blob; `what` describes it in the error.

        Raises: WireError `blob-missing`.
        """
        if not self.has(sha):
            raise WireError("blob-missing", f"{what} {sha} is not in the service's store", sha=sha)
        return self.path(sha)

    def read(self, sha: str) -> bytes:
        """The blob's bytes. A blob that does not match its sha256 is removed, so that it is uploaded again.

        Raises: WireError `blob-missing`.
        """
        data = self.require(sha, "the blob").read_bytes()
        if hashlib.sha256(data).hexdigest() != sha:
            raise self._damaged(sha)
        return data

    def check(self, sha: str) -> None:
        """Reads a blob in chunks. One that does not match its sha256 is removed.

        Raises: WireError `blob-missing`.
        """
        digest = hashlib.sha256()
        with self.require(sha, "the blob").open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != sha:
            raise self._damaged(sha)

    def _damaged(self, sha: str) -> WireError:
        self.remove(sha)
        return WireError("blob-missing", f"the blob {sha} was damaged on the disk of {self.folder}", sha=sha)

    def put(self, data: bytes) -> str:
        """Stores the bytes and returns their sha256."""
        sha = hashlib.sha256(data).hexdigest()
        with self.writer(sha) as writer:
            writer.write(data)
        return sha

    def remove(self, sha: str) -> None:
        """Deletes a blob; one that does not exist is not an error."""
        with suppress(OSError):
            self.path(sha).unlink()

    def remove_unused(self, sha: str, seconds: float) -> int:
        """Deletes a blob that nobody used for some seconds; returns the bytes that this frees."""
        with suppress(OSError):
            stat = self.path(sha).stat()
            if is_older(stat.st_mtime, seconds):
                self.path(sha).unlink()
                return stat.st_size
        return 0

    def files(self) -> list[BlobFile]:
        """Every blob, the one that was used longest ago first."""
        found = []
        for path in self.folder.glob("??/*"):
            with suppress(OSError):
                stat = path.stat()
                if SHA256.fullmatch(path.name) and path.is_file():
                    found.append(BlobFile(path.name, stat.st_size, stat.st_mtime))
        return sorted(found, key=lambda file: file.used)

    @contextmanager
    def writer(self, sha: str) -> Iterator[BlobWriter]:
        """Receives a blob in chunks. It appears when the block ends; an error leaves no trace.

        An existing blob is written again, since it may be damaged.

        Raises: WireError `blob-mismatch` for other bytes than `sha` names, `disk-full`.
        """
        with suppress(OSError):
            self.path(sha).rmdir()  # an empty folder with the blob's name, which nobody but an error can have made
        with disk_errors(self.folder), atomic_writer(self.path(sha), keep_in_use=True, durable=True) as file:
            writer = BlobWriter(file)
            yield writer
            writer.check(sha)

    def remove_drafts(self, older_than: float) -> int:
        """Removes drafts that interrupted writes left and nobody wrote to for some seconds; returns their number."""
        return sum(remove_drafts(folder, older_than) for folder in [self.folder, *self.folder.glob("??")])


class BlobWriter:
    """A blob that is being received; see `BlobStore.writer`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def check(self, sha: str) -> None:
        """Raises WireError `blob-mismatch` unless the bytes so far have this sha256."""
        got = self._hash.hexdigest()
        if got != sha:
            raise WireError("blob-mismatch", f"{self.size} bytes arrived with sha256 {got}, expected {sha}")
