"""Do answers that are stored approximately do for a method? Asked of the configuration, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kd_lightning.joints import FEATURES, LOGITS

Problem = tuple[str, str]  # a key, and what is wrong with it
SIX_BIT = "6bit"


def storing_problem(
    teacher: Mapping[str, Any], provided: frozenset[str], highest: Mapping[str, float]
) -> Problem | None:
    """What of a teacher's node does not do for what it provides, or for a method; None if nothing is known not to.

    Args:
        teacher: its node, with the keys of its cache.
        provided: what its answers are.
        highest: by term, the highest temperature at which it softens the logits; empty where nothing will be stored.
    """
    if str(teacher.get("cache", "auto")).lower() in ("off", "false", "none"):
        return None
    top_k = teacher.get("cache_top_k")
    if teacher.get("cache_precision") == SIX_BIT:
        if LOGITS not in provided:
            given = ", ".join(sorted(provided - {FEATURES}))
            return (
                "teacher.cache_precision",
                f"6bit is for logits of classes, this teacher's answers are {given}: use fp16",
            )
        if top_k is not None:
            return (
                "teacher.cache_top_k",
                "6bit keeps all logits: set teacher.cache_top_k=null, or another cache_precision",
            )
    return None if top_k is None else top_k_problem("teacher.cache_top_k", str(top_k), highest)


def top_k_problem(key: str, value: str, highest: Mapping[str, float]) -> Problem | None:
    """The largest logits alone do not do for a method that softens them, or looks at the others.

    What is known of the other classes is their mass at temperature 1; spread evenly over hundreds of classes, a higher
    temperature makes it most of the answer: worse than no teacher.
    """
    for term, temperature in highest.items():
        if temperature <= 1:
            continue
        softened = math.isfinite(temperature)
        how = f"softens them with a temperature of {temperature:g}" if softened else "looks at all of them as they are"
        mend = ["set a temperature of 1"] if softened else []
        if key == "teacher.cache_top_k":
            mend.insert(0, "set teacher.cache_top_k=null, and teacher.cache_precision=6bit where bytes are short")
        return (
            key,
            f"{value} of the logits do not do for method.terms.{term}, which {how}: above 1 the classes that are left out "
            f"would get most of the answer: {', or '.join(mend) or 'choose another method'}",
        )
    return None
