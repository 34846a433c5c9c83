"""Files that appear complete or not at all, and a full disk as an error of the contract."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from blender_addon.wire import WireError

_DRAFT = ".incoming-"
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP}
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def atomic_writer(
    path: Path, *, mode: int = 0o600, keep_in_use: bool = False, durable: bool = False
) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends; after an error there is no trace of it.

    Args:
        path: its folder is created if it is missing.
        mode: permissions of the file, less the process's umask.
        keep_in_use: leave an existing file in place where Windows cannot replace it because a program reads it. For
            files whose name determines their content.
        durable: write content, name and new folders to the disk, so that the file survives a power failure.
    """
    new_folders = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{_DRAFT}{uuid.uuid4().hex}")
    try:
        with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            if durable:
                _sync(file.fileno())
        try:
            draft.replace(path)
        except PermissionError:
            if not (keep_in_use and path.exists()):
                raise
        if durable:
            for folder in dict.fromkeys((path.parent, *(folder.parent for folder in new_folders))):
                _sync_folder(folder)
    finally:
        draft.unlink(missing_ok=True)


def _sync(descriptor: int) -> None:
    """fsync, where the file system has it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _sync_folder(folder: Path) -> None:
    """Writes the names in a folder to the disk; Windows has no such operation and does it by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def remove_drafts(folder: Path, older_than: float = 0.0) -> int:
    """Removes drafts that an interrupted `atomic_writer` left in the folder, and returns their number.

    Args:
        older_than: seconds since the last change; younger drafts may belong to a program that still writes them.
    """
    removed = 0
    for draft in [*folder.glob(f"{_DRAFT}*"), *folder.glob("incoming-*")]:  # the second was the name in version 0.1
        with suppress(OSError):
            if is_older(draft.stat().st_mtime, older_than):
                draft.unlink()
                removed += 1
    return removed


def is_older(when: float, seconds: float) -> bool:
    """Whether a time, in seconds since 1970, is at least `seconds` from now.

    A time so far in the future counts too: it is that of a clock which was ahead, and nobody knows its age.
    """
    return abs(time.time() - when) >= seconds


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns the operating system's error for a full disk into WireError `disk-full`, which names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise WireError("disk-full", f"no space is left on the disk of {folder}", folder=str(folder)) from error
        raise
