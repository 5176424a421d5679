"""Sentences about figures that terminal and page say alike."""

from __future__ import annotations

from collections.abc import Sequence

from kd_lightning.metrics.metric import Metric
from kd_lightning.metrics.show import with_unit


def behind(metric: Metric, teacher: float, alone: Sequence[float], *, estimator: bool = False) -> str | None:
    """What a teacher is that some student alone surpasses in validation, and what to do; None where none does.

    Args:
        metric: the monitored one.
        teacher: its validation figure.
        alone: those of students alone on the same data.
        estimator: it is one of scikit-learn's kind, which no epochs make better.
    """
    better = [value for value in alone if metric.sign * (value - teacher) > 0]
    if not better:
        return None
    best = max(better, key=lambda value: metric.sign * value)
    mend = (
        "train the teacher longer (teacher.train.max_epochs) or choose a larger one; of one that was trained elsewhere, see "
        "whether its classes are in the data's order (teacher.classes)"
    )
    if estimator:
        mend = "choose another estimator (teacher.estimator), or let it have more labels (teacher.data.labelled=null)"
    return (
        f"beaten by the student alone in validation ({metric.heading} {with_unit(metric, teacher)} against "
        f"{with_unit(metric, best)}): {mend}"
    )
