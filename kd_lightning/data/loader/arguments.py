"""A loader's arguments: those that cannot be meant, and those of torch's ``DataLoader`` that mean something else here.

The latter are accepted, and each is told once.
"""

from __future__ import annotations

from typing import Any

from kd_lightning.data.loader.choosing import is_stream
from kd_lightning.data.loader.foreign import tell_once
from kd_lightning.errors import UserError

_WITHOUT_MEANING = {
    "persistent_workers": False,
    "worker_init_fn": None,
    "multiprocessing_context": None,
    "pin_memory_device": "",
}
_TRANSLATED = {"num_workers": 0, "prefetch_factor": None, "in_order": True}


def translated(arguments: dict[str, Any]) -> dict[str, Any]:
    """ThreadedLoader's arguments for some of DataLoader's.

    ``num_workers`` is a number of threads (0: the consumer's own), ``prefetch_factor`` of batches for each of them,
    ``in_order=False`` is ``order="completion"``; the rest is about worker processes, of which there are none.
    """
    unknown = sorted(arguments.keys() - _WITHOUT_MEANING.keys() - _TRANSLATED.keys())
    if unknown:
        raise UserError(f"ThreadedLoader has no argument {unknown[0]!r}")
    ours: dict[str, Any] = {}
    if "num_workers" in arguments:
        ours["num_threads"] = arguments["num_workers"]
        _tell(arguments, "num_workers", "is taken as num_threads: there are threads, and no worker processes")
    if arguments.get("prefetch_factor") is not None:
        ours["prefetch"] = arguments["prefetch_factor"] * max(1, arguments.get("num_workers") or 1)
        _tell(arguments, "prefetch_factor", f"is taken as prefetch={ours['prefetch']}")
    if arguments.get("in_order") is False:
        ours["order"] = "completion"
        _tell(arguments, "in_order", 'is taken as order="completion"')
    for name, default in _WITHOUT_MEANING.items():
        if arguments.get(name, default) != default:
            _tell(arguments, name, "has no effect: there are no worker processes")
    return ours


def _tell(arguments: dict[str, Any], name: str, what: str) -> None:
    tell_once(f"ThreadedLoader: {name}={arguments[name]!r:.60} {what}")


def check(
    dataset: Any,
    *,
    batch_size: int | None,
    shuffle: bool,
    drop_last: bool,
    num_threads: int | None,
    prefetch: int | None,
    order: str,
    timeout: float | None,
    as_batch: bool,
    views: int,
    extra_views: int,
    sampler: Any,
    batch_sampler: Any,
    reread: int,
) -> None:
    """Raise a UserError for arguments that cannot be meant, alone or together."""
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("num_threads", num_threads, 0),
        ("prefetch", prefetch, 1),
        ("views", views, 0),
        ("extra_views", extra_views, 0),
        ("reread", reread, 0),
    ):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise UserError(f"{name} must be an integer >= {least}, got {value!r}")
    if order not in ("input", "completion"):
        raise UserError(f'order must be "input" or "completion", got {order!r}')
    if timeout is not None and not timeout > 0:
        raise UserError(f"timeout must be > 0 seconds or None, got {timeout!r}")
    if is_stream(dataset) and (shuffle or sampler is not None or batch_sampler is not None):
        raise UserError("an iterable data set has its own order: shuffle there, and remove shuffle and sampler here")
    if batch_sampler is not None and (batch_size not in (1, None) or shuffle or sampler is not None or drop_last):
        raise UserError("a batch_sampler says it all: remove batch_size, shuffle, sampler and drop_last")
    if batch_size is None and batch_sampler is None and (as_batch or drop_last):
        raise UserError("batch_size=None delivers samples as they are: remove as_batch and drop_last")
