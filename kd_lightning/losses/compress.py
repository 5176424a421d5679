"""CompRess (Koohpayegani et al. 2020, arXiv:2010.14713): neighbours among a queue, each model in its own space."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kd_lightning.losses.embeddings import EmbeddingPair
from kd_lightning.losses.inputs import checked_temperature
from kd_lightning.losses.queues import EmbeddingQueue, queue_logits
from kd_lightning.outputs import ModelOutput


class QueueNeighbourhoodLoss(EmbeddingPair):
    """KL divergence between the models' similarities to the samples of a queue.

    ``loss = mean_i KL( softmax_k(z_t,i q_t,k / T) || softmax_k(z_s,i q_s,k / T) )``, all of unit length. With two
    queues each model has its own, and lengths may differ; with one, the student's embedding is compared with the
    teacher's queue. The batch enters after the loss.

    Args:
        tap: embeddings (N, D) of both models; maps are averaged. None: the outputs themselves.
        temperature: T > 0; the paper's 0.04.
        size: of the queues, >= 1.
        two_queues: False compares with the teacher's queue alone, through a linear head where lengths differ.
    """

    takes_mixed = True

    def __init__(
        self, tap: str | None = None, temperature: float = 0.04, size: int = 4096, two_queues: bool = True
    ) -> None:
        super().__init__(tap, same_length=not two_queues)
        self.temperature = checked_temperature(temperature)
        self.queue = EmbeddingQueue(size)
        self.student_queue = EmbeddingQueue(size) if two_queues else None

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the head and the queues for the shapes of these outputs; a second call changes nothing."""
        super().prepare(student, teacher)
        self.queue.make(self.raw(teacher).shape[1], self.raw(teacher).device)
        if self.student_queue is not None:
            self.student_queue.make(self.raw(student).shape[1], self.raw(student).device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Embeddings (N, D) of both models; returns a scalar >= 0."""
        ours, theirs = (F.normalize(rows, dim=1) for rows in self.pair(student, teacher))
        own_queue = self.queue.rows if self.student_queue is None else self.student_queue.rows
        log_q = F.log_softmax(queue_logits(ours, own_queue, self.temperature), dim=1)
        log_p = F.log_softmax(queue_logits(theirs, self.queue.rows, self.temperature), dim=1)
        loss = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1).mean()
        if self.training:
            self.queue.push(theirs)
            if self.student_queue is not None:
                self.student_queue.push(ours)
        return loss
