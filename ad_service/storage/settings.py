"""Where the service keeps its data, how it is reached, and the rule that one folder has one service."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from ad_service import __version__
from blender_addon import wire

DATA_VARIABLE = "AD_SERVICE_DATA"


class AlreadyRunningError(RuntimeError):
    """Another service holds the data folder; the message names it."""


@dataclass(frozen=True)
class Settings:
    """One service's settings. `port` 0 takes a free one; `engine` replaces the real engine by MODULE:FUNCTION."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    engine: str | None = None

    @property
    def runtime_file(self) -> Path:
        return self.data_dir / "runtime.json"

    @property
    def blobs(self) -> Path:
        return self.data_dir / "blobs"

    @property
    def jobs_file(self) -> Path:
        return self.data_dir / "jobs.sqlite"

    @property
    def service_log(self) -> Path:
        return self.data_dir / "service.log"

    @property
    def worker_log(self) -> Path:
        return self.data_dir / "worker.log"

    @property
    def worker_command(self) -> tuple[str, ...]:
        command = (sys.executable, "-m", "ad_service.worker", "--data-dir", str(self.data_dir))
        return (*command, "--engine", self.engine) if self.engine else command


def default_data_dir() -> Path:
    """The data folder: AD_SERVICE_DATA if set, else the platform's place for a user's data."""
    named = os.environ.get(DATA_VARIABLE)
    if named:
        return Path(named).expanduser().resolve()
    return Path(platformdirs.user_data_dir(wire.SERVICE_NAME, appauthor=False))


@contextmanager
def one_service(settings: Settings) -> Iterator[None]:
    """Holds the folder's lock; raises AlreadyRunningError naming the service that holds it, or OSError."""
    lock = FileLock(settings.data_dir / "service.lock", timeout=0)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire()
    except Timeout:
        running = read_runtime(settings.data_dir)
        where = f"at {running.get('url')} (process {running.get('pid')})" if running else "(it is still starting)"
        raise AlreadyRunningError(
            f"a service already uses the data folder {settings.data_dir}: {where}; "
            f"stop it first, or choose another folder with --data-dir"
        ) from None
    except OSError as error:
        raise OSError(
            f"the data folder {settings.data_dir} cannot be written: {error.strerror}; "
            "choose another one with --data-dir"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def announced(settings: Settings, url: str) -> Iterator[None]:
    """runtime.json, by which the add-on finds the service: there while inside, readable by its owner alone."""
    document = {
        "service": wire.SERVICE_NAME,
        "url": url,
        "token": settings.token,
        "pid": os.getpid(),
        "version": __version__,
        "wire": wire.VERSION,
    }
    draft = settings.runtime_file.with_name("runtime.json.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        json.dump(document, file)
    draft.replace(settings.runtime_file)
    try:
        yield
    finally:
        settings.runtime_file.unlink(missing_ok=True)


def read_runtime(data_dir: Path) -> Mapping[str, Any] | None:
    """What runtime.json says, or None when no service announced itself (or it is half written)."""
    try:
        document = json.loads((data_dir / "runtime.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
