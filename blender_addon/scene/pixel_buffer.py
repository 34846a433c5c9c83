"""Memory for the pixels of one image, which Blender takes and gives as 32-bit floats. For the main thread only.

It is kept between uses: to get the 268 MB for 4096 x 4096 pixels from the system takes up to five times as long as to
fill them.
"""

from __future__ import annotations

import time

import numpy as np

MAX_VALUES = 4 * 4096 * 4096
"""Floats that are kept at most."""
KEPT_SECONDS = 60.0
"""How long they are kept after their last use."""

_values = np.empty(0, np.float32)
_used = 0.0


def take(count: int) -> np.ndarray:
    """Float32 values (count,) with any content. The next call may return the same memory."""
    global _values, _used
    if count > MAX_VALUES:
        return np.empty(count, np.float32)
    _used = time.monotonic()
    if len(_values) < count:
        _values = np.empty(0, np.float32)  # freed before the larger one is made
        _values = np.empty(count, np.float32)
    return _values[:count]


def release() -> None:
    """Gives the memory back to the system if it was not used for KEPT_SECONDS. Called by a timer."""
    global _values
    if len(_values) and time.monotonic() - _used > KEPT_SECONDS:
        _values = np.empty(0, np.float32)
