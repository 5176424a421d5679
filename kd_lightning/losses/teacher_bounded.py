"""Teacher-bounded regression (Chen et al. 2017, "Learning Efficient Object Detection Models with Knowledge Distillation",
NeurIPS 2017, eq. 5)."""

from __future__ import annotations

from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.joints import VALUES
from kd_lightning.losses.values import mean_over_known, value_triple
from kd_lightning.outputs import ModelOutput


class TeacherBoundedLoss(nn.Module):
    """The student is punished for its error only while it is not better than the teacher by a margin.

    ``loss = mean { (s - y)^2  if (s - y)^2 + margin > (t - y)^2,  else 0 }``: the teacher's error is an upper bound for the
    student's, its values are no targets. Averaged over the values whose truth is known; the paper sums a box's four
    coordinates into one error, here each value has its own bound. The paper adds it, with weight 0.5, to a smooth L1
    loss against the truth: that is the task's own (``task.loss=huber``).

    Args:
        margin: >= 0, in squared standard deviations of the target.
    """

    requires = frozenset({VALUES})

    def __init__(self, margin: float = 0.0) -> None:
        super().__init__()
        if not margin >= 0:
            raise UserError(f"margin must be >= 0, got {margin}")
        self.margin = margin

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Predictions (N, D) of both models, target (N, D), nan where it is not known; returns a scalar >= 0."""
        values = value_triple(student, teacher, target)
        error = (values.student - values.target).square()
        bound = (values.teacher - values.target).square()
        return mean_over_known(error * (error.detach() + self.margin > bound), values.known)
