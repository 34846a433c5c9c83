"""Driving a generator: every step is seen, the result comes back, and dropping the outer one closes the inner one."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from ad_service.core.steps import checkpoint, run, translate


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


def long_step(reached: list[int]) -> Generator[str, None, None]:
    """One step with three places where it can be stopped."""
    for i in range(3):
        reached.append(i)
        checkpoint()
    yield "done"


def test_work_is_stopped_inside_of_a_step() -> None:
    reached: list[int] = []

    def stop() -> None:
        if len(reached) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(translate(long_step(reached), str.upper), check=stop)
    assert reached == [0, 1]


def test_a_check_ends_with_its_run_and_holds_for_the_runs_inside() -> None:
    calls: list[str] = []

    def outer() -> Generator[str, None, None]:
        run(long_step([]))
        yield "done"

    run(outer(), check=lambda: calls.append("checked"))
    assert len(calls) == 3
    checkpoint()
    run(long_step([]))
    assert len(calls) == 3
