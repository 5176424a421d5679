"""A loss weight or a temperature as a function of where the run stands.

::

    value                Ramp, Cosine                    Hold                  Piecewise
      to ┤        ╭────────────         to ┤      ┌──────────       values ┤      ┌────┐
         │      ╱                          │      │                        │      │    └─────
    start┤───╱                        start┤──────┘                        ┤──────┘
         └──────────┴────── clock          └──────┴────── clock            └──────┴────┴──── clock
                  epochs                        epochs                        epochs: [.., ..]

Lengths are given in epochs or in optimizer steps; a schedule in epochs changes between epochs only. The k-th of n epochs
has k / n of the way behind it, so that a warm-up over 20 epochs starts with a twentieth and is over in the 20th epoch:
the convention of the papers' code. In YAML: ``{_target_: kd_lightning.schedules.Ramp, to: 8, epochs: 20}``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from kd_lightning.errors import UserError
from kd_lightning.joints import Clock

START = Clock(epoch=0, step=0, total_steps=1, steps_per_epoch=1)


class Schedule:
    """A number that depends on the clock: call it with one. Subclasses may be a user's own.

    Attributes:
        lowest, highest: bounds of all its values; unknown ones are 0 and infinity.
    """

    lowest: float = 0.0
    highest: float = math.inf

    @property
    def known(self) -> bool:
        """Whether the bounds are known."""
        return math.isfinite(self.highest)

    def __call__(self, clock: Clock) -> float:
        """The value at this moment."""
        raise NotImplementedError

    def __repr__(self) -> str:
        bounds = ("lowest", "highest")
        told = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if k not in bounds and v is not None)
        return f"{type(self).__name__}({told})"


class Ramp(Schedule):
    """A straight line from ``start`` to ``to``, which is kept from then on.

    Args:
        to: value at the end, >= 0.
        epochs: length in epochs, >= 1.
        steps: or in optimizer steps, >= 1; neither: the whole run.
        start: value that the line starts from, >= 0.
    """

    def __init__(self, to: float, epochs: int | None = None, steps: int | None = None, start: float = 0.0) -> None:
        self.to = _value("to", to)
        self.start = _value("start", start)
        self.epochs, self.steps = _length(epochs, steps)
        first = self._at(1 / (self.epochs or self.steps or 1_000_000))
        self.lowest, self.highest = sorted((self.to, first))

    def __call__(self, clock: Clock) -> float:
        return self._at(self._done(clock))

    def _at(self, done: float) -> float:
        return self.start + (self.to - self.start) * self._share(done)

    def _done(self, clock: Clock) -> float:
        """Share of the way that is behind, in (0, 1]."""
        if self.epochs is not None:
            return min(1.0, (clock.epoch + 1) / self.epochs)
        return min(1.0, (clock.step + 1) / (self.steps if self.steps is not None else clock.total_steps))

    def _share(self, done: float) -> float:
        return done


class Cosine(Ramp):
    """As :class:`Ramp`, along half a cosine: slow at both ends."""

    def _share(self, done: float) -> float:
        return 0.5 - 0.5 * math.cos(math.pi * done)


class Hold(Schedule):
    """``start`` for so many epochs or steps, then ``to``: a term that sets in late.

    Args:
        to: value from then on, >= 0.
        epochs: epochs before, >= 1.
        steps: or optimizer steps before, >= 1.
        start: value before, >= 0.
    """

    def __init__(self, to: float, epochs: int | None = None, steps: int | None = None, start: float = 0.0) -> None:
        self.to = _value("to", to)
        self.start = _value("start", start)
        self.epochs, self.steps = _length(epochs, steps, needed=True)
        self.lowest, self.highest = sorted((self.to, self.start))

    def __call__(self, clock: Clock) -> float:
        before = clock.step < self.steps if self.steps is not None else clock.epoch < (self.epochs or 0)
        return self.start if before else self.to


class Piecewise(Schedule):
    """Constant pieces: ``values[0]`` at first, ``values[k]`` once ``epochs[k - 1]`` epochs (or steps) are over.

    Args:
        values: at least two, each >= 0.
        epochs: where the value changes, ascending, one less than values.
        steps: or in optimizer steps.
    """

    def __init__(
        self, values: Sequence[float], epochs: Sequence[int] | None = None, steps: Sequence[int] | None = None
    ) -> None:
        self.values = [_value("values", value) for value in values]
        if (epochs is None) == (steps is None):
            raise UserError("Piecewise: say where the values change, in epochs or in steps")
        self.epochs = None if epochs is None else [int(_whole("epochs", n)) for n in epochs]
        self.steps = None if steps is None else [int(_whole("steps", n)) for n in steps]
        places = self._places()
        if len(self.values) < 2 or len(places) != len(self.values) - 1 or places != sorted(set(places)):
            raise UserError(
                f"Piecewise: {len(self.values)} values need {max(1, len(self.values) - 1)} ascending places where they "
                f"change, got {places}"
            )
        self.lowest, self.highest = min(self.values), max(self.values)

    def __call__(self, clock: Clock) -> float:
        now = clock.epoch if self.epochs is not None else clock.step
        return self.values[sum(now >= place for place in self._places())]

    def _places(self) -> list[int]:
        return self.epochs if self.epochs is not None else self.steps or []


class FunctionOfClock(Schedule):
    """Any callable of a clock."""

    def __init__(self, function: Callable[[Clock], float]) -> None:
        self.function = function

    def __call__(self, clock: Clock) -> float:
        return self.function(clock)


def as_schedule(value: Any) -> Schedule | None:
    """A schedule out of what a configuration gave; None where it is no callable of a clock."""
    if isinstance(value, Schedule):
        return value
    return FunctionOfClock(value) if callable(value) else None


def value_now(schedule: Schedule, clock: Clock, key: str, above: bool = False) -> float:
    """The schedule's value, checked: finite and >= 0, or > 0 where it has to be ``above``.

    Raises:
        UserError: naming ``key``, epoch and step.
    """
    value = schedule(clock)
    fits = isinstance(value, (int, float)) and math.isfinite(value) and (value > 0 if above else value >= 0)
    if not fits:
        wanted = "> 0" if above else ">= 0"
        raise UserError(
            f"{key}: {schedule!r} gave {value!r} in epoch {clock.epoch}, step {clock.step}: must be finite and {wanted}"
        )
    return float(value)


def _value(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (value >= 0 and math.isfinite(value)):
        raise UserError(f"{name} must be a finite number >= 0, got {value!r}")
    return float(value)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name} must be a whole number >= 1, got {value!r}")
    return value


def _length(epochs: int | None, steps: int | None, needed: bool = False) -> tuple[int | None, int | None]:
    if epochs is not None and steps is not None:
        raise UserError(f"give epochs or steps, got both: epochs={epochs}, steps={steps}")
    if needed and epochs is None and steps is None:
        raise UserError("needs epochs or steps")
    return (
        None if epochs is None else _whole("epochs", epochs),
        None if steps is None else _whole("steps", steps),
    )
