"""Directories of a sweep's runs: one for each thing that is computed, never two things in one."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from kd_lightning.runs.code_change import identity_of
from kd_lightning.runs.result_file import write_result
from kd_lightning.runs.spec import RunSpec
from kd_lightning.sweeps.placing import Placing, once


def spec(name: str, fingerprint: str, **changes) -> RunSpec:
    made = {"config": {"seed": 0}, "fingerprint": fingerprint * 16, "configuration": fingerprint, **changes}
    return RunSpec(name, Path("sweep") / name, **made)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def finish(made: RunSpec) -> None:
    made.run_dir.mkdir(parents=True)
    write_result(made.result_path, {"status": "finished", "name": made.name, **identity_of(made)})


def test_two_configurations_of_one_name_get_two_directories():
    placing = Placing({})
    first, second = placing.placed(spec("x001", "a")), placing.placed(spec("x001", "b"))
    assert (first.name, second.name) == ("x001", "x001-bbbbbb")
    assert first.run_dir != second.run_dir


def test_one_computation_of_two_names_gets_one_directory_and_counts_once(caplog):
    placing = Placing({})
    placed = [placing.placed(spec(name, "a")) for name in ("nets1", "s1", "s1")]
    assert {p.run_dir for p in placed} == {Path("sweep/nets1")}
    with caplog.at_level(logging.WARNING):
        assert once(placed) == placed[:1]
    assert caplog.messages == ["asked for more than once, computed and counted once: nets1 (3 times)"]


def test_of_the_same_runs_the_one_that_wants_the_student_alone_is_kept():
    alone = spec("student_alone", "c")
    runs = [spec("s0", "a"), spec("s0", "a", baseline=alone), spec("s0", "a")]
    assert [run.baseline for run in once(runs)] == [alone]


def test_runs_that_differ_are_all_kept_and_nothing_is_said(caplog):
    runs = [spec("s0", "a"), spec("s1", "b")]
    with caplog.at_level(logging.INFO):
        assert once(runs) == runs
    assert not caplog.messages


def test_a_run_keeps_the_name_that_an_earlier_start_gave_it():
    assert Placing({"a" * 16: "T04.0"}).placed(spec("T04.0_s0", "a")).name == "T04.0"


def test_what_other_code_made_stays_and_the_file_is_named(caplog):
    for name in ("s0", "s1"):
        finish(spec(name, "a", source={"my_l.py": "1"}))
    placing = Placing({})
    now = {"configuration": "a", "source": {"my_l.py": "2"}}
    placed = [placing.placed(spec(name, digit, **now)) for name, digit in (("s0", "b"), ("s1", "c"))]
    with caplog.at_level(logging.INFO):
        placing.tell()
    assert [p.name for p in placed] == ["s0-bbbbbb", "s1-cccccc"]
    (line,) = caplog.messages
    assert line.startswith("my_l.py changed since s0, s1 were made: made again beside")
    assert "accept_code=true" in line


def test_what_an_earlier_version_made_stays_and_is_told_in_one_line(caplog):
    for name in ("s0", "s1", "s2", "s3"):
        finish(spec(name, "a"))
        path = Path("sweep") / name / "result.json"
        old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("configuration", "source")}
        path.write_text(json.dumps(old))
    placing = Placing({})
    placed = [placing.placed(spec(f"s{n}", digit)) for n, digit in enumerate("bcde")]
    with caplog.at_level(logging.INFO):
        placing.tell()
    assert {p.name for p in placed} == {f"s{n}-{digit * 6}" for n, digit in enumerate("bcde")}
    assert caplog.messages == [
        "s0, s1, s2 and 1 more: of another configuration, or of an earlier version: kept, others beside"
    ]
