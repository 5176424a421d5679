"""The loss of mixed samples: two class numbers and a weight are the label of two probabilities that they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kd_lightning.batch import UNLABELLED
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.classification import ClassificationTask


def samples(classes: int):
    generator = torch.Generator().manual_seed(classes)
    logits = (4 * torch.randn(96, classes, generator=generator)).requires_grad_()
    own, other = torch.randint(0, classes, (2, 96), generator=generator)
    return logits, own, other, torch.rand(96, generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_loss_and_gradient_are_those_of_the_dense_label(classes, smoothing):
    logits, own, other, weight = samples(classes)
    dense = weight[:, None] * F.one_hot(own, classes) + (1 - weight[:, None]) * F.one_hot(other, classes)
    task = ClassificationTask(label_smoothing=smoothing)
    loss = task.mixed_loss(ModelOutput(logits), own, other, weight)
    expected = F.cross_entropy(logits, dense, label_smoothing=smoothing)
    assert abs((loss - expected).item()) < 1e-6 * max(1.0, expected.item())
    (gradient,), (wanted,) = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"focal": 2.0}, {"class_weights": [1.0, 2.0, 0.5, 1.0]}, {"label_smoothing": 0.1}]
)
def test_other_forms_of_the_loss_are_mixed_too_and_a_weight_of_1_is_the_plain_one(settings):
    logits, own, other, weight = samples(4)
    task = ClassificationTask(**settings)
    ones = torch.ones(96)
    plain = task.loss(ModelOutput(logits), own)
    torch.testing.assert_close(task.mixed_loss(ModelOutput(logits), own, other, ones), plain)
    torch.testing.assert_close(task.mixed_loss(ModelOutput(logits), other, own, 1 - ones), plain)
    loss = task.mixed_loss(ModelOutput(logits), own, other, weight)
    assert loss.item() != pytest.approx(plain.item())


def test_halves_without_a_label_drop_out_by_their_weight():
    logits, own, other, weight = samples(10)
    task = ClassificationTask()
    hidden = torch.arange(96) % 3 == 0
    each = F.cross_entropy(logits, own, reduction="none"), F.cross_entropy(logits, other, reduction="none")
    shares = torch.where(hidden, 0.0, weight), 1 - weight
    expected = sum((s * e).sum() for s, e in zip(shares, each, strict=True)) / sum(s.sum() for s in shares)
    loss = task.mixed_loss(ModelOutput(logits), own.masked_fill(hidden, UNLABELLED), other, weight)
    torch.testing.assert_close(loss, expected)


def test_a_batch_without_any_label_costs_0_and_has_no_gradient():
    logits, own, _, weight = samples(10)
    nobody = torch.full_like(own, UNLABELLED)
    loss = ClassificationTask().mixed_loss(ModelOutput(logits), nobody, nobody, weight)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, logits)[0].any()
