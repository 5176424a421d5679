"""``kd.distill``: modules and data sets in, a finished run out, with the files that kd-train leaves."""

from __future__ import annotations

import copy
import functools
import json
import logging
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from given_models import Net, blobs, trained
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from quick import QUICK
from torch import nn
from torch.utils.data import TensorDataset

import kd_lightning as kd
from kd_lightning.config import given
from kd_lightning.errors import UserError


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    return trained()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, teacher):
    """A student given as a module, and what became of it."""
    torch.manual_seed(3)
    student = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    before = copy.deepcopy(student.state_dict())
    run_dir = tmp_path_factory.mktemp("distill") / "run"
    settings = {**QUICK, "paths.output_dir": str(run_dir.parent)}
    sets = [TensorDataset(*blobs(rows, seed)) for rows, seed in ((256, 1), (64, 2), (96, 3))]
    result = kd.distill(
        teacher, student, *sets, method="dkd", temperature=2, max_epochs=3, run_dir=run_dir, settings=settings
    )
    return result, student, before, sets


def test_the_student_that_comes_back_is_the_one_that_was_tested(finished):
    result, _, _, (_, _, test) = finished
    inputs, target = test.tensors
    with torch.no_grad():
        accuracy = (result.student(inputs).argmax(1) == target).float().mean().item()
    assert accuracy == pytest.approx(result.metrics["test/acc"])
    assert (result.predict(inputs.numpy()).argmax(1) == target).float().mean().item() == pytest.approx(accuracy)
    assert not result.student.training
    for wrong in (["a"], inputs.tolist(), "a", None):
        with pytest.raises(
            UserError, match=r"the run's inputs are N x 8, one tensor or array; got a (list of|str|NoneType)"
        ):
            result.predict(wrong)


def test_it_learned_from_the_teacher_and_stands_beside_the_student_alone(finished):
    result = finished[0]
    assert result.metrics["test/acc"] > 0.6
    assert result.teacher["test/acc"] > 0.9
    assert (
        result.baseline["test/acc"]
        == json.loads((result.run_dir / "student_alone" / "result.json").read_text())["metrics"]["test/acc"]
    )
    for text in (result.table, repr(result), result._repr_html_()):
        assert "student alone" in text
        assert "distilled student" in text


def test_the_modules_that_were_given_stay_as_they_were(finished, teacher):
    _, student, before, _ = finished
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert student.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_method_temperature_and_epochs_reach_the_run(finished):
    config = finished[0].result["config"]
    assert set(config["method"]["terms"]) == {"true_class", "other_classes"}
    assert config["method"]["temperature"] == 2
    assert config["method"]["terms"]["true_class"]["temperature"] == 2
    assert config["trainer"]["max_epochs"] == 3


def test_the_same_call_again_reads_what_is_there_and_another_student_is_refused(finished, teacher, folder):
    result, student, _, sets = finished
    before = (result.run_dir / "result.json").stat().st_mtime_ns
    options = {"method": "dkd", "temperature": 2, "max_epochs": 3, "run_dir": result.run_dir, "settings": QUICK}
    again = kd.distill(teacher, student, *sets, **options)
    assert again.metrics == result.metrics
    assert (result.run_dir / "result.json").stat().st_mtime_ns == before
    other = copy.deepcopy(student)
    with torch.no_grad():
        other[0].bias += 1
    with pytest.raises(UserError, match="run_dir="):
        kd.distill(teacher, other, *sets, **options)
    with pytest.raises(UserError, match="run_dir="):
        kd.distill(teacher, student, TensorDataset(*blobs(256, 9)), *sets[1:], **options)


def test_another_process_is_told_that_it_lacks_the_object_and_takes_one_of_the_same_layers(finished, monkeypatch):
    result, student, _, (_, _, test) = finished
    monkeypatch.setattr(given, "_objects", type(given._objects)())
    with pytest.raises(UserError, match=r"Sequential was given as an object in Python.*open_run\(RUN_DIR, student"):
        kd.open_run(result.run_dir)
    opened = kd.open_run(result.run_dir, student=copy.deepcopy(student))
    assert torch.equal(opened.student(test.tensors[0]), result.student(test.tensors[0]))


