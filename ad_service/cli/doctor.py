"""`ad-service doctor`: checks the installation, and prints a remedy for each problem."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from ad_service import __version__
from ad_service.cli.arguments import DONE, FAILED, Commands, Parser
from blender_addon.wire import WireError
from blender_addon.wire.runtime import RUNTIME_FILE, read_runtime

MIN_PYTHON = (3, 10)
MIN_DISK_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """The result of one check; `remedy` is None if there is no problem."""

    what: str
    value: str
    remedy: str | None = None


def add_commands(commands: Commands, common: Parser) -> None:
    parser = commands.add_parser("doctor", parents=[common], help="check the installation and suggest remedies")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Prints every finding; the exit code is 1 if one has a remedy."""
    problems = 0
    for finding in examine(options.data_dir):
        print(f"{'ok     ' if finding.remedy is None else 'problem'} {finding.what}: {finding.value}")
        if finding.remedy is not None:
            problems += 1
            print(f"        {finding.remedy}")
    return FAILED if problems else DONE


def examine(data_dir: Path) -> Iterator[Finding]:
    """The findings of all checks, one after another; a check that raises is a finding too."""
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
        yield _run_check(what, check, data_dir)


def _run_check(what: str, check: Callable[[Path], Finding], data_dir: Path) -> Finding:
    try:
        return check(data_dir)
    except WireError as error:
        return Finding(what, error.detail, error.type.remedy)
    except Exception as error:  # a broken installation can raise anything
        return Finding(what, f"{type(error).__name__}: {error}", "Run install.py again; it repairs the environment.")


def _python(_: Path) -> Finding:
    value = f"{platform.python_version()} at {sys.executable}, texture-distiller {__version__}"
    if sys.version_info < MIN_PYTHON:
        return Finding("python", value, f"Install Python {MIN_PYTHON[0]}.{MIN_PYTHON[1]} or newer.")
    return Finding("python", value)


def _torch(_: Path) -> Finding:
    import torch

    return Finding("torch", str(torch.__version__))


def _device(data_dir: Path) -> Finding:
    from ad_service.worker.runner import Runner

    ready = Runner(data_dir).ready()
    memory = f", {ready.memory_free / 2**30:.1f} of {ready.memory_total / 2**30:.1f} GiB free"
    value = f"{ready.device} ({ready.device_name}){memory if ready.memory_total else ''}"
    if ready.device == "cpu" and (smi := shutil.which("nvidia-smi")):
        return Finding(
            "device", value, f"{smi} exists, but torch finds no GPU: install the torch build for CUDA with install.py."
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
    remedy = None if free >= MIN_DISK_BYTES else "Free some space on the disk; pictures and models need several GiB."
    return Finding("disk", f"{free / 2**30:.1f} GiB free", remedy)


def _models(data_dir: Path) -> Finding:
    from ad_service.storage import models

    for entry in models.unusable(data_dir):
        return Finding("models", f"{entry.name} cannot be used: {entry.reason}", "Replace it or delete it.")
    found = models.available(data_dir)
    if "pocket" not in [model.name for model in found]:
        return Finding(
            "models", "the pocket model is missing", "Run install.py again; the model is part of the service."
        )
    for model in found:
        models.check(model)
    return Finding("models", ", ".join(model.name for model in found))


def _service(data_dir: Path) -> Finding:
    runtime = read_runtime(data_dir)
    if runtime is None:
        stale = (data_dir / RUNTIME_FILE).exists()
        return Finding("service", "not running" + (f"; it ended without removing {RUNTIME_FILE}" if stale else ""))
    url = str(runtime.get("url"))
    try:
        unverified = ssl._create_unverified_context()  # nothing secret is sent, and the name is that of another host
        opener = build_opener(ProxyHandler({}), HTTPSHandler(context=unverified))
        with opener.open(f"{url}/v1/health", timeout=5) as answer:
            version = json.load(answer)["version"]
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        return Finding(
            "service",
            f"runtime.json names {url}, which does not respond",
            "Start it again: `ad-service serve`, or in Blender.",
        )
    return Finding("service", f"{version} at {url}")
