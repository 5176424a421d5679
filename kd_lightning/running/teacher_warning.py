"""Say loudly what a teacher does that no student should learn from."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kd_lightning.metrics.declared import Declared
from kd_lightning.metrics.verdicts import behind
from kd_lightning.runs.result_file import Result
from kd_lightning.runs.spec import ALONE

log = logging.getLogger(__name__)


def warn_about_teacher(results: Sequence[Result]) -> None:
    """Warn of a teacher that its task calls useless, or that the student alone beats; ``results`` of one teacher's runs."""
    finished = [result for result in results if result["status"] == "finished"]
    taught = next((result for result in finished if result["teacher"]), None)
    if taught is None:
        return
    metric, teacher = Declared.of_result(taught).monitored, taught["teacher"]
    value = teacher.get(f"val/{metric.name}")
    if value is None:
        return
    alone = [r["metrics"].get(f"best/val_{metric.name}") for r in finished if r["role"] == ALONE]
    known = [figure for figure in alone if figure is not None]
    said = teacher.get("useless") or behind(metric, value, known, estimator="estimator" in teacher)
    if said:
        log.warning("WARNING: the teacher %s is %s", teacher["name"], said)
