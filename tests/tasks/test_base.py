"""A task that is not whole is one line, before anything is trained."""

from __future__ import annotations

import pytest

from kd_lightning.errors import UserError
from kd_lightning.joints import Metric
from kd_lightning.tasks.base import BaseTask, check_task
from kd_lightning.tasks.classification import ClassificationTask


class Whole(BaseTask):
    name, monitor = "regression", "rmse"
    metrics = (Metric("rmse", False), Metric("count", None), Metric("far", False, of="fidelity"))


class OldForm:
    name, monitor, mode = "regression", "rmse", "min"

    def loss(self, output, target): ...

    def evaluator(self): ...


def test_shipped_and_whole_tasks_pass():
    check_task(ClassificationTask())
    check_task(Whole())


def changed(**members):
    return type("Mine", (Whole,), members)()


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (OldForm(), r"OldForm lacks metrics, check_output, useless, picture: inherit kd_lightning\.tasks\.base"),
        (changed(metrics=("rmse",)), r"Mine\.metrics must hold kd_lightning\.joints\.Metric"),
        (changed(monitor="acc"), r"monitor is 'acc', which is none of its metrics .* \(rmse\)"),
        (changed(monitor="count"), r"monitor is 'count'"),
        (changed(monitor="far"), r"monitor is 'far'"),
        (changed(metrics=(Metric("rmse", False),) * 2), r"declares rmse twice"),
    ],
)
def test_what_a_task_lacks_is_said_with_what_to_do(task, words):
    with pytest.raises(UserError, match=words) as raised:
        check_task(task)
    assert str(raised.value).startswith("task: ")
    assert "\n" not in str(raised.value)
