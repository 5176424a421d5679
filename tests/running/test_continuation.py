"""A finished run goes on where it ended, if a longer run would have come by there: the result is the longer run's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from processes import lines, weights

from kd_lightning.cli.train import main

TINY = (
    "data.num_threads=1", "data.train_size=64", "data.labelled=null", "data.batch_size=32", "trainer.accelerator=cpu",
    "teacher=mlp", "teacher.model.hidden=[8]", "teacher.train.max_epochs=1", "student.hidden=[8]",
    "student.dropout=0.5", "pictures.every_n_epochs=0", "log_every_n_steps=1",
)  # fmt: skip
STEADY = (*TINY, "scheduler=constant", "teacher.cache=off")  # stored answers are rounded, and one epoch stores none


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the run ``short`` of one epoch and the run ``long`` of three, both with their student alone."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("continuing")
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        assert main([*STEADY, "trainer.max_epochs=1", "run_dir=short"]) == 0
        assert main([*STEADY, "trainer.max_epochs=3", "run_dir=long"]) == 0
    return folder


@pytest.fixture
def folder(trained, monkeypatch) -> Path:
    monkeypatch.chdir(trained)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return trained


def result(run_dir: str) -> dict:
    return json.loads(Path(run_dir, "result.json").read_text())


def line(capsys) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def measured(run_dir: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if "time" not in key} for line in lines(run_dir)]


def test_the_longer_run_is_the_one_that_never_stopped_bit_for_bit(folder, capsys):
    before = {path: path.read_bytes() for path in (folder / "short").rglob("*") if path.is_file()}
    assert main([*STEADY, "trainer.max_epochs=3", "run_dir=further", "continue_from=short"]) == 0
    assert (
        "further continues short after its 1 epochs: the result is that of 3 epochs from the start"
        in (folder / "further/kd-train.log").read_text()
    )
    for name in ("", "student_alone"):
        one, other = folder / "long" / name, folder / "further" / name
        assert weights(one) == weights(other)
        assert weights(one, "last") == weights(other, "last")
        assert measured(one) == measured(other)
        assert result(one)["metrics"] == result(other)["metrics"]
        assert result(one)["fingerprint"] == result(other)["fingerprint"]
    assert {path: path.read_bytes() for path in (folder / "short").rglob("*") if path.is_file()} == before


def test_a_directory_with_a_shorter_run_says_how_to_go_on(folder, capsys):
    assert main([*STEADY, "trainer.max_epochs=2", "run_dir=short"]) == 2
    said = line(capsys)
    assert "/short: holds a run with another configuration" in said
    assert "/short there goes on where it ended" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["trainer.max_epochs=1"], "it has 1 epochs already: give a larger trainer.max_epochs than 1"),
        (["method.temperature=3"], "a run goes on from one that differs in its length only: method.temperature is 4.0"),
        (["continue_from=nowhere"], "continue_from: no such directory: nowhere"),
        (["continue_from=outputs/teachers"], "differs in its length only"),
        (["continue_from=conf"], "holds no finished run"),
    ],
)
def test_what_is_no_continuation_is_one_line_before_anything_is_written(changes, words, folder, capsys):
    (folder / "conf").mkdir(exist_ok=True)
    start = [] if any("continue_from" in change for change in changes) else ["continue_from=short"]
    assert main([*STEADY, "trainer.max_epochs=2", *start, *changes, "run_dir=other"]) == 2
    assert words in line(capsys)
    assert not (folder / "other").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["scheduler=one_cycle"], "scheduler: OneCycleLR follows the length of the whole run"),
        (
            ["scheduler=constant", "method.weights.kd={_target_: kd_lightning.schedules.Ramp, to: 1.0}"],
            "method: a weight, the temperature or a term follows the length of the whole run",
        ),
    ],
)
def test_a_schedule_over_the_whole_run_cannot_go_on_and_the_line_says_what_can(changes, words, folder, capsys):
    name = changes[0].replace("=", "-") + str(len(changes))
    assert main([*TINY, *changes, "baseline=false", "trainer.max_epochs=1", f"run_dir={name}"]) == 0
    again = [*TINY, *changes, "baseline=false", "trainer.max_epochs=2", f"continue_from={name}", "run_dir=other"]
    assert main(again) == 2
    said = line(capsys)
    assert words in said
    assert f"init_from={name} starts from its weights" in said
    assert not (folder / "other").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["+trainer.max_steps=3", "trainer.max_epochs=4"], "trainer.max_steps may have ended it within an epoch"),
        (["early_stopping.patience=1", "early_stopping.min_delta=1", "trainer.max_epochs=3"], "it stopped early"),
    ],
)
def test_a_run_that_ended_elsewhere_than_at_its_last_epoch_is_not_gone_on_from(changes, words, folder, capsys):
    name = changes[0].partition("=")[0].replace(".", "-").lstrip("+")
    assert main([*STEADY, *changes, "baseline=false", f"run_dir={name}"]) == 0
    longer = [change for change in changes if "max_" not in change]
    again = [*STEADY, *longer, "trainer.max_epochs=9", "baseline=false", f"continue_from={name}", "run_dir=other"]
    assert main(again) == 2
    assert words in line(capsys)


def test_the_runs_of_a_sweep_go_on_each_from_its_own(folder):
    sweep = ["-m", *STEADY, "baseline=false", "seed=0,1"]
    assert main([*sweep, "trainer.max_epochs=1", "sweep_dir=two"]) == 0
    assert main([*sweep, "trainer.max_epochs=3", "sweep_dir=four", "continue_from=two"]) == 0
    assert weights(folder / "four/s0") == weights(folder / "long")
    assert result("four/s1")["cost"]["epochs"] == 3


def test_an_edited_table_is_named_and_not_gone_on_with(folder, capsys):
    rows = [f"{i % 7},{i % 5},{'yes' if i % 7 > 3 else 'no'}" for i in range(120)]
    Path("table.csv").write_text("\n".join(["a,b,label", *rows]))
    table = (
        "data=table", "data.file=table.csv", "data.target=label", "data.num_threads=1", "data.batch_size=32",
        "trainer.accelerator=cpu", "teacher=none", "method=none", "student.hidden=[8]", "pictures.every_n_epochs=0",
        "scheduler=constant",
    )  # fmt: skip
    assert main([*table, "trainer.max_epochs=1", "run_dir=of-table"]) == 0
    assert main([*table, "trainer.max_epochs=2", "run_dir=same-table", "continue_from=of-table"]) == 0
    Path("table.csv").write_text("\n".join(["a,b,label", *rows[:-1], "6,4,no"]))
    capsys.readouterr()
    assert main([*table, "trainer.max_epochs=2", "run_dir=other-table", "continue_from=of-table"]) == 2
    said = line(capsys)
    assert "continue_from=of-table: what it read has changed since (data.file=table.csv)" in said
    assert "init_from=of-table" in said
