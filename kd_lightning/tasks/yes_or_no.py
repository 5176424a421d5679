"""Each class as a question of its own: the logit's sigmoid is the probability of yes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def yes_or_no_losses(
    logits: Tensor, answers: Tensor, focal: float = 0.0, positive_weight: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of each class, ``-a w (1 - p)^focal log p - (1 - a) p^focal log(1 - p)``; of the logits' shape.

    Args:
        logits: (N, C).
        answers: a, (N, C), in [0, 1].
        focal: exponent >= 0 (Lin et al. 2017, arXiv:1708.02002, eq. 4).
        positive_weight: w of a yes, (C,) or (1,); None: 1.
    """
    yes, no = F.logsigmoid(logits), F.logsigmoid(-logits)
    if focal:
        p = logits.sigmoid()
        yes, no = yes * (1 - p).pow(focal), no * p.pow(focal)
    if positive_weight is not None:
        yes = yes * positive_weight.to(yes)
    return -(answers * yes + (1 - answers) * no)
