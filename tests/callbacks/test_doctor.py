"""The doctor: each warning provoked by a training that deserves it, silence on one that does not, and no bit changed."""

from __future__ import annotations

import functools
import json
import logging

import pytest
import pytorch_lightning as pl
import torch
import torch.utils.checkpoint
from torch import nn
from torch.utils.data import DataLoader

from kd_lightning.batch import Batch
from kd_lightning.callbacks.doctor import Doctor
from kd_lightning.cli.train import main
from kd_lightning.distiller import Distiller
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.recorder import Recorder
from kd_lightning.report.study import remarks
from kd_lightning.report.study.collect import collect
from kd_lightning.rng import RngStream
from kd_lightning.tasks.classification import ClassificationTask
from kd_lightning.teachers.frozen import FrozenTeacher


class Notes(Recorder):
    """Keeps what it is warned of."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, str]] = []
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log(self, step, epoch, metrics):
        self.lines.append((step, metrics))

    def warned(self, kind, text):
        self.warnings.append((kind, text))
        return True


class Net(nn.Module):
    """Two layers, dropout and BatchNorm; ``dead``: the hidden layer gives zeros."""

    def __init__(self, scale: float = 1.0, dead: bool = False) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.ReLU())
        self.last = nn.Linear(16, 5)
        with torch.no_grad():
            self.last.weight *= scale
            self.hidden[1].bias -= 1000 * dead

    def forward(self, x):
        return self.last(self.hidden(x))


class Features(nn.Module):
    """Squared difference of the features."""

    requires = frozenset({"features"})

    def forward(self, student, teacher, target):
        return (student.features["hidden"] - teacher.features["hidden"]).square().mean()


def member(student=None, temperature=4.0, method=None, name="student", lr=0.05) -> Member:
    method = method or Method({"kd": SoftTargetLoss(temperature)}, {"task": 0.5, "kd": 0.5}, temperature)
    optimizer = functools.partial(torch.optim.SGD, lr=lr, momentum=0.9)
    return Member(student or seeded(Net, 1), method, ClassificationTask(), optimizer=optimizer, name=name)


def seeded(make, seed: int):
    with RngStream(seed):
        return make()


def batches(labels=None, count=5, size=32) -> list[Batch]:
    g = torch.Generator().manual_seed(0)
    inputs = [torch.randn(size, 8, generator=g) for _ in range(count)]
    return [Batch(x, torch.randint(0, 5, (size,), generator=g) if labels is None else labels(x)) for x in inputs]


def fit(teacher, *members, data=None, epochs=2, doctor=True, gradients=0) -> list[Notes]:
    notes, loader = [Notes() for _ in members], DataLoader(data or batches(), batch_size=None)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Doctor(gradients)] if doctor else [],
    )  # fmt: skip
    trainer.fit(Distiller(FrozenTeacher(teacher, taps={"hidden": "hidden"}), list(members), notes), loader, loader)
    return notes


@pytest.mark.parametrize(
    ("scale", "temperature", "words"), [(3000.0, 1.0, "nearly one-hot"), (1.0, 500.0, "nearly uniform"), (5.0, 2.0, "")]
)
def test_soft_targets_that_are_labels_or_say_nothing_are_told_of(scale, temperature, words):
    (notes,) = fit(seeded(lambda: Net(scale), 0), member(temperature=temperature))
    assert [kind for kind, _ in notes.warnings] == ["soft targets"] * bool(words)
    assert all(words in text and "method.temperature" in text for _, text in notes.warnings)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_tapped_feature_that_is_the_same_for_all_samples_is_told_of_once(side):
    taps = {"student": {"hidden": "hidden"}, "teacher": {"hidden": "hidden"}}
    method = Method({"hint": Features()}, {"task": 0.0, "hint": 1.0}, taps=taps)
    teacher = seeded(lambda: Net(dead=side == "teacher"), 0)
    (notes,) = fit(teacher, member(seeded(lambda: Net(dead=side == "student"), 1), method=method), epochs=3)
    assert [kind for kind, _ in notes.warnings] == [f"constant feature {side}.hidden"]
    assert f"method.taps.{side}.hidden: layer 'hidden'" in notes.warnings[0][1]


def other_class(x: torch.Tensor) -> torch.Tensor:
    return (x[:, :5].argmax(1) + 1) % 5


@pytest.mark.parametrize(("labels", "told"), [(other_class, True), (lambda x: x[:, :5].argmax(1), False)])
def test_a_student_that_learns_against_its_teacher_is_told_of(labels, told):
    """It starts as its teacher's copy, whose classes are the labels, or those shifted by one."""

    def linear():
        layer = nn.Sequential(nn.Linear(8, 5, bias=False))
        nn.init.eye_(layer[0].weight)
        return layer

    method = Method({"kd": SoftTargetLoss(2.0)}, {"task": 1.0, "kd": 0.01}, 2.0)
    trainer_data = batches(labels, count=4, size=256)
    teacher = linear()
    notes = Notes()
    trainer = pl.Trainer(
        max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Doctor()],
    )  # fmt: skip
    loader = DataLoader(trainer_data, batch_size=None)
    trainer.fit(Distiller(FrozenTeacher(teacher), member(linear(), method=method), [notes]), loader, loader)
    assert [kind for kind, _ in notes.warnings] == ["against the teacher"] * told
    assert all("4 validations in a row" in text for _, text in notes.warnings)


