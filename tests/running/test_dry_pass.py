"""What can be known in a second is told before anything is trained, in one line that names the key."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.cli.train import main
from kd_lightning.losses.attentive_imitation import AttentiveImitationLoss
from kd_lightning.losses.logits_mse import LogitsMSELoss
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.metrics.metric import Metric
from kd_lightning.outputs import ModelOutput
from kd_lightning.running.dry_pass import CLOCK, _train_step, untouched_randomness
from kd_lightning.tasks.classification import ClassificationTask

TINY = (
    "data.num_threads=1", "data.train_size=64", "data.labelled=null", "data.batch_size=32",
    "trainer.accelerator=cpu", "trainer.max_epochs=1", "teacher.train.max_epochs=1", "pictures.every_n_epochs=0", "baseline=false", "run_dir=run",
)  # fmt: skip
PARTS = """
import torch
from torch import nn

from kd_lightning.tasks.classification import ClassificationTask


class Net(nn.Module):
    def __init__(self, num_classes, what="well"):
        super().__init__()
        self.what = what
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes + (what == "classes")))
        if what == "frozen":
            self.requires_grad_(False)

    def forward(self, x):
        if self.what == "in training" and self.training:
            raise RuntimeError("only in training")
        y = self.layers(x.half() if self.what == "type" else x[..., :5] if self.what == "shape" else x)
        return (y, y) if self.what == "tuple" else y.detach() if self.what == "detached" else y


class Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError("backward is not written")


