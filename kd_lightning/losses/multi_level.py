"""Multi-level logit distillation (Jin et al. 2023, CVPR): beside each sample's probabilities, their correlations.

The paper aligns the predictions on three levels: the sample (soft targets), the batch and the class. It averages over
five temperatures and adds a strongly augmented view of each picture; here each term has one temperature and sees the
one view of the batch.
"""

from __future__ import annotations

from torch import Tensor, nn

from kd_lightning.losses.inputs import checked_temperature, exactly, paired_logits, require_rows
from kd_lightning.outputs import ModelOutput


class ClassCorrelationLoss(nn.Module):
    """Which classes go together: ``loss = |P_t^T P_t - P_s^T P_s|_F^2 / C``, P the batch's probabilities (N, C) at T.

    A sum over the batch inside the square: its size grows with N^2.

    Args:
        temperature: softening T, > 0.
    """

    takes_mixed = True

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C); returns a scalar >= 0."""
        with exactly(student.logits):
            ours, theirs = _probabilities(student, teacher, self.temperature)
            return (theirs.T @ theirs - ours.T @ ours).square().sum() / ours.shape[1]


class BatchCorrelationLoss(nn.Module):
    """Which samples go together: ``loss = |P_t P_t^T - P_s P_s^T|_F^2 / N``, P the batch's probabilities (N, C) at T.

    Args:
        temperature: softening T, > 0.
    """

    takes_mixed = True

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C); returns a scalar >= 0."""
        with exactly(student.logits):
            ours, theirs = _probabilities(student, teacher, self.temperature)
            return (theirs @ theirs.T - ours @ ours.T).square().sum() / ours.shape[0]


def _probabilities(student: ModelOutput, teacher: ModelOutput, temperature: float) -> list[Tensor]:
    require_rows(student.logits, "multi-level distillation")
    return [(logits / temperature).softmax(dim=1) for logits in paired_logits(student, teacher)]
