"""Do answers that are stored approximately do for a method? Asked of the configuration, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kd_lightning.joints import FEATURES, LOGITS

Problem = tuple[str, str]  # a key, and what is wrong with it
SIX_BIT, SCORES = "6bit", "scores"
APPROXIMATE = (SIX_BIT, SCORES)
WARMEST_SCORES = 4.0  # above, the axes that are left out count too much


def storing_problem(
    teacher: Mapping[str, Any], provided: frozenset[str], highest: Mapping[str, float]
) -> Problem | None:
    """What of a teacher's node does not do for what it provides, or for a method; None if nothing is known not to.

    Args:
        teacher: its node, with the keys of its cache.
        provided: what its answers are.
        highest: by term, the highest temperature at which it softens the logits; empty where nothing will be stored.
    """
    if not may_be_stored(teacher):
        return None
    top_k, precision = teacher.get("cache_top_k"), teacher.get("cache_precision")
    if precision in APPROXIMATE:
        if LOGITS not in provided:
            given = ", ".join(sorted(provided - {FEATURES}))
            said = f"{precision} is for logits of classes, this teacher's answers are {given}: use fp16"
            return "teacher.cache_precision", said
        if top_k is not None:
            said = f"{precision} keeps what it needs: set teacher.cache_top_k=null, or another cache_precision"
            return "teacher.cache_top_k", said
    if precision == SCORES:
        return _too_warm(
            highest, WARMEST_SCORES, "teacher.cache_precision", "scores do", ["use 6bit or fp16"], _BLURRED
        )
    return None if top_k is None else top_k_problem("teacher.cache_top_k", str(top_k), highest)


def may_be_stored(teacher: Mapping[str, Any]) -> bool:
    """Whether a teacher's node leaves its cache on."""
    return str(teacher.get("cache", "auto")).lower() not in ("off", "false", "none")


def top_k_problem(key: str, value: str, highest: Mapping[str, float]) -> Problem | None:
    """The largest logits alone do not do for a method that softens them, or looks at the others.

    What is known of the other classes is their mass at temperature 1; spread evenly over hundreds of classes, a higher
    temperature makes it most of the answer (docs/teacher_cache.md has what that costs).
    """
    mend = ["set teacher.cache_top_k=null, and teacher.cache_precision=6bit where bytes are short"]
    mend = mend if key == "teacher.cache_top_k" else []
    return _too_warm(highest, 1.0, key, f"{value} of the logits do", mend, _UNKNOWN)


_UNKNOWN = "the classes that are left out would get most of the answer"
_BLURRED = "the answer depends on what the scores leave out"


def _too_warm(
    highest: Mapping[str, float], warmest: float, key: str, what: str, mend: list[str], why: str
) -> Problem | None:
    """The first term that softens more than ``warmest``, in words."""
    for term, temperature in highest.items():
        if temperature <= warmest:
            continue
        softened = math.isfinite(temperature)
        how = f"softens them with a temperature of {temperature:g}" if softened else "looks at all of them as they are"
        ways = [*mend, f"set a temperature of {warmest:g}"] if softened else mend
        return (
            key,
            f"{what} not do for method.terms.{term}, which {how}: above {warmest:g} {why}: "
            f"{', or '.join(ways) or 'choose another method'}",
        )
    return None
