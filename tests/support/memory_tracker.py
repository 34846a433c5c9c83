"""The most bytes that tensors hold at once inside a block, counted by operation: on the CPU and on the meta device."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class MemoryTracker(TorchDispatchMode):
    """`peak` counts the storages made inside the block that are alive at once; those made before it do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {x.untyped_storage()._cdata for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)}
        result = op(*args, **(kwargs or {}))
        for x in tree_iter(result):
            if isinstance(x, Tensor):
                self._add(x.untyped_storage(), before)
        return result

    def _add(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key = storage._cdata
        if key in self._known or key in before:
            return
        self._known[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)


class _Fused(torch.autograd.Function):
    """The tensors that fused attention allocates and keeps on CUDA; its values are zero."""

    @staticmethod
    def forward(ctx: Any, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        out = torch.zeros_like(Q)
        ctx.save_for_backward(Q, K, V, out, Q.new_zeros(Q.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple(torch.zeros_like(x) for x in ctx.saved_tensors[:3])


@contextmanager
def fused_attention() -> Iterator[None]:
    """Inside the block attention takes the memory of CUDA's kernels; the meta device would keep all scores."""
    before = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda Q, K, V, **_: _Fused.apply(Q, K, V)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before
