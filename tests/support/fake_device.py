"""A device that is not there: its tensors hold their numbers on the CPU, and refuse what a GPU refuses.

    device = pretended.device()
    backbone = load(path, family, device=str(device))

What runs on it gives true results, so that code which looks at its numbers on the way runs whole. It refuses

- operations between its tensors and the CPU's, but for single numbers and for indices into its tensors, as CUDA does,
- random numbers from a generator of the CPU,
- float64, which Apple's GPUs lack,
- `numpy()`.

`watch` counts what makes the host wait, and tells which operations ran. It says nothing of kernels, memory and speed.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._pytree import tree_iter, tree_map

NAME = "pretended"

aten = torch.ops.aten

WAITS = {aten._local_scalar_dense: "number", aten.nonzero: "nonzero"}
"""Operations whose answer the host has to wait for, by what it asks for."""


class MixedDevices(RuntimeError):
    """An operation that a GPU would refuse."""


@dataclass
class Log:
    """What happened on the device: operations by name, and what the host waited for.

    Copies are counted as "to device" and "to host".
    """

    ran: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)


_watching: list[Log] = []


@contextmanager
def watch() -> Iterator[Log]:
    """A log of all that the device does inside."""
    log = Log()
    _watching.append(log)
    try:
        yield log
    finally:
        _watching.remove(log)


@functools.cache
def device() -> torch.device:
    """The device; from the first call on it is known to torch in this process.

    To be called before any gradient is taken: torch counts the devices then, once.
    """
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    _operations.fallback(_fallback, "PrivateUse1")
    _kernels.impl("empty_strided", _empty_strided, "PrivateUse1")
    _kernels.impl("_copy_from", _copy_from, "PrivateUse1")
    return torch.device(NAME, 0)


class _Module(backend_registration._DummyBackendModule):
    """What torch asks about the device, elsewhere too: it has no random numbers whose state could be kept."""

    def device_count(self) -> int:
        return 0

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16]


class Held(Tensor):
    """A tensor on the device; `held` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, data: Tensor) -> Held:
        tensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            data.shape,
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            device=device(),
        )
        tensor.held = data
        return tensor  # type: ignore[no-any-return]

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Held({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


def _run(op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """An operation on the numbers, its result on the device that the operation is for."""
    tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
    target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else NAME
    _check(op, args, kwargs, tensors, target)
    for log in _watching:
        _note(log, op, args, tensors, target)
    plain = {
        name: torch.device("cpu") if name == "device" and value is not None else value for name, value in kwargs.items()
    }
    result = op(*tree_map(_numbers, args), **tree_map(_numbers, plain))
    if target == "cpu":
        return result
    known = {id(_numbers(x)): x for x in tensors}  # what works in place gives back what it was given
    return tree_map(lambda x: known.get(id(x), Held(x)) if isinstance(x, Tensor) else x, result)


def _numbers(x: Any) -> Any:
    return x.held if isinstance(x, Held) else x


def _check(op: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[Tensor], target: str) -> None:
    """Raise MixedDevices for what a GPU would refuse."""
    name = op.overloadpacket
    strangers = [x for x in tensors if not isinstance(x, Held) and x.ndim > 0]
    copies = name in (aten.copy_, aten._to_copy)
    indexes = name in (aten.index, aten.index_put_, aten._index_put_impl_) and isinstance(args[0], Held)
    if strangers and not copies and not (indexes and all(x.dtype in (torch.int64, torch.bool) for x in strangers)):
        shapes = [tuple(x.shape) for x in strangers]
        raise MixedDevices(f"{op} of tensors on {NAME} and tensors on the CPU, whose shapes are {shapes}")
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type == "cpu" and target == NAME:
        raise MixedDevices(f"{op} on {NAME} draws from a generator of the CPU")
    if target == NAME and (kwargs.get("dtype") is torch.float64 or any(x.dtype is torch.float64 for x in tensors)):
        raise MixedDevices(f"{op} on {NAME} in float64")


def _note(log: Log, op: Any, args: Sequence[Any], tensors: list[Tensor], target: str) -> None:
    name = op.overloadpacket
    log.ran[str(name)] += 1
    if name in WAITS:
        log.waits[WAITS[name]] += 1
    if name is aten.copy_ and isinstance(args[0], Held) != isinstance(args[1], Held):
        log.waits["to device" if isinstance(args[0], Held) else "to host"] += 1
    if name is aten._to_copy and target != NAME:
        log.waits["to host"] += 1


_operations = torch.library.Library("_", "IMPL")
_kernels = torch.library.Library("aten", "IMPL")


def _fallback(op: Any, *args: Any, **kwargs: Any) -> Any:
    return _run(op, args, kwargs)


def _empty_strided(size: Sequence[int], stride: Sequence[int], **kwargs: Any) -> Any:
    return _run(aten.empty_strided.default, (size, stride), kwargs)


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Any:
    return _run(aten.copy_.default, (target, source, non_blocking), {})
