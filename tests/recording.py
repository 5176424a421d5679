"""CUDA graphs without CUDA: records what torch computes on the processor and computes it again, on the memory of the recording.

As with the real ones nothing happens while it is recorded, inputs and results stay where they were then, and whatever
Python decided is decided for ever. What only a device can tell (kernels, streams, synchronisation) is not in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Graph:
    """Stands for ``torch.cuda.CUDAGraph``."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple, dict, list[Tensor]]] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for call, args, kwargs, outputs in self.calls:
                for kept, new in zip(outputs, _tensors(call(*args, **kwargs)), strict=True):
                    if not _shares(kept, [new]):
                        kept.copy_(new)


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        self.made: set[int] = set()

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inputs = _tensors((args, kwargs))
        mutable = call._schema.is_mutable or "batch_norm" in call._schema.name  # whose schema hides it
        if mutable:
            for tensor in inputs:
                if _place(tensor) not in self.made:
                    self.before.setdefault(_place(tensor), (tensor, tensor.clone()))
        result = call(*args, **kwargs)
        outputs = [] if call is torch.ops.aten.detach.default else _tensors(result)
        fresh = [tensor for tensor in outputs if not _shares(tensor, inputs)]
        self.made.update(map(_place, fresh))
        if mutable or fresh:
            self.graph.calls.append((call, args, kwargs, _tensors(result)))
        return result


@contextlib.contextmanager
def recording(graph: Graph, pool: Any = None) -> Iterator[None]:
    """Stands for ``torch.cuda.graph``: what was there before stays as it was."""
    with _Recorder(graph) as recorder:
        yield
    with torch.no_grad():
        for tensor, value in recorder.before.values():
            tensor.copy_(value)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _shares(tensor: Tensor, others: list[Tensor]) -> bool:
    return any(_place(tensor) == _place(other) for other in others)
