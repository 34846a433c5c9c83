"""The HTTP routes. `Problems` turns errors into problem+json; security.py decides who may call. Never imports torch."""

from __future__ import annotations

import asyncio
import json
import logging
import pathlib
import platform
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from ad_service import __version__
from ad_service.service.downloads import Downloads
from ad_service.service.executors.local import LocalExecutor
from ad_service.service.metrics import CONTENT_TYPE as METRICS_TYPE
from ad_service.service.metrics import JobCounter, RequestTimes, exposition
from ad_service.service.openapi import (
    BLOB_RESPONSES,
    BYTES_BODY,
    JOB_BODY,
    LONGEST_WAIT,
    PLAN_BODY,
    PROBLEM_RESPONSE,
    SESSION_BODY,
    Capabilities,
    Health,
    JobList,
    Limits,
    Model,
    ModelList,
    PageKey,
    WorkerList,
    with_token,
)
from ad_service.service.planning import SIMILAR_AMONG, Planner, with_memory_note
from ad_service.service.scheduler import Scheduler
from ad_service.service.security import (
    CALLER,
    METRICS_PATH,
    PAGE_PATHS,
    SESSION_PATH,
    App,
    Guard,
    Message,
    Receive,
    Scope,
    Send,
    caller_of,
)
from ad_service.service.sessions import Sessions
from ad_service.storage import models
from ad_service.storage.blobs import BlobStore
from ad_service.storage.cleanup import Usage, bytes_of, clean, delete_job, usage
from ad_service.storage.jobs import Jobs
from ad_service.storage.settings import Settings, store_limit
from ad_service.storage.tokens import Caller, Tokens
from ad_service.worker import protocol
from blender_addon import wire
from blender_addon.wire import JobRequest, JobStatus, Plan, WireError

logger = logging.getLogger(__name__)

T = TypeVar("T")

KEEP_ALIVE = 15.0
"""Seconds after which an event stream without news sends a comment, so that proxies keep it open."""
CLEAN_EVERY = 60.0
"""Seconds between two runs of `cleanup.clean`."""
LONGEST_LIST = 200
"""Most jobs in one response; a client gets more with `before`."""

Sha = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="sha256 of the bytes in lower-case hex")]

ModelName = Annotated[str, Path(max_length=200, description="the name of a known model, or OWNER/NAME on the hub")]
PAGE_FILES = tuple(
    pathlib.Path(__file__).parent / "page" / name for name in ("index.html", "page.css", "page.js", "page.svg")
)
"""The files of PAGE_PATHS, in their order."""
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "pillow")
"""Packages whose versions are listed with the capabilities, for reports of defects."""


@dataclass(frozen=True)
class Service:
    """The parts that the routes use."""

    settings: Settings
    store: BlobStore
    jobs: Jobs
    scheduler: Scheduler
    planner: Planner
    downloads: Downloads
    tokens: Tokens
    sessions: Sessions


def open_service(settings: Settings, port: int) -> Service:
    """Opens the data folder for a service that listens on a port.

    Queues the jobs that a killed service left, and removes what is kept no longer.
    """
    store, jobs = BlobStore(settings.blobs), Jobs(settings.jobs_file, settings.max_queue)
    store_limit(settings)
    jobs.recover()
    clean(store, jobs, settings.storage_limit)
    executor = LocalExecutor(settings.worker_command, settings.worker_log, settings.gpus)
    planner = Planner(settings.plan_command)
    downloads, tokens = Downloads(settings.data_dir), Tokens(settings.data_dir)
    sessions = Sessions(port, secure=settings.tls_cert is not None)
    return Service(settings, store, jobs, Scheduler(jobs, executor), planner, downloads, tokens, sessions)


