"""Multi-level logit distillation, whole (Jin et al. 2023, CVPR): five temperatures, two views, unsure samples only.

:mod:`kd_lightning.losses.multi_level` has its three levels as terms of one temperature and one view. The paper averages
each over several temperatures, compares the second, strongly augmented view's predictions too, and aligns batch and
class correlations only where the teacher is unsure.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.cross_view import Views, other_view
from kd_lightning.losses.inputs import checked_temperature, exactly, paired_logits
from kd_lightning.losses.soft_target import softened_divergence
from kd_lightning.outputs import ModelOutput

FORMS = ("paper", "authors_code")


class MultiLevelLoss(nn.Module):
    """The sum over temperatures of the prediction, batch and class levels.

    With ``P`` the softened probabilities of the first view (N, C), for each temperature T::

        prediction  T^2 mean_i m_i KL_i(t_1, s_1)  +  T^2 mean_i KL_i(t_2, s_2)
        batch       sum_i m_i sum_j (P_t P_t^T - P_s P_s^T)_ij^2 / N
        class       sum_c n_c sum_d (P_t^T P_t - P_s^T P_s)_cd^2 / C

    ``m`` keeps the samples of which the teacher is less sure than the median, ``n`` the classes to which it gives less
    than the median (at T = 1).

    ``form="authors_code"`` is what their repository computes: its per-sample losses are averaged before they are
    masked, so that the masks only multiply each term by the share that is kept, and its second view uses the first
    one's logits for the last two temperatures.

    Args:
        temperatures: each > 0; the authors' are 4, 3, 5, 2, 6.
        standardise: soft targets of standardised logits (the other two levels stay as they are).
        form: "paper" or "authors_code".
    """

    def __init__(
        self,
        temperatures: Sequence[float] = (4.0, 3.0, 5.0, 2.0, 6.0),
        standardise: bool = False,
        form: str = "paper",
    ) -> None:
        super().__init__()
        if not temperatures:
            raise UserError("temperatures must hold at least one temperature")
        if form not in FORMS:
            raise UserError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        self.temperatures = [checked_temperature(t, "temperatures") for t in temperatures]
        self.standardise, self.form = standardise, form

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, views: Views) -> Tensor:
        """Logits of shape (N, C) in each view; returns a scalar >= 0."""
        with exactly(student.logits):
            ours, theirs = paired_logits(student, teacher)
            unsure, rare = self._masks(theirs.softmax(dim=1))
            total = ours.new_zeros(())
            for number, temperature in enumerate(self.temperatures):
                total = total + self._level(ours, theirs, temperature, unsure, rare)
                first_again = self.form == "authors_code" and number >= len(self.temperatures) - 2
                shown = (student, teacher) if first_again else other_view(views)
                pair = paired_logits(*shown, standardise=self.standardise)
                total = total + softened_divergence(*pair, temperature).mean()
                pair = paired_logits(student, teacher, self.standardise)
                losses = softened_divergence(*pair, temperature)
                total = total + (losses.mean() * unsure.mean() if self._averaged else (losses * unsure).mean())
            return total

    @property
    def _averaged(self) -> bool:
        return self.form == "authors_code"

    def _masks(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Unsure samples (N,) and rarely expected classes (C,): 1.0 where kept."""
        certainty, expected = probabilities.amax(dim=1), probabilities.sum(dim=0)
        kept = [(values <= values.quantile(0.5)).to(values.dtype) for values in (certainty, expected)]
        return kept[0], kept[1]

    def _level(self, ours: Tensor, theirs: Tensor, temperature: float, unsure: Tensor, rare: Tensor) -> Tensor:
        """Batch and class level at one temperature."""
        p, q = ((logits / temperature).softmax(dim=1) for logits in (theirs, ours))
        batch = (p @ p.T - q @ q.T).square().sum(dim=1)
        classes = (p.T @ p - q.T @ q).square().sum(dim=1)
        if self._averaged:
            return batch.mean() * unsure.mean() + classes.mean() * rare.mean()
        return (batch * unsure).mean() + (classes * rare).mean()
