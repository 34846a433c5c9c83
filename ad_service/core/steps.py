"""Long work is a generator: it yields steps and returns a result, and can be dropped between any two steps.

A step can take many seconds (a step of the sampler has hundreds of windows). Inside of it the work calls `checkpoint`
where it can be stopped: between layers, tiles and bands.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import TypeVar

Y = TypeVar("Y")
Z = TypeVar("Z")
R = TypeVar("R")


_check: ContextVar[Callable[[], object]] = ContextVar("check", default=lambda: None)


def checkpoint() -> None:
    """A place where the work in progress can be stopped: raises what the `check` of its `run` raises."""
    _check.get()()


@contextmanager
def _checked(check: Callable[[], object] | None) -> Iterator[None]:
    token = _check.set(check or _check.get())
    try:
        yield
    finally:
        _check.reset(token)


def run(
    work: Generator[Y, None, R],
    on_step: Callable[[Y], object] | None = None,
    check: Callable[[], object] | None = None,
) -> R:
    """Run `work` to its end and return its result.

    Args:
        on_step: called with each step; may raise to stop the work.
        check: called at each `checkpoint` of the work; may raise to stop it inside of a step.
    """
    with closing(work), _checked(check):
        while True:
            try:
                step = next(work)
            except StopIteration as end:
                result: R = end.value
                return result
            if on_step is not None:
                on_step(step)


def translate(work: Generator[Y, None, R], convert: Callable[[Y], Z]) -> Generator[Z, None, R]:
    """The same work with each step converted; dropping it drops the work inside."""
    with closing(work):
        while True:
            try:
                step = next(work)
            except StopIteration as end:
                result: R = end.value
                return result
            yield convert(step)
