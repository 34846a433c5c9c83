"""Looks for what keeps the service from working, one finding after another, each with its remedy."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from ad_service import __version__
from ad_service.storage.settings import read_runtime
from blender_addon.wire import WireError

LEAST_PYTHON = (3, 10)
LEAST_DISK_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """One thing looked at. A sound one has no remedy."""

    what: str
    value: str
    remedy: str | None = None


def examine(data_dir: Path) -> Iterator[Finding]:
    """Every finding in turn; one that fails does not keep the next from being looked for."""
    checks: tuple[tuple[str, Callable[[Path], Finding]], ...] = (
        ("python", _python),
        ("torch", _torch),
        ("device", _device),
        ("data folder", _data_folder),
        ("disk", _disk),
        ("models", _models),
        ("service", _service),
    )
    for what, check in checks:
        yield _examined(what, check, data_dir)


def _examined(what: str, check: Callable[[Path], Finding], data_dir: Path) -> Finding:
    try:
        return check(data_dir)
    except WireError as error:
        return Finding(what, error.detail, error.type.remedy)
    except Exception as error:  # a broken installation can fail in any way, and this is where it is told
        return Finding(what, f"{type(error).__name__}: {error}", "Run install.py again; it repairs the environment.")


def _python(_: Path) -> Finding:
    value = f"{platform.python_version()} at {sys.executable}, texture-distiller {__version__}"
    if sys.version_info < LEAST_PYTHON:
        return Finding("python", value, f"Install Python {LEAST_PYTHON[0]}.{LEAST_PYTHON[1]} or newer.")
    return Finding("python", value)


def _torch(_: Path) -> Finding:
    import torch

    return Finding("torch", str(torch.__version__))


def _device(data_dir: Path) -> Finding:
    from ad_service.worker.runner import Runner

    ready = Runner(data_dir).ready()
    memory = f", {ready.memory_free / 2**30:.1f} of {ready.memory_total / 2**30:.1f} GiB free"
    value = f"{ready.device} ({ready.device_name}){memory if ready.memory_total else ''}"
    if ready.device == "cpu" and (seen := shutil.which("nvidia-smi")):
        return Finding(
            "device", value, f"{seen} is here, but torch sees no GPU: install the torch build for CUDA with install.py."
        )
    return Finding("device", value)


def _data_folder(data_dir: Path) -> Finding:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir) as file:
            file.write(b"written")
    except OSError as error:
        return Finding(
            "data folder", f"{data_dir} cannot be written: {error.strerror}", "Choose another one with --data-dir."
        )
    return Finding("data folder", str(data_dir))


def _disk(data_dir: Path) -> Finding:
    free = shutil.disk_usage(data_dir if data_dir.exists() else Path.home()).free
    remedy = None if free >= LEAST_DISK_BYTES else "Free some space; pictures and models need several GiB."
    return Finding("disk", f"{free / 2**30:.1f} GiB free", remedy)


def _models(data_dir: Path) -> Finding:
    from ad_service.storage import models

    for stray in models.strays(data_dir):
        return Finding("models", f"{stray.name} cannot be used: {stray.reason}", "Repair it, or take it away.")
    found = models.available(data_dir)
    if "pocket" not in [model.name for model in found]:
        return Finding("models", "the pocket model is not there", "Run install.py again: it comes with the service.")
    for model in found:
        models.check(model)
    return Finding("models", ", ".join(model.name for model in found))


def _service(data_dir: Path) -> Finding:
    runtime = read_runtime(data_dir)
    if runtime is None:
        return Finding("service", "not running")
    url = str(runtime.get("url"))
    try:
        with build_opener(ProxyHandler({})).open(f"{url}/v1/health", timeout=5) as answer:
            version = json.load(answer)["version"]
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        return Finding(
            "service", f"{url} was announced, but does not answer", "Start it again: `ad-service serve`, or in Blender."
        )
    return Finding("service", f"{version} at {url}")
