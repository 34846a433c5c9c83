"""The tokens of a data folder besides the owner's: one for each artist, and read-only ones for metrics.

tokens.json has the sha256 of each token, which cannot be turned back into it. A running service sees changes at once.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock

from ad_service.storage.files import atomic_writer
from blender_addon.wire import WireError

Role = Literal["owner", "artist", "metrics"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class ArtistLimits:
    """What one artist may use; None is no limit besides the service's own.

    Attributes:
        queue: jobs that may wait at a time.
        pixels: of one result.
        disk: bytes of the pictures of the artist's jobs.
    """

    queue: int | None = None
    pixels: int | None = None
    disk: int | None = None


@dataclass(frozen=True)
class Caller:
    """Who sends requests with a token: the service's owner, whose name is empty, an artist, or a reader of metrics."""

    name: str = ""
    role: Role = "owner"
    limits: ArtistLimits = ArtistLimits()


OWNER = Caller()


@dataclass(frozen=True)
class Token:
    """A row of tokens.json; `created` is seconds since 1970."""

    caller: Caller
    sha256: str
    created: float


class Tokens:
    """The tokens in a data folder. Any number of processes may read and change them."""

    def __init__(self, data_dir: Path) -> None:
        self.file = data_dir / "tokens.json"
        self._lock = FileLock(data_dir / "tokens.lock", timeout=10.0)
        self._read_at: tuple[int, int, int] | None = None
        self._by_sha256: dict[str, Token] = {}

    def find(self, token: bytes) -> Caller | None:
        """Who has this token; None if nobody has. Its time does not depend on how much of a token is right."""
        self._refresh()
        row = self._by_sha256.get(hashlib.sha256(token).hexdigest())
        return row.caller if row else None

    def has(self, caller: Caller) -> bool:
        """Whether the caller's token was not revoked."""
        self._refresh()
        return any(row.caller == caller for row in self._by_sha256.values())

    def all(self) -> list[Token]:
        """Every token, the oldest first. Raises: WireError `internal` if the file is damaged."""
        try:
            rows = json.loads(self.file.read_text(encoding="utf-8"))
            return [
                Token(Caller(row["name"], row["role"], ArtistLimits(**row["limits"])), row["sha256"], row["created"])
                for row in rows
            ]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, LookupError) as error:
            raise WireError(
                "internal",
                f"{self.file} cannot be used ({type(error).__name__}: {error}); restore it, or delete it and make the "
                "tokens again",
            ) from error

    def add(self, name: str, role: Role = "artist", limits: ArtistLimits = ArtistLimits()) -> str:
        """Makes a token and returns it; only its sha256 is stored.

        Raises: WireError `invalid-parameter` if the name is taken or has other characters than letters, digits, ._@-
        """
        if not _NAME.fullmatch(name):
            raise WireError(
                "invalid-parameter",
                f"the name is {name!r:.80}; it must have at most 64 letters, digits and . _ @ -, and begin with one "
                "of the first two",
            )
        token = secrets.token_urlsafe(32)
        with self._lock:
            rows = self.all()
            if any(row.caller.name == name for row in rows):
                raise WireError("invalid-parameter", f"{name} has a token already; revoke it first")
            sha256 = hashlib.sha256(token.encode()).hexdigest()
            self._write([*rows, Token(Caller(name, role, limits), sha256, time.time())])
        return token

    def revoke(self, name: str) -> None:
        """Deletes the token of a name; its jobs stay. Raises: WireError `invalid-parameter` if there is none."""
        with self._lock:
            rows = self.all()
            kept = [row for row in rows if row.caller.name != name]
            if len(kept) == len(rows):
                names = ", ".join(row.caller.name for row in rows) or "nobody"
                raise WireError("invalid-parameter", f"{name!r:.80} has no token; {names} has one")
            self._write(kept)

    def _write(self, rows: list[Token]) -> None:
        documents = [{**asdict(row.caller), "sha256": row.sha256, "created": row.created} for row in rows]
        with atomic_writer(self.file, durable=True) as file:
            file.write(json.dumps(documents, indent=1).encode())

    def _refresh(self) -> None:
        """Reads the file again if it has changed. Raises: WireError `internal` if it is damaged."""
        try:
            stat = self.file.stat()
        except OSError:
            self._read_at, self._by_sha256 = None, {}
            return
        version = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if version != self._read_at:
            self._by_sha256 = {}
            self._by_sha256 = {row.sha256: row for row in self.all()}
            self._read_at = version
