"""Studies: which keys a sweep varies, what is a configuration, what it is compared with, which one is chosen."""

from __future__ import annotations

import json
import shutil

import pytest
import scipy.stats
from sweep_maker import TEACHER, make_sweep

from kd_lightning.errors import UserError
from kd_lightning.report.study.collect import collect


def result_of(path):
    return json.loads((path / "result.json").read_text())


def edit(path, **changes):
    result = result_of(path)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key].update(value)
        else:
            result[key] = value
    (path / "result.json").write_text(json.dumps(result))


def test_configurations_are_runs_that_differ_in_nothing_but_seeds(sweep_dir):
    (study,) = collect(sweep_dir)
    assert [factor.key for factor in study.factors] == ["method.temperature", "method.weights.kd"]
    assert [factor.values for factor in study.factors] == [(1, 2, 4, 8), (0.1, 0.5, 0.9)]
    assert len(study.cells) == 12
    assert {len(cell.runs) for cell in study.cells} == {2, 3}
    assert study.counts == {"finished": 36, "failed": 1, "running": 1, "missing": 1}


def test_figures_of_a_cell_are_those_of_its_results(sweep_dir):
    (study,) = collect(sweep_dir)
    cell = next(cell for cell in study.cells if cell.params == (4, 0.5))
    values = [result_of(sweep_dir / f"T04.0_kd0.50_s{seed}")["metrics"]["test/acc"] for seed in range(3)]
    alone = [result_of(sweep_dir / f"student_alone_s{seed}")["metrics"]["test/acc"] for seed in range(3)]
    expected = scipy.stats.ttest_rel(values, alone).confidence_interval(0.95)
    assert cell.spread("test/acc").mean == pytest.approx(sum(values) / 3)
    assert cell.spread("test/acc").std == pytest.approx(scipy.stats.tstd(values))
    assert (study.gain(cell, "test/acc").low, study.gain(cell, "test/acc").high) == pytest.approx(
        (expected.low, expected.high)
    )


def test_the_choice_is_made_on_validation_and_never_on_test(sweep_dir):
    for seed in range(3):
        edit(sweep_dir / f"T01.0_kd0.50_s{seed}", metrics={"best/val_acc": 0.99, "test/acc": 0.10})
    (study,) = collect(sweep_dir)
    assert study.chosen.params == (1, 0.5)


def test_a_configuration_with_missing_seeds_is_not_chosen(sweep_dir):
    for seed in (0, 2):  # seed 1 of it failed
        edit(sweep_dir / f"T08.0_kd0.10_s{seed}", metrics={"best/val_acc": 0.999})
    (study,) = collect(sweep_dir)
    assert study.chosen.params != (8, 0.1)
    assert len(study.chosen.runs) == 3


def test_lower_is_better_where_the_run_says_so(tmp_path):
    teacher = {**TEACHER, "test/rmse": 2.0, "val/rmse": 2.0}
    path = make_sweep(tmp_path / "s", metric="rmse", mode="min", task="regression", data="tabular", teacher=teacher)
    (study,) = collect(path)
    assert study.declared.monitored.mode == "min"
    best = min(study.cells, key=lambda cell: cell.spread("best/val_rmse").mean)
    assert study.chosen is best
    assert study.metrics[0] == "test/rmse"


def test_several_data_sets_and_tasks_become_studies_of_their_own(tmp_path):
    first = make_sweep(tmp_path / "digits", seeds=2)
    second = make_sweep(tmp_path / "tabular", seeds=1, metric="rmse", mode="min", task="regression", data="tabular")
    studies = collect([first, second])
    assert [(study.task, study.metric, (study.declared.monitored.mode == "max")) for study in studies] == [
        ("classification", "acc", True),
        ("regression", "rmse", False),
    ]
    assert [len(study.cells) for study in studies] == [12, 12]


def test_methods_are_categories(tmp_path):
    path = make_sweep(tmp_path / "s", {"method": ["kd", "dkd", "hint"]})
    (study,) = collect(path)
    (factor,) = study.factors
    assert (factor.key, factor.values, factor.is_numeric) == ("method", ("dkd", "hint", "kd"), False)


def test_copies_of_a_swept_key_and_directories_are_no_keys_of_their_own(sweep_dir):
    plan = json.loads((sweep_dir / "sweep.json").read_text())
    (sweep_dir / "sweep.json").write_text(json.dumps({**plan, "swept": []}))
    (study,) = collect(sweep_dir)
    assert [factor.key for factor in study.factors] == ["method.temperature", "method.weights.kd"]


def test_keys_that_no_command_names_are_found_in_the_configurations(tmp_path):
    path = make_sweep(tmp_path / "s", {"method.temperature": [1, 2, 4]}, alone=False)
    (path / "sweep.json").unlink()
    for run in path.iterdir():
        edit(run, overrides=[], fingerprint=run.name)
    (study,) = collect(path)
    assert [factor.key for factor in study.factors] == ["method.temperature"]
    assert [len(cell.runs) for cell in study.cells] == [3, 3, 3]


