"""Does a teacher suit a method? Asked of the configuration, before data are read or anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kd_lightning.config.build import build_task, instantiate, without_auto
from kd_lightning.joints import FEATURES, LABELS, LOGITS, PROBABILITIES, UNNORMALISED, VALUES
from kd_lightning.rng import RngStream
from kd_lightning.teachers.cache.approximate import Problem, storing_problem, top_k_problem
from kd_lightning.teachers.kind import build_kind

_SUITS = {VALUES: "mse", UNNORMALISED: "sigmoid_kd"}  # a first method for answers that are no logits of classes


def mismatch(
    teacher: Mapping[str, Any] | None, method: Mapping[str, Any], task: Mapping[str, Any] | None = None
) -> Problem | None:
    """What of a teacher's node does not suit a method's, under a task's; None if nothing is known to.

    Raises:
        UserError: one of them cannot be made.
    """
    wanted = required(method)
    if not wanted:
        return None
    kind = build_kind(teacher) if teacher else None
    provided = frozenset() if kind is None else kind.provides
    if teacher is None or kind is None or not provided:
        return "method", "needs a teacher, teacher=none gives none: use method=none, or choose a teacher"
    provided = under(task, provided)
    lacking = sorted(wanted - completed(provided))
    if lacking:
        name = teacher.get("name") or teacher.get("_target_")
        given = provided - {LOGITS} if PROBABILITIES in provided else provided
        has = ", ".join(sorted(given)) or "nothing that this task reads"
        other = next((f", as {how}" for what, how in getattr(kind, "instead", {}).items() if what in lacking), "")
        as_in = next(
            (f", as method={_SUITS[kind]}" for kind in _SUITS if kind in provided and FEATURES not in lacking), ""
        )
        return (
            "teacher",
            f"{name} provides {has}, the method reads its {' and '.join(lacking)}: choose another teacher{other} or another "
            f"method{as_in} (docs/tasks.md says which suit which task)",
        )
    highest = getattr(made_of(method), "highest_temperatures", {})
    stored = storing_problem(teacher, provided, {} if FEATURES in wanted else highest)
    return stored or (
        top_k_problem("teacher.holds", "top_k: the largest", highest) if getattr(kind, "top_k", False) else None
    )


def under(task: Mapping[str, Any] | None, provided: frozenset[str]) -> frozenset[str]:
    """What a teacher provides once the task has read its answers: a network's logits may be values, with or without spread.

    Values of a teacher that says it has such stand where logits would, and are none where the task tells the two apart.
    """
    if task is None or LOGITS not in provided:
        return provided
    read = build_task({"task": task}).provides
    if VALUES in provided:
        return provided if LOGITS in read else provided - {LOGITS}
    if PROBABILITIES in provided and LOGITS not in read:  # which sum to one over classes, and are no answers for each
        return provided - {LOGITS, PROBABILITIES}
    return (provided - {LOGITS}) | read


def completed(provided: frozenset[str]) -> frozenset[str]:
    """What a teacher provides, with what follows from it: a decision, and logits as they are unless they are logarithms of
    probabilities."""
    if PROBABILITIES in provided:
        return provided | {LOGITS, LABELS}
    return provided | {UNNORMALISED, LABELS} if LOGITS in provided else provided


def required(method: Mapping[str, Any]) -> frozenset[str]:
    """What the terms in use of a method's node read of the teacher; empty where they need none.

    Raises:
        UserError: the method cannot be made.
    """
    made = made_of(method)
    if not getattr(made, "needs_teacher", True):
        return frozenset()
    taps = getattr(made, "taps", {}).get("teacher")
    features = frozenset({FEATURES}) if taps else frozenset()
    terms, active = getattr(made, "terms", {}), getattr(made, "active", [])
    read: frozenset[str] = frozenset()
    for name in active:
        if getattr(terms[name], "needs_teacher", True):
            read |= frozenset(getattr(terms[name], "requires", {LOGITS}))
    return read | features


def made_of(method: Mapping[str, Any]) -> Any:
    """The method of a node, as far as it can be made without data.

    Raises:
        UserError: it cannot be made.
    """
    with RngStream(0):
        return instantiate(without_auto(method), "method")


def reads_logits(methods: Sequence[Mapping[str, Any]]) -> bool:
    """Whether some of the methods' nodes read the teacher's answers (logits, or what stands for them), not its features alone."""
    return any(required(method) - {FEATURES} for method in methods)
