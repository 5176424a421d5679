"""Whether validation has enough samples to tell the configurations of a sweep apart."""

from __future__ import annotations

import math

from kd_lightning.metrics import show
from kd_lightning.report.study.study import Study

_CERTAIN = 1.96  # standard errors that a difference must have to be told from none at 5 %


def too_few_samples(study: Study) -> str | None:
    """What to say where all configurations lie within what other validation samples would have changed; else None.

    A share p of n samples has the standard error ``sqrt(p (1 - p) / n)``, a difference of two of them at most
    ``sqrt(2)`` times that (less where two students are right about the same samples). It is of the samples, not of the
    seeds: all runs are measured on the same ones, so more seeds do not reduce it.
    """
    metric = study.declared.monitored
    spreads = [found for cell in study.cells if (found := cell.spread(study.val_metric)) is not None]
    full = max((found.n for found in spreads), default=0)
    means = [found.mean for found in spreads if found.n == full]
    sizes = {run.validated for cell in study.cells for run in cell.runs.values()}
    samples = sizes.pop() if len(sizes) == 1 else None
    if not metric.counted or len(means) < 2 or not samples:
        return None
    best, apart = max(means), max(means) - min(means)
    p = (samples * best + 1) / (samples + 2)  # not 1 where all were right: another sample may be one that is not
    error = math.sqrt(2 * p * (1 - p) / samples)
    if apart >= error:
        return None
    wanted = 2 * p * (1 - p) * (_CERTAIN / apart) ** 2 if apart else None
    enough = "" if wanted is None else f"; some {_rounded(wanted):,} samples would tell these two apart"
    return (
        f"Validation has {samples:,} samples, too few for these differences: best and worst of the {len(means)} configurations are "
        f"{show.show(metric, apart)} points apart in {metric.heading}, and other samples would change such a difference by some "
        f"{show.show(metric, error)}. The choice between them is chance (data.val_size){enough}."
    )


def _rounded(value: float) -> int:
    """Up to two digits that count."""
    step = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return math.ceil(value / step) * step
