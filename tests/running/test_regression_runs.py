"""Regression from end to end: tables and pictures, values, Gaussians and bins, units, stored answers, sweeps, predictions."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.cli.evaluate import main as kd_evaluate
from kd_lightning.cli.predict import main as kd_predict
from kd_lightning.cli.train import main
from kd_lightning.exporting.export_run import export
from kd_lightning.outputs import as_model_output
from kd_lightning.report.study.collect import collect
from kd_lightning.running.open_run import open_run

COMMON = (
    "data=table", "data.file=houses.csv", "data.target=price", "data.batch_size=32", "task=regression", "method=mse",
    "teacher=mlp_small", "teacher.model.hidden=[32]", "teacher.train.max_epochs=8", "student.hidden=[16]",
    "optimizer=adamw", "optimizer.lr=0.01", "trainer.max_epochs=3", "trainer.accelerator=cpu", "data.num_threads=1",
    "pictures.every_n_epochs=0",
)  # fmt: skip
LONGER = ("trainer.max_epochs=15", "teacher.train.max_epochs=25", "baseline=false")
SCALE = {"flat": 2.0, "house": 3.0, "hut": 1.0}


def write_houses(path: Path) -> None:
    draw = random.Random(0)
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["size", "kind", "year", "dull", "price"])
        for _ in range(300):
            size, kind = draw.uniform(20, 200), draw.choice(list(SCALE))
            year = draw.choice(["", draw.randint(1900, 2020)])
            rows.writerow([f"{size:.1f}", kind, year, 7, f"{1000 * size * SCALE[kind] + draw.gauss(0, 5000):.0f}"])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regression")
    write_houses(folder / "houses.csv")
    return folder


@pytest.fixture
def kd_train(place, monkeypatch, capfd):
    monkeypatch.chdir(place)

    def run(directory: str, *words: str) -> dict:
        code = main([*COMMON, f"run_dir={directory}", *words])
        assert code == 0, capfd.readouterr().err
        return json.loads((place / directory / "result.json").read_text())

    return run


@pytest.fixture
def valued(kd_train, place):
    """A run on values with its baseline; made once."""
    if not (place / "values" / "result.json").exists():
        kd_train("values", "task.unit=EUR", "pictures.every_n_epochs=1", "teacher.cache=cache")
    return place / "values"


def test_figures_are_in_the_datas_units_and_the_right_direction_is_better(valued):
    result = json.loads((valued / "result.json").read_text())
    assert (result["task"], result["monitor"]) == ("regression", {"metric": "rmse", "mode": "min"})
    assert {"test/rmse", "test/mae", "test/r2", "test/rmse_teacher", "test/corr_teacher"} <= set(result["metrics"])
    assert {"test/rmse", "val/rmse", "test/r2"} <= set(result["teacher"])
    spread = result["fitted"]["std"][0]
    assert 1e5 < spread < 3e5
    assert spread / 20 < result["teacher"]["test/rmse"] < spread
    share = 1 - result["metrics"]["test/r2"]
    assert result["metrics"]["test/rmse"] == pytest.approx(
        spread * math.sqrt(share), rel=0.3
    )  # other rows, other spread
    validated = [
        line["val/rmse"]
        for line in map(json.loads, (valued / "metrics.jsonl").read_text().splitlines())
        if "val/rmse" in line
    ]
    assert result["metrics"]["best/val_rmse"] == min(validated)


def test_predictions_are_in_the_datas_units_from_a_file_like_the_one_learned_from(valued, capfd, caplog):
    Path("new.csv").write_text("kind,size,year\nhouse,150,1990\nhut,30,\ncastle,100,1950\n")
    assert kd_predict(["values", "new.csv", "output=predicted.csv"]) == 0
    rows = list(csv.DictReader(Path("predicted.csv").read_text().splitlines()))
    assert [row["input"] for row in rows] == ["new.csv:1", "new.csv:2", "new.csv:3"]
    assert float(rows[0]["price"]) > float(rows[1]["price"])
    columns = {"kind": ["house", "hut", "castle"], "size": [150, 30, 100], "year": [1990, None, 1950]}
    predicted = open_run(valued).predict(columns)
    assert predicted.flatten().tolist() == pytest.approx([float(row["price"]) for row in rows], rel=1e-6)
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note:")]
    assert len(notes) == 1
    assert "row 3 has a value of 'kind' that is in no training row" in notes[0]
    assert "'castle'" in caplog.text
    Path("strange.csv").write_text("kind,size,year\ntent,150,1990\nhouse,99999,1990\n,,\n")
    assert kd_predict(["values", "strange.csv", "output=predicted.csv"]) == 0
    notes = capfd.readouterr().err
    assert "note: strange.csv: row 3 has nothing in any column of inputs" in notes
    assert "row 1 has a value of 'kind' that is in no training row" in notes
    assert "row 2 has a value of 'size' far off the training rows'" in notes
    Path("short.csv").write_text("kind,size\nhouse,150\n")
    assert kd_predict(["values", "short.csv"]) == 2
    assert "has no column 'year'" in capfd.readouterr().err


def test_it_evaluates_exports_and_shows_what_it_measured(valued, capfd):
    assert kd_evaluate(["values"]) == 0
    exported = export(valued, ["safetensors", "torch_export"])
    measured = {name: figures["metrics"]["rmse"] for name, figures in exported.report["files"].items()}
    result = json.loads((valued / "result.json").read_text())
    assert list(measured.values()) == pytest.approx([result["metrics"]["test/rmse"]] * 2, rel=1e-5)
    said = json.loads((exported.directory / "preprocessing.json").read_text())
    assert (said["answers"], said["unit"]) == ("values", "EUR")
    inputs = open_run(valued).example_inputs(2)
    program = torch.export.load(next(path for path in exported.files if path.suffix == ".pt2")).module()
    torch.testing.assert_close(program(inputs), open_run(valued).predict(inputs), rtol=1e-4, atol=1.0)
    events = EventAccumulator(str(valued), size_guidance={"images": 0})
    events.Reload()
    assert {"val/rmse", "val/r2", "val/rmse_teacher"} <= set(events.Tags()["scalars"])
    assert len(events.Images("val/samples")) == 3


def test_answers_are_stored_for_values_and_for_gaussians(valued, kd_train, place):
    live = kd_train("live", "task.unit=EUR", "teacher.cache=off", "baseline=false")
    stored = json.loads((valued / "result.json").read_text())
    assert live["metrics"]["test/rmse"] == pytest.approx(stored["metrics"]["test/rmse"], rel=2e-3)  # fp16
    caches = len(list((place / "cache").glob("*/meta.json")))
    gaussian = kd_train("g", "task.output=gaussian", "method=gaussian_kl", "teacher.cache=cache", "baseline=false")
    assert len(list((place / "cache").glob("*/meta.json"))) == caches + 1
    assert {"test/nll", "test/calibration"} <= set(gaussian["metrics"])
    assert {"test/nll", "test/calibration"} <= set(gaussian["teacher"])
    assert 0 <= gaussian["metrics"]["test/calibration"] <= 0.5
    opened = open_run(place / "g")
    inputs = torch.randn(5, *opened.example_shape)
    values, spread = opened.predict(inputs), opened.deviations(inputs)
    assert spread.shape == values.shape == (5, 1)
    assert (spread > 0).all()
    assert torch.equal(
        torch.cat([values, spread], 1),
        opened.problem.exported(opened.problem.read(as_model_output(opened.student(inputs)))).detach(),
    )
    assert open_run(valued).deviations(inputs) is None
    (place / "rows.csv").write_text("kind,size,year\nhouse,150,1990\n")
    assert kd_predict([str(place / "g"), str(place / "rows.csv"), f"output={place / 'sure.csv'}"]) == 0
    (row,) = csv.DictReader((place / "sure.csv").read_text().splitlines())
    assert list(row) == ["input", "price", "price_std"]
    assert float(row["price_std"]) > 0
    answer = export(place / "g", ["safetensors"]).report["files"]["student.safetensors"]
    assert answer["metrics"]["nll"] == pytest.approx(gaussian["metrics"]["test/nll"], rel=1e-4)


def test_bins_take_hintons_distillation_as_it_is(kd_train):
    result = kd_train("bins", "task.output=bins", "task.bins=20", "method=kd", "method.temperature=2", *LONGER)
    assert result["metrics"]["test/r2"] > 0
    assert open_run("bins").predict(open_run("bins").example_inputs(3)).shape == (3, 1)


def test_a_teacher_of_other_targets_answers_in_the_students_units(kd_train, place):
    """Trained on all rows, its mean and spread are others; the student's run measures what its own run measured."""
    result = kd_train("other", "data.train_size=64", "teacher.data.train_size=null", "baseline=false")
    own = json.loads((Path(result["teacher"]["run_dir"]) / "result.json").read_text())
    assert own["fitted"]["mean"] != result["fitted"]["mean"]
    assert result["teacher"]["test/rmse"] == pytest.approx(own["metrics"]["test/rmse"], rel=1e-4)


