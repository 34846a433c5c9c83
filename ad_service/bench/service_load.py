"""How fast the service is under load: polls, streams of events, long queues, cancels, and its own share of a job.

The service runs as a separate process in a temporary data folder; all requests go through sockets.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from blender_addon import wire
from blender_addon.wire.runtime import read_runtime

START_SECONDS = 120.0


@dataclass(frozen=True)
class LoadOptions:
    """How much load is made.

    Attributes:
        jobs: jobs that wait in the queue.
        streams: streams of events of one job that are read at once.
        poll_seconds: how long polls are sent.
        clients: connections that poll or submit at once.
        upload_bytes: of the picture that is sent meanwhile; 8192x8192 pixels of noise take 201 MB as PNG.
        size: side of the result of jobs that are canceled, in pixels.
        swatch: an encoded picture.
        engine: MODULE:FUNCTION of another engine, for tests.
    """

    swatch: bytes
    jobs: int = 10_000
    streams: int = 200
    poll_seconds: float = 10.0
    clients: int = 4
    upload_bytes: int = 201_000_000
    size: int = 2048
    engine: str | None = None


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    name: str
    goal: str
    measured: str


@dataclass
class Client:
    """A connection to the service that stays open."""

    url: str
    token: str
    _connection: HTTPConnection | None = field(default=None, repr=False)

    def __call__(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = HTTPConnection(urlsplit(self.url).netloc, timeout=120)
        self._connection.request(method, path, body, {"Authorization": f"Bearer {self.token}"})
        response = self._connection.getresponse()
        return response.status, response.read()

    def json(self, method: str, path: str, document: Any = None) -> Any:
        status, body = self(method, path, None if document is None else json.dumps(document).encode())
        if status >= 400:
            raise RuntimeError(f"{method} {path} has status {status}: {body[:200]!r}")
        return json.loads(body)

    def submit(self, swatch: str, **parameters: Any) -> str:
        job = str(uuid.uuid4())
        self.json(
            "PUT", f"/v1/jobs/{job}", {"kind": "synthesize", "parameters": parameters, "inputs": {"swatch": swatch}}
        )
        return job

    def wait(self, job: str, until: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
        """Long-polls until a condition on the job's status is true."""
        after = 0
        while True:
            status: Mapping[str, Any] = self.json("GET", f"/v1/jobs/{job}?wait=30&after={after}")
            if until(status):
                return status
            after = status["revision"]


class Server:
    """A service in a data folder, started and stopped as its user does it."""

    def __init__(self, folder: Path, options: LoadOptions) -> None:
        self._folder = folder
        command = [sys.executable, "-m", "ad_service", "serve", "--data-dir", str(folder)]
        self._command = [*command, "--max-queue", str(options.jobs + 100)]
        if options.engine:
            self._command += ["--engine", options.engine]
        self.start()

    def start(self) -> None:
        """Returns when the service responds."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while (runtime := read_runtime(self._folder)) is None:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"the service does not start; see {self._folder / 'service.log'}")
            time.sleep(0.02)
        self._runtime = runtime
        while True:
            with suppress(OSError):
                self.client().json("GET", "/v1/health")
                return
            time.sleep(0.02)

    def client(self) -> Client:
        return Client(self._runtime["url"], self._runtime["token"])

    def wait_for_worker(self) -> None:
        client = self.client()
        while client("GET", "/v1/ready")[0] != 200:
            time.sleep(0.05)

    def cpu_seconds(self) -> float:
        """CPU time of the service without its workers; 0 where it is unknown."""
        if sys.platform != "linux":
            return 0.0
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def measure(options: LoadOptions, show: Callable[[Figure], None]) -> list[Figure]:
    """Every figure; `show` gets each as soon as it is measured."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="texture-distiller-") as folder:
        server = Server(Path(folder), options)
        try:
            server.wait_for_worker()
            swatch = _upload(server.client(), options.swatch)
            for part in (_polls, _streams, _own_share, _cancels, _queue):
                for figure in part(server, swatch, options):
                    figures.append(figure)
                    show(figure)
        finally:
            server.stop()
    return figures


def _upload(client: Client, data: bytes) -> str:
    sha = hashlib.sha256(data).hexdigest()
    client("PUT", f"/v1/blobs/{sha}", data)
    return sha


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


