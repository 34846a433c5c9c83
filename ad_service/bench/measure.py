"""Seconds, floating-point operations and memory of a device, for the benchmark."""

from __future__ import annotations

import ctypes
import gc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ad_service.bench import paper_schedule
from ad_service.core.backbone import devices
from ad_service.core.backbone.conditioning import Conditioning
from ad_service.core.backbone.model import Model
from ad_service.core.sampling.attention import capture_attention


def now(device: torch.device) -> float:
    """Seconds on a monotonic clock, after all work queued on the device has finished."""
    if device.type in ("cuda", "xpu", "mps"):
        getattr(torch, device.type).synchronize()
    return time.perf_counter()


META = torch.device("meta")


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one window: of a forward pass, and of the loss and its gradient."""

    forward: int
    gradient: int

    @classmethod
    def count(cls, model: Model, height: int, width: int, crops: Tensor | None = None) -> Flops:
        """Counted by torch on a window of height x width latents that reads crops (R, C, h, w), without softmax.

        The network is copied to the meta device, where counting takes no memory and attention is not fused (fused
        attention is not counted). Without crops the swatch is as large as the window.
        """
        with META:
            unet = type(model.unet).from_config(model.unet.config).requires_grad_(False)  # type: ignore[attr-defined]
        empty = model.unconditional
        tokens, pooled = (None if x is None else x.to(META, torch.float32) for x in (empty.tokens, empty.pooled))
        empty = Conditioning(tokens, pooled)
        model = replace(model, unet=unet, device=META, dtype=torch.float32, unconditional=empty)
        z = torch.zeros(1, model.vae.config.latent_channels, height, width, device=META)
        with capture_attention(model) as capture:
            reference = capture.reference(z if crops is None else crops.to(META), 0)
            with FlopCounterMode(display=False) as forward, torch.no_grad():
                capture.predict_and_record(z, 1, reference)
            with FlopCounterMode(display=False) as gradient:
                paper_schedule.gradient(capture, z.requires_grad_().clone(), 1, reference)  # hooks need a non-leaf
        return cls(forward.get_total_flops(), gradient.get_total_flops())

    def of(self, forwards: int, backwards: int) -> int:
        """Operations of this many passes; every backward pass includes its forward pass with the loss."""
        return (forwards - backwards) * self.forward + backwards * self.gradient


def matrix_peak(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations per second of a large square matrix product, the best of several."""
    n = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    best, end = math.inf, now(device) + seconds
    a @ b
    while (began := now(device)) < end:
        a @ b
        best = min(best, now(device) - began)
    return 2 * n**3 / best


@dataclass
class Memory:
    """`peak` in bytes after the block has ended; None where it cannot be measured."""

    peak: int | None = None


@contextmanager
def memory(device: torch.device) -> Iterator[Memory]:
    used = Memory()
    gc.collect()
    if device.type == "cuda":
        devices.forget_peak(device)
        yield used
        used.peak = devices.peak_memory(device)
        return
    with suppress(AttributeError, TypeError):  # glibc keeps what was freed, and would hand it out unseen
        ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS") if device.type == "cpu" and _reset_resident_peak() else None
    yield used
    if before is not None:
        used.peak = _resident("VmHWM") - before


def _reset_resident_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _resident(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
