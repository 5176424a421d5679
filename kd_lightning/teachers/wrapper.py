"""A teacher in front of another one: who answers from a store is the same teacher to everybody else."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.joints import Teacher
from kd_lightning.outputs import ModelOutput


class TeacherWrapper:
    """Hands everything on to the teacher behind it; a subclass answers some batches itself.

    Args:
        teacher: the teacher behind; its attributes and state are this one's.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def __call__(self, batch: Batch) -> ModelOutput:
        return self.teacher(batch)

    @property
    def name(self) -> str:
        return self.teacher.name

    @property
    def provides(self) -> frozenset[str]:
        return self.teacher.provides

    @property
    def labels_new_inputs(self) -> bool:
        return self.teacher.labels_new_inputs

    @property
    def splits(self) -> frozenset[str]:
        """The splits whose samples a teacher of stored answers knows."""
        known: frozenset[str] = getattr(self.teacher, "splits", frozenset())
        return known

    def to(self, device: torch.device | str) -> TeacherWrapper:
        self.teacher.to(device)
        return self

    def finish(self) -> None:
        """An evaluation is over here."""
        finish = getattr(self.teacher, "finish", None)
        if finish is not None:
            finish()

    def verify(self) -> None:
        self.teacher.verify()

    def cache_parts(self) -> dict[str, Any]:
        return self.teacher.cache_parts()

    def describe(self) -> dict[str, Any]:
        return self.teacher.describe()

    @property
    def module(self) -> nn.Module:
        """The network behind, for who looks at its layers; an AttributeError where there is none."""
        module = getattr(self.teacher, "module", None)
        if not isinstance(module, nn.Module):
            raise AttributeError("module")
        return module
