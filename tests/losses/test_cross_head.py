from __future__ import annotations

import pytest
import torch

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.losses.cross_head import CrossHeadLoss
from kd_lightning.losses.dense_heads import QualityFocalLoss
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.models.small_cnn import SmallCNN
from kd_lightning.models.small_lraspp import SmallLRASPP
from kd_lightning.taps import Taps

INPUTS, TARGET = torch.randn(6, 1, 16, 16), torch.arange(6) % 4
BATCH = Batch(INPUTS, TARGET, torch.arange(6), split="train")


def crossed(student, teacher, term, layer="blocks.0", taps=None):
    """The loss of a student and a teacher on the inputs, and the term."""
    taps = taps or {"hint": "blocks.0"}
    loss = CrossHeadLoss(term, layer)
    loss.bind(student, teacher.eval())
    with torch.no_grad():
        answer = Taps(teacher, taps, role="teacher")(teacher, INPUTS)
    output = Taps(student, {"hint": "blocks.0"})(student, INPUTS)
    loss.prepare(output, answer)
    return loss(output, answer, TARGET, BATCH), loss


def cnn(*channels):
    return SmallCNN(channels, 20, 1, 4, 16)


def test_the_teachers_own_map_gets_the_teachers_own_answer():
    teacher = cnn(8, 16).eval()
    value, loss = crossed(teacher, teacher, SoftTargetLoss(4.0))
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert isinstance(loss.adapter, torch.nn.Identity)


@pytest.mark.parametrize(
    ("student", "teacher", "term"),
    [
        (cnn(4, 8), cnn(8, 16), SoftTargetLoss(4.0)),
        (SmallLRASPP([4, 6, 8], 6, 1, 3), SmallLRASPP([8, 12, 16], 12, 1, 3), QualityFocalLoss()),
    ],
    ids=["classes", "a logit in every pixel"],
)
def test_the_student_learns_up_to_the_map_and_the_teacher_nothing(student, teacher, term):
    before = teacher.eval()(INPUTS)
    value, loss = crossed(student, teacher, term)
    value.backward()
    assert value > 0
    assert all(p.grad is not None and p.grad.any() for p in student.blocks[0].parameters() if p.ndim > 1)
    assert all(p.grad is None for p in student.blocks[1].parameters())
    assert all(p.grad is not None for p in loss.adapter.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert torch.equal(teacher(INPUTS), before)  # its layer is its own again


def test_a_layer_that_is_not_the_tapped_one_is_named():
    with pytest.raises(UserError, match=r"layer 'blocks.1' gives \(6, 16, 4, 4\), the teacher's tap 'hint'"):
        crossed(cnn(4, 8), cnn(8, 16), SoftTargetLoss(4.0), layer="blocks.1")
    with pytest.raises(UserError, match="layer 'nowhere': the teacher has no such layer"):
        crossed(cnn(4, 8), cnn(8, 16), SoftTargetLoss(4.0), layer="nowhere")
