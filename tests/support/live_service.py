"""A live service on real sockets with an engine of tests/support/engines.py, and a client for it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class LiveService:
    """A running `ad-service serve`, and requests as the add-on sends them."""

    data_dir: Path
    url: str
    token: str
    process: subprocess.Popen[bytes]

    def __post_init__(self) -> None:
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {self.token}"

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        return self.session.request(method, self.url + path, timeout=30, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.request("GET", path, **options)

    def put_blob(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        assert self.request("PUT", f"/v1/blobs/{sha}", data=data).status_code in (200, 201)
        return sha

    def submit(self, swatch: bytes = b"swatch", job: str | None = None, **parameters: Any) -> str:
        job = job or str(uuid.uuid4())
        body = {"kind": "synthesize", "parameters": parameters, "inputs": {"swatch": self.put_blob(swatch)}}
        response = self.request("PUT", f"/v1/jobs/{job}", json=body)
        assert response.status_code in (200, 202), response.text
        return job

    def status(self, job: str) -> dict[str, Any]:
        return dict(self.get(f"/v1/jobs/{job}").json())

    def cancel(self, job: str) -> dict[str, Any]:
        return dict(self.request("POST", f"/v1/jobs/{job}/cancel").json())

    def wait(self, job: str, until: Callable[[Mapping[str, Any]], bool], seconds: float = 30.0) -> dict[str, Any]:
        """Long-polls until the condition on the job's status is true."""
        deadline, after = time.monotonic() + seconds, 0
        while True:
            status = self.get(f"/v1/jobs/{job}", params={"wait": 5, "after": after}).json()
            if until(status):
                return dict(status)
            assert time.monotonic() < deadline, f"job {job} did not reach the state: {status}"
            after = status["revision"]

    def wait_for_state(self, job: str, *states: str, seconds: float = 30.0) -> dict[str, Any]:
        return self.wait(job, lambda status: status["state"] in states, seconds)

    def wait_until_ready(self, seconds: float = 30.0) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (response := self.get("/v1/ready")).status_code != 200:
            assert time.monotonic() < deadline, response.text
            time.sleep(0.05)
        return dict(response.json())

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.session.close()
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout=20)


def launch(data_dir: Path, engine: str, *arguments: str) -> LiveService:
    """Starts a service and returns when it responds."""
    command = [sys.executable, "-m", "ad_service", "serve", "--data-dir", str(data_dir), "--port", "0"]
    if engine:
        command += ["--engine", f"tests.support.engines:{engine}"]
    data_dir.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (data_dir / "serve.out").open("ab") as out:
        process = subprocess.Popen([*command, *arguments], cwd=ROOT, stdout=out, stderr=out, env=environment)
    deadline = time.monotonic() + 30
    while not (data_dir / "runtime.json").exists():
        assert process.poll() is None, (data_dir / "serve.out").read_text()
        assert time.monotonic() < deadline, "the service did not start"
        time.sleep(0.02)
    runtime = json.loads((data_dir / "runtime.json").read_text())
    live = LiveService(data_dir, runtime["url"], runtime["token"], process)
    live.get("/v1/health")
    return live


@contextmanager
def stopped_at_exit(live: LiveService) -> Iterator[LiveService]:
    try:
        yield live
    finally:
        live.stop(signal.SIGKILL)
