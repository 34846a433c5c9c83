"""The service's page in a headless Chromium, as its user opens it and as a page on another origin attacks it."""

from __future__ import annotations

import http.server
import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from ad_service.service.security import PAGE_PATHS
from ad_service.storage.tokens import Tokens
from tests.support.chromium import PROGRAM, Browser, Page, chromium
from tests.support.live_service import LiveService
from tests.support.photographs import tiles

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium; on Debian: apt install chromium")

PICTURES = os.environ.get("PAGE_PICTURES")
"""Folder for pictures of the page, for those who change how it looks."""


def link(live: LiveService) -> str:
    """The one-time link that the service printed."""
    found = re.search(r"once: (http\S+)", (live.data_dir / "serve.out").read_text())
    assert found
    return found[1]


def photograph() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tiles(240, 320, 40)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def live(start: Callable[..., LiveService]) -> LiveService:
    opened = start("echoes", "--open")
    opened.wait_until_ready()
    return opened


def picture_of(page: Page, name: str) -> None:
    if PICTURES:
        for dark in (False, True):
            page.screenshot(Path(PICTURES) / f"{name}-{'dark' if dark else 'light'}.png", dark=dark)


def test_a_texture_is_made_seen_and_deleted_in_the_page(browser: Browser, live: LiveService, tmp_path: Path) -> None:
    browser.errors.clear()
    page = browser.open(link(live))
    page.wait_for("!document.querySelector('#empty').hidden")
    assert page.value("location.hash") == "" and "a fixture (cpu), idle" in page.value("document.body.innerText")
    picture_of(page, "empty")
    page.click("#submit")
    page.wait_for("document.querySelector('#form-error').textContent.includes('Choose a picture')")
    swatch = tmp_path / "bricks.png"
    swatch.write_bytes(photograph())
    page.choose_file("#swatch", swatch)
    page.wait_for("document.querySelector('#swatch-preview').naturalWidth === 320")
    page.value("document.querySelector('#seed').value = 7, document.querySelector('#tiling').value = 'x', 0")
    page.click("#submit")
    page.wait_for("document.querySelector('.job.succeeded img')?.naturalWidth === 320")
    (job,) = live.get("/v1/jobs").json()["jobs"]
    assert (job["request"]["parameters"]["seed"], job["request"]["parameters"]["tile"]) == (7, "x")
    picture_of(page, "jobs")
    page.click(".job .picture")
    page.wait_for("document.querySelector('#viewer').open")
    style = "getComputedStyle(document.querySelector('#tiles')).backgroundSize"
    assert page.value(style) == "50% 50%"
    picture_of(page, "result")
    page.click("#repeat")
    page.wait_for(f"{style} === '100% 100%'")
    page.click("#close")
    page.click(".job .buttons button:last-child")
    page.wait_for("!document.querySelector('#empty').hidden")
    assert live.get("/v1/jobs").json()["jobs"] == []
    assert browser.errors == []


def test_a_job_is_canceled_in_the_page(browser: Browser, start: Callable[..., LiveService]) -> None:
    live = start("sleeps", "--open")
    live.put_blob(photograph())
    job, waiting = live.submit(photograph()), live.submit(photograph(), seed=1)
    live.wait_for_state(job, "running")
    page = browser.open(link(live))
    page.wait_for("document.querySelector('.job.running progress') && document.querySelector('.job.queued')")
    text = page.value("document.body.innerText")
    assert "1 running, 1 waiting" in text and "number 1 in line" in text
    picture_of(page, "running")
    page.click(".job.running .buttons button")
    live.wait_for_state(job, "canceled")
    live.cancel(waiting)


def test_a_link_opens_the_page_once(browser: Browser, live: LiveService) -> None:
    first = browser.open(link(live))
    first.wait_for("!document.querySelector('#studio').hidden")
    first.go(live.url + "/")
    first.wait_for("!document.querySelector('#studio').hidden")  # the session stays
    first.value("localStorage.clear()")
    second = browser.open(link(live))
    second.wait_for("document.querySelector('#login-error').textContent.includes('The link was used before')")
    picture_of(second, "login")
    assert second.value("document.querySelector('#studio').hidden")


