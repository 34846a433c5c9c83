"""Access control: programs with a token, and this service's own page in a browser. No other web page.

`Guard` is an ASGI layer around the routes. It raises WireError before any of the body is read, and names the caller in
the scope of the request.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ad_service.service.connections import ADMITTED
from ad_service.service.sessions import Sessions
from ad_service.storage.tokens import OWNER, Caller, Role, Tokens
from blender_addon import wire
from blender_addon.wire import WireError

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/v1/health",)
"""Routes without a token: their response only shows that the service runs."""

PAGE_PATHS = ("/", "/page.css", "/page.js", "/page.svg")
"""Files of the page, which are the same for everybody and need no token either."""
SESSION_PATH = "/v1/session"
"""The route by which the page gets its session; its body has the key."""

CALLER = "texture-distiller.caller"
"""The key in the scope of an admitted request whose value is its Caller."""

METRICS_PATH = "/metrics"
OWNER_ONLY = (METRICS_PATH, "/v1/storage/prune", "/v1/models/")
"""Beginnings of paths that an artist's token does not open: the disk and the models belong to all."""

_PAGE_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    b"connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
"""Headers of every response to a browser."""

FREE_FAILURES = 10
"""Wrong tokens in a minute that are answered at once; each further one is answered later, at most MAX_DELAY seconds."""
DELAY_STEP, MAX_DELAY = 0.1, 2.0

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Guard:
    """Passes requests on that name this service as their host, have a token that opens their route, and are not too
    large. A browser's requests are passed on if they come from this service's own page, with its session.

    Raises: WireError `forbidden`, `unauthorized`, `too-large`.
    """

    def __init__(self, app: App, token: str, host: str, port: int, tokens: Tokens, sessions: Sessions) -> None:
        self._app = app
        self._token = token.encode()
        self._tokens = tokens
        self._sessions = sessions
        self._port = port
        self._beyond_loopback = not is_loopback(host)
        self._names = {*_LOOPBACK_NAMES, host.lower()}
        if self._beyond_loopback:
            self._names.add(socket.gethostname().lower())
        self._failures: deque[float] = deque(maxlen=FREE_FAILURES + round(MAX_DELAY / DELAY_STEP))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path = scope["path"]
        try:
            caller = self._check(scope, headers)
        except WireError as error:
            client = (scope.get("client") or ("an unknown address",))[0]
            logger.info("Refused %s %.200r from %s: %.200s", scope["method"], path, client, error.detail)
            if error.code == "unauthorized":
                await asyncio.sleep(self._delay())
            raise
        if caller is not None:
            scope[ADMITTED] = True
            scope[CALLER] = caller
        if path in PAGE_PATHS or b"sec-fetch-site" in headers:
            send = _with_headers(send, _PAGE_HEADERS)
        try:
            await self._app(scope, _limit_body(receive, headers, _max_bytes(path)), send)
        except WireError as error:
            if path == SESSION_PATH and error.code == "unauthorized":
                await asyncio.sleep(self._delay())
            raise

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> Caller | None:
        """Who sent the request; None for what is open to all. Raises: WireError `forbidden`, `unauthorized`."""
        method, path = scope["method"], scope["path"]
        host = headers.get(b"host", b"").decode("latin-1")
        self._check_host(host)
        if path in PAGE_PATHS:
            _check_site(headers, host, ("same-origin", "none"))
            return None
        if path == SESSION_PATH and b"sec-fetch-site" in headers:
            _check_site(headers, host, ("same-origin",))
            return None
        caller = self._page_session(headers, host)
        if caller is None:
            for name in (b"origin", b"sec-fetch-site"):
                if name in headers:
                    raise WireError("forbidden", f"the request has the header {name.decode()!r}, which web pages send")
            if path in OPEN_PATHS:
                return None
            caller = self._token_of(headers.get(b"authorization", b""))
        if not _may(caller.role, method, path):
            raise WireError("forbidden", f"the token of {caller.name} does not open {method} {path:.200}")
        return caller

    def _page_session(self, headers: dict[bytes, bytes], host: str) -> Caller | None:
        """The caller behind a request of the page; None if the request is not one. Raises: WireError."""
        if b"x-page-key" not in headers or b"sec-fetch-site" not in headers:
            return None
        _check_site(headers, host, ("same-origin",))
        caller = self._sessions.find(headers.get(b"cookie", b""), headers[b"x-page-key"])
        if caller is None or (caller != OWNER and not self._tokens.has(caller)):
            raise WireError("unauthorized", "the page's session has ended; open the link of `ad-service serve --open`")
        return caller

    def _delay(self) -> float:
        """Seconds that the response to a wrong token waits; the right token never waits."""
        now = time.monotonic()
        self._failures.append(now)
        recent = sum(now - failure < 60.0 for failure in self._failures)
        return DELAY_STEP * max(0, recent - FREE_FAILURES)

    def _check_host(self, host: str) -> None:
        name, _, port = host.lower().rpartition(":")
        if port != str(self._port) or not (name in self._names or (self._beyond_loopback and _is_address(name))):
            raise WireError("forbidden", f"the request has the host {host!r}, which is not this service")

    def _token_of(self, authorization: bytes) -> Caller:
        scheme, _, token = authorization.partition(b" ")
        caller = caller_of(token, self._token, self._tokens) if scheme.lower() == b"bearer" else None
        if caller is None:
            raise WireError("unauthorized", "the Authorization header does not contain a token of the service")
        return caller


def caller_of(token: bytes, own: bytes, tokens: Tokens) -> Caller | None:
    """Who has a token: the owner, whose token is `own`, an artist, or nobody."""
    return OWNER if hmac.compare_digest(token, own) else tokens.find(token)


def _may(role: Role, method: str, path: str) -> bool:
    """Whether a role opens a route."""
    if role == "metrics":
        return path == METRICS_PATH and method in ("GET", "HEAD")
    return role == "owner" or not path.startswith(OWNER_ONLY)


def _check_site(headers: dict[bytes, bytes], host: str, sites: tuple[str, ...]) -> None:
    """Raises WireError `forbidden` if a browser sends the request for another page than this service's own."""
    site = headers.get(b"sec-fetch-site", b"none").decode("latin-1")
    origin = headers.get(b"origin", b"").decode("latin-1")
    if site not in sites or (origin and origin not in (f"http://{host}", f"https://{host}")):
        raise WireError("forbidden", f"the request comes from another web page (Sec-Fetch-Site: {site})")


def _with_headers(send: Send, added: dict[bytes, bytes]) -> Send:
    """Adds headers to a response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *added.items()]
        await send(message)

    return send_with_headers


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a service that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_address(name: str) -> bool:
    """Whether the host is an IP address, which a foreign DNS entry cannot imitate."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _max_bytes(path: str) -> int:
    return wire.MAX_BLOB_BYTES if path.startswith("/v1/blobs/") else wire.MAX_BODY_BYTES


def _limit_body(receive: Receive, headers: dict[bytes, bytes], limit: int) -> Receive:
    """Raises WireError `too-large` for the announced length of the body, and for its real one as it arrives."""
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > limit:
        raise WireError("too-large", f"the body has {int(announced)} bytes; {limit} is the limit")
    arrived = 0

    async def receive_counted() -> Message:
        nonlocal arrived
        message = await receive()
        arrived += len(message.get("body", b""))
        if arrived > limit:
            raise WireError("too-large", f"the body has more than {limit} bytes, which is the limit")
        return message

    return receive_counted
