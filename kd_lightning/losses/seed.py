"""SEED (Fang et al. 2021, arXiv:2101.04731): place a sample among the embeddings of others as the teacher does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.losses.embeddings import EmbeddingPair
from kd_lightning.losses.inputs import checked_temperature
from kd_lightning.losses.queues import EmbeddingQueue, queue_logits
from kd_lightning.outputs import ModelOutput


class QueueSimilarityLoss(EmbeddingPair):
    """Cross-entropy between the models' similarities to the sample's own teacher embedding and a queue of others.

    ``loss = -mean_i sum_k softmax_k( z_t,i q_k / T_t ) log softmax_k( z_s,i q_k / T_s )``, ``q_0`` the teacher's
    embedding of sample i, the others the queue's, all of unit length. The batch enters the queue after the loss. (The
    authors' code has T_t = 1e-4 where their paper has 0.01.)

    Args:
        tap: embeddings (N, D) of both models; maps are averaged. None: the outputs themselves.
        teacher_temperature, student_temperature: > 0; the paper's 0.01 and 0.2.
        size: of the queue, >= 1.
    """

    takes_mixed = True

    def __init__(
        self,
        tap: str | None = None,
        teacher_temperature: float = 0.01,
        student_temperature: float = 0.2,
        size: int = 4096,
    ) -> None:
        super().__init__(tap)
        self.teacher_temperature = checked_temperature(teacher_temperature, "teacher_temperature")
        self.student_temperature = checked_temperature(student_temperature, "student_temperature")
        self.queue = EmbeddingQueue(size)

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the head and the queue for the shapes of these outputs; a second call changes nothing."""
        super().prepare(student, teacher)
        self.queue.make(self.raw(teacher).shape[1], self.raw(teacher).device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Embeddings (N, D) of both models; returns a scalar >= 0."""
        ours, theirs = (F.normalize(rows, dim=1) for rows in self.pair(student, teacher))
        logits = []
        for rows, temperature in ((theirs, self.teacher_temperature), (ours, self.student_temperature)):
            own = (rows * theirs).sum(dim=1, keepdim=True) / temperature
            logits.append(torch.cat([own, queue_logits(rows, self.queue.rows, temperature)], dim=1))
        loss = -(logits[0].softmax(dim=1) * F.log_softmax(logits[1], dim=1)).sum(dim=1).mean()
        if self.training:
            self.queue.push(theirs)
        return loss
