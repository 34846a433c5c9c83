"""Runs the HTTP service until SIGINT or SIGTERM."""

from __future__ import annotations

import logging
import logging.handlers
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn

from ad_service.service.api import create_app, open_service
from ad_service.storage.settings import Settings, announced, one_service

MAX_LOG_BYTES = 1024 * 1024


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM. Raises: AlreadyRunningError; OSError if the port is in use."""
    signal.signal(signal.SIGTERM, _stop)  # uvicorn shuts down first, then calls the handler that it found
    with one_service(settings):
        _log_to(settings.service_log)
        with _listen(settings.host, settings.port) as listening:
            port = listening.getsockname()[1]
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            config = uvicorn.Config(
                create_app(open_service(settings), port),
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                timeout_keep_alive=120,
                timeout_graceful_shutdown=2,
                lifespan="on",
            )
            with announced(settings, f"http://{host}:{port}"):
                print(f"Texture Distiller listens on http://{host}:{port}, data in {settings.data_dir}", flush=True)
                uvicorn.Server(config).run(sockets=[listening])


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Ends by an exception, so that runtime.json and the lock are removed."""
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port, or 0 for a free one"
        ) from error


def _log_to(file: Path) -> None:
    to_file = logging.handlers.RotatingFileHandler(file, maxBytes=MAX_LOG_BYTES, backupCount=1, encoding="utf-8")
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setLevel(logging.WARNING)
    logging.basicConfig(
        level=logging.INFO, handlers=[to_file, to_terminal], format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