def test_what_was_given_stays_known_when_an_equal_object_came_and_went():
    model = nn.Linear(2, 2)
    node = given.node_of_module(model)
    assert given.node_of_module(copy.deepcopy(model)) == node  # nobody keeps the copy: it is gone
    assert torch.equal(given.copied(node["path"], node["content"]).weight, model.weight)


def files_of(run_dir: Path) -> set[str]:
    found = {path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file()}
    return {name.split(".")[0] if "tfevents" in name else name for name in found if not name.endswith(".lock")}


def test_names_and_classes_make_the_run_that_kd_train_makes(folder):
    from kd_lightning.cli.train import main

    settings = [f"{key}={value}" for key, value in QUICK.items()]
    shared = ["teacher=none", "method=none", "trainer.max_epochs=1", "optimizer.lr=0.02", "student.hidden=[8]"]
    assert main([*shared, *settings, "run_dir=commanded"]) == 0
    result = kd.distill(
        None, "mlp", max_epochs=1, lr=0.02, run_dir="called", settings={**QUICK, "student.hidden": [8]}, verbose=False
    )
    other = json.loads(Path("commanded/result.json").read_text())
    assert (result.result["fingerprint"], result.metrics) == (other["fingerprint"], other["metrics"])
    assert files_of(Path("called")) == files_of(Path("commanded"))
    from kd_lightning.models.mlp import MLP

    by_class = kd.distill(
        None, functools.partial(MLP, hidden=[8]), max_epochs=1, lr=0.02, run_dir="class", settings=QUICK, verbose=False
    )
    assert by_class.metrics == other["metrics"]
    assert by_class.result["config"]["student"]["_target_"] == "kd_lightning.models.mlp.MLP"


def test_a_class_of_a_module_gets_the_sizes_of_the_data(folder):
    inputs, target = blobs(120)
    names = np.array(["ant", "bee", "cow"])[target.numpy()]
    result = kd.distill(
        None, Net, (inputs.numpy(), names), max_epochs=1, batch_size=16, baseline=False, settings=QUICK, verbose=False
    )
    assert result.opened.sizes["in_features"] == 8
    assert list(result.opened.class_names) == ["ant", "bee", "cow"]
    assert result.result["config"]["student"] == {"_target_": "given_models.Net"}


