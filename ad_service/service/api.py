"""The HTTP routes. `Problems` turns errors into problem+json; security.py decides who may call. Never imports torch."""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ad_service import __version__
from ad_service.service.downloads import Downloads
from ad_service.service.executors.local import LocalExecutor
from ad_service.service.openapi import (
    BYTES_BODY,
    JOB_BODY,
    LONGEST_WAIT,
    PROBLEM_RESPONSE,
    Capabilities,
    Health,
    JobList,
    Limits,
    Model,
    ModelList,
)
from ad_service.service.scheduler import Scheduler
from ad_service.service.security import App, Guard, Message, Receive, Scope, Send
from ad_service.storage import models
from ad_service.storage.blobs import BlobStore
from ad_service.storage.jobs import Jobs
from ad_service.storage.settings import Settings
from ad_service.worker import protocol
from blender_addon import wire
from blender_addon.wire import JobRequest, JobStatus, WireError

logger = logging.getLogger(__name__)

T = TypeVar("T")

KEEP_ALIVE = 15.0
"""Seconds after which an event stream without news sends a comment, so that proxies keep it open."""
KEPT_JOBS = 200
"""Finished jobs in the record; older ones are removed when the service starts."""
PRUNE_AFTER = 24 * 3600.0
"""Seconds that an unused blob is kept, since its job may not be submitted yet."""

Sha = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="sha256 of the bytes in lower-case hex")]

ModelName = Annotated[str, Path(max_length=200, description="the name of a known model, or OWNER/NAME on the hub")]
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "pillow")
"""Packages whose versions are listed with the capabilities, for reports of defects."""


@dataclass(frozen=True)
class Service:
    """The parts that the routes use."""

    settings: Settings
    store: BlobStore
    jobs: Jobs
    scheduler: Scheduler
    downloads: Downloads


def open_service(settings: Settings) -> Service:
    """Opens the data folder, queues the jobs that a stopped service left, and removes blobs that no job refers to."""
    store, jobs = BlobStore(settings.blobs), Jobs(settings.jobs_file)
    jobs.recover()
    jobs.forget(KEPT_JOBS)
    store.prune(jobs.blobs(), PRUNE_AFTER)
    executor = LocalExecutor(settings.worker_command, settings.worker_log, settings.slots)
    return Service(settings, store, jobs, Scheduler(jobs, executor), Downloads(settings.data_dir))


def create_app(service: Service, port: int) -> FastAPI:
    """The application for one service that listens on `port`."""
    settings, store, jobs, scheduler = service.settings, service.store, service.jobs, service.scheduler
    downloads = service.downloads

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        scheduler.start()
        yield
        downloads.stop()
        await run_in_threadpool(scheduler.stop)
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
        app.add_exception_handler(kind, _as_wire_error)
    app.add_middleware(Guard, token=settings.token, host=settings.host, port=port)
    app.add_middleware(Problems)  # added last, so it is outermost

    @app.get("/v1/health")
    async def health() -> Health:
        return Health(wire.SERVICE_NAME, __version__, wire.VERSION)

    @app.get("/v1/ready")
    async def ready() -> protocol.Ready:
        return scheduler.device()

    @app.get("/v1/capabilities")
    def capabilities() -> Capabilities:
        found = tuple(Model(m.name, m.title, m.family, m.license) for m in models.available(settings.data_dir))
        return Capabilities(
            __version__,
            wire.VERSION,
            found,
            tuple(kind.document() for kind in wire.KINDS.values()),
            Limits(),
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
    @app.get("/v1/blobs/{sha}", operation_id="get_blob", response_class=FileResponse)
    async def get_blob(sha: Sha, if_none_match: Annotated[str | None, Header()] = None) -> Response:
        if not store.has(sha):
            raise WireError("not-found", f"there is no blob {sha}", sha=sha)
        if if_none_match is not None and (if_none_match.strip() == "*" or sha in if_none_match):
            return Response(status_code=304, headers=_etag(sha))
        return FileResponse(store.path(sha), media_type="application/octet-stream", headers=_etag(sha))

    @app.put("/v1/jobs/{job}", status_code=202, openapi_extra=JOB_BODY, responses={200: {"model": JobStatus}})
    async def put_job(job: UUID, request: Request, response: Response) -> JobStatus:
        job_request = JobRequest.parse(await _json_body(request))
        for name, sha in job_request.inputs.items():
            store.require(sha, f"the picture {name!r}")
        status, new = await run_in_threadpool(jobs.submit, str(job), job_request)
        response.status_code = 202 if new else 200
        return status

    @app.get("/v1/jobs/{job}")
    async def get_job(
        job: UUID,
        wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT, description="seconds to wait for a change")] = 0.0,
        after: Annotated[int, Query(ge=0, description="the last known revision")] = 0,
    ) -> JobStatus:
        return await _change_after(jobs, str(job), after, wait)

    @app.get("/v1/jobs/{job}/events", response_class=StreamingResponse)
    async def job_events(job: UUID, last_event_id: Annotated[int, Header(ge=0)] = 0) -> StreamingResponse:
        jobs.get(str(job))
        return StreamingResponse(_events(jobs, str(job), last_event_id), media_type="text/event-stream")

    @app.post("/v1/jobs/{job}/cancel")
    async def cancel_job(job: UUID) -> JobStatus:
        return await run_in_threadpool(jobs.cancel, str(job))

    @app.get("/v1/jobs")
    def list_jobs(
        limit: Annotated[int, Query(ge=1, le=KEPT_JOBS)] = 50,
        active: Annotated[bool, Query(description="only jobs that wait or run, in the order they will run")] = False,
    ) -> JobList:
        return JobList(tuple(jobs.active() if active else jobs.newest(limit)))

    return app


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed PACKAGES, read without importing them."""
    versions = {"python": platform.python_version(), "system": platform.system()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


# ---------------------------------------------------------------------------------------------- errors


class Problems:
    """The outermost ASGI layer: turns any exception into one problem+json response."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except ClientDisconnect:
            return
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            problem = _wire_error(error)
            await JSONResponse(problem.problem(), problem.type.status, media_type="application/problem+json")(
                scope, receive, send
            )


def _wire_error(error: Exception) -> WireError:
    if isinstance(error, WireError):
        return error
    if isinstance(error, HTTPException):
        code = {404: "not-found", 413: "too-large"}.get(error.status_code, "invalid-request")
        return WireError(code, f"{error.detail} (status {error.status_code})")
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return WireError("invalid-request", f"{where} is {first.get('input')!r:.200}: {first['msg']}")
    logger.error("Unexpected error in a request", exc_info=error)
    return WireError("internal", f"{type(error).__name__}: {error}")


def _as_wire_error(_: Request, error: Exception) -> Response:
    raise _wire_error(error)


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
