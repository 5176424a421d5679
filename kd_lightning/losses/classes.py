"""The true class and the other classes of labelled samples: for losses that treat the two differently.

Where a label is a distribution (N, C), its most probable class is the true one, as in the authors' code of NKD.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kd_lightning.batch import UNLABELLED
from kd_lightning.errors import UserError


def class_numbers(target: Tensor) -> Tensor:
    """Each sample's class: (N,) as it is, (N, C) of probabilities the largest of them.

    Raises:
        UserError: there are several classes a sample, one in each position.
    """
    if target.ndim == 1:
        return target
    if target.ndim > 2 or not target.is_floating_point():
        raise UserError(
            f"this loss looks at the one class of a sample, here each has several (targets {tuple(target.shape)}): choose a "
            "method that compares the models' answers alone, as method=kd, or their layers"
        )
    return target.argmax(dim=1)


def true_class(values: Tensor, target: Tensor) -> Tensor:
    """Each sample's value for its true class: (N, C) and (N,) give (N,); unlabelled samples get those of class 0."""
    return values.gather(1, class_numbers(target).clamp(min=0)[:, None]).squeeze(1)


def other_classes(values: Tensor, target: Tensor) -> Tensor:
    """Each sample's values without its true class: (N, C) and (N,) give (N, C - 1), in the classes' order."""
    if values.ndim != 2 or values.shape[1] < 2:
        raise UserError(f"a loss on the other classes needs logits (N, C) with C >= 2, got shape {tuple(values.shape)}")
    position = torch.arange(values.shape[1] - 1, device=values.device)[None]
    return values.gather(1, position + (position >= class_numbers(target).clamp(min=0)[:, None]))


def mean_over_labelled(losses: Tensor, target: Tensor) -> Tensor:
    """Mean of (N,) losses over the samples whose label is known; 0, with a zero gradient, if there is none."""
    labelled = class_numbers(target) != UNLABELLED
    return torch.where(labelled, losses, 0.0).sum() / labelled.sum().clamp(min=1)
