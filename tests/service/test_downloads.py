"""Models over HTTP: listed, downloaded from a local hub, canceled, and their errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ad_service.storage import models
from tests.support import tiny_checkpoints
from tests.support.fake_hub import FakeHub, fake_hub
from tests.support.live_service import LiveService

REPO = models.KNOWN["sd15"].repo


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "repository"
    tiny_checkpoints.tiny_sd15(folder)
    return folder


@pytest.fixture
def hub(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub(repository, REPO, blocked=True) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def entry(live: LiveService, name: str = "sd15") -> dict[str, Any]:
    listed = live.get("/v1/models").json()["models"]
    return next(model for model in listed if model["name"] == name)


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition was not true within {seconds:g} s"
        time.sleep(0.05)


def test_known_models_are_listed_with_size_license_and_purpose(service: LiveService) -> None:
    assert entry(service, "pocket")["state"] == "installed"
    available = entry(service, "sdxl")
    assert (available["state"], available["bytes"]) == ("available", models.KNOWN["sdxl"].bytes)
    assert available["license"] and available["purpose"]


def test_a_model_is_downloaded_with_progress_and_then_installed(
    start: Callable[..., LiveService], hub: FakeHub
) -> None:
    live = start("echoes")
    put = live.request("PUT", "/v1/models/sd15", headers={"X-Hub-Token": "hf_secret"})
    assert put.status_code == 202
    wait_until(lambda: 0 < entry(live)["received"] < entry(live)["bytes"])
    assert entry(live)["state"] == "downloading"
    assert live.request("PUT", "/v1/models/sd15").status_code == 202, "a second request changes nothing"
    hub.unblocked.set()
    wait_until(lambda: entry(live)["state"] == "installed", 120)
    assert "sd15" in [model["name"] for model in live.get("/v1/capabilities").json()["models"]]
    sent = {token for path, token in hub.tokens.items() if REPO in path}
    assert sent == {"Bearer hf_secret"}
    assert not [path for path in hub.tokens if "hf_secret" in path]


def test_a_canceled_download_leaves_no_model_and_can_be_continued(
    start: Callable[..., LiveService], hub: FakeHub
) -> None:
    live = start("echoes")
    live.request("PUT", "/v1/models/sd15")
    wait_until(lambda: entry(live)["received"] > 0)
    assert live.request("POST", "/v1/models/sd15/cancel").status_code == 200
    wait_until(lambda: entry(live)["state"] == "available")
    assert entry(live)["problem"] is None
    hub.unblocked.set()
    live.request("PUT", "/v1/models/sd15")
    wait_until(lambda: entry(live)["state"] == "installed", 120)


def test_a_failed_download_says_why_until_it_is_dismissed(start: Callable[..., LiveService], hub: FakeHub) -> None:
    live = start("echoes")
    assert live.request("PUT", "/v1/models/someone/missing").status_code == 202
    wait_until(lambda: entry(live, "missing")["problem"])
    assert "there is no such model" in entry(live, "missing")["problem"]["detail"]
    assert live.request("POST", "/v1/models/missing/cancel").status_code == 200
    assert "missing" not in [model["name"] for model in live.get("/v1/models").json()["models"]]


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "../b", "a/..", "http://a/b", "-x/y", "ä/b"])
def test_a_name_that_is_not_on_the_hub_is_refused_before_the_download(service: LiveService, name: str) -> None:
    response = service.request("PUT", f"/v1/models/{name}")
    assert response.status_code in (404, 422)
    assert response.headers["Content-Type"] == "application/problem+json"


def test_a_token_with_a_line_break_is_refused(service: LiveService) -> None:
    assert service.request("PUT", "/v1/models/sd15", headers={"X-Hub-Token": "a b"}).status_code == 400


def test_canceling_a_model_that_is_not_downloaded_is_not_found(service: LiveService) -> None:
    assert service.request("POST", "/v1/models/sd15/cancel").status_code == 404


def test_a_stopped_service_ends_its_downloads(start: Callable[..., LiveService], hub: FakeHub) -> None:
    live = start("echoes")
    live.request("PUT", "/v1/models/sd15")
    wait_until(lambda: entry(live)["received"] > 0)
    assert live.stop() == 0
    lock = models.models_dir(live.data_dir) / ".fetch-sd15.lock"

    def released() -> bool:
        from filelock import FileLock, Timeout

        try:
            with FileLock(lock, timeout=0):
                return True
        except Timeout:
            return False

    wait_until(released, 10)
