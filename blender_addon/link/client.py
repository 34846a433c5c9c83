"""HTTP client of the service: find it, start it, upload pictures, submit jobs, download results. No bpy.

Every function raises `wire.WireError` on failure.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import requests.auth

from .. import wire
from ..wire.errors import LocalError
from ..wire.runtime import read_runtime

LAUNCH_FILE = "launch.json"
"""Written by the installer into the data folder: {"executable": "/path/to/ad-service"}."""
CONNECT_SECONDS = 3.0
READ_SECONDS = 15.0
PLAN_SECONDS = 60.0
"""Seconds that a plan may take: the service decodes and measures the pictures."""


@dataclass(frozen=True)
class ServiceAddress:
    """Where to find the service. An empty text means the default data folder, or the value in that folder's files."""

    data_dir: str = ""
    executable: str = ""
    url: str = ""
    token: str = field(default="", repr=False)
    """The token of the service at `url`. It is sent to that address only."""
    online: bool = False
    """Whether Blender allows other hosts than this machine (`bpy.app.online_access`)."""
    plain: bool = False
    """Whether another machine may be used over http, which sends token and pictures unencrypted."""
    restart: bool = False
    """Whether a service that was started from here is started again when it stops under a job."""

    @property
    def folder(self) -> Path:
        return Path(self.data_dir).expanduser() if self.data_dir else default_data_dir()


@dataclass(frozen=True)
class ServiceStatus:
    """A service that responds: its url, whether its worker is ready, its device and its models."""

    url: str
    ready: bool
    device: str = ""
    models: tuple[str, ...] = ()
    version: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of Python, torch and others in the service."""


# ---------------------------------------------------------------------------------------------- find and start


def default_data_dir() -> Path:
    """The data folder that the service uses by default: AD_SERVICE_DATA, or the platform's folder for user data."""
    if named := os.environ.get("AD_SERVICE_DATA"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / wire.SERVICE_NAME


def normal_url(text: str) -> str:
    """An address such as `127.0.0.1:8000/` or `http://localhost:8000//` as `http://host:port`.

    Raises WireError `service-unreachable` if the text has no host.
    """
    text = text.strip()
    invalid = wire.WireError("service-unreachable", f"{text!r} is not an address such as 127.0.0.1:8765")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise invalid from None
    if not host or parts.scheme not in ("http", "https"):
        raise invalid
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port else "") + parts.path.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether a url is on this machine: `localhost`, 127.x.x.x, ::1, or 0.0.0.0."""
    host = urlsplit(url).hostname or ""
    try:
        ip = ipaddress.ip_address(host)
        return ip.is_loopback or ip.is_unspecified  # a service that listens everywhere announces 0.0.0.0
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def find(address: ServiceAddress) -> Client:
    """A client for the service at an address, which may not be running.

    A url of the address comes first; otherwise url and token are those of `runtime.json` in the data folder, if the
    service that wrote it still runs. The token of that file goes to the url in it and nowhere else.

    Raises WireError if neither has a url, LocalError if the url is another machine that may not be used.
    """
    runtime = read_runtime(address.folder) or {}
    here = str(runtime.get("url", ""))
    if not (address.url or here):
        raise wire.WireError("service-unreachable", f"The service is not running (data folder {address.folder})")
    url = normal_url(address.url or here)
    _check_allowed(url, address)
    token = str(runtime.get("token", "")) if here and url == normal_url(here) else ""
    return Client(url, (address.token or token) if address.url else token)


def is_announced(address: ServiceAddress) -> bool:
    """Whether a service of this machine has announced itself in the data folder, and still runs."""
    return not address.url and read_runtime(address.folder) is not None


def _check_allowed(url: str, address: ServiceAddress) -> None:
    """Raises LocalError if a url is another machine and Blender or the artist has not allowed that."""
    if is_loopback(url):
        return
    if not address.online:
        raise LocalError(
            "service-unreachable",
            f"{url} is another machine; allow that in Blender's preferences (System, Allow Online Access)",
        )
    if url.startswith("http://") and not address.plain:
        raise LocalError(
            "service-unreachable",
            f"{url} is another machine without encryption, so others could read the token and the pictures; "
            "use an address with https, or turn on Allow Unencrypted in the add-on's preferences",
        )


def executable_of(address: ServiceAddress) -> str:
    """Path of the `ad-service` program: the chosen one, or the one in `launch.json`; empty if there is neither."""
    return address.executable or str(_read_json(address.folder / LAUNCH_FILE).get("executable", ""))


def start(address: ServiceAddress) -> subprocess.Popen[bytes]:
    """Start `ad-service serve` as a process that outlives Blender. It takes some seconds until it responds."""
    command = [str(Path(executable_of(address)).expanduser()), "serve"]
    if address.data_dir:
        command += ["--data-dir", str(address.folder)]
    try:
        address.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (address.folder / "start.log").open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_clean_environment(),
                start_new_session=True,
                creationflags=_detached_flags(),
            )
    except OSError as error:
        raise wire.WireError("service-unreachable", f"{command[0]} cannot be started: {error.strerror}") from error


def last_log_line(address: ServiceAddress) -> str:
    """The last line that the service printed while it started; empty if there is none."""
    try:
        lines = (address.folder / "start.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def _clean_environment() -> dict[str, str]:
    """This process's environment without PYTHON* variables, which belong to Blender's Python."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}


