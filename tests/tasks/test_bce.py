"""Binary cross-entropy of a classification is torch's against the dense label that class numbers, mixing and smoothing stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.config.fingerprint import config_fingerprint
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.classification import ClassificationTask


def samples(classes: int):
    generator = torch.Generator().manual_seed(classes)
    logits = (4 * torch.randn(96, classes, generator=generator)).requires_grad_()
    own, other = torch.randint(0, classes, (2, 96), generator=generator)
    return logits, own, other, torch.rand(96, generator=generator)


def same(loss, logits, label):
    dense = logits.detach().double().requires_grad_()
    expected = F.binary_cross_entropy_with_logits(dense, label.double())
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    (gradient,), (wanted,) = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, dense)
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_of_mixed_samples_it_is_that_of_the_dense_label(classes, smoothing):
    logits, own, other, weight = samples(classes)
    label = weight[:, None] * F.one_hot(own, classes) + (1 - weight[:, None]) * F.one_hot(other, classes)
    task = ClassificationTask(label_smoothing=smoothing, bce=True)
    loss = task.mixed_loss(ModelOutput(logits), own, other, weight)
    same(loss, logits, (1 - smoothing) * label + smoothing / classes)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_numbers_and_soft_labels_are_dense_labels_too(smoothing):
    logits, own, other, _ = samples(10)
    task = ClassificationTask(label_smoothing=smoothing, bce=True)
    label = F.one_hot(own, 10).float()
    same(task.loss(ModelOutput(logits), own), logits, (1 - smoothing) * label + smoothing / 10)
    soft = 0.7 * label + 0.3 * F.one_hot(other, 10)
    same(task.loss(ModelOutput(logits), soft), logits, (1 - smoothing) * soft + smoothing / 10)


def test_samples_and_halves_without_a_label_drop_out():
    logits, own, other, weight = samples(10)
    task = ClassificationTask(bce=True)
    hidden = torch.arange(96) % 3 == 0
    known = own.masked_fill(hidden, UNLABELLED)
    expected = task.loss(ModelOutput(logits[~hidden]), own[~hidden])
    torch.testing.assert_close(task.loss(ModelOutput(logits), known), expected)
    each = [
        F.binary_cross_entropy_with_logits(logits, F.one_hot(y, 10).float(), reduction="none").mean(1)
        for y in (own, other)
    ]
    shares = torch.where(hidden, 0.0, weight), 1 - weight
    expected = sum((s * e).sum() for s, e in zip(shares, each, strict=True)) / sum(s.sum() for s in shares)
    torch.testing.assert_close(task.mixed_loss(ModelOutput(logits), known, other, weight), expected)
    nobody = torch.full_like(own, UNLABELLED)
    for loss in (task.loss(ModelOutput(logits), nobody), task.mixed_loss(ModelOutput(logits), nobody, nobody, weight)):
        assert loss.item() == 0
        assert not torch.autograd.grad(loss, logits)[0].any()


def test_class_weights_and_focus_by_hand():
    """Logits 0 and 0, class 0: both answers cost ln 2, weighted 3 and 1; focused by 2 each counts a quarter of it."""
    output, target = ModelOutput(torch.zeros(1, 2)), torch.tensor([0])
    ln2 = 0.6931472
    assert ClassificationTask(bce=True).loss(output, target).item() == pytest.approx(ln2)
    assert ClassificationTask(bce=True, class_weights=[3.0, 1.0]).loss(output, target).item() == pytest.approx(2 * ln2)
    assert ClassificationTask(bce=True, focal=2.0).loss(output, target).item() == pytest.approx(ln2 / 4)


def test_the_evaluation_measures_the_loss_that_is_trained_with():
    logits, own, _, _ = samples(10)
    task = ClassificationTask(bce=True, label_smoothing=0.1)
    sums = task.evaluator()
    sums.update(ModelOutput(logits.detach()), None, Batch(torch.zeros(96, 1), own, torch.arange(96)))
    assert sums.compute()["loss_task"] == pytest.approx(task.loss(ModelOutput(logits), own).item(), rel=1e-6)


def test_answers_for_every_pixel_are_questions_too():
    logits = torch.randn(2, 3, 4, 4)
    target = torch.randint(0, 3, (2, 4, 4))
    label = F.one_hot(target, 3).movedim(-1, 1).float()
    expected = F.binary_cross_entropy_with_logits(logits, label)
    torch.testing.assert_close(ClassificationTask(bce=True).loss(ModelOutput(logits), target), expected)


def test_runs_and_teachers_of_before_the_key_are_the_same_ones():
    task = {"_target_": "kd_lightning.tasks.classification.ClassificationTask", "focal": 0.0}
    before = config_fingerprint({"task": task})
    assert config_fingerprint({"task": {**task, "bce": None}}) == before
    assert config_fingerprint({"task": {**task, "bce": True}}) != before
