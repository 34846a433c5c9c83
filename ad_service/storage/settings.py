"""A service's settings, its data folder, the lock that allows one service per folder, and runtime.json."""

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
from ad_service.storage.files import atomic_writer, remove_drafts
from blender_addon import wire

DATA_VARIABLE = "AD_SERVICE_DATA"


class AlreadyRunningError(RuntimeError):
    """Another service uses the data folder; the message names it."""


@dataclass(frozen=True)
class Settings:
    """One service's settings.

    `port` 0 takes a free one. `engine` replaces the real engine by the one that MODULE:FUNCTION returns. `slots` is the
    number of worker processes, each of which runs one job at a time; all use the same device, so that more than one is
    for tests only. `tls_cert` and `tls_key` are PEM files; the key may be in the file of the certificate.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    engine: str | None = None
    slots: int = 1
    tls_cert: Path | None = None
    tls_key: Path | None = None

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
    """The data folder: AD_SERVICE_DATA if set, else the platform's folder for a user's data."""
    named = os.environ.get(DATA_VARIABLE)
    if named:
        return Path(named).expanduser().resolve()
    return Path(platformdirs.user_data_dir(wire.SERVICE_NAME, appauthor=False))


@contextmanager
def one_service(settings: Settings) -> Iterator[None]:
    """Holds the data folder's lock inside the block. Drafts of runtime.json that a killed service left are removed.

    Raises: AlreadyRunningError, which names the service that holds it; OSError if the folder cannot be written.
    """
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
        remove_drafts(settings.data_dir)
        yield
    finally:
        lock.release()


@contextmanager
def announced(settings: Settings, url: str) -> Iterator[None]:
    """Keeps runtime.json, by which the add-on finds the service, inside the block. Only its owner can read it."""
    document = {
        "service": wire.SERVICE_NAME,
        "url": url,
        "token": settings.token,
        "pid": os.getpid(),
        "version": __version__,
        "wire": wire.VERSION,
    }
    with atomic_writer(settings.runtime_file, durable=True) as file:
        file.write(json.dumps(document).encode())
    try:
        yield
    finally:
        settings.runtime_file.unlink(missing_ok=True)


def read_runtime(data_dir: Path) -> Mapping[str, Any] | None:
    """The contents of runtime.json, or None if it is missing or damaged."""
    try:
        document = json.loads((data_dir / "runtime.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
