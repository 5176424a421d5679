"""How figures are written: shares in percent, other values with three significant digits, a true minus sign, small ones as 1.84e-07.

A difference is told in the metric's own direction, in one way everywhere: "better by 0.8 points", "worse by 0.02".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kd_lightning.metrics.metric import Metric

NONE = "\u2013"
"""Stands where there is no figure."""
_MOST_DECIMALS = 6
_NOTHING = 1e-300  # powers of ten below are none that a float divides by


def scale(metric: Metric) -> float:
    """What a figure is multiplied by before it is shown."""
    return 100.0 if metric.share else 1.0


def unit(metric: Metric, difference: bool = False) -> str:
    """What stands behind a figure, or behind a difference of two: " %", " points", " kWh" or nothing."""
    if metric.share:
        return " points" if difference else " %"
    return f" {metric.unit}" if metric.unit else ""


def digits(metric: Metric, size: float) -> int:
    """Decimals for values of about ``size``: one for percent, otherwise three significant figures."""
    if metric.share:
        return 1
    if not math.isfinite(size) or abs(size) < _NOTHING:
        return 2
    return max(0, 2 - math.floor(math.log10(abs(size))))


def show(metric: Metric, value: float | None, size: float | None = None, more: int = 0) -> str:
    """``value`` as text in the metric's display scale, without unit; ``size`` fixes the decimals of a whole column.

    Small units are powers of ten, ``1.84e-07``, the same one for all values of a size.
    """
    if value is None or not math.isfinite(value):
        return NONE
    return _written(metric, value, size or value, more)


def _written(metric: Metric, value: float, size: float, more: int, sign: str = "") -> str:
    places, amount, power = digits(metric, size), value * scale(metric), ""
    if places > _MOST_DECIMALS:
        exponent = 2 - places
        places, amount, power = 2, amount / 10.0**exponent, f"e{exponent:03d}"
    text = minus(f"{amount:{sign}.{places + more}f}")
    return text + power if text.strip("0.") else text


def with_unit(metric: Metric, value: float | None, size: float | None = None) -> str:
    """``value`` with its unit: "91.2 %", "0.123"."""
    text = show(metric, value, size)
    return text if text == NONE else text + unit(metric)


def mean_and_std(metric: Metric, values: Sequence[float]) -> str:
    """Mean ± sample standard deviation with the unit; the value alone where there is one, NONE where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return with_unit(metric, finite[0] if finite else None)
    mean = math.fsum(finite) / len(finite)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / (len(finite) - 1))
    return f"{show(metric, mean)} ± {show(metric, std, mean)}{unit(metric)}"


ON_TEST = "best_on_test/"
"""Before the name of the monitored metric, and of ``epoch``: the best figure on test samples of the epochs of a run without
validation."""


def best_on_test(metric: Metric, values: Sequence[float], epoch: int | None = None) -> str:
    """What must be said wherever the best figures on test are shown: that, and how, they were chosen."""
    said = mean_and_std(metric, values) + (f" in epoch {epoch}" if epoch is not None else "")
    return f"best on test {said} (chosen by looking at the test set: for comparison with published tables only)"


def signed(metric: Metric, gain: float, size: float | None = None, more: int = 0) -> str:
    """A gain in short, "+" for better: ``gain`` is a difference times :attr:`Metric.sign`."""
    return _written(metric, gain, size or gain, more, sign="+")


def better_by(metric: Metric, gain: float, size: float | None = None, with_units: bool = True) -> str:
    """A gain in words: "better by 0.8 points", "worse by 0.02"; "higher by" where no direction is better.

    Args:
        metric: whose figures were compared.
        gain: their difference times :attr:`Metric.sign`, so that positive is better.
        size: of the figures, for the number of decimals.
        with_units: whether "points" or the unit follows.
    """
    amounts = [show(metric, abs(gain), size, more) for more in (0, 1)]  # a digit more before it is called nothing
    amount = next((text for text in amounts if text.strip("0.")), None)
    if amount is None:
        return "no difference"
    words = ("higher", "lower") if metric.higher_is_better is None else ("better", "worse")
    return f"{words[gain < 0]} by {amount}{unit(metric, difference=True) if with_units else ''}"


def minus(text: str) -> str:
    """A real minus sign, and no sign before a zero."""
    if not text.strip("+-0."):
        return text.lstrip("+-")
    return text.replace("-", "\u2212")
