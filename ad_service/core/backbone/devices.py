"""The device and the number format that a model runs in."""

from __future__ import annotations

from collections.abc import Callable

import torch

OUT_OF_MEMORY = (
    *("can't allocate memory", "not enough memory", "out of memory"),
    *("STATUS_ALLOC_FAILED", "unable to find an engine"),
)
"""Parts of a RuntimeError when memory is out: CPU allocator, Apple's and NVIDIA's drivers, cuBLAS, and cuDNN, which
then finds no algorithm whose workspace fits."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str | None = None) -> torch.device:
    """The device with that name, or the best one of this machine; raises RuntimeError if it is not available."""
    available: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "xpu": torch.xpu.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if name is None:
        return torch.device(next(kind for kind, test in available.items() if test()))
    device = torch.device(name)
    if device.type in available and not available[device.type]():
        raise RuntimeError(f"the device {name} is not available here; leave the device out to use the best one")
    return device


def free_memory(device: torch.device) -> int | None:
    """Bytes that torch can still allocate on a GPU, with what it keeps for itself.

    None on a CPU, whose memory does not limit a single stage: the same job has to give the same picture there.
    """
    if device.type in ("cuda", "xpu"):
        module = getattr(torch, device.type)
        free: int = module.mem_get_info(device)[0] + module.memory_reserved(device) - module.memory_allocated(device)
        return free
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return None


def free_cached_memory(device: torch.device) -> None:
    """Give the memory that torch keeps for later back to the device."""
    if device.type in ("cuda", "xpu", "mps"):
        getattr(torch, device.type).empty_cache()


_earlier_peaks: dict[torch.device, int] = {}


def restart_peak(device: torch.device) -> int:
    """Restart torch's measurement of the peak on a CUDA device; the earlier peak is kept for `peak_memory`.

    Returns the bytes that are allocated now.
    """
    _earlier_peaks[device] = peak_memory(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def forget_peak(device: torch.device) -> None:
    """Start a new measurement for `peak_memory`."""
    _earlier_peaks.pop(device, None)
    torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """The most bytes that torch had allocated on a CUDA device since `forget_peak`."""
    return max(_earlier_peaks.get(device, 0), torch.cuda.max_memory_allocated(device))


def make_repeatable(device: torch.device) -> None:
    """Make operations on a CUDA device deterministic; one that cannot be raises RuntimeError from then on.

    The fastest backward passes of attention and of convolutions add up in the order in which threads arrive, and with
    `warn_only` attention keeps doing so. cuBLAS also needs CUBLAS_WORKSPACE_CONFIG, set before torch is loaded.
    """
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # nothing reads it


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is out: several libraries raise a plain RuntimeError then."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY)


def choose_precision(precision: str, device: torch.device, family: str) -> torch.dtype:
    """The UNet's number format: the requested one, or the fastest on this device that keeps the picture intact."""
    if precision != "auto":
        return PRECISIONS[precision]
    if device.type == "cpu":
        return torch.bfloat16 if family == "pocket" and _cpu_multiplies_bf16() else torch.float32
    if device.type == "xpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)):
        return torch.bfloat16
    return torch.float32 if family == "sd2" else torch.float16  # SD 2.x's attention scores overflow float16


def _cpu_multiplies_bf16() -> bool:
    """Whether the CPU has instructions for bf16 products (AVX512-BF16 or AMX); without them bf16 is slower."""
    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(test is not None and test() for test in tests)
