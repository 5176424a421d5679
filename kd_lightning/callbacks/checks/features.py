"""Does a tapped feature tell samples apart?"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from kd_lightning.callbacks.checks.check import Check, Seen, Warned
from kd_lightning.member import Member

BATCHES = 4
SAME = 1e-6


class ConstantFeatures(Check):
    """A tapped feature (N, ...) is the same for all samples of each of an epoch's first :data:`BATCHES` batches.

    The same: no element differs over the batch by more than :data:`SAME` (1e-6) of the feature's largest magnitude. Batches
    of one sample say nothing.
    """

    def __init__(self) -> None:
        self._moves: dict[tuple[str, str], list[Tensor]] = {}
        self._batches = 0

    def begin_epoch(self) -> None:
        self._moves, self._batches = {}, 0

    def step(self, seen: Seen) -> None:
        if self._batches == BATCHES:
            return
        self._batches += 1
        for side, output in (("student", seen.student), ("teacher", seen.teacher)):
            taps = seen.member.method.taps[side]
            for name, feature in output.features.items() if output is not None else ():
                if name in taps and len(feature) > 1 and feature.is_floating_point():
                    self._moves.setdefault((side, name), []).append(_moves(feature.detach()))

    def end_epoch(self, member: Member) -> Iterable[Warned]:
        for (side, name), moves in self._moves.items():
            if torch.stack(moves).any().item():
                continue
            layer = member.method.taps[side].get(name, name)
            yield Warned(
                f"constant feature {side}.{name}",
                f"method.taps.{side}.{name}: layer {layer!r} of the {side} gives the same for every sample of a batch, so "
                f"a feature loss learns nothing from it: choose another layer (kd-layers lists them){_dead(side)}",
            )
        self._moves = {}


def _moves(feature: Tensor) -> Tensor:
    """Whether an element differs over the batch: a scalar of bools."""
    span = (feature.amax(0) - feature.amin(0)).max()
    return span > SAME * feature.abs().max()


def _dead(side: str) -> str:
    return ", or lower optimizer.lr if it died in training" if side == "student" else ""
