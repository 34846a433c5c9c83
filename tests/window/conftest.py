"""Fixtures of tests in a real window. The steps run inside Blender; the tests, and the service, run outside."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.live_service import LiveService, launch
from tests.window import launcher

HERE = Path(__file__).parent
COMMANDS = launcher.commands()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.window)


@pytest.fixture(params=range(max(1, len(COMMANDS))), ids=lambda number: f"blender{number + 1}")
def blender(request: pytest.FixtureRequest, tmp_path: Path) -> launcher.Blender:
    """Each Blender with a window. Tests are skipped if there is none."""
    if not COMMANDS:
        pytest.skip(launcher.MISSING)
    return launcher.Blender(COMMANDS[request.param], tmp_path / "window")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., LiveService]]:
    """Starts services by the name of an engine of the add-on's tests (empty: the real one); they end with the test."""
    with ExitStack() as stack:

        def starter(engine: str = "quick") -> LiveService:
            (tmp_path / "data" / "runtime.json").unlink(missing_ok=True)  # of a service that was killed
            live = launch(tmp_path / "data", "", *(["--engine", f"tests.addon.engines:{engine}"] if engine else []))
            stack.callback(live.stop, signal.SIGKILL)
            return live

        yield starter
