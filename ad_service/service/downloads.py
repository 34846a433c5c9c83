"""Downloads of models, each in a child process: `ad-service models fetch NAME --json`.

A child can be ended at any time, loads torch to check the model, and uses the network, all of which this process never
does.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ad_service.storage import models
from ad_service.storage.models import Source
from blender_addon.wire import ModelEntry, WireError

logger = logging.getLogger(__name__)

PURPOSES = {"pocket": "Stones, bricks, weaves and other materials of many parts; needs no GPU"}
"""What installed models are for, where models.KNOWN has no row."""


@dataclass
class _Download:
    """A download and its process, or the problem with which it ended."""

    source: Source
    process: subprocess.Popen[str] | None
    received: int = 0
    total: int = 0
    problem: Mapping[str, Any] | None = None
    canceled: bool = False


class Downloads:
    """The downloads of one data folder. Any number may run at once, one for each model."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._lock = threading.Lock()
        self._downloads: dict[str, _Download] = {}

    def start(self, name: str, token: str = "") -> None:
        """Begins or continues a download, unless it runs or the model is installed.

        Args:
            name: a key of models.KNOWN, or OWNER/NAME on the hub.
            token: the artist's token of the hub, for models that need one.

        Raises: WireError `model-missing` if the name is neither.
        """
        with self._lock:
            source = self._source(name)
            running = self._downloads.get(source.name)
            if (running is not None and running.process) or self._is_installed(source.name):
                return
            command = (sys.executable, "-m", "ad_service", "models", "fetch", source.repo)
            process = subprocess.Popen(
                (*command, "--json", "--data-dir", str(self._data_dir)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=os.environ | _environment(token),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
            download = _Download(source, process, total=source.known.bytes if source.known else 0)
            self._downloads[source.name] = download
        threading.Thread(target=self._follow, args=(download,), name=f"fetch-{source.name}", daemon=True).start()

    def cancel(self, name: str) -> None:
        """Ends a download, or forgets a failed one. What has arrived is kept, and the next start continues it."""
        with self._lock:
            source = self._source(name)
            download = self._downloads.get(source.name)
            if download is None:
                raise WireError("not-found", f"{source.name} is not being downloaded")
            if download.process is not None:
                download.canceled = True
                download.process.terminate()
            else:
                del self._downloads[source.name]

    def stop(self) -> None:
        """Ends all downloads."""
        with self._lock:
            for download in self._downloads.values():
                if download.process is not None:
                    download.canceled = True
                    download.process.terminate()

    def entries(self) -> tuple[ModelEntry, ...]:
        """Every model: installed ones, unusable ones, then those that can be downloaded or are being downloaded."""
        with self._lock:
            downloads = dict(self._downloads)
        found = {m.name: _installed(m) for m in models.available(self._data_dir)}
        for broken in models.unusable(self._data_dir):
            error = models.ModelCorrupt(broken.reason)
            found[broken.name] = ModelEntry(broken.name, broken.name, "unusable", "", problem=error.problem())
        for name, row in models.KNOWN.items():
            entry = ModelEntry(name, row.title, "available", row.license, row.purpose, row.bytes)
            found.setdefault(name, entry)
        for name, download in downloads.items():
            if found.get(name) is None or found[name].state == "available":
                found[name] = _downloading(name, download)
        return tuple(found.values())

    def _source(self, name: str) -> Source:
        """The source of a download by its short name, or of a name as `start` takes it."""
        return self._downloads[name].source if name in self._downloads else models.source_of(name)

    def _is_installed(self, name: str) -> bool:
        return any(model.name == name for model in models.available(self._data_dir))

    def _follow(self, download: _Download) -> None:
        """Reads a child's lines until it ends."""
        process = download.process
        assert process is not None and process.stdout is not None
        ended: Mapping[str, Any] = {}
        for line in process.stdout:
            try:
                report = json.loads(line)
            except ValueError:
                continue  # a library's own print
            if isinstance(report, dict) and "received" in report:
                download.received, download.total = int(report["received"]), int(report["total"])
            elif isinstance(report, dict):
                ended = report
        code = process.wait()
        process.stdout.close()
        with self._lock:
            download.process = None
            if "model" in ended or download.canceled:
                del self._downloads[download.source.name]
            else:
                internal = WireError("internal", f"the download of {download.source.name} ended with exit code {code}")
                download.problem = ended.get("problem") or internal.problem()
                logger.warning("%s", download.problem["detail"])


def _environment(token: str) -> dict[str, str]:
    """The token goes here, since other users can read a process's arguments."""
    return {"HF_HUB_DISABLE_TELEMETRY": "1"} | ({"HF_TOKEN": token} if token else {})


def _installed(model: models.InstalledModel) -> ModelEntry:
    known = models.KNOWN.get(model.name)
    purpose = known.purpose if known else PURPOSES.get(model.name, "")
    return ModelEntry(model.name, model.title, "installed", model.license, purpose, models.size_of(model.path))


def _downloading(name: str, download: _Download) -> ModelEntry:
    known = download.source.known
    title, license, purpose = (known.title, known.license, known.purpose) if known else (download.source.repo, "", "")
    state = "downloading" if download.process is not None else "available"
    return ModelEntry(name, title, state, license, purpose, download.total, download.received, download.problem)
