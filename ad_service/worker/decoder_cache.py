"""Fitted decoders, kept from one job to another: safetensors files in one folder, the ones used last."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

MOST_BYTES = 2 << 30
"""Of all files together: some ten decoders of Stable Diffusion, or some two hundred of pocket."""


class KeptDecoders:
    """States by key; see `core.codec.Decoders`. Any number of processes may use the folder.

    It is a convenience, and never a job's failure: what cannot be read is as if it were not there, and what cannot be
    written is not kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The state as it was put there, on the CPU; None if it is not there or damaged."""
        path = self._folder / f"{key}.safetensors"
        try:
            with safe_open(path, "pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                said = file.metadata() or {}
            if said.get("sha256") != _digest(state):
                return None
            os.utime(path)
        except (OSError, SafetensorError):
            return None
        return state

    def __setitem__(self, key: str, state: dict[str, Tensor]) -> None:
        """Keep a state; it appears whole or not at all. Those used longest ago make room."""
        state = {name: value.cpu().contiguous() for name, value in state.items()}
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(self._folder / f"{key}.safetensors", save(state, {"sha256": _digest(state)}))
            self._prune()

    def _write(self, path: Path, data: bytes) -> None:
        handle, name = tempfile.mkstemp(prefix="incoming-", dir=self._folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)

    def _prune(self) -> None:
        """Remove the files used longest ago, broken ones among them, until all take at most MOST_BYTES."""
        files = sorted(((path.stat(), path) for path in self._folder.iterdir()), key=lambda file: file[0].st_mtime_ns)
        total = sum(stat.st_size for stat, _ in files)
        for stat, path in files:
            if total <= MOST_BYTES:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size


def _digest(state: dict[str, Tensor]) -> str:
    """sha256 of names and numbers: safetensors would not notice a number that changed on the disk."""
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(name.encode())
        sha.update(state[name].flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
