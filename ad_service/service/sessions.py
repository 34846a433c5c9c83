"""Sessions of the page in a browser, in memory: they end with the service.

A session has two halves, and a request needs both. The cookie is HttpOnly and SameSite=Strict, but a browser sends it
to every port of this machine; the key is in the page's own storage, which belongs to one port, and no other page can
read it or send it.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from ad_service.storage.tokens import OWNER, Caller

LINK_SECONDS = 600.0
"""How long a one-time link can be opened."""
IDLE_SECONDS = 12 * 3600.0
"""A session without a request for this long ends."""
MAX_SESSIONS = 100
"""Most sessions; one more ends the one that was used longest ago."""


@dataclass
class _Session:
    caller: Caller
    key: str
    used: float


class Sessions:
    """The sessions of one service that listens on `port`."""

    def __init__(self, port: int, secure: bool) -> None:
        self._cookie = f"texture-distiller-{port}"
        self._secure = secure
        self._lock = threading.Lock()
        self._links: dict[str, float] = {}
        self._sessions: dict[str, _Session] = {}

    def link_key(self) -> str:
        """A key that begins one session of the owner, within LINK_SECONDS."""
        key = secrets.token_urlsafe(32)
        with self._lock:
            self._links[key] = time.monotonic()
        return key

    def use_link(self, key: str) -> Caller | None:
        """The owner, for a key of `link_key` that was not used before."""
        with self._lock:
            made = self._links.pop(key, None)
        return OWNER if made is not None and time.monotonic() - made < LINK_SECONDS else None

    def begin(self, caller: Caller) -> tuple[str, str]:
        """A new session: the value of the header Set-Cookie, and the key for the page's storage."""
        cookie, key, now = secrets.token_urlsafe(32), secrets.token_urlsafe(32), time.monotonic()
        with self._lock:
            if len(self._sessions) >= MAX_SESSIONS:
                del self._sessions[min(self._sessions, key=lambda one: self._sessions[one].used)]
            self._sessions[cookie] = _Session(caller, key, now)
        secure = "; Secure" if self._secure else ""
        return f"{self._cookie}={cookie}; Path=/v1; HttpOnly; SameSite=Strict{secure}", key

    def find(self, cookies: bytes, key: bytes) -> Caller | None:
        """Whose session a request with these headers Cookie and X-Page-Key belongs to."""
        try:
            morsel = SimpleCookie(cookies.decode("latin-1")).get(self._cookie)
        except CookieError:
            return None
        now = time.monotonic()
        with self._lock:
            session = self._sessions.get(morsel.value) if morsel else None
            if (
                session is None
                or now - session.used > IDLE_SECONDS
                or not hmac.compare_digest(key, session.key.encode())
            ):
                return None
            session.used = now
            return session.caller
