"""Code is part of what a run is: what was made before the user's file was edited is told apart, and can be kept."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from kd_lightning.config.fingerprint import identify
from kd_lightning.errors import DirectoryTaken
from kd_lightning.running.present_state import finished_result, keep, other_run_in, refuse_other_run
from kd_lightning.runs.code_change import accepting, identity_of, is_same
from kd_lightning.runs.result_file import read_result, write_result
from kd_lightning.runs.spec import RunSpec

CODE = "def loss(student, teacher, target):\n    return (student - teacher).square().mean()\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "my_l", raising=False)
    edit(CODE)
    return tmp_path


def edit(text: str) -> None:
    path = Path("my_l.py")
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def spec(temperature: float = 4.0, accept: bool = False) -> RunSpec:
    method = {"temperature": temperature, "terms": {"kd": {"_target_": "my_l.loss"}}}
    config = {"seed": 0, "method": method, "accept_code": accept}
    identity = identify(config)
    return RunSpec(
        "s0",
        Path("s0"),
        config,
        identity.fingerprint,
        setting=identity.setting,
        source=identity.source,
        configuration=identity.configuration,
    )


def finish(made: RunSpec, status: str = "finished") -> None:
    made.run_dir.mkdir(exist_ok=True)
    write_result(made.result_path, {"status": status, "name": made.name, "setting": made.setting, **identity_of(made)})


def test_an_edited_loss_makes_another_run_of_the_same_configuration(project):
    before = spec()
    edit(CODE.replace("square", "abs"))
    after = spec()
    assert before.configuration == after.configuration
    assert before.fingerprint != after.fingerprint
    assert before.setting != after.setting
    edit("# as it was\n" + CODE)
    assert spec() == before


def test_a_run_of_other_code_is_refused_with_the_file_and_what_to_type(project):
    finish(spec())
    edit(CODE.replace("square", "abs"))
    assert finished_result(spec()) is None
    with pytest.raises(DirectoryTaken, match=r"s0: its run was made with other code \(my_l.py changed since\); accept"):
        refuse_other_run(spec())


def test_accepted_code_keeps_the_result_and_says_so_from_then_on(project):
    made = spec()
    finish(made)
    edit(CODE.replace("square", "abs"))
    kept = finished_result(spec(accept=True))
    assert kept is not None
    assert finished_result(spec()) is None  # asking writes nothing
    keep(spec(accept=True), kept)
    assert (kept["setting"], kept["source"]) == (spec().setting, spec().source)
    assert read_result("s0")["made_with"] == dict(made.source)
    assert finished_result(spec()) is not None


def test_accepting_code_accepts_no_other_configuration(project):
    finish(spec())
    assert finished_result(spec(temperature=2.0, accept=True)) is None
    with pytest.raises(DirectoryTaken, match="holds a run with another configuration"):
        refuse_other_run(spec(temperature=2.0, accept=True))


def test_a_run_of_an_earlier_version_is_told_apart_and_not_trained_over(project):
    made = spec()
    made.run_dir.mkdir()
    write_result(made.result_path, {"status": "finished", "name": "s0", "fingerprint": "0" * 64})
    with pytest.raises(DirectoryTaken, match="holds a run of an earlier version"):
        refuse_other_run(spec())


def test_a_run_that_got_nowhere_leaves_its_directory_to_others(project):
    finish(spec(temperature=2.0), status="failed")
    assert other_run_in(spec()) is None


def test_what_was_accepted_once_is_the_same_without_being_told_again(project):
    stored = identity_of(spec())
    edit(CODE.replace("square", "abs"))
    assert not is_same(stored, spec())
    assert is_same(stored, spec(accept=True))
    assert is_same(json.loads(json.dumps(accepting(stored, spec()))), spec())