@pytest.mark.parametrize(("weight", "words"), [(1e5, "lower it"), (1e-5, "raise it"), (1.0, "")])
def test_a_term_whose_gradient_drowns_the_tasks_or_is_drowned_is_told_of(weight, words):
    method = Method({"kd": SoftTargetLoss(2.0)}, {"task": 1.0, "kd": weight}, 2.0)
    (notes,) = fit(seeded(lambda: Net(5.0), 0), member(method=method, lr=1e-6), gradients=2)
    assert [kind for kind, _ in notes.warnings] == ["gradient of kd"] * bool(words)
    assert all(words in text and "method.weights.kd" in text for _, text in notes.warnings)


def test_logged_norms_are_those_of_the_weighted_parts_gradients():
    """Of a linear student the task's gradient is known: (softmax - one-hot) x inputs, averaged; here half of it counts."""
    student = nn.Sequential(nn.Linear(8, 5))
    method = Method({"kd": SoftTargetLoss(2.0)}, {"task": 0.5, "kd": 3.0}, 2.0)
    batch = batches(count=1)[0]
    logits = student(batch.inputs).detach()
    error = (logits.softmax(1) - nn.functional.one_hot(batch.target, 5)) / len(logits)
    expected = 0.5 * torch.cat([error.T @ batch.inputs, error.sum(0)[:, None]], 1).norm().item()
    (notes,) = fit(seeded(Net, 0), member(student, method=method), data=[batch], epochs=3, gradients=2)
    found = [(step, figures) for step, figures in notes.lines if "train/grad_task" in figures]
    assert [step for step, _ in found] == [1, 3]
    assert found[0][1]["train/grad_task"] == pytest.approx(expected, rel=1e-5)
    assert found[0][1]["train/grad_kd"] > 0


def test_a_student_whose_graph_can_be_walked_once_only_trains_undisturbed():
    class Once(Net):
        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(super().forward, x.requires_grad_(), use_reentrant=True)

    (notes,) = fit(seeded(Net, 0), member(seeded(Once, 1)), gradients=1)
    assert notes.warnings == []
    assert not any("train/grad_task" in figures for _, figures in notes.lines)


def test_a_teacher_that_moved_is_told_of_by_the_name_of_what_moved():
    class Writes(nn.Module):
        needs_teacher = True

        def forward(self, student, teacher, target):
            with torch.no_grad():
                moving.last.bias += 1
            return student.logits.square().mean()

    moving = seeded(Net, 0)
    method = Method({"writes": Writes()}, {"task": 1.0, "writes": 1.0})
    (notes,) = fit(moving, member(method=method))
    assert [kind for kind, _ in notes.warnings] == ["teacher moved"]
    assert "last.bias" in notes.warnings[0][1]


def test_of_several_members_only_those_concerned_are_named_in_one_line(caplog):
    names = {"a": 500.0, "b": 4.0, "c": 500.0}
    with caplog.at_level(logging.WARNING, "kd_lightning"):
        notes = fit(seeded(Net, 0), *(member(temperature=t, name=name) for name, t in names.items()))
    assert [len(note.warnings) for note in notes] == [1, 0, 1]
    (line,) = [record.getMessage() for record in caplog.records if "WARNING" in record.getMessage()]
    assert line.startswith("WARNING: a, c: the teacher's soft targets are nearly uniform")


def test_with_and_without_the_doctor_all_weights_are_equal_bit_for_bit():
    weights = []
    for doctor in (True, False):
        members = [member(seeded(Net, i), temperature=t) for i, t in enumerate((1.0, 500.0))]
        fit(seeded(Net, 5), *members, doctor=doctor, gradients=1)
        weights.append([m.weights() for m in members])
    for one, other in zip(*weights, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


SMALL = (
    "data.num_threads=1", "trainer.accelerator=cpu", "teacher=mlp", "teacher.model.hidden=[48]", "teacher.train.max_epochs=4",
    "student.hidden=[16]", "trainer.max_epochs=2", "pictures.every_n_epochs=0", "baseline=false",
)  # fmt: skip


def test_a_run_keeps_its_warnings_and_the_report_shows_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "method.temperature=1000", "run_dir=run"]) == 0
    assert capsys.readouterr().out.count("nearly uniform") == 1
    (said,) = json.loads((tmp_path / "run" / "result.json").read_text())["warnings"]
    assert "nearly uniform" in said
    (study,) = collect(tmp_path / "run")
    assert any("nearly uniform" in text for text in remarks.warnings(study))

    assert main([*SMALL, "method.temperature=1000", "run_dir=without", "doctor=false"]) == 0
    result = json.loads((tmp_path / "without" / "result.json").read_text())
    assert result["warnings"] == []
    assert result["metrics"] == json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]


def test_a_warning_is_not_said_again_by_a_run_that_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = [*SMALL, "scheduler=constant"]
    assert main([*small, "method.temperature=1000", "run_dir=run"]) == 0
    capsys.readouterr()
    longer = [word for word in small if not word.startswith("trainer.max_epochs")]
    assert main([*longer, "method.temperature=1000", "trainer.max_epochs=3", "run_dir=on", "continue_from=run"]) == 0
    assert "nearly uniform" not in capsys.readouterr().out
    assert len(json.loads((tmp_path / "on" / "result.json").read_text())["warnings"]) == 1


def test_the_default_run_is_healthy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["trainer.accelerator=cpu", "trainer.max_epochs=8", "teacher.train.max_epochs=10", "run_dir=run"]) == 0
    assert [json.loads(path.read_text())["warnings"] for path in tmp_path.rglob("result.json")] == [[], [], []]
