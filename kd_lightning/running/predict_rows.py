"""Predictions as text: a CSV table, or a JSON object a line."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from typing import TextIO

from torch import Tensor

from kd_lightning.errors import UserError

FORMATS = ("csv", "json")


class Rows:
    """Writes a row for each sample.

    Args:
        stream: where to.
        form: one of :data:`FORMATS`.
        top: how many classes are named, the likeliest first, >= 1.
        classification: outputs are probabilities; otherwise they are written as they are.
        class_names: None shows numbers.
        value_names: what the outputs are called; None: by their numbers.
    """

    def __init__(
        self,
        stream: TextIO,
        form: str,
        top: int,
        classification: bool,
        class_names: Sequence[str] | None,
        value_names: Sequence[str] | None = None,
    ) -> None:
        self._stream, self._form, self._top = stream, form, top
        self._classification, self._names, self._value_names = classification, class_names, value_names
        self._csv = csv.writer(stream, lineterminator="\n")
        self._begun = False

    def write(self, names: Sequence[str], outputs: Tensor) -> None:
        """A row for each of N samples with their outputs (N, ...).

        Raises:
            UserError: an output is a map, of which nobody wants a row.
        """
        if outputs.dim() > 2 or (self._classification and outputs.dim() != 2):
            what = "one class" if self._classification else "a row of values"
            raise UserError(
                f"the student answers {' x '.join(map(str, outputs.shape[1:]))} for a sample, not {what}: use "
                "kd.open_run(run_dir).predict(inputs) in Python"
            )
        if not self._classification:
            for name, output in zip(names, outputs, strict=True):
                self._write_values(name, output)
            return
        values, classes = outputs.topk(min(self._top, outputs.shape[1]), dim=1)
        for name, likely, numbers in zip(names, values.tolist(), classes.tolist(), strict=True):
            self._write_classes(name, [(self._name(k), p) for k, p in zip(numbers, likely, strict=True)])

    def _name(self, number: int) -> str:
        return str(number) if self._names is None else self._names[number]

    def _write_classes(self, name: str, likely: Sequence[tuple[str, float]]) -> None:
        if self._form == "json":
            best, probability = likely[0]
            top = [{"class": kind, "probability": _plain(p)} for kind, p in likely]
            self._json({"input": name, "class": best, "probability": _plain(probability), "top": top})
            return
        ends = ["", *(f"_{k}" for k in range(2, len(likely) + 1))]
        self._head(["input", *(f"{word}{end}" for end in ends for word in ("class", "probability"))])
        self._csv.writerow([name, *(cell for kind, p in likely for cell in (kind, f"{p:.6f}"))])

    def _write_values(self, name: str, output: Tensor) -> None:
        values = output.flatten().tolist()
        named = self._value_names
        if named is not None and 2 * len(named) == len(values):  # of a student that says how sure it is
            named = [*named, *(f"{name}_std" for name in named)]
        named = named if named is not None and len(named) == len(values) else None
        if self._form == "json":
            plain = [_plain(value) for value in values]
            self._json(
                {"input": name, **({"output": plain} if named is None else dict(zip(named, plain, strict=True)))}
            )
            return
        self._head(["input", *(named or (f"output_{k}" for k in range(len(values))))])
        self._csv.writerow([name, *(f"{value:.9g}" for value in values)])

    def _head(self, columns: Sequence[str]) -> None:
        if not self._begun:
            self._csv.writerow(columns)
        self._begun = True

    def _json(self, row: dict[str, object]) -> None:
        self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _plain(value: float) -> float | None:
    """A number that JSON has: nine digits, which is all that a float32 holds; None for what is not finite."""
    return float(f"{value:.9g}") if math.isfinite(value) else None
