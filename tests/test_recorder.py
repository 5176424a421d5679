"""Lightning's own recorder: metrics of one member and of several."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger
from test_distiller import DropNet, Notebook, ReferenceNet, data, member, seeded, trainer
from torch.utils.data import DataLoader

from kd_lightning.distiller import Distiller
from kd_lightning.errors import UserError
from kd_lightning.teachers.frozen import FrozenTeacher


@pytest.fixture
def teacher():
    return FrozenTeacher(seeded(lambda: ReferenceNet(6, 12), 7))


def run(teacher, settings, folder):
    members = [member(seeded(DropNet, 1), lr=lr, name=name) for name, lr in settings]
    module = Distiller(teacher, members, log_every_n_steps=2)
    logger = CSVLogger(folder, name="", version="")
    t = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=logger, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    loaders = [DataLoader(data(4), batch_size=None), DataLoader(data(2, seed=1), batch_size=None)]
    t.fit(module, *loaders)
    validation = {k: float(v) for k, v in t.callback_metrics.items()}
    test = t.test(module, loaders[1], verbose=False)[0]
    logger.save()
    with open(Path(folder) / "metrics.csv") as file:
        columns = set(next(csv.reader(file)))
    return validation, test, columns


def test_each_members_own_time_is_part_of_a_steps(teacher, tmp_path):
    run(teacher, [("a", 0.1), ("b", 0.1)], tmp_path)
    with open(tmp_path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    own = {name: [float(row[key]) for row in rows if row[key := f"{name}/time/own_step_ms"]] for name in "ab"}
    whole = [float(row["b/time/step_ms"]) for row in rows if row["b/time/step_ms"]]
    assert len(whole) == len(own["a"]) == len(own["b"]) == 2
    for a, b, step in zip(own["a"], own["b"], whole, strict=True):
        assert min(a, b) > 0
        assert a + b <= step


def test_two_members_are_logged_tested_and_validated_apart(teacher, tmp_path):
    alone = {lr: run(teacher, [("x", lr)], tmp_path / str(lr)) for lr in (0.1, 5.0)}
    validation, test, columns = run(teacher, [("a", 0.1), ("b", 5.0)], tmp_path / "both")
    for name, lr in (("a", 0.1), ("b", 5.0)):
        assert test[f"{name}/test/loss_task"] == alone[lr][1]["test/loss_task"]
        assert validation[f"{name}/val/loss_task"] == alone[lr][0]["val/loss_task"]
        assert f"{name}/train/loss" in columns
    assert test["a/test/loss_task"] != test["b/test/loss_task"]
    assert "train/loss" not in columns


def test_members_of_one_name_are_numbered(teacher, tmp_path):
    _, test, _ = run(teacher, [("student", 0.1), ("student", 5.0)], tmp_path)
    assert {"student0/test/acc", "student1/test/acc"} <= set(test)


def test_one_member_has_plain_names(teacher, tmp_path):
    validation, test, columns = run(teacher, [("student", 0.1)], tmp_path)
    assert "val/acc" in validation
    assert "test/acc" in test
    assert "train/loss" in columns


def test_the_recorder_does_not_import_the_distiller():
    code = "import kd_lightning.recorder, sys; assert 'kd_lightning.distiller' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "distiller import" not in Path(sys.modules["kd_lightning.recorder"].__file__).read_text()


def test_lightnings_sanity_check_is_no_validation(teacher):
    notes = Notebook()
    module = Distiller(teacher, member(seeded(DropNet, 1)), [notes])
    t = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=2,
    )  # fmt: skip
    t.fit(module, DataLoader(data(2), batch_size=None), DataLoader(data(2, seed=1), batch_size=None))
    assert len(notes.validation) == 1


def test_the_fit_fails_when_its_last_member_has_failed(teacher):
    class Breaks(DropNet):
        def forward(self, x):
            if self.training:
                raise UserError("out of luck")
            return super().forward(x)

    module = Distiller(teacher, [member(Breaks(), name="a"), member(Breaks(), name="b")])
    with pytest.raises(UserError, match="out of luck"):
        trainer(1).fit(module, DataLoader(data(2), batch_size=None), DataLoader(data(1), batch_size=None))
    assert set(module.failures) == {0, 1}
