"""Regression: figures against scikit-learn and torch.distributions, units, spreads, bins, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch.distributions import Normal

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.errors import UserError
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.regression import RegressionTask
from kd_lightning.tasks.regression_picture import scatter


class Values(DistillationDataModule):
    """Given targets, in memory."""

    def __init__(self, targets):
        super().__init__(batch_size=2, val_size=2)
        self.given = targets

    def build_splits(self):
        inputs = torch.zeros(len(self.given), 3)
        return ArrayData(inputs, self.given), ArrayData(inputs[:2], self.given[:2]), "digest"

    def sizes(self):
        return {"num_classes": 1 if self.given.dim() == 1 else self.given.shape[1]}


def fitted(targets, **settings):
    task = RegressionTask(**settings)
    task.fit(Values(targets))
    return task


def figures(task, target, student, teacher=None, batch=7):
    """The evaluator's, shown the samples in unequal batches."""
    evaluator = task.evaluator()
    for start in range(0, len(target), batch):
        part = slice(start, start + batch)
        outputs = [
            None
            if out is None
            else ModelOutput(out.logits[part], spread=None if out.spread is None else out.spread[part])
            for out in (student, teacher)
        ]
        evaluator.update(*outputs, Batch(torch.zeros(len(target[part]), 1), target[part]))
    return evaluator.compute()


