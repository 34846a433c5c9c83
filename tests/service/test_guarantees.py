"""Promises of docs/guarantees.md that concern the whole service: kills, disconnects, and every way to be refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from ad_service.service import security
from ad_service.service.api import create_app, open_service
from ad_service.service.downloads import Downloads
from ad_service.service.security import PAGE_PATHS, SESSION_PATH
from ad_service.storage.settings import Settings
from ad_service.storage.tokens import OWNER, Tokens
from blender_addon import wire
from tests.support.live_service import ROOT, LiveService
from tests.support.processes import wait_until

PORT = 8000
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
SHA = hashlib.sha256(b"").hexdigest()


# ---------------------------------------------------------------------------------------------- nobody is let in


class Called:
    """An application of a data folder, called without a server."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(folder)
        self.service = open_service(self.settings, PORT)
        self.app = create_app(self.service, PORT)

    def paths(self) -> list[str]:
        """Every path of the schema and the schema itself, with its parameters filled in."""
        document = self.app.openapi()
        values = {"sha": SHA, "job": str(uuid.uuid4()), "name": "sd15"}
        return ["/openapi.json", *PAGE_PATHS, *(path.format(**values) for path in document["paths"])]

    def __call__(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """The status and the type of the problem of a response."""
        sent: list[dict[str, Any]] = []

        received = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, Any]:
            return received.pop() if received else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(dict(message))

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", PORT),
            "state": {},
        }
        asyncio.run(self.app(scope, receive, send))
        body = b"".join(message.get("body", b"") for message in sent[1:])
        is_problem = (b"content-type", b"application/problem+json") in sent[0]["headers"]
        return sent[0]["status"], str(json.loads(body or b"{}").get("type")) if is_problem and body else ""


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Called]:
    monkeypatch.setattr(Downloads, "start", lambda self, name, token: None)
    monkeypatch.setattr(security, "DELAY_STEP", 1e-6)
    monkeypatch.setattr(security, "MAX_DELAY", 1e-5)
    made = Called(tmp_path)
    yield made
    made.service.jobs.close()