def create_app(service: Service, port: int) -> FastAPI:
    """The application for one service that listens on `port`."""
    settings, store, jobs, scheduler = service.settings, service.store, service.jobs, service.scheduler
    downloads, tokens, sessions = service.downloads, service.tokens, service.sessions
    ended, request_times = JobCounter(jobs), RequestTimes()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        scheduler.start()
        cleaning = asyncio.create_task(_clean_regularly(service))
        with jobs.listener(ended.listen):
            yield
        cleaning.cancel()
        downloads.stop()
        service.planner.stop()
        await run_in_threadpool(scheduler.stop)
        with _logged("The running jobs cannot be queued again"):
            jobs.suspend()
        jobs.close()

    app = FastAPI(
        title="Texture Distiller",
        version=__version__,
        description="Tileable textures from a swatch and a painted layout.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        lifespan=lifespan,
        responses={"4XX": PROBLEM_RESPONSE, "5XX": PROBLEM_RESPONSE},
    )
    for kind in (HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _as_problem)
    app.add_middleware(Guard, token=settings.token, host=settings.host, port=port, tokens=tokens, sessions=sessions)
    app.add_middleware(Problems)
    app.add_middleware(request_times.around)  # added last, so it is outermost

    def own_job(job: UUID, request: Request) -> str:
        """The id of a job; for an artist, WireError `not-found` if it is not their own. The owner sees all."""
        caller = _caller(request)
        if caller.role != "owner" and jobs.get(str(job)).artist != caller.name:
            raise WireError("not-found", f"there is no job {job}")
        return str(job)

    for path, file in zip(PAGE_PATHS, PAGE_FILES, strict=True):
        app.add_api_route(path, _sends(file), include_in_schema=False)

    @app.get("/v1/health")
    async def health() -> Health:
        return Health(wire.SERVICE_NAME, __version__, wire.VERSION)

    @app.get("/v1/ready")
    async def ready() -> protocol.Ready:
        return scheduler.device()

    @app.get("/v1/workers")
    async def list_workers() -> WorkerList:
        return WorkerList(tuple(scheduler.workers()))

    @app.post(SESSION_PATH, openapi_extra=SESSION_BODY)
    async def begin_session(request: Request, response: Response) -> PageKey:
        body = await _json_body(request)
        key = body.get("key") if isinstance(body, dict) else None
        if not isinstance(key, str):
            raise WireError("invalid-request", "the body must be an object with a key")
        encoded = key.encode("utf-8", "replace")
        caller = sessions.use_link(key) or caller_of(encoded, settings.token.encode(), tokens)
        if caller is None or caller.role == "metrics":
            raise WireError("unauthorized", "the link was used before or is too old, or the token is wrong")
        response.headers["Set-Cookie"], page_key = sessions.begin(caller)
        return PageKey(page_key, caller.name)

    @app.get(METRICS_PATH, response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        used = usage(store, settings.storage_limit)
        text = exposition(jobs.active(), scheduler.workers(), used, ended, request_times, time.time())
        return PlainTextResponse(text, media_type=METRICS_TYPE)

    @app.get("/v1/capabilities")
    def capabilities() -> Capabilities:
        found = tuple(
            Model(m.name, m.title, m.family, m.license, models.kinds_of(m.family))
            for m in models.available(settings.data_dir)
        )
        return Capabilities(
            __version__,
            wire.VERSION,
            found,
            tuple(kind.document() for kind in wire.KINDS.values()),
            Limits(max_queue=settings.max_queue),
            package_versions(),
        )

    @app.get("/v1/models")
    def list_models() -> ModelList:
        return ModelList(downloads.entries())

    @app.put("/v1/models/{name:path}", status_code=202)
    def put_model(name: ModelName, x_hub_token: Annotated[str, Header(pattern="^[!-~]*$")] = "") -> ModelList:
        downloads.start(name, x_hub_token)
        return ModelList(downloads.entries())

    @app.post("/v1/models/{name:path}/cancel")
    def cancel_model(name: ModelName) -> ModelList:
        downloads.cancel(name)
        return ModelList(downloads.entries())

    @app.put("/v1/blobs/{sha}", openapi_extra=BYTES_BODY, responses={201: {"description": "kept"}})
    async def put_blob(sha: Sha, request: Request) -> Response:
        known = store.has(sha)
        async with _off_the_loop(store.writer(sha)) as writer:
            async for chunk in request.stream():
                writer.write(chunk)
        return Response(status_code=200 if known else 201, headers=_etag(sha))

    @app.head("/v1/blobs/{sha}", operation_id="head_blob", response_class=FileResponse)
    @app.get("/v1/blobs/{sha}", operation_id="get_blob", response_class=FileResponse, responses=BLOB_RESPONSES)
    async def get_blob(sha: Sha, request: Request, if_none_match: Annotated[str | None, Header()] = None) -> Response:
        if not store.has(sha):
            raise WireError("not-found", f"there is no blob {sha}", sha=sha)
        if request.method == "GET":
            await run_in_threadpool(store.check, sha)
        if if_none_match is not None and (if_none_match.strip() == "*" or sha in if_none_match):
            return Response(status_code=304, headers=_etag(sha))
        return FileResponse(store.path(sha), media_type="application/octet-stream", headers=_etag(sha))

    @app.put("/v1/jobs/{job}", status_code=202, openapi_extra=JOB_BODY, responses={200: {"model": JobStatus}})
    async def put_job(job: UUID, request: Request, response: Response) -> JobStatus:
        caller = _caller(request)
        job_request = JobRequest.parse(await _json_body(request))
        for name, sha in job_request.inputs.items():
            store.require(sha, f"the picture {name!r}")
        await run_in_threadpool(_check_limits, service, caller, str(job), job_request)
        status, new = await run_in_threadpool(jobs.submit, str(job), job_request, caller.name, caller.limits.queue)
        response.status_code = 202 if new else 200
        return status

    @app.post("/v1/plan", openapi_extra=PLAN_BODY)
    async def make_plan(request: Request) -> Plan:
        body = await _json_body(request)
        if not isinstance(body, dict):
            raise WireError("invalid-request", f"a job must be a JSON object, got {type(body).__name__}")
        plan = await run_in_threadpool(lambda: service.planner.plan(body, jobs.newest(SIMILAR_AMONG)))
        with suppress(WireError):  # no worker is ready yet
            return with_memory_note(plan, scheduler.device())
        return plan

    @app.get("/v1/jobs/{job}")
    async def get_job(
        request: Request,
        job: UUID,
        wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT, description="seconds to wait for a change")] = 0.0,
        after: Annotated[int, Query(ge=0, description="the last known revision")] = 0,
    ) -> JobStatus:
        return await _change_after(jobs, own_job(job, request), after, wait)

    @app.get("/v1/jobs/{job}/events", response_class=StreamingResponse)
    async def job_events(
        request: Request, job: UUID, last_event_id: Annotated[str, Header()] = "0"
    ) -> StreamingResponse:
        name = own_job(job, request)
        jobs.get(name)
        after = (
            int(last_event_id) if re.fullmatch("[0-9]{1,18}", last_event_id) else 0
        )  # an error would end an EventSource
        return StreamingResponse(_events(jobs, name, after), media_type="text/event-stream")

    @app.post("/v1/jobs/{job}/cancel")
    async def cancel_job(request: Request, job: UUID) -> JobStatus:
        return await run_in_threadpool(jobs.cancel, own_job(job, request))

    @app.delete("/v1/jobs/{job}", status_code=204)
    async def delete(request: Request, job: UUID) -> None:
        await run_in_threadpool(delete_job, store, jobs, own_job(job, request))

    @app.get("/v1/jobs")
    def list_jobs(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=LONGEST_LIST)] = 50,
        before: Annotated[UUID | None, Query(description="a job; only jobs submitted before it")] = None,
        active: Annotated[bool, Query(description="all jobs that wait or run, in the order they will run")] = False,
    ) -> JobList:
        artist = _caller(request).name or None
        if active:
            return JobList(tuple(jobs.active(artist)))
        if before is not None:
            own_job(before, request)
        listed = jobs.newest(limit, None if before is None else str(before), artist)
        return JobList(tuple(listed), listed[-1].id if len(listed) == limit else None)

    @app.get("/v1/storage")
    def storage() -> Usage:
        return usage(store, settings.storage_limit)

    @app.post("/v1/storage/prune")
    def prune() -> Usage:
        clean(store, jobs, settings.storage_limit)
        return usage(store, settings.storage_limit)

    with_token(app)
    return app


