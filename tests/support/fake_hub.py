"""A local server with the part of the hub's API that the real client needs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class FakeHub:
    """A running hub: its url, and the Authorization header of each request by path."""

    url: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    unblocked: threading.Event = field(default_factory=threading.Event)
    """Files are sent to their middle, and to their end when it is set."""


@contextmanager
def fake_hub(repository: Path, repo: str = "someone/thing", *, blocked: bool = False) -> Iterator[FakeHub]:
    """Serves a folder as a repository; with `blocked`, its files stop in the middle until `unblocked` is set."""
    hub = FakeHub()
    if not blocked:
        hub.unblocked.set()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.tokens[self.path] = self.headers.get("Authorization", "")
            route = self.path.split("?")[0].removeprefix(f"/api/models/{repo}")
            files = [path for path in sorted(repository.rglob("*")) if path.is_file()]
            if route.startswith("/tree/"):
                self._json([_entry(path, repository) for path in files])
            elif route in ("", f"/revision/{COMMIT}"):
                siblings = [{"rfilename": _entry(p, repository)["path"], "size": p.stat().st_size} for p in files]
                self._json({"id": repo, "sha": COMMIT, "siblings": siblings})
            elif route.startswith(f"/{repo}/resolve/{COMMIT}/"):
                self._send((repository / route.split(COMMIT + "/")[1]).read_bytes(), slowly=True)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _json(self, document: Any) -> None:
            self._send(json.dumps(document).encode())

        def _send(self, body: bytes, slowly: bool = False) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{len(body)}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                middle = len(body) // 2
                self.wfile.write(body[:middle])
                if slowly:
                    hub.unblocked.wait(60)
                self.wfile.write(body[middle:])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.unblocked.set()
        server.shutdown()
        server.server_close()


def _entry(path: Path, root: Path) -> dict[str, Any]:
    size = path.stat().st_size
    return {"type": "file", "path": path.relative_to(root).as_posix(), "size": size, "oid": str(size)}
