"""Fixtures for tests in bpy: the enabled add-on, a new file for each test, services with the engines of engines.py.

Run with a Python that has bpy. The service runs in another Python: AD_SERVICE_PYTHON, or the project's .venv.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICE_PYTHON = os.environ.get("AD_SERVICE_PYTHON") or str(ROOT / ".venv" / "bin" / "python")
PACKAGE = "blender_addon"

if importlib.util.find_spec("bpy") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    os.environ["BLENDER_USER_RESOURCES"] = tempfile.mkdtemp(prefix="distill-blender-")
    sys.path.insert(0, str(ROOT))


@dataclass
class LiveService:
    """A running `ad-service serve` with an engine of the tests."""

    data_dir: Path
    process: subprocess.Popen[bytes]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(timeout=20)


def command_of(data_dir: Path, engine: str) -> list[str]:
    """The command of a service with an engine of engines.py, or with the real engine if `engine` is empty."""
    command = [SERVICE_PYTHON, "-m", "ad_service", "serve", "--data-dir", str(data_dir), "--port", "0"]
    return [*command, "--engine", f"tests.addon.engines:{engine}"] if engine else command


def launch(data_dir: Path, engine: str) -> LiveService:
    """Starts a service and waits for its runtime.json."""
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / "runtime.json").unlink(missing_ok=True)
    with (data_dir / "serve.out").open("ab") as out:
        process = subprocess.Popen(command_of(data_dir, engine), cwd=ROOT, stdout=out, stderr=out, env=environment())
    wait_until(lambda: (data_dir / "runtime.json").exists() or process.poll() is not None, 60)
    assert process.poll() is None, (data_dir / "serve.out").read_text()
    return LiveService(data_dir, process)


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"PYTHONPATH": str(ROOT)}


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Waits until a condition is true; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition was not true within {seconds:g} s"
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., LiveService]]:
    """Starts services by the name of an engine, and kills them after the test."""
    with ExitStack() as stack:

        def starter(engine: str = "quick", data_dir: Path | None = None) -> LiveService:
            live = launch(data_dir or tmp_path / "data", engine)
            stack.callback(live.stop, signal.SIGKILL)
            use_folder(live.data_dir)
            return live

        yield starter


@pytest.fixture(scope="module")
def quick_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    live = launch(tmp_path_factory.mktemp("service"), "quick")
    yield live
    live.stop(signal.SIGKILL)


@pytest.fixture
def service(quick_service: LiveService, blender: Any) -> LiveService:
    """A service that tests share, and do not stop."""
    use_folder(quick_service.data_dir)
    return quick_service


def preferences() -> Any:
    import bpy

    return bpy.context.preferences.addons[PACKAGE].preferences


def use_folder(data_dir: Path) -> None:
    preferences().data_dir = str(data_dir)


@pytest.fixture
def blender(tmp_path: Path) -> Iterator[Any]:
    """bpy with the enabled add-on, the startup file, and the address of a service that does not exist."""
    import addon_utils
    import bpy

    bpy.ops.wm.read_homefile(use_factory_startup=True)
    addon_utils.enable(PACKAGE, default_set=True)
    chosen = preferences()
    chosen.executable, chosen.url, chosen.token, chosen.start_automatically = "", "", "", False
    use_folder(tmp_path / "no service")
    yield bpy
    addon_utils.disable(PACKAGE, default_set=True)
    assert not [t for t in threading.enumerate() if t.name == "texture-distiller"], "the thread was not joined"


def pump_until(condition: Callable[[], Any]) -> None:
    """Handles events until a condition is true; fails if that takes too long."""
    from blender_addon.scene import session

    wait_until(lambda: (session.pump(), condition())[1])


def error_of(operator: Any, **settings: Any) -> str:
    """The error that an operator reports; fails if it reports none."""
    with pytest.raises(RuntimeError) as caught:
        operator(**settings)
    return str(caught.value)
