"""Driving a generator: every step is seen, the result comes back, and dropping the outer one closes the inner one."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from ad_service.core.steps import run, translate


class Work:
    """Yields 0, 1, 2 and returns "done"; notes whether it was closed."""

    closed = False

    def __call__(self) -> Generator[int, None, str]:
        try:
            yield from range(3)
            return "done"
        finally:
            self.closed = True


def test_run_calls_back_for_every_step_and_returns_the_result() -> None:
    seen: list[int] = []
    assert run(Work()(), seen.append) == "done"
    assert seen == [0, 1, 2]
    assert run(Work()()) == "done"


def test_an_exception_in_the_callback_closes_the_work() -> None:
    work = Work()

    def stop(step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(work(), stop)
    assert work.closed


def test_translate_converts_steps_and_keeps_the_result() -> None:
    seen: list[str] = []
    assert run(translate(Work()(), str), seen.append) == "done"
    assert seen == ["0", "1", "2"]


def test_dropping_translated_work_closes_the_inner_work() -> None:
    work = Work()
    outer = translate(work(), str)
    next(outer)
    outer.close()
    assert work.closed
