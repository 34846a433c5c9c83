"""A service's settings, its data folder, the lock that allows one service per folder, and runtime.json."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from ad_service import __version__
from ad_service.storage.files import atomic_writer, remove_drafts
from blender_addon import wire
from blender_addon.wire.runtime import LOCK_FILE, RUNTIME_FILE, read_runtime

DATA_VARIABLE = "AD_SERVICE_DATA"
LIMIT_FILE = "limit.json"
"""The budget for pictures of the service that ran last."""
LOCK_SECONDS = 1.0
"""How long a service waits for the lock, which a client holds for a moment when it looks whether a service runs."""
_PRIVATE_SUFFIXES = (".sqlite", ".sqlite-wal", ".sqlite-shm", ".log", ".1")


class AlreadyRunningError(RuntimeError):
    """Another service uses the data folder; the message names it."""


@dataclass(frozen=True)
class Settings:
    """One service's settings.

    `port` 0 takes a free one. `engine` replaces the real engine by the one that MODULE:FUNCTION returns. `gpus` has for
    each worker process, which runs one job at a time, the GPU that it sees; None is the machine's choice. `tls_cert`
    and `tls_key` are PEM files; the key may be in the file of the certificate. `storage_limit` is the budget in bytes
    for pictures, or None for the default (see cleanup.usage). `max_queue` is how many jobs of one artist may wait.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    engine: str | None = None
    gpus: tuple[str | None, ...] = (None,)
    storage_limit: int | None = None
    max_queue: int = wire.MAX_QUEUE
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def runtime_file(self) -> Path:
        return self.data_dir / RUNTIME_FILE

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

    @property
    def plan_command(self) -> tuple[str, ...]:
        return sys.executable, "-m", "ad_service.worker.plan", "--data-dir", str(self.data_dir)


def default_data_dir() -> Path:
    """The data folder: AD_SERVICE_DATA if set, else the platform's folder for a user's data."""
    named = os.environ.get(DATA_VARIABLE)
    if named:
        return Path(named).expanduser().resolve()
    return Path(platformdirs.user_data_dir(wire.SERVICE_NAME, appauthor=False))


@contextmanager
def one_service(settings: Settings) -> Iterator[None]:
    """Holds the data folder's lock inside the block. What a killed service left of runtime.json is removed.

    Inside, new files are readable by their owner only, and those that are there already are made so.

    Raises: AlreadyRunningError, which names the service that holds it; OSError if the folder cannot be written.
    """
    lock = FileLock(settings.data_dir / LOCK_FILE, timeout=LOCK_SECONDS)
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
    mask = os.umask(0o077)
    try:
        settings.runtime_file.unlink(missing_ok=True)
        remove_drafts(settings.data_dir)
        _make_private(settings)
        yield
    finally:
        os.umask(mask)
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
        "certificate": str(settings.tls_cert.resolve()) if settings.tls_cert else None,
    }
    with atomic_writer(settings.runtime_file, durable=True) as file:
        file.write(json.dumps(document).encode())
    try:
        yield
    finally:
        settings.runtime_file.unlink(missing_ok=True)


def store_limit(settings: Settings) -> None:
    """Writes the budget for pictures into the data folder, for commands that run after the service has stopped."""
    with atomic_writer(settings.data_dir / LIMIT_FILE) as file:
        file.write(json.dumps({"storage_limit": settings.storage_limit}).encode())


def stored_limit(settings: Settings) -> int | None:
    """The budget in bytes of the service that ran last; None for the default."""
    try:
        limit = json.loads((settings.data_dir / LIMIT_FILE).read_text(encoding="utf-8"))["storage_limit"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return limit if isinstance(limit, int) else None


def _make_private(settings: Settings) -> None:
    """Takes others' access to the record, the pictures and the logs, which versions up to 0.2.0 made readable."""
    private = [settings.blobs, *(p for p in settings.data_dir.iterdir() if p.suffix in _PRIVATE_SUFFIXES)]
    for path in private:
        with suppress(OSError):  # another owner
            path.chmod(0o700 if path.is_dir() else 0o600)
