"""What the check allows can be had: each value of each key with choices trains, from the table and from signatures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kd_lightning.cli.train import main
from kd_lightning.config.keys import KEYS
from kd_lightning.runs.result_file import read_result

CHOICES = [(key, choice) for key, entry in KEYS.items() for choice in entry.rule.choices]
TINY = (
    "debug=fast",
    "baseline=false",
    "teacher=mlp",
    "teacher.model.hidden=[8]",
    "student.hidden=[8]",
    "data.num_threads=1",
    "pictures.every_n_epochs=0",
    "run_dir=run",
)
BESIDE = {
    "teacher.cache_precision": ["teacher.cache=stored"],  # a directory: written even where it would not pay
    "teacher.train.scheduler.interval": ["~teacher.train.scheduler_interval"],
}


OF_MANY_CLASSES = ["data=table", "data.file=many.csv", "data.target=class", "data.batch_size=16"]


def write_many_classes(path: Path) -> None:
    rows = [f"{number % 7},{number % 150},kind{number % 150}" for number in range(1500)]
    path.write_text("\n".join(["a,b,class", *rows]))


@pytest.mark.parametrize(("key", "choice"), CHOICES)
def test_every_choice_trains(key, choice, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    plus = "+" if key == "teacher.train.scheduler.interval" else ""
    beside = BESIDE.get(key, [])
    if choice == "scores":  # a form for many classes
        write_many_classes(tmp_path / "many.csv")
        beside = [*beside, *OF_MANY_CLASSES]
    assert main([*TINY, *beside, f"{plus}{key}={choice}"]) == 0, capfd.readouterr().err
    result = read_result(Path("run"))
    assert result is not None
    assert result["status"] == "finished"
