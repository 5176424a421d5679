"""Small-sample statistics of a sweep: mean and spread over seeds, gains paired by seed, share of the gap closed.

Intervals are Student's t (Gosset 1908) on paired differences. With three seeds the quantile is 4.30, not 1.96: the
normal approximation would halve the interval. Quantiles are computed here, for whole degrees of freedom, because
importing scipy.stats would cost TensorBoard and ``kd-report`` a second at start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

_EQUAL = 1e-5
"""Differences whose spread is this share of their mean, or less, are equal but for the rounding of 32-bit figures."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of ``n`` values; ``std`` is None for a single value."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Gain:
    """A mean difference with its 95 % confidence interval.

    ``low`` and ``high`` are None where no interval can be given honestly: fewer than two pairs, no pairs at all, or
    differences that are all equal, which tell nothing of their spread.
    ``pairing`` says what was compared: "seed" (each run with its own seed's reference), "one reference" (every run with
    the same single reference, whose own spread is then not in the interval) or "none" (difference of two means).
    ``p`` is the two-sided p value of Student's t test for no difference; ``sure`` whether it holds at 5 % among all the
    comparisons made beside it (:func:`corrected`).
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    pairing: str
    p: float | None = None
    sure: bool = False

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of this one comparison does, not corrected for others."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def times(self, sign: int) -> Gain:
        """The same difference seen from the other side for ``sign`` -1."""
        if sign > 0:
            return self
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return replace(self, mean=-self.mean, low=low, high=high)


def spread(values: Sequence[float]) -> Spread | None:
    """Mean, sample standard deviation and n of the finite values; None if there are none."""
    finite = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return None
    mean = math.fsum(finite) / len(finite)
    if len(finite) == 1:
        return Spread(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in finite) / (len(finite) - 1)
    return Spread(mean, math.sqrt(variance), len(finite))


def t_distribution(t: float, df: int) -> float:
    """P(T <= t) of Student's t with ``df`` degrees of freedom (whole, >= 1), by its finite trigonometric sum."""
    theta = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(theta), math.cos(theta)
    if df % 2:
        term, total = cosine, 0.0
        for k in range(1, df - 1, 2):
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        inside = 2 / math.pi * (theta + sine * total)
    else:
        term, total = 1.0, 0.0
        for k in range(0, df - 1, 2):
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        inside = sine * total
    return 0.5 + 0.5 * inside


@lru_cache(maxsize=256)
def t_quantile(probability: float, df: int) -> float:
    """The t with P(T <= t) = ``probability`` (in (0.5, 1)) at ``df`` degrees of freedom, by bisection."""
    if not 0.5 < probability < 1 or df < 1:
        raise ValueError(f"t_quantile needs 0.5 < probability < 1 and df >= 1, got {probability} and {df}")
    low, high = 0.0, 1.0
    while t_distribution(high, df) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_distribution(middle, df) < probability else (low, middle)
    return (low + high) / 2


def interval(differences: Sequence[float], pairing: str, confidence: float = 0.95) -> Gain:
    """Mean of the differences and its two-sided t interval; without interval for a single difference.

    Nor for differences that are all the same: figures counted on a few hundred samples agree by chance (two seeds of
    equal students on 360 samples do so in 3 of 100 cases), and a spread of nought would make any difference sure.
    """
    summary = spread(differences)
    if summary is None:
        raise ValueError("interval needs at least one finite difference, got none")
    if summary.std is None:
        return Gain(summary.mean, None, None, 1, pairing)
    if summary.std <= _EQUAL * abs(summary.mean):
        return Gain(summary.mean, None, None, summary.n, pairing)
    error = summary.std / math.sqrt(summary.n)
    half = t_quantile(0.5 + confidence / 2, summary.n - 1) * error
    p = 2 * (1 - t_distribution(abs(summary.mean) / error, summary.n - 1))
    return Gain(summary.mean, summary.mean - half, summary.mean + half, summary.n, pairing, p)


def paired_gain(values: Mapping, references: Mapping, confidence: float = 0.95) -> Gain | None:
    """Gain of ``values`` over ``references``, two mappings from replicate (seed) to figure.

    Pairs are the replicates both have. Without any, the difference of the two means is given, without an interval:
    unpaired intervals would look like the paired ones beside them and mean something else.
    """
    pairs = [(values[key], references[key]) for key in values if key in references]
    pairs = [(a, b) for a, b in pairs if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)]
    if pairs:
        return interval([a - b for a, b in pairs], "seed", confidence)
    mine, theirs = spread(list(values.values())), spread(list(references.values()))
    if mine is None or theirs is None:
        return None
    return Gain(mine.mean - theirs.mean, None, None, min(mine.n, theirs.n), "none")


def corrected(gains: Mapping[str, Gain], level: float = 0.05) -> dict[str, Gain]:
    """The gains with ``sure`` set by Holm's procedure (Holm 1979): among m comparisons the smallest p value has to be
    below ``level`` / m, the next below ``level`` / (m - 1), and so on up to the first that is not.

    So the chance that any comparison without a difference is called sure is at most ``level``, however many there are.
    """
    order = sorted((gain.p, name) for name, gain in gains.items() if gain.p is not None)
    sure: set[str] = set()
    for place, (p, name) in enumerate(order):
        if p > level / (len(order) - place):
            break
        sure.add(name)
    return {name: replace(gain, sure=name in sure) for name, gain in gains.items()}


def gap_closed(student: float, alone: float, teacher: float, higher_is_better: bool) -> float | None:
    """Share of the distance from the student alone to the teacher that distillation covers (1 = all of it).

    None where the teacher isn't better than the student alone: there is no gap to close then.
    """
    sign = 1.0 if higher_is_better else -1.0
    gap = sign * (teacher - alone)
    return sign * (student - alone) / gap if gap > 0 else None
