"""Long work is a generator: it yields steps and returns a result, and can be dropped between any two steps."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

Y = TypeVar("Y")
Z = TypeVar("Z")
R = TypeVar("R")


def run(work: Generator[Y, None, R], on_step: Callable[[Y], object] | None = None) -> R:
    """Run `work` to its end and return its result; `on_step` is called with each step, and may raise to stop."""
    with closing(work):
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
