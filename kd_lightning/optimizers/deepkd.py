"""DeepKD's optimizer (Huang et al. 2025, arXiv:2505.15133): three gradients, three momenta.

The soft loss has a part of the true class and one of the others (:mod:`kd_lightning.losses.deepkd`); with the task's
there are three gradients whose signal differs in strength. Each has a momentum of its own: more where the signal is
clearer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.optimizers.separate import SeparateMomenta

TASK, OTHERS, TRUE = "task", "other_classes", "true_class"
FORMS = ("paper", "authors_code")


class DeepKD(SeparateMomenta):
    """SGD with momentum buffers for the task's, the other classes' and the true class's gradients.

    In the paper's form momenta are ``momentum + delta_task``, ``+ delta_other_classes``, ``+ delta_true_class``, and the
    weight decay comes once, with the first gradient that a parameter has.

    ``form="authors_code"`` is, step by step, the authors' optimizer: the task's buffer has the momentum of the true
    class (of the other classes for parameters that no true-class gradient reaches), so that ``delta_task`` counts in
    an average only; the weight decay comes with the true class's gradient; a parameter that one gradient reaches has
    the mean of the three momenta; where the task's is missing, the other two momenta are exchanged.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, >= 0.
        momentum: in [0, 1).
        delta_task, delta_true_class, delta_other_classes: added to ``momentum``; each sum must stay in [0, 1).
        dampening: of the momentum, >= 0.
        weight_decay: >= 0.
        form: "paper" or "authors_code".
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.05,
        momentum: float = 0.9,
        delta_task: float = 0.075,
        delta_true_class: float = -0.075,
        delta_other_classes: float = 0.075,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        form: str = "paper",
    ) -> None:
        deltas = {TASK: delta_task, OTHERS: delta_other_classes, TRUE: delta_true_class}
        for part, delta in deltas.items():
            if not 0 <= momentum + delta < 1:
                raise UserError(f"optimizer.delta_{part}={delta}: momentum + delta must be in [0, 1)")
        if form not in FORMS:
            raise UserError(f"optimizer.form must be one of {', '.join(FORMS)}, got {form!r}")
        settings = {
            "lr": lr, "base_momentum": momentum, "deltas": deltas, "dampening": dampening, "weight_decay": weight_decay,
        }  # fmt: skip
        super().__init__(params, (TASK, OTHERS, TRUE), settings)
        self.form = form

    def _update(self, parameter: Tensor, given: dict[str, Tensor], group: dict[str, Any]) -> None:
        momenta = {part: group["base_momentum"] + delta for part, delta in group["deltas"].items()}
        decays = {part: float(number == 0) for number, part in enumerate(given)}
        if self.form == "authors_code":
            decays = {part: float(part == TRUE) for part in given}
            if len(given) == 1:
                (part,) = given
                momenta = dict.fromkeys(given, sum(momenta.values()) / 3)
                again = 1.0 if self._has_stepped(parameter, part) else 0.0
                decays = {part: {TASK: 0.0, OTHERS: again, TRUE: 1.0 + again}[part]}
            elif TASK in given:
                momenta[TASK] = momenta[TRUE] if TRUE in given else momenta[OTHERS]
            else:
                momenta[TRUE], momenta[OTHERS] = momenta[OTHERS], momenta[TRUE]
        for part, gradient in given.items():
            self._apply(parameter, part, gradient, group, momenta[part], decays[part])
