"""protocol=literature: all training samples, the last epoch, and the best figure on test beside it, which chooses nothing."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import SMALL, lines, results, run, start, weights

from kd_lightning.cli.train import main

LITERATURE = (*SMALL, "protocol=literature")
SAID = "(chosen by looking at the test set: for comparison with published tables only)"
REFUSED = {
    "no validation under the other protocol": (("data.val_size=0",), "data.val_size: must be > 0, got 0"),
    "validation samples": (("protocol=literature", "data.val_size=100"), "data.val_size: protocol=literature trains on all"),
    "early stopping": (("protocol=literature", "early_stopping.patience=3"), "early_stopping.patience: stops by validation"),
    "a part of the test set": (
        ("protocol=literature", "+trainer.limit_val_batches=2"), "trainer.limit_val_batches: protocol=literature looks at the whole"
    ),
    "a scheduler that follows a metric": (("protocol=literature", "scheduler=plateau"), "scheduler: follows the validation"),
    "an average kept at a validation": (("protocol=literature", "callbacks=ema"), "callbacks.ema: its average is kept"),
    "a checkpoint chosen by a metric": (
        ("protocol=literature", "+callbacks.best={_target_: pytorch_lightning.callbacks.ModelCheckpoint, monitor: acc}"),
        "callbacks.best.monitor: follows validation",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_does_not_go_with_the_protocol_is_one_line(what, folder, capsys):
    overrides, says = REFUSED[what]
    assert main([*SMALL, *overrides]) == 2
    told = capsys.readouterr().err.splitlines()
    assert says in told[-1]
    assert told[-1].startswith("error: ")


def test_the_last_epoch_is_tested_and_the_best_on_test_is_named_so(folder, capsys):
    assert main([*LITERATURE, "teacher.train.max_epochs=1", "optimizer.lr=0.1", "run_dir=lit"]) == 0
    out, err = capsys.readouterr()
    assert SAID in out
    assert "WARNING" not in out + err
    result = json.loads((folder / "lit" / "result.json").read_text())
    figures = [line["on_test/acc"] for line in lines(folder / "lit") if "on_test/acc" in line]
    assert len(figures) == 3
    assert result["data"]["samples"] == {"train": 1200, "labelled": 200, "val": 0}
    assert result["metrics"]["test/acc"] == figures[-1]
    assert result["metrics"]["best_on_test/acc"] == max(figures)
    assert result["metrics"]["best_on_test/epoch"] == figures.index(max(figures)) + 1
    assert not [name for name in result["metrics"] if name.startswith("best/")]
    assert weights(folder / "lit") == weights(folder / "lit", "last")
    teacher = Path(result["teacher"]["run_dir"])
    assert not [line for line in lines(teacher) if "on_test/acc" in line], "a teacher appears in no table"


TEXTS = ("data=text", "data.file=texts.csv", "student=token_bag", "student.width=8")
PICTURES = (
    "data=image_folder",
    "data.root=pictures",
    "data.image_size=8",
    "data.resize=8",
    "data.batch_size=8",
    "student=small_cnn",
)
KINDS = {
    "texts in groups, a teacher without folds": (
        *TEXTS, "data.group=author", "teacher=tfidf", "teacher.folds=0",
    ),
    "pictures in folders": (*PICTURES, "teacher=small_cnn", "teacher.data.augment=true", "teacher.train.max_epochs=1"),
    "pictures without labels": (
        *PICTURES, "data.labels=none", "task=clustering", "method=assignments", "teacher=kmeans", "teacher.clusters=2", "baseline=false",
    ),
    "a data set": ("data=dataset", "data.train._target_=own_rows.Own", "teacher=mlp", "teacher.train.max_epochs=1"),
    "hidden labels": ("experiment=digits_clusters",),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_on_every_kind_of_data_all_is_trained_on_and_the_last_epoch_is_tested(kind, folder, monkeypatch):
    random = np.random.default_rng(0)
    rows = (f"a{n % 9},{' '.join(random.choice(['red', 'green', 'old'], 5))},{n % 2}" for n in range(120))
    (folder / "texts.csv").write_text("\n".join(["author,text,label", *rows]))
    for split, of in (("train", 16), ("test", 6)):
        for name in ("red", "blue"):
            (folder / "pictures" / split / name).mkdir(parents=True)
            for number in range(of):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "pictures" / split / name / f"{number}.png")
    (folder / "own_rows.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\n\n\nclass Own(TensorDataset):\n    def __init__(self):\n"
        "        super().__init__(torch.arange(600.0).reshape(100, 6) % 7, torch.arange(100) % 3)\n"
    )
    monkeypatch.delitem(sys.modules, "own_rows", raising=False)
    given = (
        "protocol=literature",
        "trainer.max_epochs=2",
        "trainer.accelerator=cpu",
        "pictures.every_n_epochs=0",
        "run_dir=run",
    )
    assert main([*KINDS[kind], *given]) == 0
    result = json.loads(Path("run/result.json").read_text())
    metric = result["monitor"]["metric"]
    figures = [line[f"on_test/{metric}"] for line in lines(folder / "run") if f"on_test/{metric}" in line]
    assert len(figures) == 2
    assert result["data"]["samples"]["val"] == 0
    assert result["metrics"][f"test/{metric}"] == figures[-1]
    assert result["metrics"][f"best_on_test/{metric}"] in figures


@pytest.mark.slow
def test_in_lockstep_and_alone_it_leaves_the_same_weights_and_figures_and_the_report_chooses_none(tmp_path):
    sweep = ("-m", *LITERATURE, "method=kd,none", "student.dropout=0.2")
    fused = run(tmp_path, *sweep, "seed=0,1", "sweep_dir=fused")
    assert fused.code == 0, fused.text
    assert fused.text.count(SAID) == 2, "a line a configuration"
    local = run(tmp_path, *sweep, "seed=0,1", "launcher=local", "sweep_dir=local")
    assert local.code == 0, local.text
    found, expected = results(tmp_path / "local"), results(tmp_path / "fused")
    assert found.keys() == expected.keys()
    assert len(found) > 3
    for name, result in expected.items():
        assert weights(tmp_path / "local" / name) == weights(tmp_path / "fused" / name)
        assert result["metrics"] == found[name]["metrics"]
    assert SAID in (tmp_path / "fused" / "report.html").read_text()


@pytest.mark.slow
def test_a_run_that_is_stopped_in_an_epoch_ends_as_one_that_is_not(tmp_path):
    (tmp_path / "slow_models.py").write_text(
        "import time\nfrom kd_lightning.models.mlp import MLP\n\n\nclass Slow(MLP):\n"
        "    def forward(self, x):\n        time.sleep(0.02 * self.training)\n        return super().forward(x)\n"
    )
    slow = (*LITERATURE, "baseline=false", "student._target_=slow_models.Slow", "log_every_n_steps=1")
    assert run(tmp_path, *slow, "run_dir=whole").code == 0
    command = start(tmp_path, *slow, "run_dir=stopped")
    written = tmp_path / "stopped" / "metrics.jsonl"
    command.wait_for(lambda: written.is_file() and "on_test/acc" in written.read_text())
    command.kill(signal.SIGTERM)
    assert command.wait(60).code == 130
    assert run(tmp_path, *slow, "run_dir=stopped").code == 0
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    whole, stopped = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "stopped"))
    assert stopped["metrics"] == whole["metrics"]


@pytest.mark.slow
def test_a_search_is_refused(tmp_path):
    pytest.importorskip("optuna")
    ended = run(tmp_path, "-m", *LITERATURE, "sweep=optuna", "hydra.sweeper.n_trials=1")
    assert ended.code == 2
    assert "a search chooses by validation, and protocol=literature has none" in ended.text
