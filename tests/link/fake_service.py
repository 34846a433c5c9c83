"""An HTTP server for tests, whose responses are a function of the request."""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from blender_addon.wire.runtime import LOCK_FILE, RUNTIME_FILE


@contextmanager
def fake_service(respond: Callable[[str, str], tuple[int, str, bytes]]) -> Iterator[str]:
    """Yields the url of a server; `respond` maps (method, path) to status, content type and body."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, kind, body = respond(self.command, self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = handle_any  # noqa: N815 - http.server's names

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def announced(folder: Path, url: str, token: str) -> Iterator[None]:
    """A data folder whose service runs, as far as its files show: it is locked and has a runtime.json."""
    (folder / RUNTIME_FILE).write_text(json.dumps({"url": url, "token": token}))
    with (folder / LOCK_FILE).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def as_json(document: Any, status: int = 200, kind: str = "application/json") -> tuple[int, str, bytes]:
    return status, kind, json.dumps(document).encode()
