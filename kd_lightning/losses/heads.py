"""Finding a model's classifier: the last linear layer, whose rows stand for the classes."""

from __future__ import annotations

from torch import Tensor, nn

from kd_lightning.errors import UserError


def classifier_of(model: nn.Module, role: str) -> nn.Linear:
    """The model's last linear layer in the order of its modules.

    Raises:
        UserError: there is none.
    """
    last = None
    for module in model.modules():
        if isinstance(module, nn.Linear):
            last = module
    if last is None:
        raise UserError(f"the {role} has no linear layer that could be its classifier: this loss needs one")
    return last


def class_similarity_cost(classifier: nn.Linear, sharpness: float = 2.0) -> Tensor:
    """How far classes are apart: ``1 - exp(-sharpness (1 - cos))`` of the classifier's rows, shape (C, C)."""
    rows = nn.functional.normalize(classifier.weight.detach().float(), dim=1)
    return 1 - (-sharpness * (1 - rows @ rows.T)).exp()
