"""HTTP to the service: find it, start it, send pictures, submit, wait, cancel, fetch results. No bpy.

Everything that goes wrong here is a `wire.WireError`: one sentence that says what, and what to do about it.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from .. import wire
from ..wire.errors import LocalError

RUNTIME_FILE = "runtime.json"
"""Written by a running service into its data folder: url, token, pid."""
LAUNCH_FILE = "launch.json"
"""Written by the installer into the data folder: {"executable": "/path/to/ad-service"}."""
CONNECT_SECONDS = 3.0
READ_SECONDS = 15.0


@dataclass(frozen=True)
class Place:
    """Where the service is looked for. Empty texts mean: the usual data folder, what its files say."""

    data_dir: str = ""
    executable: str = ""
    url: str = ""
    token: str = ""
    online: bool = False
    """Whether Blender allows other hosts than this machine (`bpy.app.online_access`)."""

    @property
    def folder(self) -> Path:
        return Path(self.data_dir).expanduser() if self.data_dir else default_data_dir()


@dataclass(frozen=True)
class Status:
    """A service that answers: where it is, what it runs on, and what it can do."""

    url: str
    ready: bool
    device: str = ""
    models: tuple[str, ...] = ()
    version: str = ""


# ---------------------------------------------------------------------------------------------- finding it


def default_data_dir() -> Path:
    """The service's data folder when none was chosen: the platform's folder for a user's data."""
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
    """`127.0.0.1:8000/`, `http://localhost:8000//` and the like as `http://host:port`.

    Raises WireError `service-unreachable` when there is no host in it.
    """
    text = text.strip()
    stranger = wire.WireError("service-unreachable", f"{text!r} is no address of a service, such as 127.0.0.1:8765")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise stranger from None
    if not host or parts.scheme not in ("http", "https"):
        raise stranger
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port else "") + parts.path.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether a url leads to this machine: `localhost`, 127.x.x.x or ::1."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def find(place: Place) -> Client:
    """A client for the service at a place; raises WireError when there is no sign of one.

    A url given by hand goes first; otherwise `runtime.json` in the data folder names url and token.
    """
    runtime = _read_json(place.folder / RUNTIME_FILE)
    url = place.url or str(runtime.get("url", ""))
    if not url:
        raise wire.WireError("service-unreachable", f"No service has been started with the data folder {place.folder}")
    url = normal_url(url)
    if not is_loopback(url) and not place.online:
        raise LocalError(
            "service-unreachable",
            f"{url} is another machine; allow that in Blender's preferences (System, Allow Online Access)",
        )
    return Client(url, place.token or str(runtime.get("token", "")))


def executable_of(place: Place) -> str:
    """The `ad-service` program: as chosen, or as the installer left it; empty when neither is there."""
    return place.executable or str(_read_json(place.folder / LAUNCH_FILE).get("executable", ""))


def start(place: Place) -> subprocess.Popen[bytes]:
    """Start `ad-service serve` as a process of its own, which outlives Blender. It needs some seconds to answer."""
    command = [str(Path(executable_of(place)).expanduser()), "serve"]
    if place.data_dir:
        command += ["--data-dir", str(place.folder)]
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        with (place.folder / "start.log").open("wb") as log:
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


