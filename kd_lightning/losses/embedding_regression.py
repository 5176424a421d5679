"""Distilling embeddings (as lightly-train does): similarities to a queue, tokens by value, tokens by similarity."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.embeddings import EmbeddingPair
from kd_lightning.losses.inputs import checked_temperature, exactly, full_precision, paired_features
from kd_lightning.losses.queues import EmbeddingQueue, queue_logits
from kd_lightning.outputs import ModelOutput


class TeacherQueueLoss(EmbeddingPair):
    """KL divergence between both models' similarities to a queue of the teacher's embeddings that holds the batch.

    ``loss = mean_i KL( softmax_k(z_t,i q_k / T) || softmax_k(z_s,i q_k / T) )``, unit lengths. The batch enters the
    queue before the loss, in front.

    Args:
        tap: embeddings (N, D) of both models; maps are averaged. None: the outputs themselves.
        temperature: T > 0.
        size: of the queue, >= 1.
        normalise: False if the embeddings have unit length already.
    """

    takes_mixed = True

    def __init__(
        self, tap: str | None = None, temperature: float = 0.07, size: int = 4096, normalise: bool = True
    ) -> None:
        super().__init__(tap)
        self.normalise = normalise
        self.temperature = checked_temperature(temperature)
        self.queue = EmbeddingQueue(size)

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the head and the queue for the shapes of these outputs; a second call changes nothing."""
        super().prepare(student, teacher)
        self.queue.make(self.raw(teacher).shape[1], self.raw(teacher).device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Embeddings (N, D) of both models; returns a scalar >= 0."""
        ours, theirs = self.pair(student, teacher)
        if self.normalise:
            ours, theirs = F.normalize(ours, dim=1), F.normalize(theirs, dim=1)
        if self.training:
            self.queue.push(theirs)
        log_q, log_p = (
            F.log_softmax(queue_logits(rows, self.queue.rows, self.temperature), dim=1) for rows in (ours, theirs)
        )
        return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1).mean()


class EmbeddingRegressionLoss(EmbeddingPair):
    """The teacher's embedding by value: mean squared error, or one minus the cosine.

    Args:
        tap: embeddings (N, D) of both models; maps and tokens are averaged. None: the outputs themselves.
        cosine: ``mean_i (1 - cos)`` instead of the mean squared error.
    """

    takes_mixed = True

    def __init__(self, tap: str | None = None, cosine: bool = False) -> None:
        super().__init__(tap)
        self.cosine = cosine

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Embeddings (N, D) of both models; returns a scalar >= 0."""
        ours, theirs = self.pair(student, teacher)
        return (1 - F.cosine_similarity(ours, theirs, dim=1)).mean() if self.cosine else F.mse_loss(ours, theirs)


class TokenSimilarityLoss(nn.Module):
    """KL divergence between the models' similarities of a picture's tokens to each other.

    ``loss = mean_n,l KL( softmax_m(t_nl t_nm / T) || softmax_m(s_nl s_nm / T) )``, tokens of unit length; their lengths
    may differ between the models, their numbers not.

    Args:
        tap: for both models; tokens (N, L, D) or maps (N, C, H, W).
        temperature: T > 0.
        normalise: False if the tokens have unit length already.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str = "tokens", temperature: float = 0.07, normalise: bool = True) -> None:
        super().__init__()
        self.normalise = normalise
        self.tap, self.temperature = tap, checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Tokens under the tap's name; returns a scalar >= 0."""
        pair = [
            values.flatten(2).transpose(1, 2) if values.ndim == 4 else values
            for values in paired_features(student, teacher, self.tap)
        ]
        if pair[0].ndim != 3 or pair[0].shape[1] != pair[1].shape[1]:
            raise UserError(f"tap {self.tap!r}: needs as many tokens of both, got {pair[0].shape} and {pair[1].shape}")
        rows = [F.normalize(values, dim=2) if self.normalise else values for values in map(full_precision, pair)]
        with exactly(rows[0]):
            products = [values @ values.transpose(1, 2) / self.temperature for values in rows]
        log_q, log_p = (F.log_softmax(values, dim=2) for values in products)
        return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=2).mean()
