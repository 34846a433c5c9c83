"""Artists with a token each: each sees and cancels only their jobs, within limits; the owner sees all."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from ad_service.storage.tokens import ArtistLimits, Tokens
from tests.support.live_service import LiveService

NO_LIMITS = ArtistLimits()


@pytest.fixture
def studio(start: Callable[..., LiveService], tmp_path: Path) -> LiveService:
    live = start("sleeps", data_dir=tmp_path / "studio")
    live.wait_until_ready()
    return live


def as_artist(live: LiveService, name: str, limits: ArtistLimits = NO_LIMITS) -> LiveService:
    """A client of the service with a new token of an artist."""
    return replace(live, token=Tokens(live.data_dir).add(name, limits=limits))


def listed(live: LiveService, **query: object) -> list[str]:
    return [job["id"] for job in live.get("/v1/jobs", params=query).json()["jobs"]]


def test_an_artist_sees_and_changes_only_their_own_jobs(studio: LiveService) -> None:
    anna, ben = as_artist(studio, "anna"), as_artist(studio, "ben")
    hers, his = anna.submit(), ben.submit(seed=1)
    assert listed(anna) == [hers] and listed(ben) == [his] and listed(studio) == [his, hers]
    assert listed(ben, active=True) == [his]
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
        response = ben.request(method, f"/v1/jobs/{hers}{path}")
        assert (response.status_code, response.json()["type"]) == (404, "not-found")
    assert ben.get("/v1/jobs", params={"before": hers}).status_code == 404
    body = {"kind": "synthesize", "inputs": {"swatch": ben.put_blob(b"swatch")}}
    assert ben.request("PUT", f"/v1/jobs/{hers}", json=body).json()["type"] == "conflict"
    assert anna.status(hers)["state"] in ("queued", "running")
    assert studio.status(hers)["artist"] == "anna"
    assert studio.cancel(his)["state"] in ("canceled", "canceling")
    anna.cancel(hers)


def test_a_revoked_token_is_refused_at_once(studio: LiveService) -> None:
    anna = as_artist(studio, "anna")
    assert anna.get("/v1/jobs").status_code == 200
    Tokens(studio.data_dir).revoke("anna")
    assert anna.get("/v1/jobs").status_code == 401


def test_jobs_of_artists_run_in_turns(studio: LiveService) -> None:
    anna, ben = as_artist(studio, "anna"), as_artist(studio, "ben")
    hers = [anna.submit(seed=i) for i in range(3)]
    anna.wait_for_state(hers[0], "running")
    his = ben.submit()
    assert listed(studio, active=True) == [hers[0], his, *hers[1:]]
    anna.cancel(hers[0])
    ben.wait_for_state(his, "running")


@pytest.mark.parametrize(
    ("limits", "error", "words"),
    [
        (ArtistLimits(queue=0), "queue-full", "0 jobs of anna are waiting; 0 is the limit"),
        (ArtistLimits(pixels=512 * 511), "over-limit", "512x512 pixels; 0.261632 megapixels is the limit of anna"),
        (ArtistLimits(disk=5), "over-limit", "0.00 GB; 5e-09 GB is the limit of anna"),
    ],
)
def test_a_limit_of_a_token_has_one_clear_error(
    studio: LiveService, limits: ArtistLimits, error: str, words: str
) -> None:
    anna = as_artist(studio, "anna", limits)
    body = {"kind": "synthesize", "inputs": {"swatch": anna.put_blob(b"swatch")}}
    problem = anna.request("PUT", f"/v1/jobs/{uuid.uuid4()}", json=body).json()
    assert problem["type"] == error and words in problem["detail"]
    assert studio.request("PUT", f"/v1/jobs/{uuid.uuid4()}", json=body).status_code == 202


def test_the_disk_of_an_artist_is_that_of_their_jobs(studio: LiveService) -> None:
    anna = as_artist(studio, "anna", ArtistLimits(disk=1000))
    first = anna.submit(b"x" * 600)
    anna.submit(b"x" * 600, seed=1)  # the same picture counts once
    anna.cancel(first)
    body = {"kind": "synthesize", "inputs": {"swatch": anna.put_blob(b"y" * 600)}}
    job = f"/v1/jobs/{uuid.uuid4()}"
    assert anna.request("PUT", job, json=body).json()["data"] == {"limit": "disk"}
    for old in listed(anna):
        anna.cancel(old)
        anna.wait_for_state(old, "canceled")
        assert anna.request("DELETE", f"/v1/jobs/{old}").status_code == 204
    assert anna.request("PUT", job, json=body).status_code == 202


# ---------------------------------------------------------------------------------------------- metrics


SAMPLE = re.compile(r'texture_distiller_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+0-9.e]+|# (HELP|TYPE) .+')


@pytest.fixture
def metrics(studio: LiveService) -> Iterator[Callable[[], dict[str, float]]]:
    token = Tokens(studio.data_dir).add("prometheus", "metrics")

    def read() -> dict[str, float]:
        response = requests.get(f"{studio.url}/metrics", headers={"Authorization": f"Bearer {token}"}, timeout=10)
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = response.text.splitlines()
        assert not [line for line in lines if not SAMPLE.fullmatch(line)]
        values = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        assert len({name for name, _ in values}) == len(values)
        return {name.removeprefix("texture_distiller_"): float(value) for name, value in values}

    return read


def test_metrics_count_jobs_workers_disk_and_requests(
    studio: LiveService, metrics: Callable[[], dict[str, float]]
) -> None:
    anna = as_artist(studio, "anna")
    running, waiting = anna.submit(b"x" * 500), anna.submit(seed=1)
    anna.wait_for_state(running, "running")
    now = metrics()
    assert now['jobs{artist="anna",state="running"}'] == now['jobs{artist="anna",state="queued"}'] == 1
    assert now['worker_ready{worker="local-1",device="cpu"}'] == 1
    assert now['device_memory_bytes{worker="local-1",kind="total"}'] == 2**30
    assert now["pictures_bytes"] >= 500 and now["pictures_limit_bytes"] > 0 and now["disk_free_bytes"] > 0
    assert now["queue_oldest_seconds"] > 0
    assert now['requests_total{route="/v1/jobs/{job}",method="PUT",status="202"}'] == 2
    anna.cancel(waiting)
    after = metrics()
    assert after['jobs_ended_total{artist="anna",state="canceled"}'] == 1
    assert after['jobs{artist="anna",state="running"}'] == 1 and 'jobs{artist="anna",state="queued"}' not in after
    assert after["request_seconds_count"] > now["request_seconds_count"]
    assert after['request_seconds_bucket{le="+Inf"}'] == after["request_seconds_count"]