def test_no_route_and_no_method_lets_a_refused_request_in(called: Called) -> None:
    token, host = called.settings.token, f"127.0.0.1:{PORT}"
    right = {"Host": host, "Authorization": f"Bearer {token}"}
    cookie, key = called.service.sessions.begin(OWNER)
    cookie = cookie.partition(";")[0]
    refused: dict[int, list[dict[str, str]]] = {
        401: [
            {"Host": host},
            *(
                {"Host": host, "Authorization": value}
                for value in (
                    "",
                    token,
                    "Bearer",
                    "Bearer ",
                    f"Basic {token}",
                    f"Bearer {token} ",
                    f"Bearer  {token}",
                    f"Bearer {token[:-1]}",
                    f"Bearer {token}x",
                    f"Bearer {token.swapcase()}",
                    "Bearer " + "\xff" * len(token),
                )
            ),
        ],
        403: [
            {**right, "Host": "evil.example"},
            {**right, "Sec-Fetch-Site": "cross-site"},
            {**right, "Sec-Fetch-Site": "same-site"},
            {**right, "Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
            {**right, "Sec-Fetch-Site": "same-origin", "Origin": f"http://127.0.0.1:{PORT + 1}"},
            {**right, "Sec-Fetch-Site": "cross-site", "X-Page-Key": key, "Cookie": cookie},
            {**right, "Sec-Fetch-Site": "same-origin", "Origin": "null", "X-Page-Key": key, "Cookie": cookie},
            {**right, "Host": f"evil.example:{PORT}"},
            {**right, "Host": f"127.0.0.1:{PORT + 1}"},
            {"Authorization": f"Bearer {token}"},
            {**right, "Origin": "null"},
        ],
    }
    programs: dict[int, list[dict[str, str]]] = {
        401: [
            {"Host": host, "Sec-Fetch-Site": "same-origin", "X-Page-Key": key},
            {"Host": host, "Sec-Fetch-Site": "same-origin", "X-Page-Key": "wrong", "Cookie": cookie},
            {"Host": host, "Sec-Fetch-Site": "same-origin", "X-Page-Key": key, "Cookie": cookie.replace("=", "=x")},
        ],
        403: [
            {**right, "Origin": f"http://127.0.0.1:{PORT}"},
            {**right, "Sec-Fetch-Site": "same-origin"},
            {"Host": host, "Sec-Fetch-Site": "same-origin", "Cookie": cookie},
        ],
    }
    count = 0
    for path in called.paths():
        for method in METHODS:
            for status in (401, 403):
                for headers in (*refused[status], *programs[status]):
                    if path in security.OPEN_PATHS and status == 401 and "X-Page-Key" not in headers:
                        continue
                    if path in PAGE_PATHS and (status == 401 or headers in programs[status]):
                        continue  # open to all but other web pages
                    if path == SESSION_PATH and headers in (*programs[401], programs[403][1], programs[403][2]):
                        continue  # needs a key in its body instead
                    code, problem = called(method, path, headers)
                    assert code == status, (method, path, headers)
                    assert problem in ("", {401: "unauthorized", 403: "forbidden"}[status])
                    count += 1
    assert count > 3000
    assert called.service.jobs.newest() == [] and called.service.store.files() == []


def test_a_role_opens_its_own_routes_only(called: Called) -> None:
    """With any method: a metrics token opens /metrics alone; an artist's does not open what belongs to all."""
    tokens = Tokens(called.settings.data_dir)
    artist, metrics, revoked = tokens.add("anna"), tokens.add("prometheus", "metrics"), tokens.add("ben")
    tokens.revoke("ben")
    owners = {"/metrics", "/v1/storage/prune", "/v1/models/sd15", "/v1/models/sd15/cancel"}
    for path in called.paths():
        if path in (*security.OPEN_PATHS, *PAGE_PATHS):
            continue
        for method in METHODS:
            allowed = {artist: path not in owners, metrics: path == "/metrics" and method in ("GET", "HEAD")}
            for token in (artist, metrics, revoked):
                headers = {"Host": f"127.0.0.1:{PORT}", "Authorization": f"Bearer {token}"}
                status, problem = called(method, path, headers)
                if token == revoked:
                    assert status == 401, (method, path)
                else:
                    assert (status == 403) != allowed[token], (method, path, status, problem)


def test_every_route_answers_the_right_token_with_something_declared(called: Called) -> None:
    right = {"Host": f"127.0.0.1:{PORT}", "Authorization": f"Bearer {called.settings.token}"}
    for path in called.paths():
        if path.endswith(("/ready", "/download")):
            continue  # without a worker or a network
        for method in METHODS:
            status, problem = called(method, path, right)
            assert status < 500, (method, path, problem)
            assert status < 400 or method == "HEAD" or problem in wire.ERRORS


# ---------------------------------------------------------------------------------------------- nothing is lost


@pytest.mark.parametrize("kills", [3, pytest.param(300, marks=pytest.mark.soak)])
def test_no_accepted_job_is_lost_when_the_service_is_killed(
    start: Callable[..., LiveService], tmp_path: Path, kills: int
) -> None:
    folder, rng = tmp_path / "data", random.Random(0)
    accepted: dict[str, bytes] = {}
    final: dict[str, dict[str, Any]] = {}
    for round_ in range(kills):
        live = start("echoes", data_dir=folder)
        end = time.monotonic() + rng.uniform(0.0, 1.5)
        while time.monotonic() < end:
            job, swatch = str(uuid.uuid4()), f"{round_} {rng.random()}".encode()
            try:
                live.submit(swatch, job, steps=rng.randrange(1, 12))
            except (requests.ConnectionError, AssertionError):
                break  # a full queue
            accepted[job] = swatch
        live.process.send_signal(signal.SIGKILL)
        live.process.wait()
        (folder / "runtime.json").unlink()
    live = start("echoes", data_dir=folder)
    for job, swatch in accepted.items():
        final[job] = live.wait_for_state(job, *wire.FINAL_STATES, seconds=60)
        assert final[job]["state"] == "succeeded", final[job]["problem"]
        assert live.get(f"/v1/blobs/{final[job]['result']['outputs']['image']}").content == swatch
    assert {job: live.status(job) for job in final} == final
    live.stop()
    with sqlite3.connect(folder / "jobs.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM jobs").fetchone() == (len(accepted),)
    db.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the worker dies with its service on Linux only")
@pytest.mark.parametrize("stride", [10, pytest.param(1, marks=pytest.mark.soak)])
def test_a_job_survives_the_death_of_its_worker_at_every_point(
    start: Callable[..., LiveService], tmp_path: Path, stride: int
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "stride").write_text(str(stride))
    live = start("dies_at_each_point")
    file, runs = tmp_path / "data" / "deaths", 0
    while (deaths := len(file.read_text().split()) if file.exists() else 0) == runs:
        swatch = f"swatch {runs}".encode()
        status = live.wait_for_state(live.submit(swatch), *wire.FINAL_STATES)
        assert status["state"] == "succeeded", status["problem"]
        assert live.get(f"/v1/blobs/{status['result']['outputs']['image']}").content == swatch + b" again"
        assert status["attempt"] <= 2
        runs += 1
    assert deaths >= 40 // stride


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=pytest.mark.soak)])
def test_disconnects_leave_neither_descriptors_nor_files(start: Callable[..., LiveService], count: int) -> None:
    live = start("echoes")
    live.wait_until_ready()
    job = live.submit()
    live.wait_for_state(job, "succeeded")
    url, rng = urlsplit(live.url), random.Random(0)
    head = f"Host: {url.netloc}\r\nAuthorization: Bearer {live.token}\r\n"
    requests_ = (
        f"PUT /v1/blobs/{SHA} HTTP/1.1\r\n{head}Content-Length: 100000\r\n\r\n" + "x" * 70_000,
        f"PUT /v1/blobs/{SHA} HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\nfff\r\nhalf",
        f"PUT /v1/jobs/{uuid.uuid4()} HTTP/1.1\r\n{head}Content-Length: 1000\r\n\r\n{{",
        f"GET /v1/jobs/{job}/events HTTP/1.1\r\n{head}\r\n",
        f"GET /v1/jobs/{uuid.uuid4()}?wait=60 HTTP/1.1\r\n{head}\r\n",
        f"GET /v1/jobs HTTP/1.1\r\n{head}",
        "GET / HT",
        "",
    )
    folder = Path(f"/proc/{live.process.pid}/fd")
    before = len(list(folder.iterdir()))
    for _ in range(count):
        with socket.create_connection((str(url.hostname), url.port or 0)) as connection:
            if rng.random() < 0.5:  # reset instead of closed
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            text = rng.choice(requests_)
            connection.sendall(text[: rng.randrange(len(text) + 1)].encode())
    wait_until(lambda: len(list(folder.iterdir())) <= before + 1)
    wait_until(lambda: list(live.data_dir.rglob(".incoming-*")) == [])
    assert live.get("/v1/jobs").status_code == 200
    assert "Unexpected error" not in (live.data_dir / "service.log").read_text()


def test_of_services_that_start_at_once_on_a_folder_exactly_one_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ad_service", "serve", "--engine", "tests.support.engines:echoes"]
    command += ["--data-dir", str(tmp_path / "data")]
    services = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    try:
        wait_until(lambda: sum(service.poll() is not None for service in services) == 2, seconds=60)
        (running,) = [service for service in services if service.poll() is None]
        wait_until((tmp_path / "data" / "runtime.json").exists)
        runtime = json.loads((tmp_path / "data" / "runtime.json").read_text())
        assert runtime["pid"] == running.pid
        for service in services:
            if service is not running:
                assert service.returncode == 1 and b"a service already uses the data folder" in service.stderr.read()
    finally:
        for service in services:
            service.kill()
            service.communicate()
