"""The regression of docs/own_code.md, typed by a user in an empty folder: seen everywhere, with lower as better."""

from __future__ import annotations

import json
from pathlib import Path

import markdown_blocks as markdown
import processes
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.report.pages.payload import payload
from kd_lightning.report.study.collect import collect

FILES = ("my_task.py", "my_diabetes.py", "mine/task/regression.yaml", "mine/data/diabetes.yaml")
QUICK = ("trainer.max_epochs=3", "teacher.train.max_epochs=3", "teacher.model.hidden=[64]", "optimizer.lr=0.01,1e-6")
WORDS = ("--config-dir", "mine", "-m", "data=diabetes", "task=regression", "teacher=mlp", "method=logits_mse")


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[Path, str]:
    """The sweep's directory and what the terminal said."""
    folder = tmp_path_factory.mktemp("own_task")
    for block in markdown.blocks("docs/own_code.md"):
        if block.file in FILES:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
    done = processes.run(folder, *WORDS, *QUICK, "seed=0,1", "sweep_dir=sweep")
    assert done.code == 0, done.text
    return folder / "sweep", done.text


def best_name(folder: Path) -> str:
    """The configuration with the lower RMSE in validation, by its runs' names."""
    found: dict[str, list[float]] = {}
    for path in folder.glob("lr*/result.json"):
        result = json.loads(path.read_text())
        found.setdefault(result["name"].rpartition("_s")[0], []).append(result["metrics"]["best/val_rmse"])
    assert len(found) == 2
    return min(found, key=lambda name: sum(found[name]))


def test_the_terminals_table_puts_the_lower_rmse_first(swept):
    folder, text = swept
    head = next(line for line in text.splitlines() if line.startswith("configuration"))
    assert "best val rmse" in head
    assert "rmse to teacher" in head
    configurations = [line.split()[0] for line in text.splitlines() if line.startswith("lr")]
    assert configurations[0] == best_name(folder)


def test_results_say_what_is_measured_and_which_direction_is_better(swept):
    result = json.loads(next(swept[0].glob("lr*_s0/result.json")).read_text())
    assert (result["task"], result["monitor"]) == ("regression", {"metric": "rmse", "mode": "min"})
    declared = {entry["name"]: entry for entry in result["declared"]}
    assert declared["rmse"] == {"name": "rmse", "higher_is_better": False}
    assert declared["rmse_to_teacher"]["of"] == "fidelity"
    assert {"test/rmse", "test/r2", "test/rmse_to_teacher", "best/val_rmse"} <= set(result["metrics"])
    assert {"test/rmse", "val/rmse", "test/r2", "val/r2"} <= set(result["teacher"])
    assert not any("teacher_rmse" in name for name in [*result["metrics"], *result["teacher"]])


def test_tensorboard_has_its_scalars(swept):
    events = EventAccumulator(str(next(swept[0].glob("lr*_s0"))))
    events.Reload()
    assert {"val/rmse", "val/r2", "val/rmse_to_teacher", "test/rmse"} <= set(events.Tags()["scalars"])


def test_the_report_chooses_and_colours_the_lower_rmse(swept):
    (study,) = collect(swept[0])
    assert study.declared.monitored.mode == "min"
    chosen = study.chosen.spread("best/val_rmse").mean
    assert chosen == min(cell.spread("best/val_rmse").mean for cell in study.cells)
    better = [cell for cell in study.cells if cell.difference("test/rmse").mean < 0]
    assert all(study.gain(cell, "test/rmse").mean > 0 for cell in better)
    content = payload([study])["studies"][0]
    assert {m["id"]: m["high"] for m in content["metrics"]}["test/rmse"] is False
    assert content["fidelity"]["test/rmse"]["layout"]["xaxis"]["title"]["text"] == "rmse to teacher"
    assert (swept[0] / "report.html").exists()


def test_the_best_checkpoint_is_the_one_with_the_lowest_validation_rmse(swept):
    runs = list(swept[0].glob("lr*_s*"))
    assert runs
    for run in runs:
        values = [line["val/rmse"] for line in processes.lines(run) if "val/rmse" in line]
        assert json.loads((run / "result.json").read_text())["metrics"]["best/val_rmse"] == min(values)
