"""Be Your Own Teacher (BYOT: Zhang et al. 2019, arXiv:1905.08094): a network's deepest layers teach its shallow ones.

A small head on each shallow layer makes logits and a feature; labels, the network's own answer and its deepest feature
teach them. The heads are left behind on export.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.classes import class_numbers, mean_over_labelled
from kd_lightning.losses.inputs import checked_temperature, full_precision
from kd_lightning.losses.stage_heads import stage_head
from kd_lightning.outputs import ModelOutput


class OwnTeacherLoss(nn.Module):
    """What the shallow heads learn, summed over heads.

    ``loss = sum_k (1 - alpha) CE( q_k, y ) + alpha T^2 mean_i KL( q_C || q_k ) + beta mean (F_k - F_C)^2``, eq. 3 to 5:
    ``q_C`` the student's own logits and ``F_C`` its deepest tapped feature, both standing still, ``F_k`` what the head
    makes of the k-th tap before its last layer. The paper sums the squared differences; here they are averaged.

    Args:
        taps: the shallow layers, and last the deepest: maps (N, C, H, W), tokens (N, L, D) or vectors (N, D).
        alpha: share of the network's own answer, in [0, 1].
        beta: weight of the features, >= 0.
        temperature: softening T, > 0.
    """

    needs_teacher = False

    def __init__(self, taps: Sequence[str], alpha: float = 0.3, beta: float = 0.03, temperature: float = 3.0) -> None:
        super().__init__()
        if len(taps) < 2:
            raise UserError("BYOT needs two taps at least: a shallow layer, and last the deepest one that teaches it")
        if not 0 <= alpha <= 1 or beta < 0:
            raise UserError(f"BYOT needs alpha in [0, 1] and beta >= 0, got {alpha} and {beta}")
        self.taps, self.alpha, self.beta = list(taps), float(alpha), float(beta)
        self.temperature = checked_temperature(temperature)
        self.heads = nn.ModuleList()

    def prepare(self, student: ModelOutput, teacher: ModelOutput | None) -> None:
        """Build the heads for the shapes of these features; a second call changes nothing."""
        if len(self.heads):
            return
        *shallow, deepest = (self._feature(student, tap) for tap in self.taps)
        smallest = deepest.shape[-1] if deepest.ndim == 4 else 1
        for feature in shallow:
            if feature.ndim == 2 and deepest.ndim == 4:
                raise UserError("BYOT: a vector cannot be taught by maps: tap the deepest vector as the last one")
            if feature.ndim == 4 and deepest.ndim == 2:
                smallest = max(1, feature.shape[-1] // 2)
            self.heads.append(
                stage_head(feature, deepest.shape[1], student.logits.shape[1], smallest).to(feature.device)
            )

    def forward(self, student: ModelOutput, teacher: ModelOutput | None, target: Tensor) -> Tensor:
        """Features under each tap's name, logits (N, C), target of shape (N,); returns a scalar >= 0."""
        if not len(self.heads):
            raise RuntimeError("OwnTeacherLoss has no heads yet: call prepare(student, None) first")
        answer = full_precision(student.logits).detach() / self.temperature
        deepest = full_precision(self._feature(student, self.taps[-1])).detach()
        labels = class_numbers(target)
        total = answer.new_zeros(())
        for tap, head in zip(self.taps[:-1], self.heads, strict=True):
            layers, cut = list(head.children()), _FEATURE[deepest.ndim]
            feature = nn.Sequential(*layers[:cut])(self._feature(student, tap))
            logits = full_precision(nn.Sequential(*layers[cut:])(feature))
            hard = F.cross_entropy(logits, labels.clamp(min=0), reduction="none")
            soft = F.kl_div(
                F.log_softmax(logits / self.temperature, 1), F.log_softmax(answer, 1), reduction="none", log_target=True
            )
            total = total + (1 - self.alpha) * mean_over_labelled(hard, target)
            total = total + self.alpha * soft.sum(dim=1).mean() * self.temperature**2
            total = total + self.beta * F.mse_loss(*of_equal_size(full_precision(feature), deepest))
        return total

    @staticmethod
    def _feature(student: ModelOutput, tap: str) -> Tensor:
        if tap not in student.features:
            raise UserError(f"BYOT needs the student's tap {tap!r}: set method.taps.student.{tap} to a layer's name")
        feature = student.features[tap]
        if feature.ndim not in (2, 3, 4):
            raise UserError(f"tap {tap!r}: BYOT takes maps, tokens or vectors, got {tuple(feature.shape)}")
        return feature.mean(dim=1) if feature.ndim == 3 else feature


_FEATURE = {4: -3, 2: -1}
"""Where a head is cut by the deepest feature's dimensions: before mean, flatten and linear layer, or before the last."""
