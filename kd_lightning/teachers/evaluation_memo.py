"""The teacher's answers on evaluation batches, kept in memory: they are the same in every epoch."""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch

from kd_lightning.batch import Batch
from kd_lightning.joints import Teacher
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.samples import sample_digest
from kd_lightning.teachers.wrapper import TeacherWrapper

log = logging.getLogger(__name__)

EVALUATED = ("val", "test")


class _Answer(NamedTuple):
    output: ModelOutput
    first_sample: str  # digest of the batch's first input


class EvaluationMemo(TeacherWrapper):
    """A teacher that is asked once about each batch that evaluation shows again.

    A batch is recognised by its split, its samples' positions and its view, which name the model's input exactly; an
    answer is bit for bit what the teacher gave. Training batches, and batches that name nothing, go to the teacher
    behind. Features are not kept. The first sample of each batch is compared with the one that was answered: where
    validation data draw at random in each reading, the memo says so and steps aside.

    Args:
        teacher: who is asked; a cache of training answers, or a live teacher.
        limit_bytes: once so much is kept, new batches are answered live.
    """

    def __init__(self, teacher: Teacher, limit_bytes: int = 1 << 30) -> None:
        super().__init__(teacher)
        self.limit_bytes = limit_bytes
        self._answers: dict[tuple[str, int, bytes], _Answer] = {}
        self._bytes = 0
        self._trusted = True

    def __call__(self, batch: Batch) -> ModelOutput:
        if not self._trusted or batch.split not in EVALUATED or batch.index is None:
            return self.teacher(batch)
        key = (batch.split, int(batch.view), batch.index.cpu().numpy().tobytes())
        first = sample_digest(batch.inputs)
        known = self._answers.get(key)
        if known is None:
            return self._ask(key, batch, first)
        if known.first_sample != first:
            self._distrust(batch.split)
            return self.teacher(batch)
        return known.output

    def _ask(self, key: tuple[str, int, bytes], batch: Batch, first: str) -> ModelOutput:
        answer = self.teacher(batch)
        kept = ModelOutput(answer.logits, spread=answer.spread)
        size = output_bytes(kept)
        if self._bytes + size <= self.limit_bytes:
            self._answers[key] = _Answer(kept, first)
            self._bytes += size
        return answer  # with its features, this first time

    def _distrust(self, split: str) -> None:
        self._answers.clear()
        self._bytes = 0
        self._trusted = False
        log.warning(
            "WARNING: the %s data give other inputs each time they are read (random transforms?): figures of two epochs are not "
            "measured on the same samples",
            split,
        )

    def to(self, device: torch.device | str) -> EvaluationMemo:
        """Move the teacher; answers given on another device are forgotten."""
        super().to(device)
        wanted = torch.device(device)
        self._answers = {k: a for k, a in self._answers.items() if _on(a.output.logits.device, wanted)}
        self._bytes = sum(output_bytes(answer.output) for answer in self._answers.values())
        return self


def output_bytes(output: ModelOutput) -> int:
    """Bytes of logits and spread."""
    return sum(t.numel() * t.element_size() for t in (output.logits, output.spread) if t is not None)


def _on(device: torch.device, wanted: torch.device) -> bool:
    return device.type == wanted.type and wanted.index in (None, device.index)