def test_an_artist_signs_in_with_a_token_and_sees_their_own_jobs(browser: Browser, live: LiveService) -> None:
    live.wait_for_state(live.submit(photograph()), "succeeded")
    token = Tokens(live.data_dir).add("anna")
    page = browser.open(live.url + "/")
    page.wait_for("!document.querySelector('#login').hidden")
    page.value(f"document.querySelector('#token').value = {token!r}, 0")
    page.click("#login-form button")
    page.wait_for("!document.querySelector('#empty').hidden && !document.querySelector('#studio').hidden")
    Tokens(live.data_dir).revoke("anna")
    page.wait_for("!document.querySelector('#login').hidden")


# ---------------------------------------------------------------------------------------------- attacks


@contextmanager
def other_site(host: str) -> Iterator[str]:
    """The address of an empty web page at another port of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>Attack</title><body>")

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ATTACK = """(async () => {
  const url = %r, job = %r, sha = %r, read = [];
  const attempts = [
    ["GET", "/v1/jobs"], ["GET", `/v1/jobs/${job}`], ["POST", `/v1/jobs/${job}/cancel`], ["DELETE", `/v1/jobs/${job}`],
    ["POST", "/v1/storage/prune"], ["GET", "/metrics"], ["GET", "/"], ["GET", "/v1/health"], ["POST", "/v1/session"],
  ];
  for (const [method, path] of attempts)
    for (const mode of ["cors", "no-cors"])
      for (const headers of [{}, {"X-Page-Key": "guess"}, {"Content-Type": "text/plain"}])
        try {
          const body = method === "POST" ? "{}" : undefined;
          const answer = await fetch(url + path, {method, mode, headers, body, credentials: "include"});
          if (answer.type !== "opaque") read.push([method, path, mode, answer.status]);
        } catch {}
  const loads = (name, path) => new Promise((done) => {
    const one = document.createElement(name);
    one.onload = () => done([name, path]);
    one.onerror = () => done(null);
    one.src = url + path;
    document.body.append(one);
    setTimeout(() => done(null), 3000);
  });
  read.push(await loads("img", `/v1/blobs/${sha}`), await loads("script", "/page.js"));
  const form = document.createElement("form");
  form.method = "post"; form.action = `${url}/v1/jobs/${job}/cancel`; form.target = "frame";
  const frame = document.createElement("iframe");
  frame.name = "frame"; document.body.append(frame, form); form.submit();
  await new Promise((done) => setTimeout(done, 500));
  const inner = document.createElement("iframe");
  inner.src = url + "/"; document.body.append(inner);
  await new Promise((done) => setTimeout(done, 500));
  return read.filter(Boolean);
})()"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["same-site", "cross-site"])
def test_a_page_on_another_origin_can_read_and_change_nothing(
    browser: Browser, start: Callable[..., LiveService], host: str
) -> None:
    live = start("sleeps", "--open")
    browser.open(link(live)).wait_for("!document.querySelector('#studio').hidden")  # the browser has the cookie now
    sha = live.put_blob(photograph())
    job = live.submit(photograph())
    live.wait_for_state(job, "running")
    with other_site(host) as address:
        page = browser.open(address)
        assert page.value(ATTACK % (live.url, job, sha)) == []
        page.go(f"{live.url}/v1/jobs")
        assert '"forbidden"' in page.value("document.body.innerText")
    assert live.status(job)["state"] == "running"
    refused = [line for line in (live.data_dir / "service.log").read_text().splitlines() if "Refused" in line]
    assert len(refused) > 20
    live.cancel(job)


def test_the_page_allows_no_foreign_content(live: LiveService) -> None:
    for path in PAGE_PATHS:
        response = live.session.get(live.url + path, timeout=10)
        assert response.status_code == 200
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'") and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy and response.headers["X-Content-Type-Options"] == "nosniff"
    text = live.session.get(live.url + "/", timeout=10).text
    assert not re.search(r"(src|href)=\"(?!/page\.)|<script>|style=|\bon\w+=", text)
