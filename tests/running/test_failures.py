"""What a sweep does with runs that fail is a matter of configuration: go on, stop, try again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kd_lightning.cli.train import main

TINY = (
    "data.num_threads=1", "data.train_size=128", "data.labelled=null", "data.batch_size=16", "trainer.accelerator=cpu",
    "trainer.max_epochs=2", "teacher=mlp", "teacher.model.hidden=[8]", "teacher.train.max_epochs=1",
    "pictures.every_n_epochs=0", "baseline=false", "sweep_dir=sweep", "student=net",
)  # fmt: skip
MODEL = '''
from pathlib import Path

from torch import nn


class Net(nn.Module):
    """Breaks at its fifth training step so many times as the file "broken" says, if its width is 5."""

    def __init__(self, in_features, num_classes, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_features, width), nn.Linear(width, num_classes))
        self.width, self.steps = width, 0

    def forward(self, x):
        self.steps += self.training
        left = int(Path("broken").read_text())
        if self.width == 5 and self.steps == 5 and left:
            Path("broken").write_text(str(left - 1))
            raise RuntimeError("a mistake of the user's own")
        return self.layers(x)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    (tmp_path / "my_net.py").write_text(MODEL)
    (tmp_path / "mine/student").mkdir(parents=True)
    (tmp_path / "mine/student/net.yaml").write_text("_target_: my_net.Net\nin_features: auto\nnum_classes: auto\n")
    return tmp_path


def sweep(folder: Path, broken: int, *overrides: str) -> tuple[int, dict[str, str]]:
    (folder / "broken").write_text(str(broken))
    code = main(["--config-dir", "mine", "-m", *TINY, "+student.width=4,5,6", *overrides])
    found = (folder / "sweep").glob("*/result.json")
    return code, {path.parent.name[-1]: json.loads(path.read_text())["status"] for path in found}


@pytest.mark.parametrize("launcher", ["fused", "local"])
def test_the_others_go_on_by_default(folder, launcher):
    assert sweep(folder, 9, f"launcher={launcher}") == (1, {"4": "finished", "5": "failed", "6": "finished"})


def test_a_sweep_can_stop_at_the_first_failure_and_goes_on_when_it_is_mended(folder, capsys):
    code, found = sweep(folder, 9, "failures.stop=true", "launcher=local")
    assert (code, found) == (1, {"4": "finished", "5": "failed"})
    assert "stopped at width005: RuntimeError: a mistake of the user's own" in capsys.readouterr().err
    assert sweep(folder, 0, "failures.stop=true", "launcher=local") == (0, dict.fromkeys("456", "finished"))


def test_runs_in_lockstep_stop_with_the_one_that_fails_and_go_on_from_there(folder, capsys):
    code, found = sweep(folder, 9, "failures.stop=true")
    assert (code, found) == (1, {"4": "interrupted", "5": "failed", "6": "interrupted"})
    assert sweep(folder, 0) == (0, dict.fromkeys("456", "finished"))
    assert "width004 continues after step" in capsys.readouterr().out


def test_a_run_that_fails_can_be_started_again(folder, capsys):
    assert sweep(folder, 2, "failures.retries=2") == (0, dict.fromkeys("456", "finished"))
    assert "width005: start again (2 of 2)" in capsys.readouterr().out


def test_retries_come_to_an_end(folder):
    code, found = sweep(folder, 9, "failures.retries=1")
    assert (code, found["5"]) == (1, "failed")
    assert (folder / "broken").read_text() == "7"


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(folder, capsys):
    (folder / "broken").write_text("0")
    assert main(["--config-dir", "mine", "-m", *TINY, "+student.width=4,5", "dry_run=true"]) == 0
    said = capsys.readouterr().out
    assert "2 runs, 0 of them finished already" in said
    assert "group 1: 2 runs in lockstep" in said
    assert "width004: 16 steps of" in said
    assert "teacher mlp-" in said
    assert not (folder / "sweep").exists()
    single = [word for word in TINY if not word.startswith("sweep")]
    assert main(["--config-dir", "mine", *single, "run_dir=run", "dry_run=true"]) == 0
    assert not (folder / "run").exists()
    assert not (folder / "outputs").exists()