def test_samples_without_a_label_are_taught_by_the_teacher_alone(kd_train):
    result = kd_train("few", "data.labelled=40")
    assert result["data"]["samples"]["labelled"] == 40
    assert result["metrics"]["test/rmse"] < result["baseline"]["test/rmse"] * 2


def test_a_sweep_trains_side_by_side_what_single_runs_train(kd_train, place, capfd):
    alone = kd_train("one", "seed=1", "baseline=false")
    assert main([*COMMON, "-m", "seed=0,1", "method=mse,ail", "sweep_dir=sweep", "baseline=false"]) == 0
    results = [json.loads(path.read_text()) for path in (place / "sweep").glob("*/result.json")]
    same = next(r for r in results if r["seed"] == 1 and "mse" in r["config"]["method"]["weights"])
    assert same["cost"]["fused"] == 4
    assert same["metrics"]["test/rmse"] == alone["metrics"]["test/rmse"]
    (study,) = collect(place / "sweep")
    assert study.declared.monitored.mode == "min"
    best = study.chosen.spread("best/val_rmse").mean
    assert best == min(cell.spread("best/val_rmse").mean for cell in study.cells)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["method=kd"], "provides features, values, the method reads its logits"),
        (["method=gaussian_kl"], "the method reads its spread"),
        (["task.output=bins"], "the method reads its values"),
        (["data.target=kind"], "targets are class numbers"),
        (["task.loss=mse", "task.output=gauss"], "task.output"),
    ],
)
def test_what_does_not_go_together_is_told_before_anything_is_trained(words, told, place, monkeypatch, capfd):
    monkeypatch.chdir(place)
    assert main([*COMMON, "run_dir=refused", *words]) == 2
    error = capfd.readouterr().err
    assert told in error
    assert len([line for line in error.splitlines() if line.startswith("error")]) == 1


