"""Which runs are repetitions of one configuration: those that differ in nothing that decides the result but seeds.

The configurations say so, never the names of runs. Statistics (mean, spread, n) are over repetitions, everywhere by
these functions: :func:`setting_of` is equal for repetitions, :func:`seeds_of` tells them apart.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from kd_lightning.config.keys import decides, declared, find, is_seed
from kd_lightning.config.processes import PLACES, processes_of


def setting_of(config: Mapping[str, Any], source: Mapping[str, str] | None = None) -> str:
    """Return 64 hexadecimal digits that runs share which differ in their seeds only.

    Args:
        config: of a run, resolved, plain.
        source: digests of the user's code that the run is made of, by file.
    """
    return digest([{k: v for k, v in deciding(config).items() if not is_seed(k)}, dict(source or {})])


def seeds_of(config: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The seeds of a run by key: what distinguishes the repetitions of one configuration."""
    return tuple(sorted((key, str(value)) for key, value in deciding(config).items() if is_seed(key)))


def setting_of_result(result: Mapping[str, Any]) -> str:
    """:func:`setting_of` the run that left a ``result.json``, which names it; of an older one by its configuration."""
    return str(result.get("setting") or setting_of(result.get("config") or {}, result.get("source")))


def seeds_of_result(result: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """:func:`seeds_of` the run that left a ``result.json``."""
    return seeds_of(result.get("config") or {"seed": result.get("seed")})


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values that decide the result, by dotted key."""
    values = dict(flat(config))
    processes = processes_of({key: values.get(f"trainer.{key}") for key in PLACES})
    if processes > 1:  # each takes a batch of its own; how many there are decides, not where they are
        values["trainer.processes"] = processes
    return {key: value for key, value in values.items() if decides(key, values) and not _is_absent(key, value)}


def _is_absent(key: str, value: Any) -> bool:
    """Whether a plain key holds what stands for its absence: versions that have the key agree with those that have not."""
    entry = declared(key)
    if entry is None:
        return False
    return (value is None and entry.rule.null) or (not value and entry.rule.kind in ("overlay", "targets"))


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; mappings are opened (those within lists by number), an empty one is a value.

    A dot within a key is written ``\\.``: ``{"a.b": 1}`` is not ``{"a": {"b": 1}}``.
    """
    for key, value in config.items():
        yield from _flat(prefix + str(key).replace(".", "\\."), value)


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        yield from flat(value, f"{key}.")
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            yield from _flat(f"{key}.{number}", item)
    else:
        yield key, value


def digest(value: Any) -> str:
    """Return 64 hexadecimal digits: the same for the same value, whatever the order of mappings, process or machine.

    The type is part of a value: one batch (``limit_train_batches=1``) is not all of them (``1.0``). Where a number is
    declared to be one with a fraction (a temperature), 4 and 4.0 are the same.
    """
    text = json.dumps(_canonical(value, ""), sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _canonical(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item, "") for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and find(key).rule.kind == "number":
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"number {value!r}"
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
