"""Measurements for Prometheus, in its text format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ad_service import __version__
from ad_service.service.scheduler import WorkerState
from ad_service.service.security import App, Message, Receive, Scope, Send
from ad_service.storage.cleanup import Usage
from ad_service.storage.jobs import Jobs
from blender_addon import wire
from blender_addon.wire import JobStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Upper limits in seconds of the histogram of requests."""


Sample = tuple[Mapping[str, str], float]
"""Labels and a value."""


class RequestTimes:
    """An ASGI layer that counts requests by route, method and status, and measures the time to the end of each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def around(self, app: App) -> App:
        async def timed(scope: Scope, receive: Receive, send: Send) -> None:
            status, started = "none", time.monotonic()

            async def send_counted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = str(message["status"])
                await send(message)

            try:
                await app(scope, receive, send_counted)
            finally:
                if scope["type"] == "http":
                    self._count(scope, status, time.monotonic() - started)

        return timed

    def _count(self, scope: Scope, status: str, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if route != "other" else "other"  # a client can send any word
        with self._lock:
            self.counts[route, method, status] += 1
            self.buckets[bisect_left(BUCKETS, seconds)] += 1
            self.seconds += seconds


class JobCounter:
    """Counts the jobs that end while the service runs. An ended job changes no more, so each is counted once."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.seconds: dict[str, float] = {}

    def listen(self, job: str) -> None:
        try:
            status = self._jobs.get(job)
        except wire.WireError:
            return  # deleted meanwhile
        with self._lock:
            if status.final:
                self.counts[status.artist, status.state] += 1
                seconds = status.result.seconds if status.result else 0.0
                self.seconds[status.artist] = self.seconds.get(status.artist, 0.0) + seconds


def exposition(
    active: Iterable[JobStatus],
    workers: Iterable[WorkerState],
    used: Usage,
    ended: JobCounter,
    requests: RequestTimes,
    now: float,
) -> str:
    """All measurements as text; `now` is time.time()."""
    active, workers = list(active), list(workers)
    states: Counter[tuple[str, str]] = Counter((status.artist, status.state) for status in active)
    oldest = max((now - status.created for status in active if status.state == "queued"), default=0.0)
    families: list[tuple[str, str, str, list[Sample]]] = [
        ("info", "gauge", "Version of the service.", [({"version": __version__}, 1.0)]),
        ("jobs", "gauge", "Jobs that wait or run.", _by("artist", "state", states)),
        ("jobs_ended_total", "counter", "Jobs that ended since the start.", _by("artist", "state", ended.counts)),
        (
            "job_seconds_total",
            "counter",
            "Seconds that the jobs took which succeeded since the start.",
            [({"artist": artist}, seconds) for artist, seconds in sorted(ended.seconds.items())],
        ),
        ("queue_oldest_seconds", "gauge", "How long the oldest waiting job has waited.", [({}, max(0.0, oldest))]),
        ("worker_ready", "gauge", "1 if the worker's device can be used.", _workers(workers)),
        (
            "device_memory_bytes",
            "gauge",
            "Memory of a device when its worker last became ready.",
            [
                ({"worker": one.worker, "kind": kind}, float(size))
                for one in workers
                if one.device
                for kind, size in (("total", one.device.memory_total), ("free", one.device.memory_free))
            ],
        ),
        ("pictures", "gauge", "Pictures in the data folder.", [({}, float(used.pictures))]),
        ("pictures_bytes", "gauge", "Disk that pictures use.", [({}, float(used.bytes))]),
        ("pictures_limit_bytes", "gauge", "Budget of disk for pictures.", [({}, float(used.limit))]),
        ("disk_free_bytes", "gauge", "Free space on the disk of the data folder.", [({}, float(used.free))]),
        (
            "requests_total",
            "counter",
            "Requests by route, method and status.",
            [
                ({"route": route, "method": method, "status": status}, float(count))
                for (route, method, status), count in sorted(requests.counts.items())
            ],
        ),
    ]
    lines = [line for name, kind, text, samples in families for line in _family(name, kind, text, samples)]
    return "\n".join([*lines, *_histogram(requests)]) + "\n"


def _by(first: str, second: str, counts: Mapping[tuple[str, str], int]) -> list[Sample]:
    return [({first: one, second: other}, float(count)) for (one, other), count in sorted(counts.items())]


def _workers(workers: Iterable[WorkerState]) -> list[Sample]:
    return [
        ({"worker": one.worker, "device": one.device.device if one.device else ""}, float(one.device is not None))
        for one in workers
    ]


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP texture_distiller_{name} {text}"
    yield f"# TYPE texture_distiller_{name} {kind}"
    for labels, value in samples:
        yield f"texture_distiller_{name}{_labels(labels)} {value:.17g}"


def _histogram(requests: RequestTimes) -> Iterator[str]:
    yield from _family("request_seconds", "histogram", "Time to the end of a response, long polls included.", [])
    total = 0
    for limit, count in zip((*map(str, BUCKETS), "+Inf"), requests.buckets, strict=True):
        total += count
        yield f'texture_distiller_request_seconds_bucket{{le="{limit}"}} {total}'
    yield f"texture_distiller_request_seconds_sum {requests.seconds:.6f}"
    yield f"texture_distiller_request_seconds_count {total}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    escaped = (
        (name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
