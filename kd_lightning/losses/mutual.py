"""Deep mutual learning (DML: Zhang et al. 2018, arXiv:1706.00384): students that teach each other, without a teacher.

The peers are this term's own networks, trained beside the student on the same batches and left behind on export.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.calling import ask
from kd_lightning.errors import UserError
from kd_lightning.losses.classes import class_numbers, mean_over_labelled
from kd_lightning.losses.inputs import checked_temperature, full_precision
from kd_lightning.outputs import ModelOutput, as_model_output


class MutualLoss(nn.Module):
    """What student and peers learn from each other, and the peers from the labels.

    ``loss = mimicry D_student + sum_k ( CE_k + mimicry D_k )``: ``D_m = T^2 mean_{j != m} mean_i KL( p_ij || p_im )``,
    eq. 6 and 7, each model's target standing still; ``CE_k`` the cross-entropy of peer k with the labels. The student's
    own cross-entropy is the method's ``task``: give both weights 1 for the paper's loss.

    Args:
        peers: how many networks like the student, with weights of their own; or the networks themselves.
        mimicry: weight of the divergences, >= 0.
        temperature: softening T, > 0.
    """

    needs_teacher = False

    def __init__(self, peers: int | Sequence[nn.Module] = 1, mimicry: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        if isinstance(peers, int):
            if isinstance(peers, bool) or peers < 1:
                raise UserError(f"peers must be a number >= 1 or networks, got {peers!r}")
        elif not peers or not all(isinstance(peer, nn.Module) for peer in peers):
            raise UserError("peers must be a number >= 1 or networks (a list of _target_s)")
        self._copies = peers if isinstance(peers, int) else 0
        self.peers = nn.ModuleList([] if isinstance(peers, int) else peers)
        self.mimicry, self.temperature = float(mimicry), checked_temperature(temperature)

    def bind(self, student_model: nn.Module, teacher_model: nn.Module | None) -> None:
        """Make the peers that are copies of the student; a second call changes nothing."""
        while len(self.peers) < self._copies:
            self.peers.append(drawn_anew(copy.deepcopy(student_model)))

    def forward(self, student: ModelOutput, teacher: ModelOutput | None, target: Tensor, batch: Batch) -> Tensor:
        """Logits of shape (N, C), target of shape (N,); returns a scalar >= 0."""
        if not len(self.peers):
            raise RuntimeError("MutualLoss has no peers yet: call bind(student_model, None) first")
        logits = [full_precision(student.logits)]
        logits += [full_precision(as_model_output(ask(peer, batch.inputs)).logits) for peer in self.peers]
        softened = [F.log_softmax(z / self.temperature, dim=1) for z in logits]
        total = logits[0].new_zeros(())
        for m, own in enumerate(softened):
            others = [other.detach() for j, other in enumerate(softened) if j != m]
            divergences = [F.kl_div(own, o, reduction="batchmean", log_target=True) for o in others]
            total = total + self.mimicry * torch.stack(divergences).mean() * self.temperature**2
        labels = class_numbers(target)
        for peer in logits[1:]:
            losses = F.cross_entropy(peer, labels.clamp(min=0), reduction="none")
            total = total + mean_over_labelled(losses, target)
        return total


def drawn_anew(model: nn.Module) -> nn.Module:
    """The model with initial weights drawn again: by its layers' ``reset_parameters``, the rest with their spread."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            continue
        for parameter in module.parameters(recurse=False):
            spread = parameter.detach().std() if parameter.numel() > 1 else torch.zeros(())
            if float(spread) > 0:
                nn.init.normal_(parameter, std=float(spread))
    return model