def _caller(request: Request) -> Caller:
    """Who sent a request that access control has admitted."""
    caller: Caller = request.scope[CALLER]
    return caller


def _check_limits(service: Service, caller: Caller, job: str, request: JobRequest) -> None:
    """Raises: WireError `over-limit` if a new job is larger than its artist's limits allow."""
    limits = caller.limits
    if limits.pixels is None and limits.disk is None:
        return
    with suppress(WireError):
        service.jobs.get(job)
        return  # submitted again after a lost response
    width, height = (request.parameters.get(side) or 0 for side in ("width", "height"))
    if limits.pixels is not None and width * height > limits.pixels:
        raise WireError(
            "over-limit",
            f"the result has {width}x{height} pixels; {limits.pixels / 1e6:g} megapixels is the limit of {caller.name}",
            limit="pixels",
        )
    if limits.disk is not None:
        own = service.jobs.newest(-1, artist=caller.name)
        used = bytes_of(service.store, own, request.inputs.values())
        if used > limits.disk:
            raise WireError(
                "over-limit",
                f"the pictures of your jobs use {used / 1e9:.2f} GB; {limits.disk / 1e9:g} GB is the limit of "
                f"{caller.name}",
                limit="disk",
            )


def _sends(file: pathlib.Path) -> Callable[[], Awaitable[FileResponse]]:
    """A route that sends a file of the page."""

    async def send() -> FileResponse:
        return FileResponse(file, headers={"Cache-Control": "no-cache"})

    return send


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed PACKAGES, read without importing them."""
    versions = {"python": platform.python_version(), "system": platform.system()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


# ---------------------------------------------------------------------------------------------- errors


class Problems:
    """The outermost ASGI layer: turns any exception, and errors that a library writes as text, into problem+json."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        foreign: tuple[int, Headers] | None = None

        async def send_problems(message: Message) -> None:
            nonlocal started, foreign
            if message["type"] == "http.response.start":
                headers = Headers(raw=message["headers"])
                if message["status"] >= 400 and headers.get("content-type") != PROBLEM:
                    foreign = message["status"], headers
            if foreign is None:
                started = True
                await send(message)
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                status, headers = foreign
                detail = message.get("body", b"").decode(errors="replace") or "the request cannot be answered"
                kept = {name: headers[name] for name in ("content-range",) if name in headers}
                foreign, error = None, _http_error(status, detail)
                await _problem_response(error, kept)(scope, receive, send_problems)

        try:
            await self._app(scope, receive, send_problems)
        except ClientDisconnect:
            return
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            await _problem_response(_wire_error(error))(scope, receive, send)