class Term(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def prepare(self, student, teacher):
        if self.what == "prepare":
            raise RuntimeError("no such features")

    def forward(self, student, teacher, target):
        if self.what == "forward":
            return (student.logits @ teacher.logits).sum()
        if self.what == "backward":
            return Back.apply(student.logits).sum()
        return student.logits if self.what == "not a scalar" else student.logits.sum()


class Floats(ClassificationTask):
    def loss(self, output, target):
        return torch.nn.functional.cross_entropy(output.logits, target.float())


class Blind(ClassificationTask):
    monitor = "f1"
    metrics = (*ClassificationTask.metrics,)

    def evaluator(self):
        return Counter()


class Counter:
    def update(self, student, teacher, batch):
        student.logits.no_such_thing

    def sync(self, reduce): ...
    def compute(self):
        return {"acc": 1.0}
"""
STUDENT = ("student=small_cnn", "student.channels=[4,8]", "student.hidden=8")
TEACHER = ("teacher=small_cnn", "teacher.model.channels=[4,8]", "teacher.model.hidden=8")


RECIPE = "{max_epochs: 1, seed: 0, optimizer: {_target_: torch.optim.SGD, _partial_: true, lr: 0.1}}"


def net(what: str) -> tuple[str, ...]:
    return ("student=net", f"student.what={what}", *TEACHER)


def taught_by(what: str) -> tuple[str, ...]:
    return ("teacher=net", f"teacher.model.what={what}", *STUDENT)


def term(what: str) -> tuple[str, ...]:
    return (
        f"+method.terms.mine={{_target_: my_parts.Term, what: {what}}}", "+method.weights.mine=1.0", *STUDENT, *TEACHER,
    )  # fmt: skip


MISTAKES = {
    "a tuple as output": (net("tuple"), ["student", "tuple"]),
    "another number of classes": (net("classes"), ["student: answers for 11 classes, the data has 10"]),
    "inputs of another shape": (net("shape"), ["student", "(2, 1, 8, 8)", "mat1 and mat2"]),
    "inputs of another type": (net("type"), ["student", "float32"]),
    "a forward pass that fails in training only": (net("'in training'"), ["student fails on one batch", "only in tr"]),
    "nothing to train": (net("frozen"), ["student"]),
    "an output without a graph": (net("detached"), ["student", "no gradient"]),
    "a term that fails": (term("forward"), ["method.terms.mine fails on one batch"]),
    "a term whose gradient fails": (term("backward"), ["backward is not written"]),
    "a term that cannot prepare": (term("prepare"), ["method.terms.mine", "no such features"]),
    "a term that gives no scalar": (term("'not a scalar'"), ["method.terms.mine", "scalar"]),
    "a loss that takes other targets": (("task._target_=my_parts.Floats", *STUDENT, *TEACHER), ["task fails on one batch", "int64"]),
    "an evaluator that fails": (("task._target_=my_parts.Blind", *STUDENT, *TEACHER), ["task"]),
    "a student's layer that is not there": (
        ("method=fitnet", "method.taps.student.hint=layers.9", *STUDENT, *TEACHER), ["method.taps.student.hint", "layers.9"],
    ),
    "a teacher's layer that is not there": (
        ("method=fitnet", "method.taps.teacher.hint=layers.9", *STUDENT, *TEACHER), ["method.taps.teacher", "layers.9"],
    ),
    "features that cannot be adapted": (
        ("method=attention", "method.taps.teacher.second=hidden", *STUDENT, *TEACHER),
        ["method.terms.attention: tap 'second': attention needs maps"],
    ),
    "a teacher that returns a tuple": (
        taught_by("tuple"), ["teacher.model", "tuple"],
    ),
    "a teacher that fails in training only": (
        taught_by("'in training'"), ["teacher.model fails on one batch", "only in training"],
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)
    (tmp_path / "my_parts.py").write_text(PARTS)
    (tmp_path / "mine/student").mkdir(parents=True)
    (tmp_path / "mine/teacher").mkdir()
    network = "{_target_: my_parts.Net, num_classes: auto, what: well}"
    (tmp_path / "mine/teacher/net.yaml").write_text(f"defaults: [none]\nname: net\nmodel: {network}\ntrain: {RECIPE}\n")
    (tmp_path / "mine/student/net.yaml").write_text("_target_: my_parts.Net\nnum_classes: auto\nwhat: well\n")
    return tmp_path


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_told_in_one_line_before_anything_is_written(mistake, folder, capsys):
    overrides, says = MISTAKES[mistake]
    assert main(["--config-dir", "mine", *TINY, *overrides]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert all(text in lines[0] for text in says), lines[0]
    assert not (folder / "run").exists()
    assert not (folder / "outputs").exists()


def test_a_student_that_fails_does_so_by_itself(folder, capsys):
    argv = ["--config-dir", "mine", "-m", *TINY[:-1], *net("well,tuple"), "sweep_dir=sweep"]
    assert main(argv) == 1
    found = {path.parent.name: json.loads(path.read_text()) for path in (folder / "sweep").glob("*/result.json")}
    assert {name: result["status"] for name, result in found.items()} == {
        "what-well": "finished", "what-tuple": "failed",
    }  # fmt: skip
    assert "tuple" in found["what-tuple"]["error"]


def test_no_generator_moves():
    torch.manual_seed(1), np.random.seed(2), random.seed(3)
    expected = torch.rand(3), np.random.rand(3), random.random()
    torch.manual_seed(1), np.random.seed(2), random.seed(3)
    with untouched_randomness():
        torch.rand(7), np.random.rand(7), random.random()
    assert torch.equal(expected[0], torch.rand(3))
    assert np.array_equal(expected[1], np.random.rand(3))
    assert expected[2] == random.random()


def test_a_term_that_cannot_teach_is_told(caplog):
    class Squared:
        name, monitor, metrics = "regression", "mse", (Metric("mse", False),)

        def loss(self, output, target):
            return (output.logits[:, 0] - target).square().mean()

    method = Method({"kd": SoftTargetLoss(4.0), "mse": LogitsMSELoss()}, {"task": 0.5, "kd": 0.5, "mse": 1.0})
    member = Member(nn.Linear(4, 1), method, Squared(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    batch = Batch(torch.randn(8, 4), torch.randn(8), torch.arange(8))
    _train_step(member, batch, ModelOutput(torch.randn(8, 1)), torch.device("cpu"), "student", CLOCK)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("WARNING: method.terms.kd gives the student no gradient: the softmax of one")


def test_a_term_that_these_two_samples_alone_leave_without_a_gradient_is_not_told(caplog):
    class Squared:
        name, monitor, metrics = "regression", "mse", (Metric("mse", False),)

        def loss(self, output, target):
            return (output.logits - target).square().mean()

    method = Method({"ail": AttentiveImitationLoss()}, {"task": 0.5, "ail": 0.5})
    member = Member(nn.Linear(4, 1), method, Squared(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    target = torch.tensor([[0.0], [1.0]]).repeat(4, 1)
    answer = ModelOutput(
        target + torch.tensor([[3.0], [4.0]]).repeat(4, 1)
    )  # so far off that it trusts the teacher nowhere
    _train_step(member, Batch(torch.randn(8, 4), target), answer, torch.device("cpu"), "student", CLOCK)
    assert caplog.messages == []


class OfConfidentSamples(nn.Module):
    """Says nothing of samples that the teacher is not sure of, and nothing where the student's numbers are negative."""

    def forward(self, student, teacher, target):
        sure = teacher.logits.softmax(dim=1).amax(dim=1) > 0.9
        return (student.logits.relu().sum(dim=1) * sure).mean()


def test_a_term_that_waits_for_a_sure_teacher_or_for_other_inputs_is_not_told(caplog):
    torch.manual_seed(0)
    student = nn.Linear(2, 3, bias=False)
    nn.init.ones_(student.weight)
    method = Method({"sure": OfConfidentSamples()}, {"task": 0.5, "sure": 0.5})
    member = Member(student, method, ClassificationTask(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    batch = Batch(torch.tensor([[-1.0, 0.9]]).repeat(16, 1), torch.arange(16) % 3, torch.arange(16))
    _train_step(member, batch, ModelOutput(torch.zeros(16, 3)), torch.device("cpu"), "student", CLOCK)
    assert caplog.messages == []


@pytest.mark.parametrize(("ends", "told"), [(nn.Softmax(1), True), (nn.LogSoftmax(1), False), (nn.ReLU(), False)])
def test_a_student_that_ends_in_a_softmax_is_told(ends, told, caplog):
    method = Method({"kd": SoftTargetLoss(4.0)}, {"task": 0.5, "kd": 0.5})
    student = nn.Sequential(nn.Linear(4, 3), ends)
    member = Member(student, method, ClassificationTask(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    batch = Batch(torch.randn(8, 4), torch.arange(8) % 3, torch.arange(8))
    _train_step(member, batch, ModelOutput(torch.randn(8, 3)), torch.device("cpu"), "student", CLOCK)
    assert ["leave out the softmax at its end" in message for message in caplog.messages] == [True] * told


def test_auxiliary_heads_that_no_loss_looks_at_are_named(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "two_heads.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self, in_features, num_classes):\n        super().__init__()\n"
        "        self.a, self.b = nn.Linear(in_features, num_classes), nn.Linear(in_features, num_classes)\n\n"
        "    def forward(self, x):\n        x = x.flatten(1)\n"
        "        return {'logits': self.a(x), 'early': self.b(x)} if self.training else self.a(x)\n"
    )
    few = (
        "data.train_size=64",
        "data.labelled=null",
        "data.batch_size=32",
        "trainer.max_epochs=1",
        "baseline=false",
        "run_dir=run",
    )
    words = ("student=custom", "student._target_=two_heads.Net", "teacher=none", "method=none", *few)
    assert main(list(words)) == 0
    assert "also holds early, which no loss looks at" in (tmp_path / "run" / "kd-train.log").read_text()


@pytest.mark.slow
def test_one_run_that_taps_what_the_teacher_has_not_leaves_the_others_of_its_group_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keys = [key for key in TINY if not key.startswith("run_dir")]
    assert main(["-m", "method=fitnet", "method.taps.teacher.hint=hidden,nowhere", *keys, "sweep_dir=runs"]) == 1
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    assert sorted(result["status"] for result in results) == ["failed", "finished"]
    assert main(["method=fitnet", "method.taps.teacher.hint=nowhere", *TINY, "baseline=true"]) == 2
    assert "has no layer 'nowhere'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
