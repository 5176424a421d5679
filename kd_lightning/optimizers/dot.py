"""Distillation-oriented training (DOT: Zhao et al. 2023, arXiv:2307.08436): more momentum for the soft loss.

Gradients of the task and of distillation may point apart, and then the sum of both trains neither well. DOT keeps a
momentum for each, larger for distillation, so that it leads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.optimizers.separate import SeparateMomenta

TASK, DISTILLATION = "task", "distillation"


class DOT(SeparateMomenta):
    """SGD with a momentum buffer for the task's and one for the distillation's gradient.

    Momenta are ``momentum - delta`` for the task and ``momentum + delta`` for distillation; a parameter that only one
    of them reaches has ``momentum``. First the task's step, with the weight decay, then the distillation's. The first
    step stores the gradients as they are. Equal, step by step, to the authors' optimizer.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, >= 0.
        momentum: the middle of the two, in [0, 1).
        delta: difference to the middle, >= 0; the authors use 0.075 on CIFAR-100, 0.09 on Tiny-ImageNet.
        dampening: of the momentum, >= 0.
        weight_decay: >= 0.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.05,
        momentum: float = 0.9,
        delta: float = 0.075,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        if not 0 <= momentum - delta <= momentum + delta < 1:
            raise UserError(f"optimizer.delta={delta}: momentum ± delta must be in [0, 1), momentum is {momentum}")
        settings = {
            "lr": lr,
            "base_momentum": momentum,
            "delta": delta,
            "dampening": dampening,
            "weight_decay": weight_decay,
        }
        super().__init__(params, (TASK, DISTILLATION), settings)

    def part_of(self, term: str) -> str:
        """The task's own loss is one part, every term the other."""
        return TASK if term == TASK else DISTILLATION

    def _update(self, parameter: Tensor, given: dict[str, Tensor], group: dict[str, Any]) -> None:
        alone = len(given) == 1
        if TASK in given:
            momentum = group["base_momentum"] - (0 if alone else group["delta"])
            self._apply(parameter, TASK, given[TASK], group, momentum, decays=1)
        if DISTILLATION in given:
            momentum = group["base_momentum"] + (0 if alone else group["delta"])
            decays = 1 if alone and self._has_stepped(parameter, DISTILLATION) else 0
            self._apply(parameter, DISTILLATION, given[DISTILLATION], group, momentum, decays)
