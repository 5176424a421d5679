"""Losses that keep networks of their own: peers, moving averages, heads; and those that ask the teacher for gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.losses.gradients import ClassMapLoss, InputGradientLoss
from kd_lightning.losses.mean_teacher import MeanTeacherLoss
from kd_lightning.losses.mutual import MutualLoss
from kd_lightning.losses.own_teacher import OwnTeacherLoss
from kd_lightning.losses.prime_aware import PrimeAwareLoss
from kd_lightning.losses.stage_heads import StageHeadLoss
from kd_lightning.models.mlp import MLP
from kd_lightning.models.small_cnn import SmallCNN
from kd_lightning.models.small_vit import SmallViT
from kd_lightning.outputs import ModelOutput
from kd_lightning.taps import Taps

INPUTS, TARGET = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 3, 1, -1])
BATCH = Batch(INPUTS, TARGET, torch.arange(6), split="train")


def clock(step=0, epoch=0):
    return Clock(epoch=epoch, step=step, total_steps=100, steps_per_epoch=10)


def test_a_peer_is_a_student_with_weights_of_its_own_and_learns_from_labels_and_student():
    student, loss = MLP([8], 64, 4), MutualLoss(peers=2)
    loss.bind(student, None)
    peer = loss.peers[0]
    assert not torch.equal(peer.classifier.weight, student.classifier.weight)
    output = student(INPUTS)
    value = loss(ModelOutput(output), None, TARGET, BATCH)
    value.backward()
    assert all(p.grad is not None for p in loss.parameters())
    logs = [F.log_softmax(model(INPUTS), 1) for model in (student, *loss.peers)]
    expected = sum(F.cross_entropy(z, TARGET, ignore_index=-1) for z in logs[1:])
    for m, own in enumerate(logs):
        others = [F.kl_div(own, z, reduction="batchmean", log_target=True) for j, z in enumerate(logs) if j != m]
        expected = expected + sum(others) / 2
    torch.testing.assert_close(value, expected)


def test_the_mean_teacher_follows_the_student_and_learns_nothing_itself():
    student, loss = SmallCNN([4], 8, 1, 4, 8), MeanTeacherLoss(momentum=0.9)
    loss.bind(student, None)
    loss.train()
    assert not loss.average.training
    before = loss.average.classifier.weight.clone()
    with torch.no_grad():
        student.classifier.weight.add_(1.0)
    loss.after_step(student, clock(step=100))
    torch.testing.assert_close(loss.average.classifier.weight, before + 0.1)
    assert not [p for p in loss.parameters() if p.requires_grad]
    assert "average.classifier.weight" in loss.state_dict()


@pytest.mark.parametrize("shape", [(6, 4, 8, 8), (6, 5, 4), (6, 4)], ids=["maps", "tokens", "vectors"])
def test_stage_heads_take_maps_tokens_and_vectors(shape):
    feature = torch.randn(shape, requires_grad=True)
    student = ModelOutput(torch.randn(6, 4), {"early": feature, "late": torch.randn(6, 7)})
    loss = StageHeadLoss(["early", "late"], power=[1.1, 1.3])
    loss.prepare(student, student)
    loss(student, ModelOutput(torch.randn(6, 4)), TARGET).backward()
    assert feature.grad.abs().sum() > 0


def test_only_shallow_layers_learn_from_a_networks_own_answer():
    logits, deep = torch.randn(6, 4, requires_grad=True), torch.randn(6, 7, requires_grad=True)
    early = torch.randn(6, 4, 8, 8, requires_grad=True)
    student = ModelOutput(logits, {"early": early, "deep": deep})
    loss = OwnTeacherLoss(["early", "deep"])
    loss.prepare(student, None)
    loss(student, None, TARGET).backward()
    assert early.grad.abs().sum() > 0
    assert logits.grad is None
    assert deep.grad is None


def test_a_sample_of_large_variance_counts_less():
    ours, theirs = torch.zeros(2, 3), torch.tensor([[1.0, 1, 1], [3.0, 3, 3]])
    student, teacher = ModelOutput(ours, {"embedding": ours}), ModelOutput(theirs, {"embedding": theirs})
    loss = PrimeAwareLoss(warmup_epochs=1)
    loss.prepare(student, teacher)
    assert float(loss(student, teacher, TARGET, clock())) == pytest.approx(5.0)
    assert loss(student, teacher, TARGET, clock(epoch=1)).item() == pytest.approx(5.0, rel=1e-3)  # begins at 1
    with torch.no_grad():
        loss.variance.bias.fill_(4.0)
    assert loss(student, teacher, TARGET, clock(epoch=1)).item() < 4.5


@pytest.mark.parametrize(
    "loss", [ClassMapLoss(layer="blocks.1"), InputGradientLoss(), InputGradientLoss("random", False)]
)
def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_gradients(loss):
    teacher = SmallCNN([4, 6], 8, 1, 4, 8).eval().requires_grad_(False)
    other = SmallCNN([4, 6], 8, 1, 4, 8).eval()
    for student, near_zero in ((teacher, True), (other, False)):
        loss.bind(student, teacher)
        output = Taps(student, {"maps": "blocks.1"})(student, INPUTS.clone().requires_grad_())
        value = loss(output, ModelOutput(teacher(INPUTS)), TARGET, BATCH)
        assert (float(value) < 1e-6) == near_zero
    value.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert other.blocks[0][0].weight.grad.abs().sum() > 0
    assert not other.training


def test_a_student_with_attention_is_differentiated_twice():
    student, teacher = SmallViT(4, 8, 1, 2, 1, 4, 8), SmallCNN([4, 6], 8, 1, 4, 8).eval()
    loss = InputGradientLoss()
    loss.bind(student, teacher)
    loss(ModelOutput(student(INPUTS)), ModelOutput(teacher(INPUTS)), TARGET, BATCH).backward()
    assert student.blocks[0].self_attn.in_proj_weight.grad.abs().sum() > 0


def test_a_teacher_that_sees_other_inputs_than_the_batchs_is_told():
    teacher = SmallCNN([4, 6], 8, 1, 4, 8).eval()
    loss = InputGradientLoss()
    loss.bind(SmallCNN([4, 6], 8, 1, 4, 8), teacher)
    with pytest.raises(UserError, match="the teacher answers otherwise"):
        loss(ModelOutput(torch.randn(6, 4)), ModelOutput(teacher(3 * INPUTS - 1)), TARGET, BATCH)