@contextmanager
def _threads(count: int, work: Callable[[int], None]) -> Iterator[None]:
    """Runs `work(number)` in threads during the block and until they end."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


def _polls(server: Server, swatch: str, options: LoadOptions) -> Iterator[Figure]:
    """Polls while a job runs, alone and while a large picture is sent."""
    client, large = server.client(), os.urandom(options.upload_bytes)
    for with_upload in (False, True):
        job = client.submit(swatch, width=1024, height=1024, seed=int(with_upload))
        client.wait(job, lambda status: status["state"] != "queued")
        ends = time.monotonic() + options.poll_seconds
        times: list[float] = []

        def poll(number: int, job: str = job, ends: float = ends, times: list[float] = times) -> None:
            if number == options.clients:
                while time.monotonic() < ends:
                    _upload(server.client(), large)
                return
            own = server.client()
            while (started := time.monotonic()) < ends:
                own("GET", f"/v1/jobs/{job}")
                times.append(time.monotonic() - started)

        before = server.cpu_seconds()
        with _threads(options.clients + with_upload, poll):
            pass
        used = server.cpu_seconds() - before
        state = client.json("GET", f"/v1/jobs/{job}")["state"]
        what = f", while {options.upload_bytes / 1e6:.0f} MB are sent" if with_upload else ""
        yield Figure(
            f"polls during a job{what}",
            "500 a second, p99 50 ms",
            f"{len(times) / options.poll_seconds:.0f} a second, median {_percentile(times, 0.5) * 1000:.1f} ms, "
            f"p99 {_percentile(times, 0.99) * 1000:.1f} ms, {used / len(times) * 1000:.2f} ms of CPU each (the job is "
            f"{state})",
        )
        client.json("POST", f"/v1/jobs/{job}/cancel")
        client.wait(job, lambda status: status["state"] in wire.FINAL_STATES)


def _streams(server: Server, swatch: str, options: LoadOptions) -> Iterator[Figure]:
    """Streams of events of one job, each read to its end."""
    client = server.client()
    job = client.submit(swatch, width=256, height=256, seed=2)
    received: list[list[int]] = [[] for _ in range(options.streams)]

    def read(number: int) -> None:
        _, body = server.client()("GET", f"/v1/jobs/{job}/events")
        received[number] = [int(line[4:]) for line in body.decode().splitlines() if line.startswith("id: ")]

    with _threads(options.streams, read):
        last = client.wait(job, lambda status: status["state"] in wire.FINAL_STATES)["revision"]
    doubles = sum(len(ids) - len(set(ids)) for ids in received)
    backwards = sum(ids != sorted(ids) for ids in received)
    ended = sum(bool(ids) and ids[-1] == last for ids in received)
    yield Figure(
        f"{options.streams} streams of events",
        "each status newer than the last, each end seen, no double",
        f"{sum(map(len, received))} events, {doubles} doubles, {backwards} streams backwards, {ended} saw the end",
    )


def _own_share(server: Server, swatch: str, options: LoadOptions) -> Iterator[Figure]:
    """CPU time of the service during one job that a client follows, as the add-on does."""
    client = server.client()
    before, started = server.cpu_seconds(), time.monotonic()
    job = client.submit(swatch, width=512, height=512, seed=3)
    client.wait(job, lambda status: status["state"] in wire.FINAL_STATES)
    seconds = time.monotonic() - started
    used = server.cpu_seconds() - before
    yield Figure("the service's own time of a job", "2 %", f"{used / seconds:.1%} ({used:.2f} of {seconds:.1f} s)")


def _cancels(server: Server, swatch: str, options: LoadOptions) -> Iterator[Figure]:
    """A cancel in each phase of a large job, at its first report; ends with the last phase that is reached."""
    client, canceled = server.client(), set[str]()
    worker = client.json("GET", "/v1/workers")["workers"][0]["worker"]
    while True:
        job = client.submit(swatch, width=options.size, height=options.size, preset="draft", seed=len(canceled))
        status = client.wait(
            job, lambda one: one["state"] in wire.FINAL_STATES or (one["phase"] and one["phase"] not in canceled)
        )
        if status["state"] in wire.FINAL_STATES:
            return
        phase = status["phase"]
        canceled.add(phase)
        started = time.monotonic()
        client.json("POST", f"/v1/jobs/{job}/cancel")
        status = client.wait(job, lambda one: one["state"] in wire.FINAL_STATES)
        seconds = time.monotonic() - started
        ready = client("GET", "/v1/ready")[0] == 200
        yield Figure(
            f"cancel in {phase!r} at {options.size}x{options.size}",
            "2 s, the worker stays",
            f"{status['state']} after {seconds:.1f} s, {worker} {'stayed' if ready else 'was ended'}",
        )


def _queue(server: Server, swatch: str, options: LoadOptions) -> Iterator[Figure]:
    """A long queue: submitting it, and a restart with it."""
    client = server.client()
    blocker = client.submit(swatch, width=options.size, height=options.size)
    client.wait(blocker, lambda status: status["state"] != "queued")
    times: list[float] = []
    each = options.jobs // options.clients

    def submit(number: int) -> None:
        own = server.client()
        for i in range(each):
            started = time.monotonic()
            own.submit(swatch, seed=number * each + i)
            times.append(time.monotonic() - started)

    started = time.monotonic()
    with _threads(options.clients, submit):
        pass
    yield Figure(
        f"submitting {each * options.clients} jobs that wait",
        "p99 100 ms",
        f"{len(times) / (time.monotonic() - started):.0f} a second, median {_percentile(times, 0.5) * 1000:.1f} ms, "
        f"p99 {_percentile(times, 0.99) * 1000:.1f} ms",
    )
    server.stop()
    started = time.monotonic()
    server.start()
    responds = time.monotonic() - started
    waiting = len(server.client().json("GET", "/v1/jobs?active=true")["jobs"])
    yield Figure(f"restart with {waiting} jobs", "5 s", f"{responds:.1f} s until it responds")
