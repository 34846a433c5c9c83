"""The contract over HTTP, on a live service over real sockets."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

import pytest
import requests
from PIL import Image

from ad_service.storage import models
from blender_addon import wire
from tests.support.live_service import ROOT, LiveService
from tests.support.photographs import tiles

NOWHERE = "3f1f1f60-0000-4000-8000-000000000000"


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_problem(response: requests.Response, code: str) -> bool:
    """Whether a response is a complete problem of that type."""
    row = wire.ERRORS[code]
    assert response.headers["Content-Type"] == "application/problem+json", response.text
    problem = response.json()
    assert set(problem) - {"data"} == {"type", "title", "status", "detail", "remedy", "retryable"}
    return (problem["type"], problem["status"], response.status_code) == (row.name, row.status, row.status)


# ---------------------------------------------------------------------------------------------- information


def test_ready_gives_the_device_of_the_worker(service: LiveService) -> None:
    assert service.wait_until_ready() == {
        "device": "cpu",
        "device_name": "a fixture",
        "memory_total": 2**30,
        "memory_free": 2**29,
    }


def test_capabilities_list_kinds_parameters_models_and_limits(service: LiveService) -> None:
    document = service.get("/v1/capabilities").json()
    assert document["wire"] == wire.VERSION
    assert [kind["name"] for kind in document["kinds"]] == list(wire.KINDS)
    names = [parameter["name"] for parameter in document["kinds"][0]["parameters"]]
    assert names == [parameter.name for parameter in wire.SYNTHESIZE.parameters]
    assert [model["name"] for model in document["models"]] == [m.name for m in models.available(service.data_dir)]
    assert {"python", "torch"} <= set(document["packages"])
    assert document["limits"]["max_blob_bytes"] == wire.MAX_BLOB_BYTES


def test_openapi_matches_the_routes_and_the_contract(service: LiveService) -> None:
    document = service.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/health",
        "/metrics",
        "/v1/ready",
        "/v1/session",
        "/v1/workers",
        "/v1/capabilities",
        "/v1/models",
        "/v1/models/{name}",
        "/v1/models/{name}/cancel",
        "/v1/blobs/{sha}",
        "/v1/jobs/{job}",
        "/v1/jobs/{job}/events",
        "/v1/jobs/{job}/cancel",
        "/v1/jobs",
        "/v1/plan",
        "/v1/storage",
        "/v1/storage/prune",
    }
    assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    assert document["security"] == [{"token": []}] and document["paths"]["/v1/health"]["get"]["security"] == []
    assert {"200", "206", "304"} <= set(document["paths"]["/v1/blobs/{sha}"]["get"]["responses"])
    body = document["paths"]["/v1/jobs/{job}"]["put"]["requestBody"]["content"]["application/json"]["schema"]
    synthesize, restyle, *_ = (kind["properties"] for kind in body["oneOf"])
    width = synthesize["parameters"]["properties"]["width"]
    assert (width["minimum"], width["maximum"], width["multipleOf"], width["default"]) == (64, 16384, 8, 512)
    assert restyle["parameters"]["properties"]["width"]["default"] == 0
    status = document["components"]["schemas"]["JobStatus"]["properties"]
    assert set(status) == set(wire.JobStatus.__dataclass_fields__)


# ---------------------------------------------------------------------------------------------- blobs


def test_a_blob_is_uploaded_once_and_downloaded(service: LiveService) -> None:
    data = uuid.uuid4().bytes
    path = f"/v1/blobs/{sha_of(data)}"
    assert is_problem(service.get(path), "not-found")
    assert service.request("HEAD", path).status_code == 404
    assert service.request("PUT", path, data=data).status_code == 201
    assert service.request("PUT", path, data=data).status_code == 200
    head = service.request("HEAD", path)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "16", b"")
    assert service.get(path).content == data


def test_a_blob_with_another_checksum_gets_422(service: LiveService) -> None:
    path = f"/v1/blobs/{sha_of(b'whole')}"
    assert is_problem(service.request("PUT", path, data=b"damaged"), "blob-mismatch")
    assert service.request("HEAD", path).status_code == 404


def test_a_range_of_a_blob_can_be_requested(service: LiveService) -> None:
    sha = service.put_blob(b"0123456789")
    response = service.get(f"/v1/blobs/{sha}", headers={"Range": "bytes=2-4"})
    assert (response.status_code, response.content) == (206, b"234")
    assert response.headers["Content-Range"] == "bytes 2-4/10"
    assert service.get(f"/v1/blobs/{sha}", headers={"Range": "bytes=7-"}).content == b"789"
    beyond = service.get(f"/v1/blobs/{sha}", headers={"Range": "bytes=20-"})
    assert is_problem(beyond, "invalid-range") and beyond.headers["Content-Range"] in ("bytes */10", "*/10")
    assert is_problem(service.get(f"/v1/blobs/{sha}", headers={"Range": "pages=1"}), "invalid-request")


def test_a_blob_with_a_known_etag_gets_304(service: LiveService) -> None:
    sha = service.put_blob(b"known")
    etag = service.get(f"/v1/blobs/{sha}").headers["ETag"]
    assert etag == f'"{sha}"'
    response = service.get(f"/v1/blobs/{sha}", headers={"If-None-Match": etag})
    assert (response.status_code, response.content) == (304, b"")
    assert service.get(f"/v1/blobs/{sha}", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["0" * 63, "A" * 64, "..%2f..%2fetc%2fpasswd", "x"])
def test_a_blob_name_that_is_not_a_sha256_is_rejected(service: LiveService, name: str) -> None:
    for method in ("GET", "PUT"):
        response = service.request(method, f"/v1/blobs/{name}")
        assert response.status_code in (400, 404)
        assert response.headers["Content-Type"] == "application/problem+json"


# ---------------------------------------------------------------------------------------------- jobs


def test_a_job_runs_from_swatch_to_result(service: LiveService) -> None:
    job = service.submit(b"a swatch", seed=7, steps=30)
    status = service.wait_for_state(job, *wire.FINAL_STATES)
    assert (status["state"], status["progress"], status["attempt"]) == ("succeeded", 1.0, 1)
    assert status["result"]["notes"] == ["seed 7"]
    assert status["result"]["metrics"] == {"seam_x": 1.0}
    assert status["result"]["seconds"] > 0
    assert service.get(f"/v1/blobs/{status['result']['outputs']['image']}").content == b"a swatch"
    assert service.get(f"/v1/blobs/{status['preview']}").content == b"preview of a swatch"
    assert json.loads(json.dumps(wire.JobStatus.parse(status).document())) == status


def test_submitting_the_same_job_again_returns_it(service: LiveService) -> None:
    job = service.submit()
    service.wait_for_state(job, "succeeded")
    body = {"kind": "synthesize", "inputs": {"swatch": sha_of(b"swatch")}}
    again = service.request("PUT", f"/v1/jobs/{job}", json=body)
    assert (again.status_code, again.json()["state"]) == (200, "succeeded")
    other = service.request("PUT", f"/v1/jobs/{job}", json={**body, "parameters": {"seed": 5}})
    assert is_problem(other, "conflict")


def test_a_new_job_is_accepted_with_202_and_its_defaults_filled_in(service: LiveService) -> None:
    sha = service.put_blob(b"swatch")
    body = {"kind": "synthesize", "inputs": {"swatch": sha}}
    response = service.request("PUT", f"/v1/jobs/{uuid.uuid4()}", json=body)
    assert response.status_code == 202
    assert response.json()["request"]["parameters"]["width"] == 512


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"kind": "paint", "inputs": {}}, "invalid-request"),
        ({"kind": "synthesize", "inputs": {}}, "invalid-request"),
        ({"kind": "synthesize", "inputs": {"swatch": "/etc/passwd"}}, "invalid-request"),
        ({"kind": "synthesize", "inputs": {"swatch": "0" * 64}}, "blob-missing"),
        ({"kind": "synthesize", "inputs": {"swatch": "0" * 64}, "parameters": {"width": 8}}, "invalid-parameter"),
        ({"kind": "synthesize", "inputs": {"swatch": "0" * 64}, "parameters": {"widht": 8}}, "invalid-parameter"),
        ({"kind": "synthesize", "inputs": {"swatch": "0" * 64, "layout": "0" * 64}}, "invalid-labels"),
        ({"kind": "synthesize", "wire": 99}, "version-mismatch"),
        ([], "invalid-request"),
    ],
)
def test_an_invalid_job_is_rejected_with_its_reason(service: LiveService, body: object, code: str) -> None:
    job = str(uuid.uuid4())
    assert is_problem(service.request("PUT", f"/v1/jobs/{job}", json=body), code)
    assert is_problem(service.get(f"/v1/jobs/{job}"), "not-found")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"kind": 1e999}'])
def test_a_body_that_is_not_json_is_rejected(service: LiveService, body: bytes) -> None:
    assert is_problem(service.request("PUT", f"/v1/jobs/{NOWHERE}", data=body), "invalid-request")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "1" + "0" * 400, "true", '"512"', "512.5", "null"])
def test_an_invalid_number_is_an_invalid_parameter(service: LiveService, number: str) -> None:
    text = f'{{"kind": "synthesize", "inputs": {{"swatch": "{"0" * 64}"}}, "parameters": {{"width": {number}}}}}'
    assert is_problem(service.request("PUT", f"/v1/jobs/{NOWHERE}", data=text), "invalid-parameter")


def test_a_text_that_utf8_cannot_encode_is_rejected(service: LiveService) -> None:
    body = {"kind": "synthesize", "inputs": {"swatch": service.put_blob(b"x")}, "parameters": {"model": "\ud800"}}
    response = service.request("PUT", f"/v1/jobs/{uuid.uuid4()}", data=json.dumps(body))
    assert is_problem(response, "invalid-parameter")
    assert service.get("/v1/jobs").status_code == 200


def test_an_unknown_job_is_not_found(service: LiveService) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        assert is_problem(service.request(method, f"/v1/jobs/{NOWHERE}{path}"), "not-found")


@pytest.mark.parametrize(
    "path", ["/v1/jobs/7", "/v1/jobs?limit=0", f"/v1/jobs/{NOWHERE}?wait=1000", f"/v1/jobs/{NOWHERE}?wait=x"]
)
def test_an_invalid_path_or_query_is_rejected(service: LiveService, path: str) -> None:
    assert is_problem(service.get(path), "invalid-request")


def test_unknown_routes_and_methods_are_problems(service: LiveService) -> None:
    assert is_problem(service.get("/v1/nothing"), "not-found")
    assert is_problem(service.get("/v1/jobs/", allow_redirects=False), "not-found")
    response = service.request("DELETE", "/v1/jobs")
    assert is_problem(response, "method-not-allowed") and response.headers["Allow"] == "GET"
    response = service.request("PATCH", f"/v1/jobs/{NOWHERE}")
    assert is_problem(response, "method-not-allowed") and response.headers["Allow"] == "DELETE, GET, PUT"


def test_jobs_are_listed_newest_first(service: LiveService) -> None:
    jobs = [service.submit(seed=i) for i in range(3)]
    listed = [status["id"] for status in service.get("/v1/jobs", params={"limit": 3}).json()["jobs"]]
    assert listed == jobs[::-1]


def test_active_jobs_are_listed_in_the_order_in_which_they_run(service: LiveService) -> None:
    ended = service.submit()
    service.wait_for_state(ended, "succeeded")
    jobs = [service.submit(steps=1000, seed=i) for i in range(3)]
    service.wait_for_state(jobs[0], "running")
    listed = service.get("/v1/jobs", params={"active": True}).json()["jobs"]
    assert [status["id"] for status in listed] == jobs
    for job in jobs:
        service.cancel(job)
        service.wait_for_state(job, "canceled")


def test_jobs_are_listed_in_pages(service: LiveService) -> None:
    jobs = [service.submit(seed=100 + i) for i in range(5)][::-1]
    first = service.get("/v1/jobs", params={"limit": 2}).json()
    second = service.get("/v1/jobs", params={"limit": 2, "before": first["next"]}).json()
    assert [job["id"] for page in (first, second) for job in page["jobs"]] == jobs[:4]
    oldest = service.get("/v1/jobs", params={"limit": 200}).json()
    assert oldest["next"] is None
    assert is_problem(service.get("/v1/jobs", params={"before": NOWHERE}), "not-found")


def test_a_deleted_job_is_gone_with_its_result(service: LiveService) -> None:
    job = service.submit(b"only of this job", seed=11)
    outputs = service.wait_for_state(job, "succeeded")["result"]["outputs"]
    preview = service.status(job)["preview"]
    assert service.request("DELETE", f"/v1/jobs/{job}").status_code == 204
    assert is_problem(service.get(f"/v1/jobs/{job}"), "not-found")
    assert is_problem(service.request("DELETE", f"/v1/jobs/{job}"), "not-found")
    assert is_problem(service.get(f"/v1/blobs/{preview}"), "not-found")
    assert service.get(f"/v1/blobs/{outputs['image']}").status_code == 200, "an input too, which was used just now"


def test_a_job_that_is_not_finished_cannot_be_deleted(service: LiveService) -> None:
    job = service.submit(steps=1000)
    assert is_problem(service.request("DELETE", f"/v1/jobs/{job}"), "conflict")
    service.cancel(job)
    service.wait_for_state(job, "canceled")
    assert service.request("DELETE", f"/v1/jobs/{job}").status_code == 204


def test_the_use_of_the_disk_is_shown(service: LiveService) -> None:
    service.put_blob(b"x" * 1000)
    shown = service.get("/v1/storage").json()
    assert shown["pictures"] >= 1 and 1000 <= shown["bytes"] < shown["limit"] <= 20 * 10**9
    assert service.request("POST", "/v1/storage/prune").json()["bytes"] >= 1000, "too young to be removed"


def test_a_blob_damaged_on_the_disk_is_not_sent(service: LiveService) -> None:
    sha = service.put_blob(b"a result that the disk spoils")
    (service.data_dir / "blobs" / sha[:2] / sha).write_bytes(b"A result that the disk spoils")
    assert is_problem(service.get(f"/v1/blobs/{sha}"), "blob-missing")
    assert is_problem(service.get(f"/v1/blobs/{sha}"), "not-found")
    service.put_blob(b"a result that the disk spoils")
    assert service.get(f"/v1/blobs/{sha}").status_code == 200


def test_a_folder_with_the_name_of_a_blob_is_replaced(service: LiveService) -> None:
    sha = sha_of(b"a picture")
    (service.data_dir / "blobs" / sha[:2] / sha).mkdir(parents=True)
    assert is_problem(service.get(f"/v1/blobs/{sha}"), "not-found")
    service.put_blob(b"a picture")
    assert service.get(f"/v1/blobs/{sha}").content == b"a picture"


def test_a_long_poll_returns_after_its_time(service: LiveService) -> None:
    job = service.submit(steps=1000)
    revision = service.wait_for_state(job, "running")["revision"]
    started = time.monotonic()
    status = service.get(f"/v1/jobs/{job}", params={"wait": 0.5, "after": revision + 1000}).json()
    assert 0.4 < time.monotonic() - started < 3
    assert status["state"] == "running"
    service.cancel(job)
    service.wait_for_state(job, "canceled")


def test_a_long_poll_returns_at_once_after_a_change(service: LiveService) -> None:
    running = service.submit(steps=1000)
    job = service.submit(seed=1)
    revision = service.status(job)["revision"]
    responses: list[dict[str, object]] = []

    def poll() -> None:
        response = requests.get(
            f"{service.url}/v1/jobs/{job}?wait=20&after={revision}", headers=dict(service.session.headers), timeout=30
        )
        responses.append(response.json())

    thread = threading.Thread(target=poll)
    thread.start()
    time.sleep(0.3)
    started = time.monotonic()
    service.cancel(job)
    thread.join()
    assert time.monotonic() - started < 2
    assert responses[0]["state"] == "canceled"
    service.cancel(running)
    service.wait_for_state(running, "canceled")


def events(service: LiveService, job: str, **headers: str) -> list[tuple[int, dict[str, object]]]:
    """The server-sent events of a job, to their end, as (id, data)."""
    with service.get(f"/v1/jobs/{job}/events", stream=True, headers=headers) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        blocks = response.text.strip().split("\n\n") if response.text.strip() else []
    parsed = [dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")) for block in blocks]
    return [(int(block["id"]), json.loads(block["data"])) for block in parsed if block]


def test_events_have_rising_revisions_and_end_with_the_job(service: LiveService) -> None:
    received = events(service, service.submit(steps=40, seed=3))
    revisions = [revision for revision, _ in received]
    assert revisions == sorted(set(revisions))
    assert [data["state"] for _, data in received][-1] == "succeeded"
    assert all(revision == data["revision"] for revision, data in received)
    assert len(received) > 2


def test_events_continue_after_the_last_event_id(service: LiveService) -> None:
    job = service.submit(steps=3, seed=4)
    last = service.wait_for_state(job, "succeeded")["revision"]
    assert [revision for revision, _ in events(service, job, **{"Last-Event-ID": "1"})] == [last]
    assert events(service, job, **{"Last-Event-ID": str(last)}) == []
    for other in ("x", "-1", "9" * 30):
        assert [revision for revision, _ in events(service, job, **{"Last-Event-ID": other})] == [last]


# ---------------------------------------------------------------------------------------------- the process


def test_the_process_that_serves_never_imports_torch() -> None:
    code = "import sys, ad_service.cli, ad_service.service.serve; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_second_service_on_the_same_folder_fails_and_names_the_first(service: LiveService) -> None:
    command = [sys.executable, "-m", "ad_service", "serve", "--data-dir", str(service.data_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert service.url in done.stderr and str(service.process.pid) in done.stderr
    assert service.get("/v1/health").status_code == 200


def test_stopping_removes_runtime_json(start: Callable[..., LiveService]) -> None:
    live = start("echoes")
    assert live.stop() == 0
    assert not (live.data_dir / "runtime.json").exists()


def test_a_waiting_client_does_not_delay_stopping(start: Callable[..., LiveService]) -> None:
    live = start("sleeps")
    job = live.submit()
    live.wait_for_state(job, "running")

    def poll() -> None:
        with suppress(requests.RequestException):
            live.get(f"/v1/jobs/{job}", params={"wait": 60, "after": 1_000_000})

    waiting = threading.Thread(target=poll)
    waiting.start()
    time.sleep(0.5)
    started = time.monotonic()
    live.process.terminate()
    assert live.process.wait(timeout=20) == 0
    assert time.monotonic() - started < 8
    waiting.join(timeout=5)
    assert not waiting.is_alive()


# ---------------------------------------------------------------------------------------------- plans


def test_a_plan_says_what_a_job_would_use_while_the_service_stays_responsive(service: LiveService) -> None:
    sha = service.put_blob(photograph())
    body = {"kind": "synthesize", "parameters": {"width": 500, "real_width": 2.0}, "inputs": {"swatch": sha}}
    response = service.request("POST", "/v1/plan", json=body)
    assert response.status_code == 200, response.text
    plan = wire.Plan.parse(response.json())
    assert (plan.crop, plan.scale, plan.width, plan.height) == ((0, 0, 400, 300), 1.0, 496, 512)
    assert plan.pixels_per_meter == 200 and "Shows 2.5 m at 200 px/m" in plan.sentence
    assert any("500" in note for note in plan.notes)


def test_a_plan_without_its_picture_or_with_a_wrong_value_is_a_problem(service: LiveService) -> None:
    body = {"kind": "synthesize", "inputs": {"swatch": "0" * 64}}
    assert is_problem(service.request("POST", "/v1/plan", json=body), "blob-missing")
    wrong = {**body, "parameters": {"seed": -1}}
    assert is_problem(service.request("POST", "/v1/plan", json=wrong), "invalid-parameter")
    assert is_problem(service.request("POST", "/v1/plan", json=[]), "invalid-request")


def photograph() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tiles(300, 400, 40)).save(buffer, "PNG")
    return buffer.getvalue()
