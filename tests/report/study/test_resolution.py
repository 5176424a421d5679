"""The report says when validation has too few samples to tell a sweep's configurations apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sweep_maker import make_sweep

from kd_lightning.report.study.collect import collect
from kd_lightning.report.study.remarks import warnings
from kd_lightning.report.study.resolution import too_few_samples

COUNTED = [{"name": "acc", "higher_is_better": True, "share": True, "title": "accuracy", "counted": True}]


def study_of(path, first, second, samples=200, declared=COUNTED):
    """Two configurations whose validation accuracy is this in each seed."""
    make_sweep(path, {"method.temperature": [1, 4]}, seeds=2)
    for file in path.glob("T*/result.json"):
        result = json.loads(file.read_text())
        result["metrics"]["best/val_acc"] = first if file.parent.name.startswith("T01") else second
        result |= {"declared": declared, "data": {"samples": {"train": 1000, "val": samples}}}
        file.write_text(json.dumps(result))
    (study,) = collect(path)
    return study


def test_two_configurations_within_the_chance_of_the_samples_are_told_of(tmp_path):
    study = study_of(tmp_path / "s", 0.90, 0.91)
    said = too_few_samples(study)
    assert said is not None
    assert said in warnings(study)
    assert "Validation has 200 samples, too few for these differences" in said
    assert "1.0 points apart in accuracy" in said
    assert "by some 2.9. The choice between them is chance" in said
    assert "some 6,600 samples would tell these two apart" in said


def test_the_error_is_what_drawing_other_samples_changes():
    """Two students of 91 % that are right independently of each other, on many draws of 200 samples."""
    right = np.random.RandomState(0).rand(20_000, 2, 200) < 0.91
    difference = right[:, 0].mean(-1) - right[:, 1].mean(-1)
    assert difference.std() == pytest.approx(0.0286, abs=0.0005)  # the 2.9 points above


@pytest.mark.parametrize(
    ("first", "second", "settings"),
    [
        (0.85, 0.91, {}),  # three points are what chance makes of them
        (0.90, 0.91, {"samples": 10_000}),
        (0.90, 0.91, {"declared": [{"name": "acc", "higher_is_better": True, "share": True}]}),  # no count of samples
        (0.90, 0.91, {"samples": None}),  # of a version that did not say how many there were
    ],
)
def test_nothing_is_said_where_the_difference_is_larger_or_nobody_knows(tmp_path, first, second, settings):
    assert too_few_samples(study_of(tmp_path / "s", first, second, **settings)) is None


def test_where_all_are_right_about_everything_no_number_of_samples_is_named(tmp_path):
    said = too_few_samples(study_of(tmp_path / "s", 1.0, 1.0))
    assert said is not None
    assert "0.0 points apart" in said
    assert "would tell" not in said


def test_a_single_configuration_has_no_difference(tmp_path):
    make_sweep(tmp_path / "s", {"method.temperature": [4]}, seeds=3)
    (study,) = collect(tmp_path / "s")
    assert too_few_samples(study) is None
