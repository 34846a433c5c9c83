"""The HTTP client: how the service is found, and the error for each failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blender_addon import wire
from blender_addon.link import client
from tests.link.fake_service import announced, as_json, fake_service

HEALTH = {"service": wire.SERVICE_NAME, "version": "0.1.0", "wire": wire.VERSION}


def healthy(path: str, **other: Any) -> tuple[int, str, bytes]:
    documents = {
        "/v1/health": HEALTH,
        "/v1/capabilities": {"models": [{"name": "pocket"}]},
        "/v1/ready": {"device": "cuda:0", "device_name": "Some GPU", "memory_total": 24e9, "memory_free": 20e9},
    }
    return as_json(documents[path])


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("http://localhost:8765//", "http://localhost:8765"),
        (" https://host:1/prefix/ ", "https://host:1/prefix"),
        ("[::1]:80", "http://[::1]:80"),
    ],
)
def test_addresses_are_normalized(text: str, url: str) -> None:
    assert client.normal_url(text) == url


@pytest.mark.parametrize("text", ["", "http://", "ftp://host", "host:port", "http://[::1"])
def test_an_invalid_address_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        client.normal_url(text)
    assert repr(text) in caught.value.detail


def test_a_service_is_found_by_its_data_folder(tmp_path: Path) -> None:
    with fake_service(lambda _method, path: healthy(path)) as url, announced(tmp_path, f"{url}/", "secret"):
        status = client.find(client.ServiceAddress(data_dir=str(tmp_path))).status()
    assert (status.ready, status.models) == (True, ("pocket",))
    assert status.device == "Some GPU, 20 of 24 GB free"


def test_the_default_folder_is_that_of_the_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AD_SERVICE_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(client.sys, "platform", "linux")
    assert client.ServiceAddress().folder == tmp_path / wire.SERVICE_NAME
    monkeypatch.setenv("AD_SERVICE_DATA", str(tmp_path / "mine"))
    assert client.ServiceAddress().folder == tmp_path / "mine"


def test_the_error_without_a_service_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(wire.WireError) as caught:
        client.find(client.ServiceAddress(data_dir=str(tmp_path)))
    assert caught.value.code == "service-unreachable"
    assert str(tmp_path) in caught.value.sentence


def test_a_program_at_the_address_of_a_crashed_service_gets_no_token(tmp_path: Path) -> None:
    paths: list[str] = []

    def listen(_method: str, path: str) -> tuple[int, str, bytes]:
        paths.append(path)
        return healthy(path)

    address = client.ServiceAddress(data_dir=str(tmp_path))
    with fake_service(listen) as url:
        with announced(tmp_path, url, "secret"):
            assert client.find(address).status().ready
        paths.clear()
        with pytest.raises(wire.WireError, match="not running") as caught:
            client.find(address)
    assert caught.value.code == "service-unreachable" and paths == []


def test_a_service_that_is_locked_but_does_not_respond_is_unreachable(tmp_path: Path) -> None:
    with announced(tmp_path, "http://127.0.0.1:9", "x"), pytest.raises(wire.WireError) as caught:
        client.find(client.ServiceAddress(data_dir=str(tmp_path))).status()
    assert caught.value.code == "service-unreachable"


def test_another_machine_needs_online_access() -> None:
    with pytest.raises(wire.WireError, match="Allow Online Access"):
        client.find(client.ServiceAddress(url="http://example.org:1"))
    assert client.find(client.ServiceAddress(url="http://example.org:1", online=True)).url == "http://example.org:1"
    assert client.find(client.ServiceAddress(url="localhost:1")).url == "http://localhost:1"


def test_no_proxy_is_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with fake_service(lambda _method, path: healthy(path)) as url:
        assert client.Client(url).status().ready


def test_another_version_is_refused_with_both_numbers() -> None:
    with fake_service(lambda *_: as_json({**HEALTH, "wire": 99})) as url, pytest.raises(wire.WireError) as caught:
        client.Client(url).status()
    assert caught.value.code == "version-mismatch"
    assert "99" in caught.value.detail
    assert str(wire.VERSION) in caught.value.detail


def test_a_wrong_token_gets_unauthorized() -> None:
    problem = wire.WireError("unauthorized", "the token is wrong").problem()

    def respond(_method: str, path: str) -> tuple[int, str, bytes]:
        return as_json(HEALTH) if path == "/v1/health" else as_json(problem, 401, "application/problem+json")

    with fake_service(respond) as url, pytest.raises(wire.WireError) as caught:
        client.Client(url, "old").status()
    assert caught.value.code == "unauthorized"


@pytest.mark.parametrize(
    "response",
    [
        (200, "text/html", b"<html>hello</html>"),
        (200, "application/json", b"{"),
        (200, "application/json", b"[1]"),
        (500, "text/plain", b"oops"),
        (500, "application/problem+json", b"nonsense"),
        (302, "text/plain", b""),
    ],
)
def test_another_program_at_the_address_is_refused(response: tuple[int, str, bytes]) -> None:
    with fake_service(lambda *_: response) as url, pytest.raises(wire.WireError) as caught:
        client.Client(url).status()
    assert caught.value.code == "service-unreachable"
    assert url in caught.value.detail


def test_another_service_at_the_address_is_refused() -> None:
    with (
        fake_service(lambda *_: as_json({"service": "something-else"})) as url,
        pytest.raises(wire.WireError, match="is not"),
    ):
        client.Client(url).status()


def test_a_download_with_a_wrong_checksum_is_refused() -> None:
    with fake_service(lambda *_: (200, "image/png", b"other")) as url, pytest.raises(wire.WireError) as caught:
        client.Client(url).download("0" * 64)
    assert caught.value.code == "blob-mismatch"


def test_a_program_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    address = client.ServiceAddress(data_dir=str(tmp_path), executable=str(tmp_path / "nothing-here"))
    with pytest.raises(wire.WireError, match="nothing-here"):
        client.start(address)


def test_the_program_comes_from_the_installers_file(tmp_path: Path) -> None:
    address = client.ServiceAddress(data_dir=str(tmp_path))
    assert client.executable_of(address) == ""
    (tmp_path / client.LAUNCH_FILE).write_text(json.dumps({"executable": "/opt/ad-service"}))
    assert client.executable_of(address) == "/opt/ad-service"
    assert client.executable_of(client.ServiceAddress(data_dir=str(tmp_path), executable="/mine")) == "/mine"