def last_words(place: Place) -> str:
    """The last line that a service printed which ended while starting."""
    try:
        lines = (place.folder / "start.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def _clean_environment() -> dict[str, str]:
    """This process's environment without what Blender's own Python set for itself."""
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


# ---------------------------------------------------------------------------------------------- talking to it


class Client:
    """The service's routes as methods. Used by one thread at a time."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = normal_url(url)
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        # A proxy, or credentials from .netrc, must not come between this machine and itself.
        self._session.trust_env = not is_loopback(self.url)

    def close(self) -> None:
        self._session.close()

    def status(self) -> Status:
        """Who answers, whether its worker is ready, and with which device and models."""
        health = self._json("GET", "/v1/health")
        if health.get("service") != wire.SERVICE_NAME:
            raise wire.WireError("service-unreachable", f"What answers at {self.url} is not {wire.SERVICE_NAME}")
        if health.get("wire") != wire.VERSION:
            raise wire.WireError(
                "version-mismatch",
                f"The service speaks version {health.get('wire')!r} of the contract, the add-on {wire.VERSION}",
            )
        capabilities = self._json("GET", "/v1/capabilities")
        models = tuple(_model_name(m) for m in capabilities.get("models", ()))
        version = str(health.get("version", ""))
        try:
            ready = self._json("GET", "/v1/ready")
        except wire.WireError as error:
            if error.code in ("service-unreachable", "unauthorized"):
                raise
            return Status(self.url, False, error.detail, models, version)
        return Status(self.url, bool(ready.get("ready", True)), _device_line(ready), models, version)

    def send_blob(self, data: bytes) -> str:
        """Send bytes unless the service has them; returns their sha256."""
        sha = hashlib.sha256(data).hexdigest()
        if len(data) > wire.MAX_BLOB_BYTES:
            raise wire.WireError(
                "too-large", f"A picture has {len(data):,} bytes; {wire.MAX_BLOB_BYTES:,} are the limit"
            )
        if self._request("HEAD", f"/v1/blobs/{sha}", missing_is_fine=True).status_code == 404:
            self._request("PUT", f"/v1/blobs/{sha}", data=data)
        return sha

    def fetch_blob(self, sha: str) -> bytes:
        """The bytes of a blob, checked against their sha256."""
        data = self._request("GET", f"/v1/blobs/{sha}").content
        if hashlib.sha256(data).hexdigest() != sha:
            raise wire.WireError("blob-mismatch", f"The picture {sha[:12]} came back with other contents")
        return data

    def submit(self, job: str, request: wire.JobRequest) -> wire.JobStatus:
        """Ask for a job under a name (a uuid) of our own; asking twice is the same as once."""
        return _job_status(self._json("PUT", f"/v1/jobs/{job}", json=request.document()))

    def look(self, job: str, wait: float = 0.0, after: int = -1) -> wire.JobStatus:
        """The job as soon as its revision is above `after`, at latest in `wait` seconds."""
        query = {"wait": f"{wait:g}"} | ({"after": str(after)} if after >= 0 else {})
        return _job_status(self._json("GET", f"/v1/jobs/{job}", params=query, patience=wait + READ_SECONDS))

    def cancel(self, job: str) -> wire.JobStatus:
        return _job_status(self._json("POST", f"/v1/jobs/{job}/cancel"))

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        response = self._request(method, path, **options)
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self._stranger(response)
        return document

    def _request(
        self, method: str, path: str, missing_is_fine: bool = False, patience: float = READ_SECONDS, **options: Any
    ) -> requests.Response:
        try:
            response = self._session.request(
                method, self.url + path, timeout=(CONNECT_SECONDS, patience), allow_redirects=False, **options
            )
        except requests.Timeout as error:
            raise wire.WireError(
                "service-unreachable", f"The service at {self.url} gave no answer in {patience:g} seconds"
            ) from error
        except (requests.RequestException, UnicodeError) as error:
            raise wire.WireError("service-unreachable", f"No service answers at {self.url}") from error
        if response.ok or (missing_is_fine and response.status_code == 404):
            return response
        raise self._error_of(response)

    def _error_of(self, response: requests.Response) -> wire.WireError:
        if not response.headers.get("Content-Type", "").startswith("application/problem+json"):
            if response.request.method == "HEAD":  # a HEAD has no body to say more
                by_status = {401: "unauthorized", 403: "forbidden"}
                return wire.WireError(
                    by_status.get(response.status_code, "internal"), f"The service refused ({response.status_code})"
                )
            return self._stranger(response)
        try:
            problem = response.json()
        except ValueError:
            return self._stranger(response)
        return wire.WireError.from_problem(problem) if isinstance(problem, dict) else self._stranger(response)

    def _stranger(self, response: requests.Response) -> wire.WireError:
        words = re.sub(r"\s+", " ", response.text[:80]).strip()
        return wire.WireError(
            "service-unreachable",
            f"What answers at {self.url} does not speak as the service does (status {response.status_code}: {words!r})",
        )


def _model_name(model: Any) -> str:
    return str(model.get("name", "")) if isinstance(model, Mapping) else str(model)


def _device_line(ready: Mapping[str, Any]) -> str:
    """`NVIDIA H200, 120 of 139 GB free` or `cpu`."""
    name = str(ready.get("device_name") or ready.get("device") or "unknown device")
    total, free = ready.get("memory_total") or 0, ready.get("memory_free") or 0
    return f"{name}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free" if total else name


def _job_status(document: Mapping[str, Any]) -> wire.JobStatus:
    try:
        status = wire.JobStatus.parse(document)
    except (TypeError, ValueError) as error:
        raise wire.WireError("version-mismatch", f"The service describes a job in an unknown way: {error}") from error
    if status.state not in wire.STATES:
        raise wire.WireError("version-mismatch", f"The service says that a job is {status.state!r}, which is no state")
    return status
