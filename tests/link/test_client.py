"""The HTTP client: how the service is found, and the error for each failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
import requests.adapters

from blender_addon import wire
from blender_addon.link import client
from tests.link.fake_service import announced, as_json, fake_service

HEALTH = {"service": wire.SERVICE_NAME, "version": "0.1.0", "wire": wire.VERSION}


def healthy(path: str, **other: Any) -> tuple[int, str, bytes]:
    documents = {
        "/v1/health": HEALTH,
        "/v1/jobs?active=true": {"jobs": []},
        "/v1/models": {"models": []},
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
    assert client.find(client.ServiceAddress(url="https://example.org:1", online=True)).url == "https://example.org:1"
    assert client.find(client.ServiceAddress(url="localhost:1")).url == "http://localhost:1"


def test_another_machine_without_encryption_needs_permission() -> None:
    with pytest.raises(wire.WireError, match="Allow Unencrypted"):
        client.find(client.ServiceAddress(url="http://example.org:1", online=True))
    allowed = client.ServiceAddress(url="http://example.org:1", online=True, plain=True)
    assert client.find(allowed).url == "http://example.org:1"


def authorizations(address: client.ServiceAddress) -> dict[str, str]:
    """The Authorization header that a client sends with each path of a service at `address`."""
    found: dict[str, str] = {}

    class Recorder(requests.adapters.BaseAdapter):
        def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:
            found[request.path_url] = request.headers.get("Authorization", "")
            response = requests.Response()
            response.status_code, response.request = 200, request
            response._content = healthy(request.path_url)[2]
            return response

        def close(self) -> None:
            pass

    one = client.find(address)
    for scheme in ("http://", "https://"):
        one._session.mount(scheme, Recorder())
    one.status()
    return found


def test_the_token_of_this_machine_is_sent_to_its_service_only(tmp_path: Path) -> None:
    with announced(tmp_path, "http://127.0.0.1:7", "local"):
        folder = str(tmp_path)
        assert set(authorizations(client.ServiceAddress(folder)).values()) == {"", "Bearer local"}
        other = client.ServiceAddress(folder, url="https://example.org", online=True)
        assert set(authorizations(other).values()) == {""}
        assert set(authorizations(client.ServiceAddress(folder, url="127.0.0.1:8")).values()) == {""}


def test_the_token_of_another_machine_is_not_sent_to_this_one(tmp_path: Path) -> None:
    with announced(tmp_path, "http://127.0.0.1:7", "local"):
        assert "Bearer remote" not in authorizations(client.ServiceAddress(str(tmp_path), token="remote")).values()
        other = client.ServiceAddress(str(tmp_path), url="https://example.org", token="remote", online=True)
        assert set(authorizations(other).values()) == {"", "Bearer remote"}


def test_the_token_is_sent_after_the_program_is_known_to_be_the_service(tmp_path: Path) -> None:
    with announced(tmp_path, "http://127.0.0.1:7", "local"):
        assert authorizations(client.ServiceAddress(str(tmp_path)))["/v1/health"] == ""


def test_the_token_is_not_in_the_text_of_an_address() -> None:
    assert "secret" not in repr(client.ServiceAddress(token="secret"))


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


def test_a_plan_is_parsed_and_one_of_another_form_is_a_version_mismatch() -> None:
    plan = {"crop": [0, 0, 64, 64], "scale": 0.5, "width": 512, "height": 256, "sentence": "Uses all", "notes": ["a"]}
    documents = iter([plan, {"scale": 1.0}])
    with fake_service(lambda method, path: as_json(next(documents))) as url:
        connected = client.Client(url)
        request = wire.JobRequest("synthesize", {"width": 500}, {"swatch": "0" * 64})
        assert connected.plan(request) == wire.Plan((0, 0, 64, 64), 0.5, 512, 256, "Uses all", notes=("a",))
        with pytest.raises(wire.WireError) as caught:
            connected.plan(request)
        assert caught.value.code == "version-mismatch"
        connected.close()
