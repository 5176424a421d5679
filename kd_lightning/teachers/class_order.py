"""Are a teacher's classes the data's? Answers of another order look like a useless teacher and say so too late."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from kd_lightning.batch import UNLABELLED
from kd_lightning.errors import UserError

_LEAST = 30  # labelled samples; of fewer, any order may be right
_SURE = 0.6


def require_class_order(
    logits: Tensor,
    targets: Tensor | None,
    names: Sequence[str] | None,
    where: str,
    columns: Sequence[str] | None = None,
    key: str = "teacher.columns",
) -> None:
    """Raise a UserError where another order of the classes suits the labels far better than the one given.

    Args:
        logits: the teacher's, (N, C).
        targets: class numbers (N,), ``UNLABELLED`` where none is known; None, or anything else: nothing is asked.
        names: of the data's classes.
        where: the teacher's file, for the message.
        columns: what the teacher's answers are called, in the order in which they were taken; None: by their positions.
        key: the argument that takes the classes' order.
    """
    known = _known(logits, targets)
    if known is None:
        return
    assert targets is not None
    from scipy.optimize import linear_sum_assignment

    classes = logits.shape[1]
    table = np.zeros((classes, classes))
    np.add.at(table, (logits[known].argmax(1).numpy(), targets[known].numpy()), 1)
    given = table.trace() / table.sum()
    said, meant = linear_sum_assignment(-table)
    best = table[said, meant].sum() / table.sum()
    if best < _SURE or given > best / 2:
        return
    order = np.empty(classes, dtype=int)
    order[meant] = said
    first = next(k for k in range(classes) if order[k] != k)
    called = [str(k) for k in range(classes)] if columns is None else list(columns)
    name = str(first) if names is None else str(names[first])
    raise UserError(
        f"{where}: its classes are in another order than the data's: it agrees with {given:.0%} of the labels, and with {best:.0%} "
        f"if {called[order[first]]} is class {name}, and so on: {key}=[{','.join(called[k] for k in order)}]"
    )


def no_better_than_the_commonest(logits: Tensor, targets: Tensor | None) -> bool:
    """Whether answers (N, C) are right no more often than the commonest of the labels (N,) is, and enough are known to say so."""
    known = _known(logits, targets)
    if known is None:
        return False
    assert targets is not None
    right = (logits[known].argmax(1) == targets[known]).double().mean()
    return bool(right <= targets[known].bincount().max() / known.sum())


def _known(logits: Tensor, targets: Tensor | None) -> Tensor | None:
    """Which samples have a class number; None where there are none, or too few of them to judge by."""
    if targets is None or targets.is_floating_point() or targets.dim() != 1 or logits.dim() != 2:
        return None
    known = targets != UNLABELLED
    return known if int(known.sum()) >= max(_LEAST, 2 * logits.shape[1]) else None
