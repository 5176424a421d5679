"""What a task declares of its metrics is found again by every name under which their figures are kept."""

from __future__ import annotations

import json

import pytest

from kd_lightning.metrics.declared import Declared
from kd_lightning.metrics.metric import Metric
from kd_lightning.metrics.show import NONE, better_by, mean_and_std, show, signed, with_unit
from kd_lightning.metrics.verdicts import behind

RMSE = Metric("rmse", False, title="error", unit="kWh")
METRICS = (
    RMSE,
    Metric("hits", True, share=True),
    Metric("distance", False, of="fidelity"),
    Metric("error_of_teacher", False, of="teacher", like="rmse"),
)
ACC = Metric("acc", True, share=True, title="accuracy")


@pytest.mark.parametrize("name", ["rmse", "val/rmse", "test/rmse", "best/val_rmse", "teacher/val_rmse"])
def test_a_metric_is_found_by_each_of_its_names(name):
    assert Declared(METRICS, "rmse")[name] == RMSE


def test_declarations_come_back_from_a_file_as_they_were():
    plain = json.loads(json.dumps(Declared(METRICS, "rmse").as_plain()))
    read = Declared.of_result({"monitor": {"metric": "rmse", "mode": "min"}, "declared": plain})
    assert read.metrics == METRICS
    assert read.monitored == RMSE


def test_a_newer_versions_addition_to_a_declaration_is_left_out():
    read = Declared.of_result(
        {"declared": [{"name": "a", "higher_is_better": True, "new": 1}, "noise", {"no": "name"}]}
    )
    assert read.metrics == (Metric("a", True),)


def test_whom_a_figure_measures_is_told_by_the_declaration_and_not_by_its_name():
    declared = Declared((*METRICS, Metric("teacher_tea", True)), "rmse")
    figures = {"rmse": 1.0, "hits": 0.5, "distance": 0.2, "error_of_teacher": 0.8, "teacher_tea": 3.0}
    assert declared.students(figures, "val/") == {
        "val/rmse": 1.0,
        "val/hits": 0.5,
        "val/distance": 0.2,
        "val/teacher_tea": 3.0,
    }
    assert declared.teachers(figures, "test/") == {"test/rmse": 0.8}
    assert declared.fidelity(["test/rmse", "test/distance", "test/hits"]) == ["test/distance"]


def test_a_tag_that_no_task_declares_has_no_direction():
    assert Declared(METRICS, "rmse")["lr/student"] == Metric("student", None)


@pytest.mark.parametrize(
    ("name", "higher", "share", "of"),
    [
        ("test/acc", True, True, "student"),
        ("test/ece", False, True, "student"),
        ("val/loss_task", False, False, "student"),
        ("test/agreement", True, True, "fidelity"),
        ("test/rmse_teacher", False, False, "fidelity"),
        ("teacher_acc", True, True, "teacher"),
    ],
)
def test_results_from_before_the_declarations_still_read_sensibly(name, higher, share, of):
    old = Declared.of_result({"monitor": {"metric": "acc", "mode": "max"}})
    metric = old[name]
    assert (metric.higher_is_better, metric.share, metric.of) == (higher, share, of)
    assert old.monitored.heading == "accuracy"


def test_an_old_results_mode_decides_for_its_monitored_metric():
    assert Declared.of_result({"monitor": {"metric": "score", "mode": "min"}}).monitored.mode == "min"


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        (ACC, 0.9123, "91.2 %"),
        (ACC, 1.0, "100.0 %"),
        (RMSE, 0.123456, "0.123 kWh"),
        (RMSE, -2.0, "\u22122.00 kWh"),
        (ACC, None, NONE),
        (ACC, float("nan"), NONE),
    ],
)
def test_numbers_are_shown_with_their_unit(metric, value, expected):
    assert with_unit(metric, value) == expected


def test_the_spread_is_the_sample_standard_deviation():
    assert mean_and_std(ACC, [0.8, 0.9]) == "85.0 ± 7.1 %"
    assert mean_and_std(ACC, [0.8]) == "80.0 %"
    assert mean_and_std(ACC, []) == NONE


@pytest.mark.parametrize(
    ("metric", "gain", "expected"),
    [
        (ACC, 0.048, "better by 4.8 points"),
        (ACC, -0.048, "worse by 4.8 points"),
        (RMSE, 0.5, "better by 0.500 kWh"),
        (RMSE, -0.5, "worse by 0.500 kWh"),
        (ACC, 0.0004, "better by 0.04 points"),
        (ACC, 0.00001, "no difference"),
        (Metric("count", None), -3.0, "lower by 3.00"),
    ],
)
def test_differences_are_told_in_one_way_whatever_the_direction(metric, gain, expected):
    assert better_by(metric, gain) == expected


def test_in_short_a_plus_is_always_better():
    assert signed(ACC, 0.048) == "+4.8"
    assert signed(RMSE, RMSE.sign * (2.5 - 3.0)) == "+0.500"


def test_a_teacher_that_the_student_alone_beats_is_told_in_the_metrics_direction():
    assert behind(RMSE, 2.0, [2.1, 3.0]) is None
    assert "error 2.00 kWh against 1.90 kWh" in behind(RMSE, 2.0, [1.95, 1.9, 3.0])
    assert behind(ACC, 0.9, []) is None
    assert "teacher.train.max_epochs" in behind(RMSE, 2.0, [1.9])
    assert "teacher.train" not in behind(RMSE, 2.0, [1.9], estimator=True), "no epochs make an estimator better"


def test_small_units_keep_three_figures_and_one_power_of_ten_a_column():
    assert with_unit(RMSE, 1.8437e-7) == "1.84e-07 kWh"
    assert with_unit(RMSE, -1.8437e-5) == "\u22121.84e-05 kWh"
    assert with_unit(RMSE, 0.00018437) == "0.000184 kWh"
    assert mean_and_std(RMSE, [1.8e-7, 2.0e-7]) == "1.90e-07 ± 0.14e-07 kWh"
    assert show(RMSE, 1.8e-7, 1e-7, more=1) == "1.800e-07"
    assert signed(RMSE, -2e-8, 1.8e-7) == "\u22120.20e-07"
    assert better_by(RMSE, 2e-8, 1.8e-7) == "better by 0.20e-07 kWh"
    assert better_by(RMSE, 1e-13, 1.8e-7) == "no difference"
    assert show(RMSE, 0.0, 1e-7) == "0.00"
    assert show(RMSE, 5e-324) == "0.00"
