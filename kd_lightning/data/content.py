"""What a user's data set holds, as a digest: equal for equal samples, whatever process or machine asks.

It covers the code of the data set's class; every tensor and array that it keeps (of those above 1 GiB, 256 blocks of
1 MiB); and its items: all of them up to 256 MiB and 20,000 items, of larger sets as many that lie evenly spread. Items are
read under fixed random numbers, so that a data set which draws is always the same one.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_lightning.tensor_bytes import bytes_of

ITEM_BYTES, ITEMS = 256 << 20, 20_000
_WHOLE, _BLOCKS, _BLOCK = 1 << 30, 256, 1 << 20
_DEPTH = 6


class Hash(Protocol):
    """One of :mod:`hashlib`'s."""

    def update(self, data: Any, /) -> None: ...

    def hexdigest(self) -> str: ...


def state_digest(dataset: Any) -> str:
    """Of the code of a data set's class and of the tensors and arrays in it. To be asked before any item is read."""
    digest: Hash = hashlib.blake2b(digest_size=16)
    _state(digest, dataset, _DEPTH, set())
    return digest.hexdigest()


def code_digest(made: Any) -> str:
    """Of the code of a function, a partial of one, or an object's class, and of a partial's arguments."""
    inner = made.func if isinstance(made, functools.partial) else made
    arguments = (made.args, sorted(made.keywords.items())) if isinstance(made, functools.partial) else ()
    text = f"{_source(inner if inspect.isroutine(inner) else type(inner))} {arguments!r}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def items_digest(rows: Tensor, read: Callable[[int], Any]) -> str:
    """Of the items at ``rows``, int64 of shape (N,); ``read`` gives one."""
    digest: Hash = hashlib.blake2b(digest_size=16)
    if len(rows):
        count = max(64, min(len(rows), ITEMS, ITEM_BYTES // max(1, item_bytes(read(int(rows[0]))))))
        chosen = torch.linspace(0, len(rows) - 1, min(count, len(rows)), dtype=torch.float64).round().long()
        for row in rows[chosen].tolist():
            _value(digest, read(row))
    return digest.hexdigest()


def item_digest(item: Any) -> str:
    """Of one item."""
    digest: Hash = hashlib.blake2b(digest_size=16)
    _value(digest, item)
    return digest.hexdigest()


def item_bytes(item: Any) -> int:
    """How much of an item its digest reads."""
    counted = _Counting()
    _value(counted, item)
    return counted.bytes


class _Counting:
    """Counts what a digest would be fed."""

    bytes = 0

    def update(self, data: Any, /) -> None:
        self.bytes += len(data)

    def hexdigest(self) -> str:
        return ""


def _state(digest: Hash, value: Any, depth: int, seen: set[int]) -> None:
    """Tensors and arrays, in containers and in the attributes of data sets. Other attributes (paths, times, counters)
    may differ from start to start and are left to the configuration and to the items."""
    if isinstance(value, (Tensor, np.ndarray)):
        _value(digest, value)
    elif depth and id(value) not in seen:
        seen.add(id(value))
        if isinstance(value, Dataset) or (depth == _DEPTH and hasattr(value, "__dict__")):
            digest.update(_source(type(value)).encode())
            for name, part in sorted(vars(value).items()):
                digest.update(name.encode())
                _state(digest, part, depth - 1, seen)
        elif isinstance(value, Mapping):
            for key, part in value.items():
                digest.update(str(key).encode())
                _state(digest, part, depth - 1, seen)
        elif isinstance(value, (list, tuple)):
            for part in value:
                if isinstance(part, (str, int, float)):
                    break  # a list of names or numbers: nothing in it is a tensor
                _state(digest, part, depth - 1, seen)


def _value(digest: Hash, value: Any) -> None:
    """An item, whatever it is made of."""
    if isinstance(value, Tensor):
        digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
        _bytes(digest, bytes_of(value))
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.shape}{value.dtype}".encode())
        _bytes(digest, np.ascontiguousarray(value).reshape(-1).view(np.uint8))
    elif isinstance(value, Mapping):
        for key, part in value.items():
            digest.update(str(key).encode())
            _value(digest, part)
    elif isinstance(value, (list, tuple, np.ndarray)):
        for part in value:
            _value(digest, part)
    elif isinstance(value, (str, int, float, bool, np.generic)) or value is None:
        digest.update(repr(value).encode())
    else:
        digest.update(type(value).__qualname__.encode())
        for name, part in sorted(getattr(value, "__dict__", {}).items()):
            if isinstance(part, (Tensor, np.ndarray, str, int, float)):
                digest.update(name.encode())
                _value(digest, part)


def _bytes(digest: Hash, flat: np.ndarray) -> None:
    if flat.nbytes <= _WHOLE:
        digest.update(memoryview(flat))
        return
    for start in np.linspace(0, flat.nbytes - _BLOCK, _BLOCKS, dtype=np.int64).tolist():
        digest.update(memoryview(flat[start : start + _BLOCK]))


def _source(made: Any) -> str:
    """The code of a function, or of a class and its bases, outside installed packages, without comments; of others their
    names."""
    texts = []
    for base in made.__mro__[:-1] if isinstance(made, type) else (made,):
        module = inspect.getmodule(base)
        path = getattr(module, "__file__", None) or ""
        text = f"{base.__module__}.{base.__qualname__}"
        if "site-packages" not in path and "dist-packages" not in path:
            with contextlib.suppress(OSError, TypeError, SyntaxError):  # made in a console, or by a function
                text = ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(base))))
        texts.append(text)
    return "\n".join(texts)
