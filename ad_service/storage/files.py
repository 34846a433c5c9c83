"""Files that appear complete or not at all, and a full disk as an error of the contract."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from blender_addon.wire import WireError

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def atomic_writer(path: Path, *, mode: int = 0o600, keep_in_use: bool = False) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends; after an error there is no trace of it.

    Args:
        path: its folder is created if it is missing.
        mode: permissions of the file, less the process's umask.
        keep_in_use: leave an existing file in place where Windows cannot replace it because a program reads it. For
            files whose name determines their content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"incoming-{uuid.uuid4().hex}")
    try:
        with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        try:
            draft.replace(path)
        except PermissionError:
            if not (keep_in_use and path.exists()):
                raise
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns the operating system's error for a full disk into WireError `disk-full`, which names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise WireError("disk-full", f"no space is left on the disk of {folder}", folder=str(folder)) from error
        raise