def test_without_runs_of_the_student_alone_the_named_reference_counts(tmp_path):
    path = make_sweep(tmp_path / "s", alone=False, baseline={"test/acc": 0.78, "val/acc": 0.77})
    (study,) = collect(path)
    gain = study.gain(study.chosen, "test/acc")
    assert gain.pairing == "one reference"
    assert gain.mean == pytest.approx(study.chosen.spread("test/acc").mean - 0.78)
    assert study.chosen.alone("test/acc").mean == 0.78


def test_the_student_alone_of_a_single_run_is_read_from_where_its_result_says(tmp_path):
    path = make_sweep(tmp_path / "s", {"method.temperature": [4]}, seeds=1)
    alone = tmp_path / "elsewhere" / "student_alone"
    alone.parent.mkdir()
    shutil.move(path / "student_alone_s0", alone)
    edit(path / "T04.0_s0", baseline={"test/acc": 0.5, "run_dir": str(alone)})
    (study,) = collect(path / "T04.0_s0")
    assert [cell.id for cell in study.alone] == ["a0"]
    assert study.cells[0].alone("test/acc").mean == result_of(alone)["metrics"]["test/acc"]


def test_each_student_is_compared_with_itself_alone(tmp_path):
    path = make_sweep(tmp_path / "s", {"student.width": [8, 16]}, seeds=2, alone=False)
    for width in (8, 16):
        for seed in range(2):
            run = path / f"student_alone_{width}_s{seed}"
            shutil.copytree(path / f"width{width}_s{seed}", run)
            edit(run, role="alone", name=run.name, metrics={"test/acc": width / 100})
    (study,) = collect(path)
    assert [cell.alone("test/acc").mean for cell in study.cells] == pytest.approx([0.08, 0.16])


def test_a_result_of_another_configuration_does_not_count(sweep_dir):
    edit(sweep_dir / "T04.0_kd0.50_s0", fingerprint="0" * 40)
    (study,) = collect(sweep_dir)
    assert study.counts["outdated"] == 1
    assert len(next(cell for cell in study.cells if cell.params == (4, 0.5)).runs) == 2


def test_a_seed_that_was_run_twice_counts_once(tmp_path):
    first = make_sweep(tmp_path / "first", {"method.temperature": [1, 4]}, seeds=2)
    second = make_sweep(tmp_path / "second", {"method.temperature": [1, 4]}, seeds=3)
    (study,) = collect([first, second])
    assert [len(cell.runs) for cell in study.cells] == [3, 3]
    assert study.duplicates == 4


def test_teachers_in_the_folder_are_no_students(sweep_dir):
    run = sweep_dir / "teacher"
    shutil.copytree(sweep_dir / "T04.0_kd0.50_s0", run)
    edit(run, role="teacher", name="teacher")
    (study,) = collect(sweep_dir)
    assert len(study.runs) == 39
    assert [run.name for run in study.teacher_runs] == ["teacher"]


def test_a_single_run_is_a_study_without_swept_keys(sweep_dir):
    (study,) = collect(sweep_dir / "T04.0_kd0.50_s0")
    assert study.factors == []
    assert [len(cell.runs) for cell in study.cells] == [1]


def test_what_is_no_directory_or_holds_no_run_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="no directory"):
        collect(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no run in"):
        collect(tmp_path)


def test_what_a_swept_mapping_holds_are_the_swept_keys(tmp_path):
    path = make_sweep(tmp_path / "s", {"student.shape": [1, 2]}, seeds=2, alone=False)
    for run in path.glob("shape*"):
        value = int(run.name[5])
        config = result_of(run)["config"]
        config["student"]["shape"] = {"width": value, "depth": 3}
        overrides = [f"student.shape={{width:{value},depth:3}}", *result_of(run)["overrides"][1:]]
        edit(run, config=config, overrides=overrides)
    (study,) = collect(path)
    assert [(factor.key, factor.values) for factor in study.factors] == [("student.shape.width", (1, 2))]
    assert [len(cell.runs) for cell in study.cells] == [2, 2]


def test_runs_of_edited_code_are_a_configuration_of_their_own(tmp_path):
    path = make_sweep(tmp_path / "s", {"method.temperature": [4]}, seeds=3, alone=False)
    for run in path.glob("T*"):
        edit(run, source={"my_l.py": "new" if run.name.endswith("s2") else "old"})
    (study,) = collect(path)
    assert sorted(len(cell.runs) for cell in study.cells) == [1, 2]
    assert [factor.key for factor in study.factors] == ["source"]
    assert len({cell.label for cell in study.cells}) == 2


def test_numbers_of_the_teachers_seed_are_repetitions_beside_one_student_alone(tmp_path):
    path = make_sweep(tmp_path / "s", {"teacher.train.seed": [0, 1]}, seeds=2)
    for run in path.glob("seed*"):
        config = result_of(run)["config"]
        config["teacher"] = {"train": {"seed": int(run.name[4])}}
        edit(run, config=config)
    (study,) = collect(path)
    assert study.factors == []
    (cell,) = study.cells
    assert len(cell.runs) == 4
    assert set(cell.runs) <= set(cell.references)
