"""Looking at processes, and waiting for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes that a process started (Linux)."""
    text = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in text for child in file.read_text().split()]


def is_alive(pid: int) -> bool:
    """Whether the process runs: it exists and is not a zombie (Linux)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
