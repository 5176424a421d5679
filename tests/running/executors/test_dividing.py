"""Groups become jobs of nearly equal size, and what jobs share is named once."""

from __future__ import annotations

from pathlib import Path

import pytest

from kd_lightning.errors import UserError
from kd_lightning.running.executors.dividing import AT_MOST, divided
from kd_lightning.runs.spec import ALONE, RunSpec


def spec(
    name: str, teacher: str = "big", baseline: RunSpec | None = None, layer: str | None = None, nodes: int = 1
) -> RunSpec:
    taps = {"teacher": {"hint": layer}} if layer else {}
    config = {"teacher": {"name": teacher}, "data": {}, "task": {}, "method": {"taps": taps, "terms": {}}, "seed": 0}
    config["trainer"] = {"num_nodes": nodes}
    role = ALONE if name.startswith("alone") else "distilled"
    return RunSpec(name, Path("/sweep") / name, config, name, role=role, baseline=baseline)


def names(jobs) -> list[list[str]]:
    return [[run.name for run in job] for job in jobs]


def test_a_student_alone_is_beside_the_runs_that_are_compared_with_it():
    alone = [spec(f"alone{seed}") for seed in range(3)]
    runs = [spec(f"T{t}s{seed}", baseline=alone[seed]) for t in (1, 4) for seed in range(3)]
    (lot,) = divided([[*alone, *runs]], 3)
    assert names(lot.jobs) == [[f"alone{s}", f"T1s{s}", f"T4s{s}"] for s in range(3)]


def test_jobs_are_of_nearly_equal_size_and_no_run_is_lost():
    runs = [spec(str(number)) for number in range(20)]
    (lot,) = divided([runs], None)
    assert [len(job) for job in lot.jobs] == [10, 10]
    assert sorted(name for job in names(lot.jobs) for name in job) == sorted(run.name for run in runs)
    assert max(len(job) for job in divided([runs], 7)[0].jobs) == 7
    assert len(divided([runs[:AT_MOST]], None)[0].jobs) == 1


def test_what_shares_a_teacher_is_prepared_once_and_for_every_demand_on_it():
    plain, hints = [spec("a"), spec("b")], [spec("c", layer="3"), spec("d", layer="5"), spec("e", layer="5")]
    lots = divided([plain, hints, [spec("f", teacher="small")]], 1)
    assert [names(lot.jobs) for lot in lots] == [[["a"], ["b"], ["c"], ["d"], ["e"]], [["f"]]]
    assert [run.name for run in lots[0].shared] == ["a", "c", "d"]


@pytest.mark.parametrize("number", [0, -3])
def test_a_job_of_no_run_is_refused(number):
    with pytest.raises(UserError, match=r"launcher\.runs_per_job must be >= 1"):
        divided([[spec("a")]], number)


def test_runs_that_take_other_numbers_of_nodes_are_no_jobs_of_one_array():
    lots = divided([[spec("a")], [spec("b", nodes=2)]], None)
    assert [lot.processes for lot in lots] == [(1, 1), (2, 1)]
