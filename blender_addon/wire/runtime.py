"""How a service on this machine is found: runtime.json in its data folder, which is true while the folder is locked.

After a crash runtime.json stays, and another program can listen at its address; it must not get the token.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RUNTIME_FILE = "runtime.json"
"""Written by a running service: url, token, pid, and the certificate of an https url."""
LOCK_FILE = "service.lock"
"""Locked by a running service; the operating system releases it when the process ends in any way."""


def read_runtime(folder: Path) -> dict[str, Any] | None:
    """The contents of runtime.json; None if it is missing or damaged, or the service that wrote it has ended."""
    try:
        document = json.loads((folder / RUNTIME_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and is_locked(folder) else None


def is_locked(folder: Path) -> bool:
    """Whether a running service has locked the data folder."""
    try:
        file = (folder / LOCK_FILE).open("rb")
    except OSError:
        return False
    with file:  # closing the file releases the lock again
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
