"""What a loader says when a sample fails or hangs: which sample, which file, what happened, in one line."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from kd_lightning.errors import UserError

_SHOWN = 8


class SampleError(UserError):
    """A sample could not be read. ``index`` is its position in the data set (None where only the batch is known).

    The data set's own exception is ``__cause__``.
    """

    def __init__(self, text: str, index: int | None = None) -> None:
        super().__init__(text)
        self.index = index


class LoaderTimeout(UserError, TimeoutError):
    """No batch came within ``timeout`` seconds. ``index`` is the sample that was being read the longest, or None."""

    def __init__(self, text: str, index: int | None = None) -> None:
        super().__init__(text)
        self.index = index


def describe(dataset: Any, index: Any) -> str:
    """``"sample 17 (cats/3.jpg)"``: the position, and the file where the data set can tell one.

    A data set tells by ``describe(index) -> str``; torchvision's folders by their list ``samples``.
    """
    name, inner, at = f"sample {index!r}", dataset, index
    try:
        while isinstance(inner, (Subset, ConcatDataset)):
            if isinstance(inner, Subset):
                at, inner = int(inner.indices[at]), inner.dataset
            else:
                part = bisect_right(inner.cumulative_sizes, at)
                at, inner = at - (inner.cumulative_sizes[part - 1] if part else 0), inner.datasets[part]
        if hasattr(inner, "describe"):
            text = inner.describe(at)
            return text if text.startswith(name) else f"{name} ({text})"
        samples = getattr(inner, "samples", None)
        if isinstance(samples, list) and isinstance(samples[at], tuple) and isinstance(samples[at][0], str):
            return f"{name} ({samples[at][0]})"
    except Exception as error:  # the description must not hide the error that it describes
        return f"{name} (describe() failed: {said(error)})"
    return name


def said(error: BaseException) -> str:
    """``"OSError: truncated"``: an exception in one line, whatever its own ``__str__`` does."""
    try:
        text = " ".join(str(error).split())
    except Exception as second:
        text = f"(its text cannot be made: {type(second).__name__})"
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def several(indices: list) -> str:
    """``"samples 4, 9, 2, … (128 in all)"``."""
    shown = ", ".join(repr(i) for i in indices[:_SHOWN])
    return f"samples {shown}" if len(indices) <= _SHOWN else f"samples {shown}, … ({len(indices)} in all)"


def sample_error(
    dataset: Any, number: int | None, indices: list | None, at: int | None, error: BaseException | None
) -> Exception:
    """The error to raise in the consumer for ``error`` in batch ``number``, at position ``at`` of its ``indices``."""
    index = indices[at] if indices is not None and at is not None and at < len(indices) else None
    if isinstance(error, SampleError) and error.index is not None:
        index = error.index  # it knows better
    if index is not None:
        where = f"{describe(dataset, index)}, in batch {number}"
    else:
        where = f"batch {number}" + (f", {several(indices)}" if indices is not None else " of the stream")
    wrapped = SampleError(f"{where}: {said(error) if error is not None else 'failed'}", index)
    wrapped.__cause__ = error
    return wrapped
