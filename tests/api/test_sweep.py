"""``kd.sweep``: one run for each combination, side by side; figures as a frame, the report in a notebook."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from given_models import blobs, trained
from quick import QUICK
from torch import nn

import kd_lightning as kd
from kd_lightning.errors import RunsFailed, UserError


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    return kd.sweep(
        trained(),
        lambda: small(),
        blobs(200),
        over={"temperature": [1, 4.5]},
        seeds=2,
        max_epochs=2,
        sweep_dir=folder / "t",
        settings={**QUICK, "paths.output_dir": str(folder)},
        verbose=False,
    )


def test_every_combination_is_a_run_with_its_figures_and_the_student_alone_of_its_seed(found):
    records = found.records
    assert [(record["temperature"], record["seed"]) for record in records] == [(1, 0), (1, 1), (4.5, 0), (4.5, 1)]
    assert {record["status"] for record in records} == {"finished"}
    for record in records:
        result = json.loads((found.sweep_dir / record["run"] / "result.json").read_text())
        assert record["test/acc"] == result["metrics"]["test/acc"]
        alone = json.loads((found.sweep_dir / f"student_alone_s{record['seed']}" / "result.json").read_text())
        assert record["alone/test/acc"] == alone["metrics"]["test/acc"]


def test_the_runs_went_side_by_side(found):
    costs = [json.loads(path.read_text())["cost"] for path in found.sweep_dir.glob("*/result.json")]
    assert {cost["fused"] for cost in costs} == {len(found) + 2}


def test_seeds_make_the_students_weights_anew(found):
    first, second = (found.run(record["run"]).student for record in found.records[:2])
    assert not torch.equal(first[0].weight, second[0].weight)


def test_the_best_run_is_the_best_in_validation(found):
    best = max(record["best/val_acc"] for record in found.records)
    assert found.best.metrics["best/val_acc"] == best


def test_a_notebook_shows_the_report(found):
    page = found._repr_html_()
    assert page.count("<iframe") == 1
    assert "T04.5" in page
    assert "4 runs in" in repr(found)
    assert json.loads((found.sweep_dir / "sweep.json").read_text())["command"].startswith("kd.sweep ")


def test_the_frame_is_pandas_where_it_is_installed_and_a_list_elsewhere(found, monkeypatch):
    pandas = pytest.importorskip("pandas")
    frame = found.frame
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == 4
    assert frame.groupby("temperature")["test/acc"].mean().notna().all()
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert found.frame == found.records


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"student": nn.Linear(8, 3), "seeds": 3}, "seeds=3: the student is a Linear whose weights are made already"),
        ({"over": {"temprature": [1]}}, "temprature: no such setting; did you mean 'temperature'"),
        ({"over": {"temperature": 4}}, "over: temperature: give a list of values, got 4"),
        ({"over": {"temperature": []}}, "over: temperature: the list of values is empty"),
        ({"over": {"temperature": [1, -1]}}, "^temperature: must be > 0, got -1"),
        ({"over": {"student": ["mlp", "mpl"]}}, "student='mpl'"),
        ({"seeds": 0}, "seeds: give how many"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(changed, line, folder):
    given = {
        "teacher": nn.Linear(8, 3),
        "student": small,
        "train": blobs(120),
        "over": {"lr": [0.1]},
        "settings": QUICK,
    }
    with pytest.raises(UserError, match=line) as told:
        kd.sweep(**{**given, **changed}, verbose=False)
    assert "\n" not in str(told.value)
    assert not list(folder.iterdir())


class Broken(nn.Linear):
    """Ends in its fourth step, which no look at one batch can tell."""

    steps = 0

    def forward(self, inputs):
        self.steps += self.training and inputs.shape[0] == 16
        if self.steps > 3:
            raise RuntimeError("out of luck")
        return super().forward(inputs)


def test_a_run_that_fails_leaves_the_others_and_stands_in_the_frame(folder):
    options = {"max_epochs": 1, "batch_size": 16, "baseline": False, "settings": QUICK, "verbose": False}
    found = kd.sweep(None, small, blobs(120), over={"student": [small, Broken(8, 3)]}, **options)
    by_student = {record["student"]: record for record in found.records}
    assert by_student["small"]["status"] == "finished"
    assert by_student["Broken"]["status"] == "failed"
    assert "out of luck" in by_student["Broken"]["error"]
    with pytest.raises(RunsFailed, match=r"no run finished.*out of luck"):
        kd.sweep(None, "mlp", blobs(120), over={"student": [Broken(8, 3)]}, **options)