class Nudge(nn.Module):
    """A term of the user's own, with a parameter that it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, student, teacher, target):
        return (self.gain * student.logits - teacher.logits).square().mean()


def test_a_method_of_ones_own_terms_and_several_teachers(folder, teacher):
    method = kd.Method({"nudge": Nudge()}, {"task": 0.5, "nudge": 0.25})
    result = kd.distill(
        [teacher, trained(16)], Net, blobs(160), method=method, max_epochs=1, batch_size=16, baseline=False,
        settings=QUICK, verbose=False,
    )  # fmt: skip
    config = result.result["config"]
    assert config["method"]["weights"] == {"task": 0.5, "nudge": 0.25}
    assert list(config["teacher"]["members"]) == ["m0", "m1"]
    assert result.teacher["test/acc"] > 0.9
    logged = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert any("train/loss_nudge" in line for line in logged)
    assert float(method.terms["nudge"].gain) == 1  # a copy was trained


def test_a_function_with_the_name_of_a_shipped_model_is_itself_all_the_same(folder):
    def mlp():
        return nn.Linear(8, 3)

    result = kd.distill(None, mlp, blobs(120), max_epochs=1, baseline=False, settings=QUICK, verbose=False)
    assert isinstance(result.student, nn.Linear)


def test_the_callers_process_is_left_as_it_was(folder, capsys):
    HydraConfig.instance().cfg, marker = None, object()
    GlobalHydra.instance().hydra = marker
    levels = [logging.getLogger(name).level for name in ("kd_lightning", "pytorch_lightning", "")]
    filters, where, environment = list(warnings.filters), os.getcwd(), dict(os.environ)
    try:
        with pytest.raises(UserError):
            kd.distill(None, nn.Linear(8, 3), blobs(120), settings={"method.temprature": 1})
        kd.distill(
            None, lambda: nn.Linear(8, 3), blobs(120), max_epochs=1, baseline=False, settings=QUICK, verbose=False
        )
        assert GlobalHydra.instance().hydra is marker
    finally:
        GlobalHydra.instance().hydra = None
    assert HydraConfig.instance().cfg is None
    assert [logging.getLogger(name).level for name in ("kd_lightning", "pytorch_lightning", "")] == levels
    assert (list(warnings.filters), os.getcwd(), dict(os.environ)) == (filters, where, environment)
    assert not {"data", "student", "teacher"} & set(ConfigStore.instance().repo)
    assert capsys.readouterr().out == ""


MISTAKES = {
    "no such student": ({"student": "mpl"}, r"student='mpl'.*did you mean 'mlp'"),
    "no such method": ({"method": "dkdd"}, r"method='dkdd'.*dkd"),
    "no such setting": ({"settings": {"method.temprature": 2}}, r"method\.temprature.*'method\.temperature'"),
    "a temperature below zero": ({"temperature": -1}, r"^temperature: must be > 0, got -1"),
    "a student that is none": ({"student": 3}, "student: give a torch.nn.Module.*got int"),
    "a function that makes none": ({"student": lambda: 3}, "student: the function gave a int"),
    "a function that fails": ({"student": lambda: 1 / 0}, "student: the function that makes it fails: division"),
    "data that are none": ({"train": 4}, "train: give a torch Dataset, a DataLoader, arrays"),
    "arrays of two lengths": ({"train": (torch.zeros(4, 8), torch.zeros(3))}, "train: the arrays have 3 and 4 rows"),
    "no samples": ({"train": []}, "train: has no samples"),
    "a name with validation data": ({"train": "digits", "val": blobs(9)}, "val: train='digits' names data that have"),
    "a method whose layers are not there": ({"method": "rkd"}, r"method\.taps\.\w+: .*no layer"),
    "one weight": ({"weights": 0.9}, r"weights: give each loss term's, as in weights=.*got 0.9"),
    "weights without a model": (
        {"teacher": nn.Linear(8, 3).state_dict()},
        r"teacher: a mapping of tensors is a model's",
    ),
    "a checkpoint": (
        {"student": {"state_dict": {"weight": torch.ones(1)}}},
        r"student: a mapping of tensors.*student=model",
    ),
    "a loss as the method": ({"method": nn.MSELoss()}, r"method: MSELoss is no method.*kd\.Method\(\{"),
    "no method": ({"method": 3}, r"method: give a name, a list of names, a kd\.Method, or a mapping; got int"),
    "one teacher in a list": ({"teacher": [nn.Linear(8, 3)]}, "teacher: a list is an ensemble: give two"),
    "a model of other sizes": ({"student": nn.Linear(9, 3)}, "student.*(9|8)"),
    "a teacher of other classes": ({"teacher": nn.Linear(8, 4)}, r"teacher\.model.*4"),
    "a value of no form": ({"settings": {"seed": object()}}, "settings are numbers, texts, lists"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(mistake, folder):
    changed, line = MISTAKES[mistake]
    given_ = {"teacher": nn.Linear(8, 3), "student": nn.Linear(8, 3), "train": blobs(120), "settings": QUICK, **changed}
    with pytest.raises(UserError, match=line) as told:
        kd.distill(**given_, verbose=False)
    assert "\n" not in str(told.value)
    assert not list(folder.iterdir())