class Slopes(torch.utils.data.Dataset):
    """Noisy 8x8 pictures of a slope, and how steep it is, in degrees."""

    def __len__(self):
        return 200

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        degrees = 90 * torch.rand((), generator=generator)
        y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        angle = torch.deg2rad(degrees)
        picture = x * torch.cos(angle) + y * torch.sin(angle) + 0.3 * torch.randn(8, 8, generator=generator)
        return picture[None], degrees


def test_a_convolutional_network_learns_a_value_of_pictures(place, monkeypatch, capfd):
    monkeypatch.chdir(place)
    words = [
        "data=dataset", f"data.train._target_={__name__}.Slopes", "data.batch_size=20", "data.val_size=40",
        "teacher=small_cnn", "teacher.model.channels=[8,16]", "teacher.train.max_epochs=6", "student=small_cnn",
        "student.channels=[8]", "student.hidden=16", "method=huber", "task.unit=degrees", "run_dir=slopes",
    ]  # fmt: skip
    shared = [
        word for word in COMMON if word.partition("=")[0] in ("task", "trainer.accelerator", "pictures.every_n_epochs")
    ]
    assert main([*shared, "optimizer=adamw", "optimizer.lr=0.02", "trainer.max_epochs=15", *words]) == 0, (
        capfd.readouterr().err
    )
    result = json.loads(Path("slopes/result.json").read_text())
    assert result["metrics"]["test/r2"] > 0.2
    assert result["teacher"]["test/r2"] > 0.3
    guess = open_run("slopes").predict(torch.stack([Slopes()[k][0] for k in range(4)])).flatten()
    truth = torch.stack([Slopes()[k][1] for k in range(4)])
    assert float((guess - truth).abs().mean()) < 25
