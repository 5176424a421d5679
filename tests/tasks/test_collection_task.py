"""Torchmetrics metrics as a task's own: student, teacher and fidelity, directions, sums over processes."""

from __future__ import annotations

import math

import pytest
import torch
import torchmetrics
from torch import nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score, SpearmanCorrCoef
from torchmetrics.classification import MulticlassAccuracy, MultilabelF1Score

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.base import check_task
from kd_lightning.tasks.collection import CollectionTask


def regression(**changes) -> CollectionTask:
    given = {
        "name": "regression",
        "loss": nn.MSELoss(),
        "metrics": {"rmse": MeanSquaredError(squared=False), "r2": R2Score()},
        "monitor": "rmse",
        "fidelity": {"far": MeanAbsoluteError()},
        "units": {"rmse": "kWh"},
    }
    return CollectionTask(**{**given, **changes})


def values(n: int = 40, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(n, generator=generator)
    student, teacher = (target[:, None] + scale * torch.randn(n, 1, generator=generator) for scale in (0.5, 0.2))
    return student, teacher, target


def test_figures_are_torchmetrics_of_student_teacher_and_both():
    student, teacher, target = values()
    evaluator = regression().evaluator()
    for rows in (slice(0, 16), slice(16, 40)):
        evaluator.update(ModelOutput(student[rows]), ModelOutput(teacher[rows]), Batch(None, target[rows]))
    s, t = student[:, 0], teacher[:, 0]
    assert evaluator.compute() == pytest.approx(
        {
            "rmse": (s - target).square().mean().sqrt().item(),
            "r2": 1 - ((s - target).square().sum() / (target - target.mean()).square().sum()).item(),
            "far": (s - t).abs().mean().item(),
            "teacher_rmse": (t - target).square().mean().sqrt().item(),
            "teacher_r2": 1 - ((t - target).square().sum() / (target - target.mean()).square().sum()).item(),
        },
        rel=1e-5,
    )


def test_directions_shares_and_whose_a_figure_is_are_declared():
    declared = {metric.name: metric for metric in regression().metrics}
    assert (declared["rmse"].higher_is_better, declared["r2"].higher_is_better) == (False, True)
    assert (declared["rmse"].unit, declared["rmse"].share) == ("kWh", False)
    assert (declared["far"].of, declared["far"].mode) == ("fidelity", "min")
    assert (declared["teacher_rmse"].of, declared["teacher_rmse"].like, declared["teacher_rmse"].unit) == (
        "teacher",
        "rmse",
        "kWh",
    )
    classes = CollectionTask("classes", nn.CrossEntropyLoss(), {"top1": MulticlassAccuracy(3)}, "top1")
    assert classes.metrics[0].share
    check_task(regression())
    check_task(classes)


def test_every_figure_is_declared_and_without_a_teacher_there_are_none_of_one():
    student, teacher, target = values()
    task = regression()
    full, alone, empty = task.evaluator(), task.evaluator(), task.evaluator()
    full.update(ModelOutput(student), ModelOutput(teacher), Batch(None, target))
    alone.update(ModelOutput(student), None, Batch(None, target))
    assert set(full.compute()) == {metric.name for metric in task.metrics}
    assert set(alone.compute()) == {"rmse", "r2"}
    assert all(math.isnan(value) for value in empty.compute().values())


def test_evaluators_share_nothing():
    task, (student, _, target) = regression(), values()
    first, second = task.evaluator(), task.evaluator()
    first.update(ModelOutput(student), None, Batch(None, target))
    second.update(ModelOutput(student + 5), None, Batch(None, target))
    assert first.compute()["rmse"] < 1 < second.compute()["rmse"]


@pytest.mark.parametrize(("given", "wanted"), [((40, 1), (40,)), ((40,), (40, 1)), ((40, 1), (40, 1))])
def test_a_column_and_a_row_are_not_subtracted_into_a_table_of_all_pairs(given, wanted):
    student, _, target = values()
    task, output = regression(), ModelOutput(student.reshape(given))
    assert task.loss(output, target.reshape(wanted)).item() == pytest.approx(
        (student[:, 0] - target).square().mean().item()
    )
    evaluator = task.evaluator()
    evaluator.update(output, None, Batch(None, target.reshape(wanted)))
    assert evaluator.compute()["rmse"] == pytest.approx((student[:, 0] - target).square().mean().sqrt().item())


def test_half_precision_is_measured_in_single():
    student, _, target = values()
    assert regression().loss(ModelOutput(student.bfloat16()), target).dtype == torch.float32


def test_a_metric_collection_and_several_labels_work_alike():
    collection = MetricCollection(
        {"f1": MultilabelF1Score(4), "acc": torchmetrics.Accuracy("multilabel", num_labels=4)}
    )
    task = CollectionTask("labels", nn.BCEWithLogitsLoss(), collection, "f1")
    evaluator, target = task.evaluator(), torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1]])
    evaluator.update(ModelOutput(4 * target - 2), None, Batch(None, target))
    assert evaluator.compute() == {"f1": 1.0, "acc": 1.0}


