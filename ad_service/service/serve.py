"""Runs the HTTP service until SIGINT or SIGTERM."""

from __future__ import annotations

import ipaddress
import logging
import logging.handlers
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn

from ad_service.service.api import create_app, open_service
from ad_service.service.connections import Connection, LimitedServer
from ad_service.service.sessions import LINK_SECONDS
from ad_service.storage.settings import Settings, announced, one_service

MAX_LOG_BYTES = 1024 * 1024
BACKLOG = 128
"""Connections that wait to be accepted; asyncio accepts this many at a time, so it is far below the limit of files."""


def serve(settings: Settings, *, open_page: bool = False) -> None:
    """Serves until SIGINT or SIGTERM. Raises: AlreadyRunningError; OSError if the port is in use.

    Args:
        open_page: print a link that opens the page in a browser once.
    """
    signal.signal(signal.SIGTERM, _stop)  # uvicorn shuts down first, then calls the handler that it found
    with one_service(settings):
        _log_to(settings.service_log)
        with _listen(settings.host, settings.port) as listening:
            port = listening.getsockname()[1]
            service = open_service(settings, port)
            config = uvicorn.Config(
                create_app(service, port),
                http=Connection,
                backlog=BACKLOG,
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                timeout_keep_alive=120,
                timeout_graceful_shutdown=2,
                lifespan="on",
            )
            scheme = "https" if settings.tls_cert else "http"
            reachable = f"{scheme}://{_in_url(_reachable(settings.host))}:{port}"
            with announced(settings, reachable):
                url = f"{scheme}://{_in_url(settings.host)}:{port}"
                print(f"Texture Distiller listens on {url}, data in {settings.data_dir}", flush=True)
                if open_page:
                    link = f"{reachable}/#{service.sessions.link_key()}"
                    print(f"Open within {LINK_SECONDS / 60:.0f} minutes, once: {link}", flush=True)
                LimitedServer(config).run(sockets=[listening])


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Ends by an exception, so that runtime.json and the lock are removed."""
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # asyncio sets this only on sockets that name their protocol; without it every response takes 40 ms longer
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port, or 0 for a free one"
        ) from error


def _reachable(host: str) -> str:
    """The address by which programs on this machine reach a service that listens on `host`."""
    try:
        address = ipaddress.ip_address(host or "0.0.0.0")
    except ValueError:
        return host
    return {4: "127.0.0.1", 6: "::1"}[address.version] if address.is_unspecified else host


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _log_to(file: Path) -> None:
    to_file = logging.handlers.RotatingFileHandler(file, maxBytes=MAX_LOG_BYTES, backupCount=1, encoding="utf-8")
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setLevel(logging.WARNING)
    to_terminal.addFilter(RateLimit(20, 60.0))  # the add-on writes it to a file without a limit
    logging.basicConfig(
        level=logging.INFO, handlers=[to_file, to_terminal], format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


class RateLimit(logging.Filter):
    """Passes at most `count` records in any `seconds`."""

    def __init__(self, count: int, seconds: float) -> None:
        super().__init__()
        self._passed: deque[float] = deque(maxlen=count)
        self._seconds = seconds

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if len(self._passed) == self._passed.maxlen and now - self._passed[0] < self._seconds:
            return False
        self._passed.append(now)
        return True