def _detached_flags() -> int:
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return 0


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


# ---------------------------------------------------------------------------------------------- requests


class Client:
    """The service's HTTP routes as methods. Used by one thread at a time."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = normal_url(url)
        self._token = token
        self._session = requests.Session()
        self._session.auth = _Bearer(token)  # also keeps credentials of .netrc out
        self._session.trust_env = not is_loopback(self.url)  # no proxy for requests to this machine

    def copy(self) -> Client:
        """Another client of the same service, for another thread."""
        return Client(self.url, self._token)

    def close(self) -> None:
        self._session.close()

    def status(self) -> ServiceStatus:
        """The service's version, device and models, and whether its worker is ready."""
        health = self._json("GET", "/v1/health", auth=_Bearer(""))  # another program must not get the token
        if health.get("service") != wire.SERVICE_NAME:
            raise wire.WireError("service-unreachable", f"The program at {self.url} is not {wire.SERVICE_NAME}")
        if health.get("wire") != wire.VERSION:
            raise wire.WireError(
                "version-mismatch",
                f"The service has version {health.get('wire')!r} of the contract, the add-on has {wire.VERSION}",
            )
        capabilities = self._json("GET", "/v1/capabilities")
        models = tuple(_model_name(m) for m in capabilities.get("models", ()))
        version, packages = str(health.get("version", "")), dict(capabilities.get("packages", {}))
        try:
            ready = self._json("GET", "/v1/ready")
        except wire.WireError as error:
            if error.code in ("service-unreachable", "unauthorized"):
                raise
            return ServiceStatus(self.url, False, error.detail, models, version, packages)
        return ServiceStatus(self.url, bool(ready.get("ready", True)), _device_line(ready), models, version, packages)

    def upload(self, data: bytes) -> str:
        """Upload bytes unless the service has them; returns their sha256."""
        sha = hashlib.sha256(data).hexdigest()
        if len(data) > wire.MAX_BLOB_BYTES:
            raise wire.WireError(
                "too-large", f"A picture has {len(data):,} bytes; the limit is {wire.MAX_BLOB_BYTES:,}"
            )
        if self._request("HEAD", f"/v1/blobs/{sha}", allow_missing=True).status_code == 404:
            self._request("PUT", f"/v1/blobs/{sha}", data=data)
        return sha

    def download(self, sha: str) -> bytes:
        """The bytes with a sha256; raises WireError `blob-mismatch` if they have another."""
        data = self._request("GET", f"/v1/blobs/{sha}").content
        if hashlib.sha256(data).hexdigest() != sha:
            raise wire.WireError("blob-mismatch", f"The checksum of the downloaded picture {sha[:12]} does not match")
        return data

    def plan(self, request: wire.JobRequest) -> wire.Plan:
        """What a job with these uploaded pictures would use and make. Sizes need not be multiples; they are rounded."""
        document = self._json("POST", "/v1/plan", json=request.document(), timeout=PLAN_SECONDS)
        try:
            return wire.Plan.parse(document)
        except (KeyError, TypeError, ValueError) as error:
            raise wire.WireError("version-mismatch", f"The service sent a plan of another form: {error}") from error

    def submit(self, job: str, request: wire.JobRequest) -> wire.JobStatus:
        """Submit a job under a uuid. Idempotent: a second call with the same arguments changes nothing."""
        return _parse_status(self._json("PUT", f"/v1/jobs/{job}", json=request.document()))

    def job_status(self, job: str, wait: float = 0.0, after: int = -1) -> wire.JobStatus:
        """The job's status as soon as its revision exceeds `after`, at the latest after `wait` seconds."""
        query = {"wait": f"{wait:g}"} | ({"after": str(after)} if after >= 0 else {})
        return _parse_status(self._json("GET", f"/v1/jobs/{job}", params=query, timeout=wait + READ_SECONDS))

    def cancel(self, job: str) -> wire.JobStatus:
        return _parse_status(self._json("POST", f"/v1/jobs/{job}/cancel"))

    def active_jobs(self) -> tuple[wire.JobStatus, ...]:
        """The jobs of all clients that wait or run, in the order in which they are run."""
        listed = self._json("GET", "/v1/jobs", params={"active": "true"})
        return tuple(_parse_status(job) for job in listed.get("jobs", ()))

    def models(self) -> tuple[wire.ModelEntry, ...]:
        """The models that the service has, downloads or can download."""
        return _parse_models(self._json("GET", "/v1/models"))

    def fetch_model(self, name: str, token: str = "") -> tuple[wire.ModelEntry, ...]:
        """Begin the download of a model; `token` is the artist's own token of the hub, for models that need one."""
        headers = {wire.HUB_TOKEN_HEADER: token} if token else {}
        return _parse_models(self._json("PUT", f"/v1/models/{quote(name)}", headers=headers))

    def cancel_model(self, name: str) -> tuple[wire.ModelEntry, ...]:
        """End the download of a model, or remove the message about a failed one."""
        return _parse_models(self._json("POST", f"/v1/models/{quote(name)}/cancel"))

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        response = self._request(method, path, **options)
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self._unexpected_response(response)
        return document

    def _request(
        self, method: str, path: str, allow_missing: bool = False, timeout: float = READ_SECONDS, **options: Any
    ) -> requests.Response:
        try:
            response = self._session.request(
                method, self.url + path, timeout=(CONNECT_SECONDS, timeout), allow_redirects=False, **options
            )
        except requests.Timeout as error:
            raise wire.WireError(
                "service-unreachable", f"The service at {self.url} did not respond within {timeout:g} seconds"
            ) from error
        except requests.exceptions.SSLError as error:
            raise wire.WireError(
                "service-unreachable", f"The certificate of {self.url} is not trusted by this machine"
            ) from error
        except (requests.RequestException, UnicodeError) as error:
            raise wire.WireError("service-unreachable", f"The service at {self.url} does not respond") from error
        if response.ok or (allow_missing and response.status_code == 404):
            return response
        raise self._error_of(response)

    def _error_of(self, response: requests.Response) -> wire.WireError:
        if not response.headers.get("Content-Type", "").startswith("application/problem+json"):
            if response.request.method == "HEAD":  # a response to HEAD has no body
                by_status = {401: "unauthorized", 403: "forbidden"}
                return wire.WireError(
                    by_status.get(response.status_code, "internal"),
                    f"The service responded with status {response.status_code}",
                )
            return self._unexpected_response(response)
        try:
            problem = response.json()
        except ValueError:
            return self._unexpected_response(response)
        return (
            wire.WireError.from_problem(problem) if isinstance(problem, dict) else self._unexpected_response(response)
        )

    def _unexpected_response(self, response: requests.Response) -> wire.WireError:
        words = re.sub(r"\s+", " ", response.text[:80]).strip()
        return wire.WireError(
            "service-unreachable",
            f"The program at {self.url} is not the service (status {response.status_code}: {words!r})",
        )


