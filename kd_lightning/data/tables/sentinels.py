"""A number that stands for a missing value, as -999 does, among the values that are to be predicted."""

from __future__ import annotations

import numpy as np

LEAST_TIMES, LEAST_OTHERS = 3, 20
CODES = (-99.0, -999.0, -9999.0, -99999.0)
"""What people write for a missing value where no value is negative."""


def sentinel(name: str, column: np.ndarray) -> str | None:
    """What is worth a warning of a target's values (N,), nan where missing; None where nothing is.

    Told is a smallest or largest value that stands there again and again, farther from all others than these are from
    each other.
    """
    if column.dtype == object:
        return None
    values, times = np.unique(column[~np.isnan(column)], return_counts=True)
    if len(values) <= LEAST_OTHERS:
        return None
    for end, others, where in ((0, values[1:], "below"), (-1, values[:-1], "above")):
        apart = abs(others[end] - values[end]) > others[-1] - others[0]
        code = end == 0 and values[0] in CODES and others[0] >= 0
        if times[end] >= LEAST_TIMES and (apart or code):
            return (
                f"target column {name!r}: {values[end]:g} occurs {times[end]} times, far {where} the others "
                f"({others[0]:g} to {others[-1]:g}): missing values? empty such cells"
            )
    return None
