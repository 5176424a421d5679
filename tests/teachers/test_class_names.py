"""Weights of a run know what its classes were called: another order than the data's is told before training."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from kd_lightning.errors import UserError
from kd_lightning.teachers.checkpoint import CheckpointTeacher
from kd_lightning.teachers.class_names import other_classes, start_in_another_order
from kd_lightning.teachers.network import NetworkTeacher
from kd_lightning.teachers.onnx import OnnxTeacher
from kd_lightning.teachers.trained import TrainedTeacher

OURS = ["circle", "square", "triangle"]


@pytest.fixture
def run(tmp_path):
    """Makes a run's directory whose classes are called so."""

    def made(names):
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "best.ckpt").write_bytes(b"")
        (tmp_path / "result.json").write_text(json.dumps({"data": {"class_names": names}}))
        return tmp_path

    return made


def test_a_run_with_the_same_classes_in_another_order_is_refused_with_the_order(run):
    weights = run(["Triangle", "circle", "square"])
    with pytest.raises(UserError, match=r"Triangle, circle, square, .* in another order: teacher.classes=\[1,2,0\]"):
        other_classes(weights, OURS, "teacher")
    assert "init_from=" in str(start_in_another_order(weights / "checkpoints" / "best.ckpt", OURS))


def test_a_run_of_classes_of_other_names_is_told_of_with_both(run):
    weights = run(["a_triangle", "b_circle", "c_square"])
    said = str(other_classes(weights, OURS, "teacher"))
    assert "a_triangle, b_circle, c_square, the data's circle, square, triangle" in said
    assert start_in_another_order(weights, OURS) is None  # a start for other classes is what init_from is for


@pytest.mark.parametrize("names", [OURS, None, ["a", "b"]])
def test_a_run_of_the_same_classes_or_of_unknown_ones_is_silent(run, names):
    weights = run(names)
    assert other_classes(weights, OURS, "teacher") is start_in_another_order(weights, OURS) is None
    assert other_classes(weights, None, "teacher") is None


def test_a_class_that_stands_twice_is_refused():
    for make in (lambda: NetworkTeacher(None, classes=[0, 0, 2]), lambda: OnnxTeacher("x.onnx", classes=[0, 2, 0])):
        with pytest.raises(UserError, match=r"teacher.classes: 0 stands twice"):
            make()


@pytest.mark.parametrize("kind", [CheckpointTeacher, TrainedTeacher])
def test_both_kinds_with_a_checkpoint_look_at_its_classes(run, kind, caplog):
    module = torch.nn.Linear(2, 3)
    weights = run(["Triangle", "circle", "square"])
    torch.save(module.state_dict(), weights / "checkpoints" / "best.ckpt")
    data = SimpleNamespace(class_names=OURS)
    context = SimpleNamespace(where="teacher", datamodule=data, needs_logits=True, trial=False)
    with pytest.raises(UserError, match="in another order"):
        kind({}, checkpoint=str(weights)).fill(module, context)
    kind({}, checkpoint=str(weights), classes=[1, 2, 0]).fill(module, context)
    assert "WARNING" not in caplog.text
    data.class_names = ["a", "b", "c"]
    kind({}, checkpoint=str(weights)).fill(module, context)
    assert "taken for these in this order" in caplog.text


def test_an_exported_file_knows_its_classes_by_what_lies_beside_it(tmp_path):
    (tmp_path / "preprocessing.json").write_text(json.dumps({"class_names": ["triangle", "circle", "square"]}))
    with pytest.raises(UserError, match=r"teacher.file=\S+student.onnx: .*teacher.classes=\[1,2,0\]"):
        other_classes(tmp_path / "student.onnx", OURS, "teacher", "file")