@pytest.fixture(scope="module")
def pair():
    """Targets of two columns in very different units, and two models' predictions in the data's units."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(50, 2, generator=generator) * torch.tensor([3.0, 500.0]) + torch.tensor([-7.0, 1e4])
    student = truth + torch.randn(50, 2, generator=generator) * torch.tensor([1.0, 200.0])
    teacher = truth + torch.randn(50, 2, generator=generator) * torch.tensor([0.5, 90.0])
    return truth, student, teacher


def test_figures_are_scikit_learns_in_the_datas_units(pair):
    truth, student, teacher = pair
    task = fitted(truth)
    found = figures(task, truth, *(ModelOutput(task.encode(x)) for x in (student, teacher)))
    y, s, t = (x.double().numpy() for x in pair)
    expected = {
        "rmse": sklearn.metrics.root_mean_squared_error(y, s),
        "mae": sklearn.metrics.mean_absolute_error(y, s),
        "r2": sklearn.metrics.r2_score(y, s),
        "teacher_rmse": sklearn.metrics.root_mean_squared_error(y, t),
        "teacher_mae": sklearn.metrics.mean_absolute_error(y, t),
        "teacher_r2": sklearn.metrics.r2_score(y, t),
        "rmse_teacher": sklearn.metrics.root_mean_squared_error(t, s),
        "corr_teacher": np.mean([np.corrcoef(t[:, k], s[:, k])[0, 1] for k in range(2)]),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=2e-4)
    assert set(found) == {metric.name for metric in task.metrics}


def test_targets_are_standardised_by_the_labelled_training_samples_alone():
    targets = torch.tensor([10.0, 20.0, math.nan, 30.0])
    task = fitted(targets)
    assert task.fitted()["mean"] == [20.0]
    assert task.fitted()["std"] == pytest.approx([math.sqrt(200 / 3)])
    assert task.encode(torch.tensor([20.0])).tolist() == [[0.0]]
    output = ModelOutput(torch.tensor([[0.0], [1.0]]))
    assert task.predict(output).flatten().tolist() == pytest.approx([20.0, 20 + math.sqrt(200 / 3)])
    again = RegressionTask()
    again.restore(task.fitted())
    assert torch.equal(again.predict(output), task.predict(output))


def test_targets_in_a_unit_far_too_large_for_them_are_no_constants():
    task = fitted(torch.tensor([1e-13, 2e-13, 3e-13]))
    assert task.encode(torch.tensor([3e-13])).item() == pytest.approx(math.sqrt(1.5))


def test_a_sample_without_a_label_adds_nothing_to_loss_and_errors():
    task = fitted(torch.tensor([0.0, 2.0]))
    output = ModelOutput(torch.tensor([[0.5], [9.0]], requires_grad=True))
    loss = task.loss(output, torch.tensor([2.0, math.nan]))
    assert loss.item() == pytest.approx(0.25)
    loss.backward()
    assert output.logits.grad.flatten().tolist() == pytest.approx([-1.0, 0.0])
    assert task.loss(output, torch.tensor([math.nan, math.nan])).item() == 0
    found = figures(task, torch.tensor([2.0, math.nan]), output, output)
    assert found["rmse"] == pytest.approx(0.5)
    assert found["rmse_teacher"] == 0


@pytest.mark.parametrize(("loss", "expected"), [("mse", (1 + 9) / 2), ("mae", (1 + 3) / 2), ("huber", (0.5 + 2.5) / 2)])
def test_the_loss_is_the_one_that_was_asked_for(loss, expected):
    task = RegressionTask(loss=loss, mean=0, std=1)
    assert float(task.loss(ModelOutput(torch.tensor([[1.0], [-3.0]])), torch.zeros(2))) == pytest.approx(expected)


def test_a_gaussians_loss_and_nll_are_those_of_torch_distributions(pair):
    truth, student, _ = pair
    task = fitted(truth, output="gaussian")
    log_variance = torch.linspace(-2, 1, 50)[:, None].repeat(1, 2)
    raw = torch.cat([task.encode(student), log_variance], 1)
    output = task.read(ModelOutput(raw))
    assert torch.equal(output.spread, log_variance)
    assert task.read(output) is not None
    assert torch.equal(task.read(output).logits, output.logits)
    standard = Normal(output.logits.double(), (log_variance / 2).exp().double())
    expected = -standard.log_prob(task.encode(truth).double()).mean()
    assert float(task.loss(output, truth)) == pytest.approx(float(expected), rel=1e-5)
    own_units = Normal(task.predict(output).double(), (log_variance / 2).exp().double() * task.std.double())
    assert figures(task, truth, output)["nll"] == pytest.approx(
        float(-own_units.log_prob(truth.double()).mean()), rel=1e-5
    )


def test_a_spread_that_is_right_is_calibrated_and_a_wrong_one_is_not():
    truth = torch.randn(4000, generator=torch.Generator().manual_seed(1))
    task = RegressionTask(output="gaussian", mean=0, std=1)
    task.fit(Values(truth))
    zeros = torch.zeros(4000, 1)
    right = figures(task, truth, ModelOutput(zeros, spread=zeros), batch=1000)["calibration"]
    narrow = figures(task, truth, ModelOutput(zeros, spread=zeros - 20 / 3), batch=1000)["calibration"]
    assert right < 0.01
    # almost everything lies beyond all quantiles, half of it on each side: |1/2 - p| on average
    assert narrow == pytest.approx(np.mean(np.abs(0.5 - np.arange(1, 20) / 20)), abs=0.02)


def test_bins_give_the_value_back_and_methods_their_bins_as_classes():
    truth = torch.tensor([0.0, 10.0, 4.0, math.nan])
    task = fitted(truth, output="bins", bins=40)
    logits = (task.form._histograms(torch.nan_to_num(task.encode(truth))) + 1e-12).log()[..., 0]
    output = task.read(ModelOutput(logits))
    assert task.predict(output)[:3].flatten().tolist() == pytest.approx([0, 10, 4], abs=0.02)
    numbers = task.for_terms(truth)
    assert numbers[3] == UNLABELLED
    width = (task.form.high - task.form.low) / 40
    centres = task.form.low + (numbers[:3] + 0.5) * width
    assert ((centres - task.encode(truth)[:3, 0]).abs() <= width / 2 + 1e-6).all()
    assert task.sizes({"num_classes": 1, "in_features": 3}) == {"num_classes": 40, "in_features": 3}


def test_a_distribution_over_bins_has_its_density_spread_and_cumulative_share():
    task = RegressionTask(output="bins", bins=4, mean=0, std=1)
    task.form.low, task.form.high = 0.0, 8.0
    masses = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    output = ModelOutput(masses.log())
    target = torch.tensor([[5.0]])  # in the middle of the third bin
    assert float(task.form.mean(output)) == pytest.approx(0.1 * 1 + 0.2 * 3 + 0.3 * 5 + 0.4 * 7)
    assert float(task.form.log_density(output, target)) == pytest.approx(math.log(0.3 / 2))
    assert float(task.form.cumulative(output, target)) == pytest.approx(0.1 + 0.2 + 0.15)
    second = sum(p * (c**2 + 4 / 12) for p, c in zip([0.1, 0.2, 0.3, 0.4], [1, 3, 5, 7], strict=True))
    assert float(task.form.deviation(output)) == pytest.approx(math.sqrt(second - 5.0**2))


@pytest.mark.parametrize("output", ["value", "gaussian"])
def test_a_teacher_of_other_targets_is_brought_to_the_students_units(output):
    theirs = fitted(torch.tensor([0.0, 100.0, 80.0]), output=output)
    ours = fitted(torch.tensor([10.0, 20.0, 30.0]), output=output)
    answer = ModelOutput(
        torch.tensor([[0.3], [-1.0]]), spread=torch.tensor([[0.1], [0.2]]) if output == "gaussian" else None
    )
    moved = ours.recode(answer, theirs.fitted())
    torch.testing.assert_close(ours.predict(moved), theirs.predict(answer))
    if output == "gaussian":
        own, other = (t.form.deviation(a) * t.std for t, a in ((ours, moved), (theirs, answer)))
        torch.testing.assert_close(own, other)


def test_a_teacher_of_other_bins_is_refused():
    theirs, ours = (fitted(torch.tensor(y), output="bins") for y in ([0.0, 100.0], [10.0, 20.0]))
    with pytest.raises(UserError, match="bins are others"):
        ours.recode(ModelOutput(torch.zeros(2, 50)), theirs.fitted())
    same = ModelOutput(torch.zeros(2, 50))
    assert ours.recode(same, ours.fitted()) is same


@pytest.mark.parametrize(("output", "expected"), [("value", 1), ("gaussian", 2), ("bins", 50)])
def test_what_is_exported_stands_for_the_same_output(output, expected):
    task = fitted(torch.tensor([10.0, 20.0, 60.0]), output=output)
    raw = torch.randn(5, expected, generator=torch.Generator().manual_seed(0))
    read = task.read(ModelOutput(raw))
    answer = task.exported(read)
    assert answer.shape == (5, expected)
    again = task.imported(answer)
    torch.testing.assert_close(task.predict(again), task.predict(read))
    if output != "bins":
        torch.testing.assert_close(answer[:, :1], task.predict(read))
    if read.spread is not None:
        torch.testing.assert_close(again.spread, read.spread)


def test_figures_add_up_over_processes(pair):
    truth, student, _ = pair
    task = fitted(truth)
    whole = figures(task, truth, ModelOutput(task.encode(student)))
    halves = []
    for part in (slice(0, 20), slice(20, 50)):
        evaluator = task.evaluator()
        evaluator.update(ModelOutput(task.encode(student)[part]), None, Batch(truth[part], truth[part]))
        halves.append(evaluator)
    others = iter([halves[1]._student.state, halves[1]._teacher.state, halves[1]._closeness.state, halves[1]._spreads])
    halves[0].sync(lambda tensor: tensor + next(others))
    assert halves[0].compute() == pytest.approx(whole)


def test_a_teacher_that_explains_nothing_is_called_useless():
    task = RegressionTask()
    assert "no better than the mean" in task.useless({"rmse": 3.0, "r2": -0.1}, Values(torch.zeros(2)))
    assert task.useless({"rmse": 3.0, "r2": 0.2}, Values(torch.zeros(2))) is None


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.tensor([0, 1, 2]), "target_type=values"),
        (torch.tensor([-1, -1]), "no training sample has a target"),
        (torch.tensor([math.nan, math.nan]), "no training sample has a target"),
        (torch.tensor([3.0, 3.0, 3.0]), "nothing to learn"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(targets, words):
    with pytest.raises(UserError, match=words):
        fitted(targets)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"output": "values"}, "task.output must be"),
        ({"loss": "l3"}, "task.loss must be"),
        ({"loss": "mae", "output": "gaussian"}, "task.loss=mae"),
        ({"mean": 1.0}, "belong together"),
        ({"mean": 1.0, "std": 0.0}, "std > 0"),
        ({"output": "bins", "bins": 1}, "task.bins"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        RegressionTask(**settings)


def test_a_model_with_another_number_of_values_is_refused():
    task = fitted(torch.randn(4, 2))
    with pytest.raises(UserError, match=r"student: answers with 3 values, a target has 2: set num_classes=2"):
        task.check_output(ModelOutput(torch.zeros(2, 3)), Values(torch.randn(4, 2)), "student")
    with pytest.raises(UserError, match="a mean and a log-variance"):
        fitted(torch.randn(4), output="gaussian").read(ModelOutput(torch.zeros(2, 3)))


@pytest.mark.parametrize("with_teacher", [False, True])
def test_the_picture_shows_student_and_teacher_against_the_truth(with_teacher):
    truth = torch.tensor([1.0, 2.0, math.nan, 40.0])
    teacher = truth.nan_to_num(3.0) + 0.5 if with_teacher else None
    drawn = np.asarray(scatter(truth, truth.nan_to_num(2.0), teacher, torch.ones(4), "kWh"))
    colours = {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()}
    assert (232, 119, 34) in colours  # the student's
    assert ((43, 91, 168) in colours) == with_teacher  # the teacher's


def test_data_without_any_target_are_learned_from_a_teacher_once_the_unit_is_given():
    nothing = torch.full((6,), UNLABELLED)
    task = fitted(nothing, mean=100.0, std=20.0)
    output = ModelOutput(torch.tensor([[0.5], [-0.5]]))
    assert task.loss(output, nothing[:2]).item() == 0
    assert task.for_terms(nothing[:2]).isnan().all()
    found = figures(task, nothing, ModelOutput(torch.zeros(6, 1)), ModelOutput(torch.ones(6, 1)))
    assert found["rmse_teacher"] == pytest.approx(20)
    assert math.isnan(found["rmse"])
    task.check_output(output, Values(nothing), "student")
    assert task.predict(output).flatten().tolist() == [110, 90]
