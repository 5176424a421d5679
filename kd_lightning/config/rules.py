"""What a value of a configuration may be: its kind, its range, its choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_lightning.config.suggestions import did_you_mean

_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "amount": "a whole number of them, or a share with a point",
    "flag": "true or false",
    "text": "a text",
    "list": "a list",
    "mapping": "a mapping",
    "target": "a `_target_` with its arguments",
    "targets": "a `_target_` by name",
    "arguments": "arguments of Lightning's Trainer",
    "overlay": "arguments of the data",
    "choice": "a name",
}
NUMERIC = frozenset({"integer", "number", "amount"})


@dataclass(frozen=True)
class Rule:
    """What a key may hold.

    Args:
        kind: one of "integer", "number", "amount" (1 is one, 1.0 is all), "flag", "text", "list", "mapping"; of a key that holds others: "target" (a
            ``_target_`` with its arguments), "targets" (some, by name), "arguments" (of Lightning's Trainer),
            "overlay" (arguments of the data module that differ); "choice" for a group that is no key itself.
        null: null is a value too.
        low, high: bounds that are allowed themselves; above, below: bounds that are not.
        choices: the texts that are allowed, of a "flag" beside true and false; empty for any (of a flag: for none).
    """

    kind: str
    null: bool = False
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with ``value``, None if nothing is."""
        if value is None:
            return None if self.null else f"must be {_KINDS[self.kind]}, got null"
        alike = {
            "number": ("integer",),
            "amount": ("integer", "number"),
            "text": ("integer", "number"),
        }  # YAML reads precision: 32 as a number
        if self.kind == "flag" and self.choices:
            if isinstance(value, bool) or value in self.choices:
                return None
            return f"must be one of {self.words()}, got {show(value)}{did_you_mean(str(value), self.choices, show=0)}"
        if kind_of(value) not in (self.kind, *alike.get(self.kind, ())):
            return f"must be {_KINDS[self.kind]}{' or null' if self.null else ''}, got {show(value)}"
        if self.kind in NUMERIC:
            return self._out_of_range(value)
        if self.choices and str(value) not in self.choices:
            near = did_you_mean(str(value), self.choices, show=0)
            return f"must be one of {', '.join(self.choices)}, got {show(value)}{near}"
        return None

    def words(self) -> str:
        """The rule in a few words, for documentation."""
        if self.choices:
            said = ", ".join(("true", "false", *self.choices) if self.kind == "flag" else self.choices)
        else:
            bounds = ((">=", self.low), (">", self.above), ("<=", self.high), ("<", self.below))
            said = " ".join([_KINDS[self.kind], *(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)])
        return said + (" or null" if self.null else "")

    def _out_of_range(self, value: float) -> str | None:
        bounds = (
            (self.low, ">=", self.low is None or value >= self.low),
            (self.above, ">", self.above is None or value > self.above),
            (self.high, "<=", self.high is None or value <= self.high),
            (self.below, "<", self.below is None or value < self.below),
        )
        if all(holds for _, _, holds in bounds):  # nan holds in none
            return None
        wanted = " and ".join(f"{sign} {bound:g}" for bound, sign, _ in bounds if bound is not None)
        return f"must be {wanted}, got {show(value)}"


def kind_of(value: Any) -> str:
    """Name the kind of a plain value, as :class:`Rule` does ("null" for None)."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "mapping" if isinstance(value, Mapping) else "list" if isinstance(value, Sequence) else type(value).__name__


def show(value: Any) -> str:
    """``value`` for an error line: as YAML would write it, cut short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
