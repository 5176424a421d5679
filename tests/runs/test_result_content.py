"""A student that validation calls good and that only guesses on the test split is told of."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kd_lightning.runs.result_content import guesses_on_test
from kd_lightning.tasks.classification import ClassificationTask

DATA = SimpleNamespace(sizes=lambda: {"num_classes": 10})


def said(best, test):
    recorder = SimpleNamespace(
        monitor="acc", best=best, best_metrics={"acc": best}, test_metrics={"acc": test}, task=ClassificationTask()
    )
    return guesses_on_test(recorder, DATA)


@pytest.mark.parametrize(("best", "test"), [(0.83, 0.8), (0.9, 0.3), (0.13, 0.11), (0.1, 0.09), (None, 0.1)])
def test_nothing_is_said_of_a_harder_test_or_a_student_that_has_learned_nothing(best, test):
    assert said(best, test) is None


def test_labels_of_another_numbering_are_asked_for():
    text = said(0.83, 0.014)
    assert text.startswith("no better than guessing on the test split (acc 0.014), where validation has 0.83: ")
    assert text.endswith("as those of the training samples?")
