"""Promises of docs/guarantees.md that concern the whole service: kills at random times, and every way to be refused.

AD_KILLS=2000 runs the kills for longer than every run does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from ad_service.service import security
from ad_service.service.api import create_app, open_service
from ad_service.storage.settings import Settings
from blender_addon import wire
from tests.support.live_service import LiveService

KILLS = int(os.environ.get("AD_KILLS", "5"))

PORT = 8000
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
SHA = hashlib.sha256(b"").hexdigest()


# ---------------------------------------------------------------------------------------------- nobody is let in


class Called:
    """An application of a data folder, called without a server."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(folder)
        self.service = open_service(self.settings)
        self.app = create_app(self.service, PORT)

    def paths(self) -> list[str]:
        """Every path of the schema and the schema itself, with its parameters filled in."""
        document = self.app.openapi()
        values = {"sha": SHA, "job": str(uuid.uuid4()), "name": "sd15"}
        return ["/openapi.json", *(path.format(**values) for path in document["paths"])]

    def __call__(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """The status and the type of the problem of a response."""
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

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
        return sent[0]["status"], str(json.loads(body or b"{}").get("type")) if method != "HEAD" else ""


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Called]:
    monkeypatch.setattr(security, "DELAY_STEP", 1e-6)
    monkeypatch.setattr(security, "MAX_DELAY", 1e-5)
    made = Called(tmp_path)
    yield made
    made.service.jobs.close()


def test_no_route_and_no_method_lets_a_refused_request_in(called: Called) -> None:
    token, host = called.settings.token, f"127.0.0.1:{PORT}"
    right = {"Host": host, "Authorization": f"Bearer {token}"}
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
            {**right, "Host": f"evil.example:{PORT}"},
            {**right, "Host": f"127.0.0.1:{PORT + 1}"},
            {"Authorization": f"Bearer {token}"},
            {**right, "Origin": "null"},
            {**right, "Origin": f"http://127.0.0.1:{PORT}"},
            {**right, "Sec-Fetch-Site": "same-origin"},
        ],
    }
    count = 0
    for path in called.paths():
        for method in METHODS:
            for status, requests_ in refused.items():
                for headers in requests_:
                    if path in security.OPEN_PATHS and status == 401:
                        continue
                    code, problem = called(method, path, headers)
                    assert code == status, (method, path, headers)
                    assert problem in ("", {401: "unauthorized", 403: "forbidden"}[status])
                    count += 1
    assert count > 1000
    assert called.service.jobs.newest() == [] and called.service.store.files() == []


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


def test_no_accepted_job_is_lost_when_the_service_is_killed(start: Callable[..., LiveService], tmp_path: Path) -> None:
    folder, rng = tmp_path / "data", random.Random(0)
    accepted: dict[str, bytes] = {}
    final: dict[str, dict[str, Any]] = {}
    for round_ in range(KILLS):
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
        assert final[job]["state"] == "succeeded", final[job]
        assert live.get(f"/v1/blobs/{final[job]['result']['outputs']['image']}").content == swatch
    assert {job: live.status(job) for job in final} == final
    live.stop()
    with sqlite3.connect(folder / "jobs.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM jobs").fetchone() == (len(accepted),)
    db.close()
