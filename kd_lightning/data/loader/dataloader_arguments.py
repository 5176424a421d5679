"""Arguments of torch's ``DataLoader`` that mean something else here, or nothing: each is accepted, and told once."""

from __future__ import annotations

from typing import Any

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
