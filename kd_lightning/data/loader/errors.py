"""What a loader says when a sample fails or hangs: which sample, which file, what happened, in one line."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Subset

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


def describe(dataset: Any, index: int) -> str:
    """``"sample 17 (cats/3.jpg)"``: the position, and the file where the data set can tell one.

    A data set tells by ``describe(index) -> str``; torchvision's folders by their list ``samples``.
    """
    name, inner, at = f"sample {index}", dataset, index
    try:
        while isinstance(inner, Subset):
            at, inner = int(inner.indices[at]), inner.dataset
        if hasattr(inner, "describe"):
            text = inner.describe(at)
            return text if text.startswith(name) else f"{name} ({text})"
        samples = getattr(inner, "samples", None)
        if isinstance(samples, list) and isinstance(samples[at], tuple) and isinstance(samples[at][0], str):
            return f"{name} ({samples[at][0]})"
    except Exception as error:  # the description must not hide the error that it describes
        return f"{name} (describe() failed: {type(error).__name__}: {error})"
    return name


def several(indices: list[int]) -> str:
    """``"samples 4, 9, 2, … (128 in all)"``."""
    shown = ", ".join(str(i) for i in indices[:_SHOWN])
    return f"samples {shown}" if len(indices) <= _SHOWN else f"samples {shown}, … ({len(indices)} in all)"


def sample_error(
    dataset: Any, number: int, indices: list[int] | None, at: int | None, error: BaseException
) -> Exception:
    """The error to raise in the consumer for ``error`` in batch ``number``, at position ``at`` of its ``indices``."""
    index = indices[at] if indices is not None and at is not None and at < len(indices) else None
    if index is not None:
        where = f"{describe(dataset, index)}, in batch {number}"
    else:
        where = f"batch {number}" + (f", {several(indices)}" if indices is not None else " of the stream")
    what = " ".join(str(error).split())
    if not isinstance(error, UserError):
        what = f"{type(error).__name__}: {what}" if what else type(error).__name__
    wrapped = SampleError(f"{where}: {what}", index)
    wrapped.__cause__ = error
    return wrapped
