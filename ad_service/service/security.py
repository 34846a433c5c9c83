"""Access control: only programs on this machine that know the token, and no web pages.

`Guard` is an ASGI layer around the routes. It raises WireError before any of the body is read.
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

FREE_FAILURES = 10
"""Wrong tokens in a minute that are answered at once; each further one is answered later, at most MAX_DELAY seconds."""
DELAY_STEP, MAX_DELAY = 0.1, 2.0

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Guard:
    """Passes requests on that name this service as their host, have the token, do not come from a web page, and are not
    too large.

    Raises: WireError `forbidden`, `unauthorized`, `too-large`.
    """

    def __init__(self, app: App, token: str, host: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
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
        try:
            self._check(scope["path"], headers)
        except WireError as error:
            client = (scope.get("client") or ("an unknown address",))[0]
            logger.info("Refused %s %.200r from %s: %.200s", scope["method"], scope["path"], client, error.detail)
            if error.code == "unauthorized":
                await asyncio.sleep(self._delay())
            raise
        if scope["path"] not in OPEN_PATHS:
            scope[ADMITTED] = True
        await self._app(scope, _limit_body(receive, headers, _max_bytes(scope["path"])), send)

    def _check(self, path: str, headers: dict[bytes, bytes]) -> None:
        self._check_host(headers.get(b"host", b"").decode("latin-1"))
        for name in (b"origin", b"sec-fetch-site"):
            if name in headers:
                raise WireError("forbidden", f"the request has the header {name.decode()!r}, which web pages send")
        if path not in OPEN_PATHS:
            self._check_token(headers.get(b"authorization", b""))

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

    def _check_token(self, authorization: bytes) -> None:
        scheme, _, token = authorization.partition(b" ")
        if not hmac.compare_digest(token, self._token) or scheme.lower() != b"bearer":
            raise WireError("unauthorized", "the Authorization header does not contain the service's token")


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