class _Bearer(requests.auth.AuthBase):
    """Adds the token to a request; nothing if it is empty."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _parse_models(document: Mapping[str, Any]) -> tuple[wire.ModelEntry, ...]:
    try:
        return tuple(wire.ModelEntry.parse(model) for model in document["models"])
    except (TypeError, KeyError, AttributeError) as error:
        raise wire.WireError("version-mismatch", f"The service sent models of another form: {error}") from error


def _model_name(model: Any) -> str:
    return str(model.get("name", "")) if isinstance(model, Mapping) else str(model)


def _device_line(ready: Mapping[str, Any]) -> str:
    """`NVIDIA H200, 120 of 139 GB free` or `cpu`."""
    name = str(ready.get("device_name") or ready.get("device") or "unknown device")
    total, free = ready.get("memory_total") or 0, ready.get("memory_free") or 0
    return f"{name}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free" if total else name


def _parse_status(document: Mapping[str, Any]) -> wire.JobStatus:
    try:
        status = wire.JobStatus.parse(document)
    except (TypeError, ValueError) as error:
        raise wire.WireError("version-mismatch", f"The service sent a job status of another form: {error}") from error
    if status.state not in wire.STATES:
        raise wire.WireError("version-mismatch", f"The service sent the unknown job state {status.state!r}")
    return status
