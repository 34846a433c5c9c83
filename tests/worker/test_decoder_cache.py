"""The cache of fitted decoders: unchanged states or none, and a limit that the least recently used ones leave."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ad_service.core import SynthesizeRequest, synthesize
from ad_service.worker import decoder_cache
from ad_service.worker.decoder_cache import DecoderCache
from tests.support.tiny_models import backbone, end, texture


def state(seed: int = 0, size: int = 1000) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"conv.weight": torch.randn(4, size // 4, generator=generator), "conv.bias": torch.zeros(4)}


def same(one: dict[str, Tensor] | None, other: dict[str, Tensor]) -> bool:
    return one is not None and one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_state_is_read_back_by_another_cache_of_the_folder(tmp_path: Path) -> None:
    DecoderCache(tmp_path / "decoders")["a"] = state()
    cache = DecoderCache(tmp_path / "decoders")
    assert same(cache.get("a"), state())
    assert cache.get("b") is None


def test_tensors_keep_their_shape_and_dtype(tmp_path: Path) -> None:
    odd = {"t": torch.arange(6.0).view(2, 3).t(), "half": torch.ones(3, dtype=torch.bfloat16)}
    cache = DecoderCache(tmp_path)
    cache["a"] = odd
    assert same(cache.get("a"), odd)


@pytest.mark.parametrize("damage", ["empty", "cut short", "one number", "not safetensors"])
def test_a_damaged_file_counts_as_missing(tmp_path: Path, damage: str) -> None:
    cache = DecoderCache(tmp_path)
    cache["a"] = state()
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(
        {
            "empty": b"",
            "cut short": data[:middle],
            "one number": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "not safetensors": b"hello" * 100,
        }[damage]
    )
    assert cache.get("a") is None
    cache["a"] = state(1)
    assert same(cache.get("a"), state(1))


def test_the_least_recently_used_states_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DecoderCache(tmp_path)
    for age, key in enumerate(("a", "b", "c")):
        cache[key] = state()
        os.utime(tmp_path / f"{key}.safetensors", (age, age))
    size = (tmp_path / "a.safetensors").stat().st_size
    monkeypatch.setattr(decoder_cache, "MAX_BYTES", 3 * size)
    assert cache.get("a") is not None  # this counts as a use
    cache["d"] = state()
    assert names(tmp_path) == {"a.safetensors", "c.safetensors", "d.safetensors"}


def test_drafts_of_interrupted_writes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DecoderCache(tmp_path)
    cache["a"] = state()
    monkeypatch.setattr(decoder_cache, "MAX_BYTES", (tmp_path / "a.safetensors").stat().st_size)
    left = tmp_path / "incoming-x"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    cache["a"] = state(1)
    assert names(tmp_path) == {"a.safetensors"}


def test_on_a_full_disk_no_state_and_no_draft_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = DecoderCache(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    cache["a"] = state()
    assert cache.get("a") is None
    assert names(tmp_path) == set()


def test_a_folder_that_cannot_be_created_is_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "decoders").write_text("a file")
    cache = DecoderCache(tmp_path / "decoders")
    cache["a"] = state()
    assert cache.get("a") is None


def test_a_cached_decoder_gives_the_same_result_as_the_job_that_fitted_it(tmp_path: Path) -> None:
    request = SynthesizeRequest(swatch=texture(32, 32), height=64, width=64, steps=1, detail="decoder", start="noise")
    runs = [end(synthesize(backbone("pocket"), request, DecoderCache(tmp_path))) for _ in range(2)]
    fitted = [sum(step.phase == "fit-decoder" for step in steps) > 2 for steps, _ in runs]
    assert fitted == [True, False]
    assert torch.equal(runs[0][1].color, runs[1][1].color)
