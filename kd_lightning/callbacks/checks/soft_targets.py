"""Do the teacher's soft targets say more than its labels, and anything at all?"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from kd_lightning.callbacks.checks.check import Check, Seen, Warned
from kd_lightning.joints import LOGITS
from kd_lightning.member import Member

BATCHES = 4
ONE_HOT, UNIFORM = 0.005, 0.999


class SoftTargets(Check):
    """The mean entropy of ``softmax(logits / T)`` over the first :data:`BATCHES` batches, as a share of ``ln C``.

    Below :data:`ONE_HOT` (0.005; for ten classes a mean probability of about 0.998 for the largest) they are labels; above
    :data:`UNIFORM` (0.999; for ten classes logits with a standard deviation of about 0.07 T) they are nearly the same for
    every class. Looked at where a method has one fixed temperature and reads logits (N, C, ...) of classes that the target
    (N, ...) numbers.
    """

    def __init__(self) -> None:
        self._shares: list[Tensor] = []
        self._said = False
        self._temperature = 1.0
        self._largest = 0.0

    def step(self, seen: Seen) -> None:
        method = seen.member.method
        if self._said or len(self._shares) == BATCHES or method.temperature is None:
            return
        if seen.teacher is None or LOGITS not in method.requires or "temperature" in method.scheduled:
            return
        logits = seen.teacher.logits
        if not _number_classes(seen.target, logits):
            return
        self._temperature = method.temperature
        with torch.no_grad():
            logs = torch.log_softmax(logits.float() / self._temperature, dim=1)
            entropy = -(logs.exp() * logs).sum(1).mean()
            self._shares.append(entropy / math.log(logits.shape[1]))

    def end_epoch(self, member: Member) -> Iterable[Warned]:
        if self._said or not self._shares:
            return
        self._said = True
        share = torch.stack(self._shares).mean().item()
        what = f"of their largest possible entropy at method.temperature={self._temperature:g}"
        if share < ONE_HOT:
            yield Warned(
                "soft targets",
                f"the teacher's soft targets are nearly one-hot ({100 * share:.2g} % {what}): they say little more than "
                "labels; raise method.temperature, or take a teacher that is less sure (trained for a shorter time, or "
                "with label smoothing)",
            )
        if share > UNIFORM:
            yield Warned(
                "soft targets",
                f"the teacher's soft targets are nearly uniform ({100 * share:.5g} % {what}): they hardly tell classes "
                "apart; lower method.temperature, and see whether the teacher's outputs are logits (teacher.outputs)",
            )


def _number_classes(target: Tensor, logits: Tensor) -> bool:
    """Whether the target (N, ...) holds numbers of the logits' (N, C, ...) classes."""
    if not isinstance(target, Tensor) or target.is_floating_point() or logits.dim() < 2 or logits.shape[1] < 2:
        return False
    return target.shape == logits.shape[:1] + logits.shape[2:]
