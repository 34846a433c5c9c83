"""Connections that send or read nothing are closed, and never keep others from being answered."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import uvicorn

from ad_service.service.connections import Connection, ConnectionLimits, LimitedServer
from ad_service.service.security import App, Message, Receive, Scope, Send
from ad_service.service.serve import RateLimit, _listen
from tests.support.live_service import LiveService
from tests.support.processes import wait_until

SHORT = ConnectionLimits(connections=20, head_seconds=0.5, body_seconds=0.5, read_seconds=0.5)


@contextmanager
def served(app: App, monkeypatch: pytest.MonkeyPatch, limits: ConnectionLimits = SHORT) -> Iterator[tuple[str, int]]:
    """The address of an application behind a limited server in this process."""
    monkeypatch.setattr(Connection, "limits", limits)
    config = uvicorn.Config(app, http=Connection, log_config=None, lifespan="off", timeout_keep_alive=120)
    server = LimitedServer(config)
    with _listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join()


def closed_after(connection: socket.socket, seconds: float) -> float:
    """How long it takes until the server closes a connection, in seconds."""
    started = time.monotonic()
    connection.settimeout(seconds)
    with suppress(ConnectionError):
        while connection.recv(65536):
            pass
    return time.monotonic() - started


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def test_responses_do_not_wait_for_acknowledgements() -> None:
    with _listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        accepted.close()


def test_a_poll_takes_far_less_than_a_delayed_acknowledgement(service: LiveService) -> None:
    times = []
    for _ in range(21):
        started = time.monotonic()
        assert service.get("/v1/health").status_code == 200
        times.append(time.monotonic() - started)
    assert sorted(times)[10] < 0.03  # it was 0.044 on an idle machine


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "])
def test_a_connection_without_a_complete_head_is_closed(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    with served(hello, monkeypatch) as address, socket.create_connection(address) as connection:
        connection.sendall(sent)
        assert closed_after(connection, 10) < 5


def test_a_second_head_that_never_ends_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(hello, monkeypatch) as address, socket.create_connection(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(1.5)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")  # an idle connection stays open
        time.sleep(0.3)
        assert connection.recv(65536).count(b"hello") == 2
        connection.sendall(b"GET / HT")
        assert closed_after(connection, 10) < 5


def test_a_body_that_stops_arriving_ends_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[Message] = []

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        while not messages or messages[-1]["type"] == "http.request":
            messages.append(await receive())

    with served(reads, monkeypatch) as address, socket.create_connection(address) as connection:
        connection.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        assert closed_after(connection, 10) < 5
        wait_until(lambda: messages[-1]["type"] == "http.disconnect")


def test_a_client_that_reads_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with served(large, monkeypatch) as address, socket.create_connection(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(3)
        received = 0
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                received += len(part)
        assert received < 1000 * 65536


def test_a_request_that_takes_longer_than_all_limits_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(2.5)
        await hello(scope, receive, send)

    with served(slow, monkeypatch) as (host, port):
        assert requests.get(f"http://{host}:{port}/", timeout=10).text == "hello"


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit of the system")
def test_more_silent_connections_than_descriptors_keep_nobody_from_being_answered(
    start: Callable[..., LiveService],
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        live = start("echoes")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    url = urlsplit(live.url)
    silent = [socket.create_connection((str(url.hostname), url.port or 0), timeout=5) for _ in range(300)]
    try:
        for _ in range(5):
            started = time.monotonic()
            assert requests.get(f"{live.url}/v1/health", timeout=10).status_code == 200
            assert time.monotonic() - started < 3
        assert live.get("/v1/jobs").status_code == 200
        assert len((live.data_dir / "serve.out").read_bytes()) < 10_000
    finally:
        for connection in silent:
            connection.close()


def test_the_terminal_gets_a_limited_number_of_messages() -> None:
    limit = RateLimit(3, 60.0)
    record = logging.makeLogRecord({})
    assert [limit.filter(record) for _ in range(6)] == [True] * 3 + [False] * 3
    assert RateLimit(1, 0.0).filter(record)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=studio"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl to make a certificate")
    return cert, key


def test_a_service_with_a_certificate_uses_https_only(
    start: Callable[..., LiveService], certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cert))
    live = start("echoes", "--tls-cert", str(cert), "--tls-key", str(key))
    assert live.url.startswith("https://127.0.0.1:")
    job = live.submit(b"a swatch")
    assert live.wait_for_state(job, "succeeded")["result"]["outputs"]
    with pytest.raises(requests.ConnectionError):
        requests.get(live.url.replace("https", "http") + "/v1/health", timeout=10)
    url = urlsplit(live.url)
    with (
        socket.create_connection((str(url.hostname), url.port or 0)) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
