"""What the names of metrics suggest, for results that were written before tasks declared their metrics."""

from __future__ import annotations

import re

from kd_lightning.metrics.metric import FIDELITY, STUDENT, TEACHER, Metric

_LOWER_IS_BETTER = re.compile(r"loss|^kl|_kl|ece|error|rmse|mse|mae|nll|brier|distance|perplexity")
_SHARE = re.compile(r"^(acc|agreement|ece|top\d+|f1|precision|recall|purity|coverage|.*_acc|acc_.*|.*_agreement)$")
_FIDELITY = re.compile(r"^agreement$|_teacher$|_agreement$")
_TITLES = {"acc": "accuracy"}


def guessed(name: str, monitor: str, mode: str) -> Metric:
    """A metric from its short name; the monitored one goes by the run's own ``mode``."""
    higher = mode == "max" if name == monitor else not _LOWER_IS_BETTER.search(name)
    of = TEACHER if name.startswith("teacher_") else FIDELITY if _FIDELITY.search(name) else STUDENT
    like = name.removeprefix("teacher_") if of == TEACHER else ""
    return Metric(name, higher, bool(_SHARE.match(name)), _TITLES.get(name, ""), of=of, like=like)