PROBLEM = "application/problem+json"


def _problem_response(error: WireError, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(error.problem(), error.type.status, headers, media_type=PROBLEM)


def _http_error(status: int, detail: str) -> WireError:
    codes = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 416: "invalid-range"}
    return WireError(codes.get(status, "invalid-request"), f"{detail} (status {status})")


def _wire_error(error: Exception) -> WireError:
    if isinstance(error, WireError):
        return error
    if isinstance(error, HTTPException):
        return _http_error(error.status_code, str(error.detail))
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return WireError("invalid-request", f"{where} is {first.get('input')!r:.200}: {first['msg']}")
    logger.error("Unexpected error in a request", exc_info=error)
    return WireError("internal", f"{type(error).__name__}: {error}")


def _as_problem(request: Request, error: Exception) -> Response:
    """The problem of an error that the routing found; for a method that a route lacks, with the methods it has."""
    headers = {}
    if isinstance(error, HTTPException) and error.status_code == 405:
        matching = [route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE]
        headers["Allow"] = ", ".join(sorted({method for route in matching for method in route.methods or ()}))
    return _problem_response(_wire_error(error), headers)


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Logs an error inside the block, which ends the block only."""
    try:
        yield
    except Exception:
        logger.exception(what)


async def _clean_regularly(service: Service) -> None:
    while True:
        await asyncio.sleep(CLEAN_EVERY)
        with _logged("The data folder cannot be cleaned"):
            await run_in_threadpool(clean, service.store, service.jobs, service.settings.storage_limit)


# ---------------------------------------------------------------------------------------------- waiting


async def _change_after(jobs: Jobs, job: str, after: int, seconds: float) -> JobStatus:
    """The job as soon as its revision is above `after`, at the latest when `seconds` are over or the job has ended."""
    changed = asyncio.Event()
    deadline = time.monotonic() + seconds
    with jobs.listener(_event_setter(changed, job)):
        while True:
            changed.clear()
            status = jobs.get(job)
            left = deadline - time.monotonic()
            if status.revision > after or status.final or left <= 0:
                return status
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(changed.wait(), left)


def _event_setter(changed: asyncio.Event, job: str) -> Callable[[str], None]:
    """A listener, callable from any thread, that sets the event in this thread's loop when the job changes."""
    loop = asyncio.get_running_loop()

    def listen(which: str) -> None:
        if which == job:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(changed.set)

    return listen


async def _events(jobs: Jobs, job: str, after: int) -> AsyncIterator[str]:
    """Server-sent events: the newest status after each change; `id` is the revision. Ends with the job."""
    while True:
        status = await _change_after(jobs, job, after, KEEP_ALIVE)
        if status.revision > after:
            yield f"id: {status.revision}\nevent: job\ndata: {json.dumps(status.document())}\n\n"
        else:
            yield ": keep-alive\n\n"
        if status.final:
            return
        after = status.revision


# ---------------------------------------------------------------------------------------------- bodies


async def _json_body(request: Request) -> Any:
    body = await request.body()
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError("invalid-request", f"the body is not JSON: {error}") from error


@asynccontextmanager
async def _off_the_loop(block: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enters and leaves a blocking context in a thread, so that a slow disk does not block the event loop."""
    value = await run_in_threadpool(block.__enter__)
    try:
        yield value
    except BaseException as error:
        await run_in_threadpool(block.__exit__, type(error), error, error.__traceback__)
        raise
    await run_in_threadpool(block.__exit__, None, None, None)


def _etag(sha: str) -> dict[str, str]:
    return {"ETag": f'"{sha}"', "Cache-Control": "private, immutable"}