def test_segmentation_compares_scores_with_the_teachers_classes():
    class Segmentation(CollectionTask):
        def as_target(self, output):
            return output.logits.argmax(1)

    same = {"agreement": MulticlassAccuracy(2, average="micro")}
    task = Segmentation("pixels", nn.CrossEntropyLoss(), {"acc": MulticlassAccuracy(2, average="micro")}, "acc", same)
    evaluator, student = task.evaluator(), torch.randn(3, 2, 5, 5)
    target = student.argmax(1)
    evaluator.update(ModelOutput(student), ModelOutput(-student), Batch(None, target))
    assert evaluator.compute() == {"acc": 1.0, "agreement": 0.0, "teacher_acc": 0.0}


class Example:
    def __init__(self, target):
        self.target = target

    def example_batch(self):
        return Batch(None, self.target)


def test_an_output_that_does_not_suit_the_targets_is_one_line_with_its_key():
    regression().check_output(ModelOutput(torch.randn(2, 1)), Example(torch.randn(2)), "student")
    with pytest.raises(UserError, match=r"^student: gives \(2, 3\) float32 for targets \(2,\) float32") as raised:
        regression().check_output(ModelOutput(torch.randn(2, 3)), Example(torch.randn(2)), "student")
    assert "\n" not in str(raised.value)


def test_a_metric_that_is_no_single_number_is_refused():
    task = CollectionTask("c", nn.CrossEntropyLoss(), {"each": MulticlassAccuracy(3, average=None)}, "each")
    evaluator = task.evaluator()
    evaluator.update(ModelOutput(torch.randn(8, 3)), None, Batch(None, torch.randint(3, (8,))))
    with pytest.raises(UserError, match=r"task\.metrics\.each: gives \(3,\), a metric is one number"):
        evaluator.compute()
    with pytest.raises(UserError, match="has a slash"):
        regression(metrics={"a/b": R2Score()})


def test_states_of_parts_add_up_to_the_whole():
    student, teacher, target = values()
    whole, *parts = (regression().evaluator() for _ in range(3))
    whole.update(ModelOutput(student), ModelOutput(teacher), Batch(None, target))
    for part, rows in zip(parts, (slice(0, 20), slice(20, 40)), strict=True):
        part.update(ModelOutput(student[rows]), ModelOutput(teacher[rows]), Batch(None, target[rows]))
    sums: list[torch.Tensor] = []
    parts[1].sync(lambda value: sums.append(value) or value)
    others = iter(sums)
    parts[0].sync(lambda value: value + next(others))
    assert parts[0].compute() == pytest.approx(whole.compute(), rel=1e-5)
    ranks = regression(metrics={"rank": SpearmanCorrCoef()}, monitor="rank").evaluator()
    ranks.update(ModelOutput(student), None, Batch(None, target))
    with pytest.raises(UserError, match=r"task\.metrics\.rank: is no sum over samples"):
        ranks.sync(lambda value: value)


def _measure_as_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    student, teacher, target = values()
    rows = slice(0, 10) if rank == 0 else slice(10, 40)
    metrics = {"rmse": MeanSquaredError(squared=False), "rank": SpearmanCorrCoef()}
    evaluator = regression(metrics=metrics).evaluator()
    evaluator.update(ModelOutput(student[rows]), ModelOutput(teacher[rows]), Batch(None, target[rows]))
    evaluator.sync(lambda value: value)
    torch.save(evaluator.compute(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_measure_what_one_would_also_where_metrics_are_no_sums(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(_measure_as_rank, args=(str(tmp_path),), nprocs=2)
    student, teacher, target = values()
    metrics = {"rmse": MeanSquaredError(squared=False), "rank": SpearmanCorrCoef()}
    whole = regression(metrics=metrics).evaluator()
    whole.update(ModelOutput(student), ModelOutput(teacher), Batch(None, target))
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(whole.compute(), rel=1e-5)


def test_a_sample_without_a_value_is_left_out():
    student, teacher, target = values()
    task, known = regression(), torch.arange(40) >= 10
    hidden = torch.where(known, target, math.nan)
    torch.testing.assert_close(
        task.loss(ModelOutput(student), hidden), task.loss(ModelOutput(student[known]), target[known])
    )
    evaluator = task.evaluator()
    for part in (slice(0, 10), slice(10, 40)):  # the first batch has no value at all
        evaluator.update(ModelOutput(student[part]), ModelOutput(teacher[part]), Batch(hidden[part], hidden[part]))
    found = evaluator.compute()
    assert found["rmse"] == pytest.approx(float((student[known, 0] - target[known]).square().mean().sqrt()))
    assert found["far"] == pytest.approx(float((student - teacher).abs().mean()))
    assert task.loss(ModelOutput(student), torch.full((40,), math.nan)).item() == 0
