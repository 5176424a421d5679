"""Memory for batches, used again: the kernel takes longer to hand out and clear 77 MB than it takes to fill them."""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

_KEPT = 8  # blocks waiting to be used again: as many as batches are usually in flight
_ALIGN = 64


class BatchMemory:
    """Tensors whose memory comes back when the last tensor that uses it is gone.

    Any view of a batch keeps its memory (a view holds the storage, the storage holds the array it was made of), so
    nothing that somebody still looks at is written again. Safe in threads: blocks wait in a deque.
    """

    def __init__(self) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=_KEPT)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor."""
        size = math.prod(shape) * dtype.itemsize
        block = self._block(size)
        start = -block.ctypes.data % _ALIGN
        lent = block[start : start + size]  # an object of its own: its end tells that no tensor is left
        weakref.finalize(lent, self._free.append, block).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _block(self, size: int) -> np.ndarray:
        while self._free:
            try:
                block = self._free.pop()
            except IndexError:  # another thread took it
                break
            if block.size >= size + _ALIGN:
                return block
        return np.empty(size + _ALIGN, np.uint8)
