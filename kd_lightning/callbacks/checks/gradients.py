"""How strongly does each term pull at the student, beside the task's loss?"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from kd_lightning.callbacks.checks.check import Check, Seen, Warned
from kd_lightning.member import Member
from kd_lightning.method_arguments import TASK

log = logging.getLogger(__name__)

MEASUREMENTS = 3
RATIO = 100.0


class Gradients(Check):
    """The norm of the gradient of each weighted part of the loss, on the student's parameters.

    ``|d(w_k L_k)/d theta|``, measured in every ``every``-th optimizer step (its first batch, before clipping) and logged as
    ``train/grad_task`` and ``train/grad_<term>``: one more backward pass a part. A term is warned of that is more than
    :data:`RATIO` (100) times the task's, or less than a 100th of it, in each of the first :data:`MEASUREMENTS` (3). One
    alone says little: a feature loss may start huge and settle at once. Later ones say nothing of the weights: the gradient
    of labels that were learned by heart vanishes. A term with a schedule for its weight is not judged.

    Args:
        every: optimizer steps from one measurement to the next, >= 1.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._measured = -1  # the newest step that was
        self._measurements: list[dict[str, float]] = []
        self._new: dict[str, float] = {}
        self._judged = False
        self._possible = True

    def step(self, seen: Seen) -> None:
        if not self._possible or seen.step % self._every or seen.step == self._measured or not seen.weighted:
            return
        self._measured = seen.step
        try:
            self._new = norms(seen.member, seen.weighted)
        except RuntimeError as error:  # a graph that can be walked once only: reentrant checkpoints, compiled students
            self._possible = False
            log.info("%s: no gradient norms: %s", seen.member.name, str(error).partition("\n")[0])
            return
        if len(self._measurements) < MEASUREMENTS and self._new.get(TASK, 0.0) > 0:
            self._measurements.append(self._new)

    def take_figures(self) -> Mapping[str, float]:
        new, self._new = self._new, {}
        return {f"train/grad_{name}": norm for name, norm in new.items()}

    def end_epoch(self, member: Member) -> Iterable[Warned]:
        if self._judged or len(self._measurements) < MEASUREMENTS:
            return
        self._judged = True
        first = self._measurements[0]
        for name in [name for name in first if name != TASK and f"weight_{name}" not in member.method.scheduled]:
            shares = [found.get(name, math.nan) / found[TASK] for found in self._measurements]
            if all(share > RATIO for share in shares):
                much, advice = f"{min(shares):.2g} times", "the student learns from this term only: lower it"
            elif all(share < 1 / RATIO for share in shares):
                much, advice = f"{max(shares):.1g} of", "this term teaches nearly nothing: raise it"
            else:
                continue
            yield Warned(
                f"gradient of {name}",
                f"method.weights.{name}: the gradient of this weighted term is {much} that of the task's loss (at first "
                f"{first[name]:.2g} against {first[TASK]:.2g}), so {advice}",
            )


def norms(member: Member, weighted: Mapping[str, Tensor]) -> dict[str, float]:
    """The norm of each part's gradient on the student's parameters; the graph stays, no ``grad`` is touched."""
    parameters = [p for p in member.student.parameters() if p.requires_grad]
    scaler = member.optimization.scaler
    scale = 1.0 if scaler is None else scaler.get_scale()  # fp16 would lose small gradients
    found = {}
    with torch.autocast(parameters[0].device.type, enabled=False):
        for name, loss in weighted.items():
            if not loss.requires_grad:
                continue
            gradients = torch.autograd.grad(loss * scale, parameters, retain_graph=True, allow_unused=True)
            each = [torch.linalg.vector_norm(g.detach().float()) for g in gradients if g is not None]
            if not each and name == TASK:  # reentrant checkpoints hide what is behind them
                raise RuntimeError("the task's loss reaches no parameter of the student")
            found[name] = (torch.linalg.vector_norm(torch.stack(each)) / scale) if each else torch.zeros(())
    return {name: float(norm) for name, norm in found.items()}
