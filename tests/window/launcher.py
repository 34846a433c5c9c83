"""Starts Blender with a window, runs steps in it, and reads what they reported.

The command of such a Blender is in the environment variable BLENDER_WINDOW (several of them, for several versions, are
separated by semicolons). Without it, the `blender` on the PATH is used, on a virtual screen if `xvfb-run` is installed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).with_name("inside.py")
OPTIONS = ("--factory-startup", "--enable-event-simulate", "--python-exit-code", "1")
SCREEN = "-screen 0 1600x1000x24"
LIMIT_SECONDS = 300.0
"""How long the steps of a test may take; Blender then prints where it is, and ends."""
ERRORS = re.compile(r"Traceback \(most recent|rna_uiItem|property not found|unknown operator|crash\.txt")
"""What Blender prints when a panel's draw function raises or names something that does not exist."""


def commands() -> list[list[str]]:
    """The commands of Blender with a window, one for each version to be tested; empty if there is none."""
    chosen = [shlex.split(command) for command in os.environ.get("BLENDER_WINDOW", "").split(";") if command.strip()]
    blender = shutil.which("blender")
    if chosen or blender is None:
        return chosen
    if sys.platform == "linux" and shutil.which("xvfb-run"):
        return [["xvfb-run", "--auto-servernum", "--server-args", SCREEN, blender]]
    has_screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return [[blender]] if has_screen else []


MISSING = "Blender with a window is missing: set BLENDER_WINDOW to its command, or install blender and xvfb-run"


class StepsFailed(AssertionError):
    """The steps failed, or Blender printed an error or did not end; the text has Blender's own output."""


@dataclass
class Run:
    """A Blender that runs steps."""

    process: subprocess.Popen[bytes]
    folder: Path
    limit: float

    def reports(self) -> list[tuple[str, Any]]:
        """What the steps have reported so far: pairs of a name and a value."""
        file = self.folder / "reports.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [(name, value) for name, value in map(json.loads, lines)]

    def wait_for(self, name: str, seconds: float = LIMIT_SECONDS) -> Any:
        """Waits until the steps report that name; returns its value."""
        end = time.monotonic() + seconds
        while True:
            values = dict(self.reports())
            if name in values:
                return values[name]
            if self.process.poll() is not None or time.monotonic() > end:
                raise StepsFailed(f"The steps did not report {name!r}.\n{self.output()}")
            time.sleep(0.05)

    def finish(self) -> dict[str, Any]:
        """Waits until Blender has ended; returns the reported values. Raises StepsFailed."""
        try:
            status = self.process.wait(self.limit + 60)
        except subprocess.TimeoutExpired:
            self.stop()
            raise StepsFailed(f"Blender did not end.\n{self.output()}") from None
        values = dict(self.reports())
        if "failed" in values:
            raise StepsFailed(f"{values['failed']}\n{self.output()}")
        if status != 0 or "passed" not in values:
            raise StepsFailed(f"Blender ended with status {status}.\n{self.output()}")
        if ERRORS.search(self.output()):
            raise StepsFailed(f"Blender printed an error.\n{self.output()}")
        return values

    def output(self) -> str:
        """The last 60 lines that Blender printed."""
        lines = (self.folder / "blender.out").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(["Blender printed:", *lines[-60:]])

    def stop(self) -> None:
        """Ends the command and all that it started, if it still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(20)


@dataclass(frozen=True)
class Blender:
    """Blender with a window, the folder for its files, and how many seconds its steps may take."""

    command: list[str]
    folder: Path
    limit: float = LIMIT_SECONDS

    def start(self, steps: str, data_dir: Path | None = None, **arguments: Any) -> Run:
        """Starts steps, a function of the folder `steps` such as `painting.stroke_on_the_model`.

        Args:
            data_dir: the data folder of the service; by default one without a service.
            arguments: the function's arguments.
        """
        folder = self.folder / f"{steps}-{len(list(self.folder.iterdir())) if self.folder.exists() else 0}"
        folder.mkdir(parents=True)
        request = {
            "steps": steps,
            "arguments": {name: str(v) if isinstance(v, Path) else v for name, v in arguments.items()},
            "folder": str(folder),
            "data_dir": str(data_dir or self.folder / "no service"),
            "seconds": self.limit,
        }
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        command = [*self.command, *OPTIONS, "--python", str(INSIDE), "--", str(folder / "request.json")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"BLENDER_USER_RESOURCES": str(folder / "resources"), "PYTHONDONTWRITEBYTECODE": "1"}
        with (folder / "blender.out").open("wb") as out:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        return Run(process, folder, self.limit)

    def run(self, steps: str, data_dir: Path | None = None, **arguments: Any) -> dict[str, Any]:
        """Runs steps to their end; returns the reported values. Raises StepsFailed."""
        run = self.start(steps, data_dir, **arguments)
        try:
            return run.finish()
        finally:
            run.stop()
