"""``kd-train`` in this process, on a few digits, with teachers from YAMLs that a test writes into ``mine/``."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from kd_lightning.cli.train import main

TINY = (
    *("baseline=false", "trainer.max_epochs=1", "trainer.accelerator=cpu", "pictures.every_n_epochs=0"),
    *("data.train_size=200", "data.batch_size=100", "data.labelled=null", "run_dir=run", "student.hidden=[8]"),
)
RECIPE = "max_epochs: 1, seed: 0, optimizer: {_target_: torch.optim.SGD, _partial_: true, lr: 0.1}"
NET = "{_target_: kd_lightning.models.mlp.MLP, hidden: [8]}"


def teacher_yaml(folder: Path, name: str, text: str) -> None:
    path = folder / "mine" / "teacher" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def train(*arguments: str) -> dict:
    assert main(["--config-dir", "mine", *TINY, *arguments]) == 0
    return json.loads(Path("run/result.json").read_text())


def refused(capfd, *arguments: str) -> str:
    assert main(["--config-dir", "mine", *TINY, *arguments]) == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    return error.strip().splitlines()[-1]


def plain(folder: Path, name: str = "net", **keys: str) -> None:
    given = {"train": f"{{{RECIPE}}}", **keys}
    lines = "".join(f"{key}: {value}\n" for key, value in given.items())
    teacher_yaml(folder, name, f"defaults: [none]\nname: {name}\nmodel: {NET}\n{lines}")
