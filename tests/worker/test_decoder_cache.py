"""Fitted decoders on the disk: what comes back is what was kept, or nothing; a few are kept, the ones used last."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ad_service.core import SynthesizeRequest, synthesize
from ad_service.worker import decoder_cache
from ad_service.worker.decoder_cache import KeptDecoders
from tests.support.tiny_models import backbone, end, texture


def state(seed: int = 0, size: int = 1000) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"conv.weight": torch.randn(4, size // 4, generator=generator), "conv.bias": torch.zeros(4)}


def same(one: dict[str, Tensor] | None, other: dict[str, Tensor]) -> bool:
    return one is not None and one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_state_comes_back_as_it_was_also_in_another_process(tmp_path: Path) -> None:
    KeptDecoders(tmp_path / "decoders")["a"] = state()
    kept = KeptDecoders(tmp_path / "decoders")
    assert same(kept.get("a"), state())
    assert kept.get("b") is None


def test_numbers_keep_their_layout_and_format(tmp_path: Path) -> None:
    odd = {"t": torch.arange(6.0).view(2, 3).t(), "half": torch.ones(3, dtype=torch.bfloat16)}
    kept = KeptDecoders(tmp_path)
    kept["a"] = odd
    assert same(kept.get("a"), odd)


@pytest.mark.parametrize("damage", ["empty", "cut short", "one number", "not safetensors"])
def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path: Path, damage: str) -> None:
    kept = KeptDecoders(tmp_path)
    kept["a"] = state()
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
    assert kept.get("a") is None
    kept["a"] = state(1)
    assert same(kept.get("a"), state(1))


def test_the_states_used_longest_ago_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptDecoders(tmp_path)
    for age, key in enumerate(("a", "b", "c")):
        kept[key] = state()
        os.utime(tmp_path / f"{key}.safetensors", (age, age))
    size = (tmp_path / "a.safetensors").stat().st_size
    monkeypatch.setattr(decoder_cache, "MOST_BYTES", 3 * size)
    assert kept.get("a") is not None  # which is a use
    kept["d"] = state()
    assert names(tmp_path) == {"a.safetensors", "c.safetensors", "d.safetensors"}


def test_what_a_broken_write_left_makes_room_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptDecoders(tmp_path)
    kept["a"] = state()
    monkeypatch.setattr(decoder_cache, "MOST_BYTES", (tmp_path / "a.safetensors").stat().st_size)
    left = tmp_path / "incoming-x"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    kept["a"] = state(1)
    assert names(tmp_path) == {"a.safetensors"}


def test_on_a_full_disk_nothing_is_kept_and_no_trace_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = KeptDecoders(tmp_path)
    monkeypatch.setattr(decoder_cache.os, "fdopen", lambda handle, mode: os.close(handle) or full())
    kept["a"] = state()
    assert kept.get("a") is None
    assert names(tmp_path) == set()


def test_a_folder_that_cannot_be_made_fails_no_job(tmp_path: Path) -> None:
    (tmp_path / "decoders").write_text("a file")
    kept = KeptDecoders(tmp_path / "decoders")
    kept["a"] = state()
    assert kept.get("a") is None


def test_a_job_with_a_decoder_from_the_disk_gives_the_bytes_of_the_one_that_fitted_it(tmp_path: Path) -> None:
    request = SynthesizeRequest(swatch=texture(32, 32), height=64, width=64, steps=1, detail="decoder", start="noise")
    runs = [end(synthesize(backbone("pocket"), request, KeptDecoders(tmp_path))) for _ in range(2)]
    fitted = ["fit-decoder" in {step.phase for step in steps} for steps, _ in runs]
    assert fitted == [True, False]
    assert torch.equal(runs[0][1].color, runs[1][1].color)
