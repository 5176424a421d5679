"""``metrics.jsonl``: a run's metrics, one JSON object a line, only ever appended. Every report is made from it.

A process may be killed in the middle of a line. Then the last line is torn: readers leave it out, and a run that
continues removes it, together with the lines of steps that will be done again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_lightning.errors import UserError
from kd_lightning.runs.atomic import write_atomically

METRICS_FILE = "metrics.jsonl"


class MetricsFile:
    """Appends metrics to a file; each line is handed to the operating system at once, so that SIGKILL loses none.

    Args:
        path: the file; it and its directory are made at the first :meth:`write`.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._file: Any = None

    def write(self, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Append ``{"step": …, "epoch": …, **metrics}``. JSON has no NaN and no infinity: they are written as null."""
        line: dict[str, float | None] = {"step": int(step), "epoch": int(epoch)}
        line.update((name, finite_number(value)) for name, value in metrics.items())
        if self._file is None:
            self._file = self._open()
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")

    def rewind(self, step: int) -> int:
        """Drop the lines of steps after ``step`` and a torn last line; returns how many lines were dropped.

        Call it before a run continues from a checkpoint of that step: its later steps will be written again.
        """
        self.close()
        if not self.path.exists():
            return 0
        raw = self.path.read_bytes()
        lines = _parse(raw, self.path)
        kept = [line for line in lines if line.get("step", 0) <= step]
        dropped = len(lines) - len(kept) + (not raw.endswith(b"\n") and bool(raw))
        if dropped:
            write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        return dropped

    def close(self) -> None:
        """Close the file; a later :meth:`write` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> Any:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not _ends_with_newline(self.path):
            self.rewind(step=2**63)  # a torn line would swallow the next one
        return open(self.path, "ab", buffering=0)


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl`` in order, without a torn last line; an absent file has no lines.

    Raises:
        UserError: a line that is not the last one is no JSON object.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    return _parse(raw, path)


def finite_number(value: Any) -> float | int | None:
    """A plain number of a Python, NumPy or one-element tensor value; None for NaN and infinity."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or value is None:
        return None if value is None else int(value)
    if isinstance(value, int):
        return value
    value = float(value)
    return value if math.isfinite(value) else None


def _parse(raw: bytes, path: Path) -> list[dict[str, Any]]:
    whole, _, _torn = raw.rpartition(b"\n")  # what follows the last newline was not finished
    lines = []
    for number, text in enumerate(whole.split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError:  # json.JSONDecodeError and UnicodeDecodeError
            line = None
        if not isinstance(line, dict):
            raise UserError(f"{path}, line {number} is not a JSON object: the file is damaged, remove that line")
        lines.append(line)
    return lines


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
