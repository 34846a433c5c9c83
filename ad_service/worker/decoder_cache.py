"""A cache of fitted decoders between jobs: safetensors files in one folder; the least recently used are removed."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ad_service.storage.files import atomic_writer

MAX_BYTES = 2 << 30
"""Limit of all files together: about ten decoders of Stable Diffusion, or two hundred of pocket."""


class DecoderCache:
    """Decoder states by key, as `core.backbone.codec.Decoders` describes. Any number of processes may use the folder.

    It never fails a job: a file that cannot be read counts as missing, and a state that cannot be written is not kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The state stored under the key, on the CPU; None if it is missing or damaged."""
        path = self._folder / f"{key}.safetensors"
        try:
            with safe_open(path, "pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
            if metadata.get("sha256") != _digest(state):
                return None
            os.utime(path)
        except (OSError, SafetensorError):
            return None
        return state

    def __setitem__(self, key: str, state: dict[str, Tensor]) -> None:
        """Stores a state, and removes the least recently used ones above MAX_BYTES."""
        state = {name: value.cpu().contiguous() for name, value in state.items()}
        with suppress(OSError):
            with atomic_writer(self._folder / f"{key}.safetensors") as file:
                file.write(save(state, {"sha256": _digest(state)}))
            self._prune()

    def _prune(self) -> None:
        """Removes the least recently used files, and drafts of interrupted writes, until all have at most MAX_BYTES."""
        files = sorted(((path.stat(), path) for path in self._folder.iterdir()), key=lambda file: file[0].st_mtime_ns)
        total = sum(stat.st_size for stat, _ in files)
        for stat, path in files:
            if total <= MAX_BYTES:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size


def _digest(state: dict[str, Tensor]) -> str:
    """sha256 of names and values, since safetensors does not detect a value that changed on the disk."""
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(name.encode())
        sha.update(state[name].flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
