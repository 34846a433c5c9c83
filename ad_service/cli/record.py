"""`ad-service jobs` and `ad-service storage`: the record of jobs and the disk, of a running or a stopped service.

A running service is asked over HTTP, since it alone may change its record.
"""

from __future__ import annotations

import argparse
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from ad_service.cli.arguments import DONE, Commands, Parser, parse_count
from ad_service.storage.blobs import BlobStore
from ad_service.storage.cleanup import Usage, clean, delete_job, usage
from ad_service.storage.jobs import Jobs
from ad_service.storage.models import models_dir
from ad_service.storage.settings import Settings, one_service, stored_limit
from blender_addon.wire import JobStatus, WireError
from blender_addon.wire.runtime import read_runtime

PAGE = 200
SECONDS = 60.0


def add_commands(commands: Commands, common: Parser) -> None:
    parser = commands.add_parser("jobs", help="list, show, cancel and delete the service's jobs")
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=Parser)
    listing = verbs.add_parser("list", parents=[common], help="list jobs, the newest first")
    listing.add_argument("--limit", type=parse_count, default=20, metavar="N", help="(default: %(default)s)")
    listing.set_defaults(command=list_jobs)
    for verb, function, text in (
        ("show", show, "print a job's request, state and result as JSON"),
        ("cancel", cancel, "cancel a job that waits or runs"),
        ("delete", delete, "delete a job that has ended, and its pictures"),
    ):
        one = verbs.add_parser(verb, parents=[common], help=text)
        one.add_argument("job", metavar="ID")
        one.set_defaults(command=function)
    storage = commands.add_parser("storage", parents=[common], help="show what the data folder uses of the disk")
    storage.add_argument("--prune", action="store_true", help="delete now what the service would delete by itself")
    storage.set_defaults(command=show_storage)


def list_jobs(options: argparse.Namespace) -> int:
    with _record(options.data_dir) as record:
        for status in _newest(record, options.limit):
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.created))
            print(f"{status.id}  {when}  {status.state:<9}  {status.request['kind']:<10}  {_outcome(status)}")
    return DONE


def _newest(record: Record, limit: int) -> Iterator[JobStatus]:
    before = None
    while limit > 0 and (page := record.newest(min(limit, PAGE), before)):
        yield from page
        before, limit = page[-1].id, limit - len(page)


def _outcome(status: JobStatus) -> str:
    """How far a job is, or how it ended."""
    if status.result is not None:
        return f"{status.result.seconds:.1f} s"
    if status.problem is not None:
        return ascii(str(status.problem.get("detail", "")))[1:-1][:100]
    return f"{status.progress:.0%}" if status.state == "running" else ""


def show(options: argparse.Namespace) -> int:
    with _record(options.data_dir) as record:
        print(json.dumps(record.get(options.job).document(), indent=1))
    return DONE


def cancel(options: argparse.Namespace) -> int:
    with _record(options.data_dir) as record:
        print(f"{options.job}: {record.cancel(options.job).state}")
    return DONE


def delete(options: argparse.Namespace) -> int:
    with _record(options.data_dir) as record:
        record.delete(options.job)
    print(f"{options.job}: deleted")
    return DONE


def show_storage(options: argparse.Namespace) -> int:
    data_dir: Path = options.data_dir
    with _record(data_dir) as record:
        used = record.prune() if options.prune else record.usage()
    print(f"pictures  {_gigabytes(used.bytes)} of at most {_gigabytes(used.limit)}, {used.pictures} files")
    for name, folder in (("models", models_dir(data_dir)), ("decoders", data_dir / "decoders")):
        print(f"{name:<8}  {_gigabytes(_size(folder))}")
    print(f"free      {_gigabytes(used.free)}")
    return DONE


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


# ---------------------------------------------------------------------------------------------- running or stopped


class Record(Protocol):
    """The jobs and the pictures of a data folder. Methods raise WireError."""

    def newest(self, limit: int, before: str | None) -> list[JobStatus]: ...

    def get(self, job: str) -> JobStatus: ...

    def cancel(self, job: str) -> JobStatus: ...

    def delete(self, job: str) -> None: ...

    def usage(self) -> Usage: ...

    def prune(self) -> Usage: ...


@contextmanager
def _record(data_dir: Path) -> Iterator[Record]:
    """The record of the service that runs on a data folder, or of the folder itself."""
    runtime = read_runtime(data_dir)
    if runtime is not None:
        yield RunningService(str(runtime.get("url")), str(runtime.get("token")), runtime.get("certificate"))
        return
    if not data_dir.is_dir():
        raise WireError("invalid-parameter", f"there is no data folder {data_dir}")
    try:
        settings = Settings(data_dir)
        with one_service(settings):
            jobs = Jobs(settings.jobs_file)
            try:
                yield StoppedService(BlobStore(settings.blobs), jobs, stored_limit(settings))
            finally:
                jobs.close()
    except RuntimeError as error:
        raise OSError(str(error)) from error


class StoppedService:
    """A data folder that no service uses. `limit` is the budget in bytes for pictures, or None for the default."""

    def __init__(self, store: BlobStore, jobs: Jobs, limit: int | None) -> None:
        self._store, self._jobs, self._limit = store, jobs, limit
        self.newest, self.get, self.cancel = jobs.newest, jobs.get, jobs.cancel

    def delete(self, job: str) -> None:
        delete_job(self._store, self._jobs, job)

    def usage(self) -> Usage:
        return usage(self._store, self._limit)

    def prune(self) -> Usage:
        clean(self._store, self._jobs, self._limit)
        return self.usage()


class RunningService:
    """A service on this machine; its certificate, if it has one, is the one that runtime.json names."""

    def __init__(self, url: str, token: str, certificate: str | None) -> None:
        self._url, self._token = url, token
        context = ssl.create_default_context(cafile=certificate)
        context.check_hostname = False  # it is the certificate of the host's public name
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        self._opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))

    def newest(self, limit: int, before: str | None) -> list[JobStatus]:
        query = f"?limit={limit}" + (f"&before={before}" if before else "")
        return [JobStatus.parse(job) for job in self._request("GET", f"/v1/jobs{query}")["jobs"]]

    def get(self, job: str) -> JobStatus:
        return JobStatus.parse(self._request("GET", f"/v1/jobs/{quote(job, safe='')}"))

    def cancel(self, job: str) -> JobStatus:
        return JobStatus.parse(self._request("POST", f"/v1/jobs/{quote(job, safe='')}/cancel"))

    def delete(self, job: str) -> None:
        self._request("DELETE", f"/v1/jobs/{quote(job, safe='')}")

    def usage(self) -> Usage:
        return Usage(**self._request("GET", "/v1/storage"))

    def prune(self) -> Usage:
        return Usage(**self._request("POST", "/v1/storage/prune"))

    def _request(self, method: str, path: str) -> Mapping[str, Any]:
        request = Request(self._url + path, method=method, headers={"Authorization": f"Bearer {self._token}"})
        try:
            with self._opener.open(request, timeout=SECONDS) as response:
                return dict(json.loads(response.read() or b"{}"))
        except HTTPError as error:
            raise WireError.from_problem(json.loads(error.read() or b"{}")) from error
        except (TimeoutError, URLError) as error:  # a timeout of the response is no URLError
            raise WireError("service-unreachable", f"the service at {self._url} does not respond") from error
