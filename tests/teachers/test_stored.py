"""Stored teachers beside the user's code: what an edit means for one that was trained before."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kd_lightning.runs.code_change import identity_of
from kd_lightning.runs.result_file import read_result, write_result
from kd_lightning.runs.spec import TEACHER, RunSpec
from kd_lightning.teachers.stored import stored_teacher, tell_other_code


def spec(code: str, accept: bool = False, configuration: str = "c") -> RunSpec:
    name = f"cnn-{configuration}{code}"
    return RunSpec(
        name,
        Path("teachers") / name,
        {"seed": 0, "accept_code": accept},
        f"{configuration}{code}",
        role=TEACHER,
        source={"my_t.py": code},
        configuration=configuration,
    )


def train(made: RunSpec, finished: str = "2026-01-01") -> None:
    made.best_checkpoint.parent.mkdir(parents=True)
    made.best_checkpoint.touch()
    write_result(made.result_path, {"status": "finished", "name": made.name, "finished": finished, **identity_of(made)})


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_teacher_of_the_same_code_is_found():
    train(spec("1"))
    found = stored_teacher(spec("1"), "cnn")
    assert found is not None
    assert found[1] == spec("1").run_dir


def test_a_teacher_of_other_code_is_not_taken_and_the_file_is_named(caplog):
    train(spec("1"))
    assert stored_teacher(spec("2"), "cnn") is None
    with caplog.at_level(logging.WARNING):
        tell_other_code(spec("2"))
    assert caplog.messages == [
        "my_t.py changed since the teacher in teachers/cnn-c1 was trained: it is trained again; accept_code=true keeps it"
    ]


def test_a_teacher_of_another_configuration_is_none_of_this():
    train(spec("1", configuration="d"))
    assert stored_teacher(spec("2", accept=True), "cnn") is None


def test_accepted_code_takes_the_newest_teacher_and_is_remembered(caplog):
    train(spec("1"), finished="2026-01-01")
    train(spec("3"), finished="2026-01-02")
    found = stored_teacher(spec("2", accept=True), "cnn")
    assert found is not None
    assert found[1] == spec("3").run_dir
    again = stored_teacher(spec("2"), "cnn")
    assert again is not None
    assert again[1] == spec("3").run_dir
    result = read_result(spec("3").run_dir)
    assert result is not None
    assert result["source"] == {"my_t.py": "3"}
    assert stored_teacher(spec("4"), "cnn") is None


def test_a_teacher_whose_training_did_not_end_is_not_taken():
    train(spec("1"))
    spec("1").best_checkpoint.unlink()
    assert stored_teacher(spec("1"), "cnn") is None
    assert stored_teacher(spec("2", accept=True), "cnn") is None
