"""How a metric is shown: its direction, whether it is a share (shown in percent), and its number of digits."""

from __future__ import annotations

import math
import re

_LOWER_IS_BETTER = re.compile(r"loss|^kl|_kl|ece|error|rmse|mse|mae|nll|brier|distance|perplexity")
_SHARE = re.compile(r"^(acc|agreement|ece|top\d+|f1|precision|recall|purity|coverage|.*_acc|acc_.*|.*_agreement)$")


def short_name(metric: str) -> str:
    """The name without its stage: ``test/acc`` and ``best/val_acc`` are ``acc``."""
    return metric.rsplit("/", 1)[-1].removeprefix("val_") if "/" in metric else metric


def higher_is_better(metric: str, monitor: str, mode: str) -> bool:
    """Direction of ``metric``; the monitored one goes by the run's own ``mode``."""
    name = short_name(metric)
    return mode == "max" if name == monitor else not _LOWER_IS_BETTER.search(name)


def is_share(metric: str) -> bool:
    """Whether the figure is a fraction 0..1 that readers expect in percent."""
    return bool(_SHARE.match(short_name(metric)))


def scale(metric: str) -> float:
    return 100.0 if is_share(metric) else 1.0


def unit(metric: str, difference: bool = False) -> str:
    if not is_share(metric):
        return ""
    return " pts" if difference else " %"


def digits(metric: str, size: float) -> int:
    """Decimals for values of about ``size``: one for percent, otherwise three significant figures."""
    if is_share(metric):
        return 1
    if not size or not math.isfinite(size):
        return 2
    return min(6, max(0, 2 - math.floor(math.log10(abs(size)))))


def show(metric: str, value: float | None, size: float | None = None, more: int = 0) -> str:
    """``value`` as text in the metric's display scale, without unit; ``size`` fixes the decimals of a whole column."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    return minus(f"{value * scale(metric):.{digits(metric, size or value) + more}f}")


def show_difference(metric: str, value: float, size: float | None = None, more: int = 0) -> str:
    return minus(f"{value * scale(metric):+.{digits(metric, size or value) + more}f}")


def minus(text: str) -> str:
    """A real minus sign, and no sign before a zero."""
    if not text.strip("+-0."):
        return text.lstrip("+-")
    return text.replace("-", "\u2212")
