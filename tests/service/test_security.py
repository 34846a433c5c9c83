"""Access control: requests need the token and the right host, and must not come from a web page."""

from __future__ import annotations

import http.client
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from ad_service.service.security import Guard, is_loopback
from ad_service.service.sessions import Sessions
from ad_service.storage.tokens import Tokens
from blender_addon import wire
from tests.support.live_service import LiveService


def send(service: LiveService, path: str = "/v1/jobs", **headers: str) -> requests.Response:
    return requests.get(service.url + path, headers=headers, timeout=10)


def bearer(service: LiveService) -> str:
    return f"Bearer {service.token}"


def test_health_needs_no_token_and_shows_only_versions(service: LiveService) -> None:
    response = send(service, "/v1/health")
    assert response.status_code == 200
    assert set(response.json()) == {"service", "version", "wire"}


@pytest.mark.parametrize(
    "path", ["/v1/ready", "/v1/capabilities", "/v1/jobs", "/openapi.json", "/v1/nothing", "/v1/health/"]
)
def test_every_other_route_without_a_token_gets_401(service: LiveService, path: str) -> None:
    response = send(service, path)
    assert response.status_code == 401
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["type"] == "unauthorized"


@pytest.mark.parametrize("wrong", ["", "Bearer", "Bearer ", "Bearer x", "Basic {token}", "{token}", "Bearer {token}x"])
def test_a_wrong_token_gets_401(service: LiveService, wrong: str) -> None:
    assert send(service, Authorization=wrong.format(token=service.token)).status_code == 401


def test_the_right_token_gets_200(service: LiveService) -> None:
    assert send(service, Authorization=bearer(service)).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "10.0.0.1:{port}"]
)
def test_another_host_gets_403_even_with_the_token(service: LiveService, host: str) -> None:
    host = host.format(port=urlsplit(service.url).port)
    response = send(service, Authorization=bearer(service), Host=host)
    assert (response.status_code, response.json()["type"]) == (403, "forbidden")
    assert send(service, "/v1/health", Host=host).status_code == 403


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_the_names_of_this_machine_are_accepted(service: LiveService, name: str) -> None:
    host = f"{name}:{urlsplit(service.url).port}"
    assert send(service, Authorization=bearer(service), Host=host).status_code == 200


@pytest.mark.parametrize("header", ["Origin", "Sec-Fetch-Site"])
@pytest.mark.parametrize("path", ["/v1/health", "/v1/jobs"])
def test_a_web_page_gets_403_even_with_the_token(service: LiveService, header: str, path: str) -> None:
    response = send(service, path, Authorization=bearer(service), **{header: "null"})
    assert (response.status_code, response.json()["type"]) == (403, "forbidden")


def test_no_response_allows_other_origins(service: LiveService) -> None:
    response = requests.options(service.url + "/v1/jobs", headers={"Origin": "http://evil.example"}, timeout=10)
    assert response.status_code == 403
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


def test_a_body_with_a_too_large_content_length_gets_413_before_it_is_sent(service: LiveService) -> None:
    url = urlsplit(service.url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=10)
    connection.putrequest("PUT", f"/v1/blobs/{'0' * 64}")
    connection.putheader("Authorization", bearer(service))
    connection.putheader("Content-Length", str(wire.MAX_BLOB_BYTES + 1))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    connection.close()


def test_a_body_without_content_length_gets_413_at_the_limit(service: LiveService) -> None:
    def endless() -> object:
        for _ in range(wire.MAX_BODY_BYTES // 1024 + 2):
            yield b" " * 1024

    job = "/v1/jobs/3f1f1f60-0000-4000-8000-000000000000"
    response = requests.put(service.url + job, data=endless(), headers={"Authorization": bearer(service)}, timeout=10)
    assert (response.status_code, response.json()["type"]) == (413, "too-large")


def test_only_the_owner_can_read_runtime_json(service: LiveService) -> None:
    mode = stat.S_IMODE((service.data_dir / "runtime.json").stat().st_mode)
    assert os.name == "nt" or mode == 0o600


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_can_read_neither_the_record_nor_pictures_nor_logs(
    start: Callable[..., LiveService], tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    (folder / "blobs").mkdir(parents=True)  # as version 0.2.0 made them
    for name in ("jobs.sqlite", "service.log", "worker.log.1", "start.log"):
        (folder / name).touch(mode=0o644)
    before = os.umask(0o022)
    try:
        live = start("echoes", data_dir=folder)
        live.wait_for_state(live.submit(), "succeeded")
    finally:
        os.umask(before)
    files = [path for path in folder.rglob("*") if path.name not in ("serve.out", "service.lock")]
    assert {"jobs.sqlite-wal", "worker.log", "runtime.json"} <= {path.name for path in files}
    assert {path.name for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077} == set()


def test_each_start_has_a_new_long_token(start: Callable[..., LiveService], service: LiveService) -> None:
    other = start("echoes")
    assert other.token != service.token
    assert len(other.token) >= 32


def test_the_service_listens_on_loopback_only(service: LiveService) -> None:
    port = urlsplit(service.url).port
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port, type=socket.SOCK_STREAM)}
    for address in addresses:
        if not is_loopback(str(address)):
            with pytest.raises(OSError):
                socket.create_connection((str(address), port), timeout=2).close()


def guard_of(folder: Path, host: str) -> Guard:
    """A guard of a service at a port that passes nothing on."""
    app: Any = lambda scope, receive, send: None  # noqa: E731
    return Guard(app, "t" * 32, host, 8000, Tokens(folder), Sessions(8000, secure=False))


def test_a_public_service_accepts_addresses_and_its_own_name_as_host_but_no_other_names(tmp_path: Path) -> None:
    guard = guard_of(tmp_path, "0.0.0.0")
    for host in ("192.168.1.7:8000", f"{socket.gethostname()}:8000", "localhost:8000", "[fe80::1]:8000"):
        guard._check_host(host)
    for host in ("evil.example:8000", "192.168.1.7:80", "192.168.1.7"):
        with pytest.raises(wire.WireError):
            guard._check_host(host)


def test_wrong_tokens_are_answered_later_and_later(tmp_path: Path) -> None:
    guard = guard_of(tmp_path, "127.0.0.1")
    delays = [guard._delay() for _ in range(40)]
    assert delays[:10] == [0.0] * 10
    assert delays[10] > 0 and delays == sorted(delays) and delays[-1] == pytest.approx(2.0)


def test_refused_requests_are_logged_without_their_token(service: LiveService) -> None:
    guess = "Bearer a-wrong-guess"
    send(service, "/v1/jobs", Authorization=guess)
    send(service, "/v1/jobs", Authorization=bearer(service), Origin="http://evil.example")
    log = (service.data_dir / "service.log").read_text()
    assert "Refused GET '/v1/jobs' from 127.0.0.1: the Authorization header" in log
    assert "which web pages send" in log
    assert "a-wrong-guess" not in log and service.token not in log
