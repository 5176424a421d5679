"""A sweep that is asked for more later runs what is new; one that is asked for something else keeps both."""

from __future__ import annotations

import json
import os

import pytest
from processes import SMALL, results, run

pytestmark = pytest.mark.slow


def when(found: dict) -> dict:
    return {name: (result["started"], result["finished"], result["cost"]["seconds"]) for name, result in found.items()}


def expected_runs(cwd) -> dict[str, str]:
    content = json.loads((cwd / "sweep" / "sweep.json").read_text())
    return {entry["name"]: entry["fingerprint"] for entry in content["runs"]}


def test_more_temperatures_and_seeds_run_only_what_is_new_and_other_settings_keep_both_results(tmp_path):
    first = run(tmp_path, "-m", *SMALL, "method.temperature=1,4", "sweep_dir=sweep")
    assert first.code == 0, first.text
    one = results(tmp_path / "sweep")
    assert sorted(one) == ["T01.0", "T04.0", "student_alone"]

    # The seed is swept from now on: names get longer, and what was run before keeps its own.
    more = run(tmp_path, "-m", *SMALL, "method.temperature=1,4,8", "seed=0,1", "sweep_dir=sweep")
    assert more.code == 0, more.text
    two = results(tmp_path / "sweep")
    assert when({name: two[name] for name in one}) == when(one)
    assert sorted(set(two) - set(one)) == ["T01.0_s1", "T04.0_s1", "T08.0_s0", "T08.0_s1", "student_alone_s1"]
    assert {result["baseline"]["run_dir"].rpartition("/")[2] for result in two.values() if result["baseline"]} == {
        "student_alone",
        "student_alone_s1",
    }

    other = run(tmp_path, "-m", *SMALL, "trainer.max_epochs=2", "method.temperature=1,4", "sweep_dir=sweep")
    assert other.code == 0, other.text
    three = results(tmp_path / "sweep")
    assert when({name: three[name] for name in two}) == when(two)
    new = set(three) - set(two)
    assert sorted(name.rpartition("-")[0] for name in new) == ["T01.0", "T04.0", "student_alone"]
    assert {three[name]["config"]["trainer"]["max_epochs"] for name in new} == {2}
    assert all(three[name]["baseline"]["run_dir"].rpartition("/")[2] in new for name in new if name[0] == "T")

    assert expected_runs(tmp_path) == {name: result["fingerprint"] for name, result in three.items()}
    nothing = run(tmp_path, "-m", *SMALL, "method.temperature=1,4", "sweep_dir=sweep")
    assert nothing.code == 0, nothing.text
    assert nothing.text.count("is finished already") == 3
    assert when(results(tmp_path / "sweep")) == when(three)


def test_a_single_run_of_a_sweep_can_be_continued_by_itself(tmp_path):
    ended = run(tmp_path, "-m", *SMALL, "seed=0,1", "sweep_dir=sweep")
    assert ended.code == 0, ended.text
    alone = run(tmp_path, *SMALL, "seed=1", "baseline=false", "run_dir=sweep/s1")
    assert alone.code == 0, alone.text
    assert "s1 is finished already" in alone.text


def test_two_processes_that_start_the_same_sweep_do_not_spoil_it(tmp_path):
    from processes import start

    words = ("-m", *SMALL, "seed=0,1", "sweep_dir=sweep", "max_fused=2")
    first, second = start(tmp_path, *words), start(tmp_path, *words)
    codes = {first.wait().code, second.wait().code}
    assert codes <= {0, 1, 2}, first.text + second.text
    assert 0 in codes or run(tmp_path, *words).code == 0
    found = results(tmp_path / "sweep")
    assert {name: result["status"] for name, result in found.items()} == dict.fromkeys(
        ["s0", "s1", "student_alone_s0", "student_alone_s1"], "finished"
    )


def test_what_a_kill_left_beside_a_finished_result_is_removed_by_the_next_start(tmp_path):
    words = ("-m", *SMALL, "baseline=false", "seed=0,1", "sweep_dir=sweep")
    assert run(tmp_path, *words).code == 0
    torn = tmp_path / "sweep" / "s1" / ".result.json.abc.tmp"
    torn.write_text("{")
    os.utime(torn, (0, 0))
    before = (tmp_path / "sweep" / "s1" / "result.json").read_bytes()
    again = run(tmp_path, *words)
    assert again.code == 0, again.text
    assert not torn.exists()
    assert (tmp_path / "sweep" / "s1" / "result.json").read_bytes() == before
