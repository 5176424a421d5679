"""The classification task: its loss, and its metrics against plain, slow arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.classification import ClassificationTask


def outputs(n: int = 200, classes: int = 7, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(n, classes, generator=generator) * 2
    teacher = torch.randn(n, classes, generator=generator) * 3
    target = torch.randint(0, classes, (n,), generator=generator)
    return student, teacher, target


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("n", [1, 3, 64, 1000])
def test_loss_and_gradient_equal_cross_entropy_bit_for_bit_when_all_are_labelled(smoothing, n):
    logits, _, target = outputs(n)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = ClassificationTask(smoothing).loss(ModelOutput(ours), target)
    expected = F.cross_entropy(theirs, target, label_smoothing=smoothing)
    loss.backward()
    expected.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_unlabelled_samples_count_for_nothing(smoothing):
    logits, _, target = outputs(64)
    target[::3] = -1
    logits.requires_grad_()
    loss = ClassificationTask(smoothing).loss(ModelOutput(logits), target)
    loss.backward()
    known = target >= 0
    expected = F.cross_entropy(logits[known], target[known], label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    assert logits.grad[~known].abs().max() == 0
    assert logits.grad[known].abs().max() > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_of_a_batch_without_labels_is_exactly_zero_and_can_be_differentiated(smoothing):
    logits = torch.randn(8, 5, requires_grad=True)
    loss = ClassificationTask(smoothing).loss(ModelOutput(logits), torch.full((8,), -1))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(8, 5))


def test_loss_is_float32_for_half_precision_and_float64_for_double():
    logits, _, target = outputs(16)
    task = ClassificationTask()
    assert task.loss(ModelOutput(logits.bfloat16()), target).dtype == torch.float32
    assert task.loss(ModelOutput(logits.double()), target).dtype == torch.float64


def test_loss_is_finite_at_logit_gaps_of_ten_thousand():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    assert ClassificationTask().loss(ModelOutput(logits), torch.tensor([1, 1])).item() == pytest.approx(1e4)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0])
def test_label_smoothing_out_of_range_is_a_user_error(smoothing):
    with pytest.raises(UserError, match=r"task.label_smoothing must be in \[0, 1\)"):
        ClassificationTask(smoothing)


def slow_ece(logits: torch.Tensor, target: torch.Tensor, bins: int = 15) -> float:
    probs = torch.softmax(logits.double(), 1).numpy()
    confidence, correct = probs.max(1), probs.argmax(1) == target.numpy()
    total = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def test_metrics_equal_plain_arithmetic():
    student, teacher, target = outputs(500)
    evaluator = ClassificationTask().evaluator()
    evaluator.update(ModelOutput(student), ModelOutput(teacher), Batch(None, target))
    metrics = evaluator.compute()
    p, q = torch.softmax(teacher.double(), 1), torch.softmax(student.double(), 1)
    expected = {
        "acc": (student.argmax(1) == target).float().mean().item(),
        "loss_task": F.cross_entropy(student, target).item(),
        "ece": slow_ece(student, target),
        "agreement": (student.argmax(1) == teacher.argmax(1)).float().mean().item(),
        "kl_teacher": (p * (p.log() - q.log())).sum(1).mean().item(),
        "teacher_acc": (teacher.argmax(1) == target).float().mean().item(),
        "teacher_ece": slow_ece(teacher, target),
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-6), name


def test_validation_loss_is_the_training_loss_also_with_label_smoothing():
    student, _, target = outputs(100)
    task = ClassificationTask(0.2)
    evaluator = task.evaluator()
    evaluator.update(ModelOutput(student), None, Batch(None, target))
    assert evaluator.compute()["loss_task"] == pytest.approx(task.loss(ModelOutput(student), target).item(), rel=1e-6)


def test_states_of_parts_add_up_to_the_whole():
    student, teacher, target = outputs(300)
    task = ClassificationTask()
    whole = task.evaluator()
    whole.update(ModelOutput(student), ModelOutput(teacher), Batch(None, target))
    parts = [task.evaluator() for _ in range(3)]
    for i, part in enumerate(parts):
        rows = slice(100 * i, 100 * (i + 1))
        part.update(ModelOutput(student[rows]), ModelOutput(teacher[rows]), Batch(None, target[rows]))
    gathered: list[torch.Tensor] = []
    for part in parts:
        part.sync(lambda sums: gathered.append(sums) or sums)
    parts[0].sync(lambda _: sum(gathered))
    assert parts[0].compute() == pytest.approx(whole.compute(), rel=1e-12)


def test_unlabelled_samples_count_for_agreement_and_divergence_but_not_for_accuracy():
    student, teacher, target = outputs(200)
    hidden = target.clone()
    hidden[50:] = -1
    full, part, few = (ClassificationTask().evaluator() for _ in range(3))
    full.update(ModelOutput(student), ModelOutput(teacher), Batch(None, target))
    part.update(ModelOutput(student), ModelOutput(teacher), Batch(None, hidden))
    few.update(ModelOutput(student[:50]), ModelOutput(teacher[:50]), Batch(None, target[:50]))
    for name in ("agreement", "kl_teacher"):
        assert part.compute()[name] == full.compute()[name]
    for name in ("acc", "loss_task", "ece", "teacher_acc", "teacher_ece"):
        assert part.compute()[name] == few.compute()[name]


def test_without_a_teacher_there_are_no_figures_about_one():
    student, _, target = outputs(10)
    evaluator = ClassificationTask().evaluator()
    evaluator.update(ModelOutput(student), None, Batch(None, target))
    assert set(evaluator.compute()) == {"acc", "loss_task", "ece"}


def test_an_empty_evaluation_gives_nan_not_a_number_that_looks_good():
    metrics = ClassificationTask().evaluator().compute()
    assert all(math.isnan(value) for value in metrics.values())


def test_a_student_equal_to_its_teacher_agrees_fully_and_does_not_diverge():
    student, _, target = outputs(50)
    evaluator = ClassificationTask().evaluator()
    evaluator.update(ModelOutput(student * 1e4), ModelOutput(student * 1e4), Batch(None, target))
    metrics = evaluator.compute()
    assert metrics["agreement"] == 1.0
    assert metrics["kl_teacher"] == 0.0


def test_pixelwise_logits_count_every_position():
    logits, _, target = outputs(2 * 3 * 3, classes=4)
    image = logits.reshape(2, 3, 3, 4).movedim(-1, 1)
    flat, dense = ClassificationTask().evaluator(), ClassificationTask().evaluator()
    flat.update(ModelOutput(logits), None, Batch(None, target))
    dense.update(ModelOutput(image), None, Batch(None, target.reshape(2, 3, 3)))
    assert dense.compute() == pytest.approx(flat.compute())


class TenClasses:
    def sizes(self):
        return {"num_classes": 10}

    def example_batch(self) -> Batch:
        return Batch(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(("accuracy", "useless"), [(0.1, True), (0.12, True), (0.121, False), (0.9, False)])
def test_a_teacher_within_a_fifth_of_guessing_is_useless_and_the_words_say_what_to_check(accuracy, useless):
    said = ClassificationTask().useless({"acc": accuracy, "ece": 0.1}, TenClasses())
    assert (said is not None) == useless
    assert said is None or "teacher.normalization" in said


def test_a_model_with_other_classes_than_the_data_is_refused_with_its_key():
    with pytest.raises(UserError, match=r"teacher\.model: answers for 3 classes, the data has 10"):
        ClassificationTask().check_output(ModelOutput(torch.zeros(2, 3)), TenClasses(), "teacher.model")


@pytest.mark.parametrize("shape", [(2, 1), (2,)])
def test_a_regressor_is_told_that_its_values_are_another_task(shape):
    with pytest.raises(UserError, match=r"teacher\.model: answers with one value a sample.*another task.*10 classes$"):
        ClassificationTask().check_output(ModelOutput(torch.zeros(shape)), TenClasses(), "teacher.model")


def test_every_figure_of_the_evaluator_is_declared():
    student, teacher, target = outputs(10)
    evaluator = ClassificationTask().evaluator()
    evaluator.update(ModelOutput(student), ModelOutput(teacher), Batch(None, target))
    assert set(evaluator.compute()) == {metric.name for metric in ClassificationTask.metrics}


def test_soft_labels_of_certain_rows_are_the_class_numbers():
    torch.manual_seed(0)
    logits, target = torch.randn(7, 4), torch.randint(4, (7,))
    soft = torch.nn.functional.one_hot(target, 4).float()
    task = ClassificationTask(label_smoothing=0.1)
    assert torch.allclose(task.loss(ModelOutput(logits), soft), task.loss(ModelOutput(logits), target))
    figures = []
    for given in (target, soft):
        evaluator = task.evaluator()
        evaluator.update(ModelOutput(logits), ModelOutput(2 * logits), Batch(logits, given))
        figures.append(evaluator.compute())
    assert figures[0] == pytest.approx(figures[1])
