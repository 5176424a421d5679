"""``result.json``: written last and as a whole. A run that has one is over; a run that has none may be continued."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_lightning.errors import UserError
from kd_lightning.runs.atomic import write_atomically

log = logging.getLogger(__name__)

Result = dict[str, Any]

FORMAT = 1
STATUSES = ("finished", "pruned", "failed", "diverged", "interrupted")
ENDS = ("finished", "pruned")
"""What is not started again: the run reached its end, or a search stopped it early on purpose."""
NOT_STARTED = "not started"
"""The error of an interrupted run that never began."""


def standing(result: Mapping[str, Any]) -> str:
    """How a run is counted where people read it: its status, or that it was not started."""
    return NOT_STARTED if result.get("error") == NOT_STARTED else str(result["status"])


def write_result(path: str | os.PathLike, result: Mapping[str, Any]) -> None:
    """Write a run's result. ``format`` is added; NaN and infinity become null, paths and other objects their text.

    Raises:
        ValueError: ``result["status"]`` is not one of :data:`STATUSES`.
    """
    if result.get("status") not in STATUSES:
        raise ValueError(f"status {result.get('status')!r} of a result: expected one of {', '.join(STATUSES)}")
    plain = json_safe({"format": FORMAT, **result})
    write_atomically(path, json.dumps(plain, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_where_possible(path: str | os.PathLike, result: Mapping[str, Any]) -> None:
    """:func:`write_result`; a full disk is told and does not keep other runs from ending well."""
    try:
        write_result(path, result)
    except OSError as error:
        log.error("%s could not be written (%s): make space and start again", path, error.strerror or error)


def remove_unfinished_writes(path: Path) -> None:
    """Remove what a process that was killed while it wrote the result left beside it.

    A file younger than half a second is left: another process may be writing it.
    """
    for unfinished in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # it was renamed into place
            if time.time() - unfinished.stat().st_mtime > 0.5:
                unfinished.unlink()


def read_result(path: str | os.PathLike, strict: bool = True) -> Result | None:
    """A run's result, or None where the run has none yet.

    Args:
        path: ``result.json``, or the run directory that holds it.
        strict: an unreadable file is an error; otherwise it counts as no result (and the run is done again).

    Raises:
        UserError: strict, and the file is damaged or of a format that this version does not know.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "result.json"
    try:
        result = json.loads(path.read_bytes())
        if not isinstance(result, dict) or result.get("status") not in STATUSES:
            raise ValueError("no run status in it")
        if result.get("format") != FORMAT:
            raise ValueError(f"format {result.get('format')!r}, this version reads {FORMAT}")
    except FileNotFoundError:
        return None
    except ValueError as error:  # json.JSONDecodeError and UnicodeDecodeError are ValueErrors too
        if not strict:
            return None
        raise UserError(f"{path} is not a readable result ({error}): delete it to run that run again") from error
    return result


def json_safe(value: Any) -> Any:
    """Plain JSON types: mappings, lists, str, int, finite float, bool, None; anything else as its text."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a 0-d tensor or a NumPy scalar
        value = value.item()
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_safe(item) for item in (sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)]
    if hasattr(value, "tolist"):
        return json_safe(value.tolist())
    return str(value)
