"""One thing that the doctor looks at in one member's training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from kd_lightning.member import Member
from kd_lightning.outputs import ModelOutput


class Seen(NamedTuple):
    """What a member's method was given in one training step, as it was: with graph, on its device.

    Attributes:
        member: whose step it is.
        student: the student's output.
        teacher: the teacher's under this method's names; None where it uses none.
        target: ground truth as terms get it, (N, ...).
        weighted: each part of the loss that counts now, times its weight, by name: scalars.
        step: optimizer steps taken before this one.
    """

    member: Member
    student: ModelOutput
    teacher: ModelOutput | None
    target: Tensor
    weighted: Mapping[str, Tensor]
    step: int


class Warned(NamedTuple):
    """A warning: ``kind`` is said once a run, ``text`` says what was found and what to do."""

    kind: str
    text: str


class Check:
    """Every method may be left as it is. One object looks at one member."""

    def begin_epoch(self) -> None:
        """An epoch of training begins."""

    def step(self, seen: Seen) -> None:
        """A training step's forward pass; computes nothing that the step would notice."""

    def take_figures(self) -> Mapping[str, float]:
        """What is to be logged since it was last asked, by full names."""
        return {}

    def end_epoch(self, member: Member) -> Iterable[Warned]:
        """What the epoch showed."""
        return ()

    def validated(self, member: Member, figures: Mapping[str, float]) -> Iterable[Warned]:
        """What a validation's figures, by their short names, show."""
        return ()
