from __future__ import annotations

import pytest
import torch

from kd_lightning.errors import UserError
from kd_lightning.losses.dist import InterClassLoss, IntraClassLoss
from kd_lightning.losses.logits_mse import LogitsMSELoss
from kd_lightning.losses.lskd import StandardisedSoftTargetLoss
from kd_lightning.outputs import ModelOutput


def outputs(classes: int) -> tuple[ModelOutput, ModelOutput, torch.Tensor]:
    return ModelOutput(torch.randn(6, classes)), ModelOutput(torch.randn(6, classes)), torch.zeros(6, dtype=torch.long)


@pytest.mark.parametrize("loss", [StandardisedSoftTargetLoss(), InterClassLoss()])
def test_losses_without_a_gradient_for_two_classes_refuse_them(loss):
    with pytest.raises(UserError, match="teaches nothing with 2 classes"):
        loss(*outputs(2))
    assert torch.isfinite(loss(*outputs(3)))


def test_the_term_between_samples_works_with_two_classes():
    assert torch.isfinite(IntraClassLoss()(*outputs(2)))


@pytest.mark.parametrize("loss", [StandardisedSoftTargetLoss(), LogitsMSELoss()])
def test_losses_on_logits_refuse_a_teacher_that_masks_classes(loss):
    student, teacher, _ = outputs(4)
    loss.prepare(student, teacher)
    teacher.logits[:, 2] = float("-inf")
    with pytest.raises(UserError, match="masks classes"):
        loss.prepare(student, teacher)
