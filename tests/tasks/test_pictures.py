"""A picture is the task's; one that cannot be drawn is a warning and never the end of a run."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from kd_lightning.batch import Batch
from kd_lightning.joints import Clock, Step
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.base import BaseTask
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.tasks.pictures import Pictures, first_samples


class Images:
    class_names, mean, std = None, [0.0], [1.0]


def step(inputs, student: torch.Tensor, teacher: torch.Tensor | None, target=None) -> Step:
    target = torch.zeros(len(student), dtype=torch.long) if target is None else target
    batch = Batch(inputs, target, torch.arange(len(student)))
    return Step(batch, ModelOutput(student), None if teacher is None else ModelOutput(teacher), Clock(0, 0, 1, 1))


def pictures(task, **options) -> Pictures:
    return Pictures(task, Images(), **{"every_n_epochs": 1, "samples": 4, "name": "run_s0", **options})


def test_the_classification_task_draws_images_with_both_models_answers():
    drawn = pictures(ClassificationTask())(step(torch.rand(8, 1, 6, 6), torch.randn(8, 3), torch.randn(8, 3)), 0)
    assert drawn.dtype == np.uint8
    assert drawn.shape[2] == 3


@pytest.mark.parametrize(
    "seen",
    [
        step(torch.rand(8, 1, 6, 6), torch.randn(8, 3), None),
        step(torch.rand(8, 20), torch.randn(8, 3), torch.randn(8, 3)),
        step({"ids": torch.ones(8, 5)}, torch.randn(8, 3), torch.randn(8, 3)),
        step(torch.rand(8, 1, 6, 6), torch.randn(8, 2, 6, 6), torch.randn(8, 2, 6, 6), torch.zeros(8, 6, 6).long()),
    ],
    ids=["no teacher", "no images", "texts", "segmentation"],
)
def test_where_there_is_nothing_to_draw_nothing_is_drawn_and_nothing_is_said(seen, caplog):
    assert pictures(ClassificationTask())(seen, 0) is None
    assert caplog.records == []


class Broken(BaseTask):
    def picture(self, step, data, temperature):
        raise IndexError("no such\nclass")


def test_a_fault_in_a_picture_is_told_once_and_goes_no_further(caplog):
    draw, seen = pictures(Broken()), step(torch.rand(8, 1, 6, 6), torch.randn(8, 3), torch.randn(8, 3))
    with caplog.at_level(logging.WARNING):
        assert [draw(seen, epoch) for epoch in range(3)] == [None, None, None]
    (record,) = caplog.records
    assert "run_s0: no pictures, Broken.picture failed (IndexError: no such class)" in record.getMessage()
    assert "pictures.every_n_epochs=0" in record.getMessage()


def test_labels_that_the_picture_has_no_name_for_are_a_warning_too(caplog):
    seen = step(torch.rand(2, 1, 6, 6), torch.randn(2, 3), torch.randn(2, 3), torch.tensor([0.5, 41.0]))
    with caplog.at_level(logging.WARNING):
        assert pictures(ClassificationTask())(seen, 0) is None
    assert len(caplog.records) == 1


class Counting(BaseTask):
    def __init__(self):
        self.seen = []

    def picture(self, step, data, temperature):
        self.seen.append((len(step.student.logits), temperature))
        return Image.new("L", (4, 2))


def test_pictures_come_every_few_epochs_of_the_first_samples_at_the_temperature():
    task = Counting()
    draw = pictures(task, every_n_epochs=2, samples=3, temperature=4.0)
    drawn = [draw(step(torch.rand(8, 5), torch.randn(8, 3), None), epoch) for epoch in range(4)]
    assert [picture is not None for picture in drawn] == [True, False, True, False]
    assert task.seen == [(3, 4.0), (3, 4.0)]
    assert drawn[0].shape == (2, 4, 3)
    assert pictures(task, every_n_epochs=0)(step(torch.rand(8, 5), torch.randn(8, 3), None), 0) is None


def test_first_samples_cut_any_structure_alike():
    inputs = {"ids": torch.arange(8), "pair": (np.arange(8), ["a", "b", "c", "d"]), "parts": [torch.arange(8)]}
    cut = first_samples(step(inputs, torch.randn(8, 3), torch.randn(8, 3)), 2).batch
    assert cut.inputs["ids"].tolist() == [0, 1]
    assert cut.inputs["pair"][0].tolist() == [0, 1]
    assert cut.inputs["pair"][1] == ["a", "b"]
    assert cut.inputs["parts"][0].tolist() == [0, 1]
    assert cut.index.tolist() == [0, 1]
