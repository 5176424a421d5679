"""Runs read from disk: whole, half-written, running, failed."""

from __future__ import annotations

import json
import os
import time

import pytest
from sweep_maker import make_sweep

from kd_lightning.report.study.reading import RunReader, parse_value, read_curves, run_folders


def read(path):
    return RunReader().read(path)


def test_a_finished_run_is_read_as_its_result_says(sweep_dir):
    path = sweep_dir / "T08.0_kd0.90_s1"
    result = json.loads((path / "result.json").read_text())
    run = read(path)
    assert run.status == "finished"
    assert run.metrics == result["metrics"]
    assert run.config["method.temperature"] == 8
    assert (run.metric, run.mode, run.seed) == ("acc", "max", 1)
    assert run.teacher["parameters"] == 151_306


def test_the_line_being_written_is_left_out(sweep_dir):
    run = read(sweep_dir / "T01.0_kd0.90_s2")
    assert run.status == "running"
    steps, _ = run.curves["val/acc"]
    assert steps == [15, 30, 45, 60, 75, 90]


def test_a_running_run_knows_its_configuration_from_hydras_files(sweep_dir):
    run = read(sweep_dir / "T01.0_kd0.90_s2")
    assert run.override_values == {"method.temperature": 1, "method.weights.kd": 0.9, "seed": 2}
    assert run.config["optimizer.lr"] == 0.05


def test_a_run_without_result_and_without_change_counts_as_stopped(sweep_dir):
    path = sweep_dir / "T01.0_kd0.90_s2"
    for file in (path / "metrics.jsonl", path / ".hydra" / "overrides.yaml"):
        os.utime(file, (time.time() - 3600, time.time() - 3600))
    assert read(path).status == "stopped"


def test_a_damaged_result_is_reported_and_not_raised(sweep_dir):
    path = sweep_dir / "T08.0_kd0.90_s1"
    (path / "result.json").write_text('{"status": "finis')
    run = read(path)
    assert run.status == "unreadable"
    assert "result.json can't be read" in run.error


def test_a_continued_run_replaces_the_steps_it_repeats(tmp_path):
    rows = [(10, 1.0), (20, 2.0), (30, 3.0), (20, 2.5), (30, 3.5)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": s, "val/acc": v}) + "\n" for s, v in rows))
    assert read_curves(tmp_path / "metrics.jsonl")["val/acc"] == ([10, 20, 30], [1.0, 2.5, 3.5])


def test_values_that_are_not_finite_leave_the_curve(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": NaN}\n{"step": 2, "train/loss": 0.5}\n')
    assert read_curves(tmp_path / "metrics.jsonl")["train/loss"] == ([2], [0.5])


def test_config_groups_are_known_by_the_options_that_hydra_chose(sweep_dir):
    path = sweep_dir / "T08.0_kd0.90_s1"
    text = (
        "hydra:\n  runtime:\n    version: 1.3.2\n    choices:\n      debug: null\n      method: kd\n  verbose: false\n"
    )
    (path / ".hydra" / "hydra.yaml").write_text(text)
    assert read(path).choices == {"method": "kd"}


def test_a_reader_reads_again_only_what_changed(sweep_dir):
    reader = RunReader()
    path = sweep_dir / "T01.0_kd0.90_s2"
    first, other = reader.read(path), reader.read(sweep_dir / "T08.0_kd0.90_s1")
    with open(path / "metrics.jsonl", "a") as file:
        file.write('\n{"step": 105, "val/acc": 0.5}\n')
    assert reader.read(path) is not first
    assert reader.read(path).curves["val/acc"][0][-1] == 105
    assert reader.read(sweep_dir / "T08.0_kd0.90_s1") is other


def test_runs_are_found_below_a_folder_of_sweeps(tmp_path):
    make_sweep(tmp_path / "a" / "one", {"method.temperature": [1, 2]}, seeds=1, alone=False)
    make_sweep(tmp_path / "a" / "two", {"method.temperature": [4]}, seeds=1, alone=False)
    assert [path.name for path in run_folders(tmp_path)] == ["T01.0_s0", "T02.0_s0", "T04.0_s0"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("0.5", 0.5),
        ("1e-3", 1e-3),
        ("true", True),
        ("null", None),
        ("'4'", "4"),
        ("[1,2]", "[1,2]"),
        ("kd", "kd"),
    ],
)
def test_override_values_are_parsed_for_comparing(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)
