"""Does the student get better by leaving its teacher behind?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kd_lightning.callbacks.checks.check import Check, Warned
from kd_lightning.member import Member
from kd_lightning.metrics.metric import FIDELITY, Metric

IN_A_ROW = 4
AT_LEAST = 0.01


class Agreement(Check):
    """Agreement with the teacher gets worse while the monitored metric gets better, :data:`IN_A_ROW` (4) validations in a row.

    Agreement is the first figure of student and teacher together that the task declares and that has a direction. Over the
    row both must have changed by more than :data:`AT_LEAST` (1 %) of what they were at its start: less is noise.
    """

    def __init__(self) -> None:
        self._row: list[tuple[float, float]] = []  # agreement and monitored figure, each the larger the better

    def validated(self, member: Member, figures: Mapping[str, float]) -> Iterable[Warned]:
        declared = member.declared
        monitored, fidelity = declared.monitored, _fidelity(declared.metrics, figures)
        if fidelity is None or monitored.name not in figures or not member.method.needs_teacher:
            return
        now = fidelity.sign * figures[fidelity.name], monitored.sign * figures[monitored.name]
        if self._row and not (now[0] < self._row[-1][0] and now[1] > self._row[-1][1]):
            self._row = []
        self._row.append(now)
        start = self._row[0]
        large = all(abs(b - a) > AT_LEAST * abs(a) for a, b in zip(start, now, strict=True))
        if len(self._row) <= IN_A_ROW or not large:
            return
        yield Warned(
            "against the teacher",
            f"{fidelity.heading} worsens ({_span(fidelity, start[0], now[0])}) while {monitored.heading} improves "
            f"({_span(monitored, start[1], now[1])}), {len(self._row) - 1} validations in a row: the student learns against "
            "its teacher; see whether the teacher is good on these data and has their classes in the same order "
            "(teacher.classes), else lower the weights of the terms that imitate it",
        )


def _fidelity(metrics: Iterable[Metric], figures: Mapping[str, float]) -> Metric | None:
    found = (m for m in metrics if m.of == FIDELITY and m.higher_is_better is not None and m.name in figures)
    return next(found, None)


def _span(metric: Metric, start: float, end: float) -> str:
    return f"{metric.sign * start:.3g} to {metric.sign * end:.3g}"
