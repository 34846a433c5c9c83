"""Fixtures: live services (see support/live_service.py), and one thread for small operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.live_service import LiveService, launch, stopped_at_exit


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """One service for all tests that do not stop it; its engine returns the swatch."""
    with stopped_at_exit(launch(tmp_path_factory.mktemp("service"), "echoes")) as live:
        yield live


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., LiveService]]:
    """A function that starts a service with a named engine; the services end with the test."""
    with ExitStack() as stack:

        def starter(engine: str, *arguments: str, data_dir: Path | None = None) -> LiveService:
            return stack.enter_context(stopped_at_exit(launch(data_dir or tmp_path / "data", engine, *arguments)))

        yield starter


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads of small operations wait for each other where other processes keep the cores busy."""
    import torch  # the tests in Blender have none

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
