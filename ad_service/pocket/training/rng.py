"""Random numbers from a torch generator that is passed."""

from __future__ import annotations

import torch


def integer(g: torch.Generator, low: int, high: int) -> int:
    """An integer in [low, high)."""
    return int(torch.randint(low, high, (), generator=g))


def uniform(g: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """A number in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=g))


def chance(g: torch.Generator, p: float) -> bool:
    """True with probability p."""
    return uniform(g) < p
