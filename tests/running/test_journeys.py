"""Whole ways of a user: a table of one's own, a teacher that is no network, a small student, its predictions in a file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_lightning.cli.predict import main as predict
from kd_lightning.cli.train import main
from kd_lightning.running.open_run import open_run

SHORT = ("trainer.max_epochs=8", "trainer.accelerator=cpu", "pictures.every_n_epochs=0", "baseline=false")
STUDENT = ("student=mlp", "student.hidden=[48,24]", "optimizer=adamw", "optimizer.lr=0.01", "data.batch_size=32")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def houses(rows: int = 500) -> dict[str, list]:
    """A table with numbers, a category, gaps, and a price that follows from them."""
    random = np.random.default_rng(0)
    size, age = random.uniform(30, 200, rows), random.integers(0, 90, rows)
    town = random.choice(["Ulm", "Bonn", "Trier"], rows)
    price = 3 * size - age + np.select([town == "Ulm", town == "Bonn"], [80, 20], 0) + random.normal(0, 8, rows)
    gaps = np.where(random.random(rows) < 0.05, np.nan, age)
    kind = np.where(price > np.median(price), "dear", "cheap")
    return {
        "house": [f"h{k}" for k in range(rows)], "size": size.tolist(), "age": gaps.tolist(), "town": town.tolist(),
        "price": price.tolist(), "kind": kind.tolist(),
    }  # fmt: skip


def save(columns: dict[str, list], path: str) -> None:
    """As ``pandas.DataFrame(columns).to_csv(path, index=False)``, which does it where pandas is there."""
    try:
        import pandas
    except ImportError:
        with open(path, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(columns)
            for row in zip(*columns.values(), strict=True):
                table.writerow(["" if cell != cell else cell for cell in row])
        return
    pandas.DataFrame(columns).to_csv(path, index=False)


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def result_of(run: str) -> dict:
    return json.loads(Path(run, "result.json").read_text())


def test_from_a_data_frame_and_a_fitted_regressor_to_predictions_in_a_file(folder):
    columns = houses()
    save(columns, "houses.csv")
    table = ("data=table", "data.file=houses.csv", "data.target=price", "data.drop=[house,kind]", "task=regression")
    teacher = ("teacher=sklearn", "teacher.estimator._target_=sklearn.ensemble.HistGradientBoostingRegressor")
    assert main([*SHORT, *STUDENT, *table, *teacher, "method=mse", "run_dir=run"]) == 0
    result = result_of("run")
    assert 1000 < result["student"]["parameters"] < 2500
    assert result["teacher"]["test/rmse"] < 40  # in the price's own units, whose deviation is 150
    assert result["metrics"]["test/rmse"] < 75

    asked = {name: values for name, values in columns.items() if name not in ("price", "kind")}  # no target is needed
    save(asked, "new.csv")
    assert predict(["run", "new.csv", "output=predictions.csv"]) == 0
    rows = rows_of("predictions.csv")
    assert [row["input"] for row in rows[:2]] == ["new.csv:1", "new.csv:2"]
    said = np.array([float(row["price"]) for row in rows])
    true = np.array(columns["price"])
    assert np.corrcoef(said, true)[0, 1] > 0.85
    assert abs(said.mean() - true.mean()) < 40


def test_predictions_of_a_tables_rows_are_those_that_the_run_was_tested_with(folder):
    save(houses(), "houses.csv")
    table = ("data=table", "data.file=houses.csv", "data.target=kind", "data.drop=[house,price]")
    words = ("teacher=sklearn", "teacher.folds=2", "run_dir=run", "trainer.max_epochs=2")
    assert main([*SHORT, *STUDENT, *table, *words]) == 0
    assert predict(["run", "houses.csv", "output=said.csv", "top=1"]) == 0
    said = {row["input"]: row for row in rows_of("said.csv")}
    run = open_run("run")
    from kd_lightning.config.build import build_datamodule

    data = build_datamodule(run.spec.config)
    inputs, _ = data.test_dataset().read(torch.arange(20), 0)
    probabilities, classes = run.predict(inputs).max(1)
    for row, number, probability in zip(data.places("test").rows[:20].tolist(), classes, probabilities, strict=True):
        answer = said[f"houses.csv:{row + 1}"]
        assert answer["class"] == data.class_names[number]
        assert float(answer["probability"]) == pytest.approx(float(probability), abs=1e-5)
    assert set(data.class_names) == {"cheap", "dear"}


def test_a_csv_of_probabilities_from_elsewhere_teaches_a_table(folder):
    columns = houses()
    save(columns, "houses.csv")
    dear = 1 / (1 + np.exp(-(np.array(columns["price"]) - np.median(columns["price"])) / 30))
    order = np.random.default_rng(1).permutation(len(dear))
    save({"id": [columns["house"][k] for k in order], "dear": dear[order], "cheap": 1 - dear[order]}, "api.csv")
    table = ("data=table", "data.file=houses.csv", "data.target=kind", "data.drop=[price]", "data.id=house")
    teacher = ("teacher=stored", "teacher.file=api.csv", "teacher.key=id", "data.labelled=40")
    assert main([*SHORT, *STUDENT, *table, *teacher, "run_dir=run"]) == 0
    result = result_of("run")
    assert result["teacher"]["test/acc"] == 1.0  # the columns stand in another order than the classes
    assert result["metrics"]["test/agreement"] > 0.8


def test_values_from_elsewhere_teach_a_regression_in_the_targets_units(folder):
    columns = houses()
    save(columns, "houses.csv")
    save({"price": (np.array(columns["price"]) + 5).tolist()}, "values.csv")
    table = ("data=table", "data.file=houses.csv", "data.target=price", "data.drop=[house,kind]", "task=regression")
    teacher = ("teacher=stored", "teacher.file=values.csv", "teacher.holds=values", "method=mse")
    assert main([*SHORT, *STUDENT, *table, *teacher, "run_dir=run", "trainer.max_epochs=2"]) == 0
    assert result_of("run")["teacher"]["test/rmse"] == pytest.approx(5, abs=0.01)
    assert result_of("run")["teacher"]["test/mae"] == pytest.approx(5, abs=0.01)


def test_predictions_of_texts_are_made_with_the_runs_tokenizer(folder, capfd):
    texts = [f"{'good' if k % 2 else 'bad'} thing number {k % 9}" for k in range(200)]
    save(
        {"id": [f"t{k}" for k in range(200)], "text": texts, "label": ["+" if k % 2 else "-" for k in range(200)]},
        "t.csv",
    )
    words = ("data=text", "data.file=t.csv", "data.id=id", "data.tokenizer.vocab_size=64", "student=token_bag")
    words += ("student.width=8", "optimizer.lr=0.3", "teacher=tfidf", "teacher.folds=2", "data.batch_size=20")
    assert main([*SHORT, *words, "run_dir=run"]) == 0
    save({"id": ["x", "y"], "text": ["a good day", "bad, bad news of more words than the other"]}, "new.csv")
    assert predict(["run", "new.csv", "output=said.csv", "top=1"]) == 0
    assert [(row["input"], row["class"]) for row in rows_of("said.csv")] == [("x", "+"), ("y", "-")]
    assert "note:" not in capfd.readouterr().err
    save({"id": ["x", "y"], "text": ["a good day", " "]}, "new.csv")
    assert predict(["run", "new.csv", "output=said.csv", "top=1"]) == 0
    assert "note: new.csv: row 2 has no text" in capfd.readouterr().err


def test_a_table_without_the_runs_columns_is_one_line(folder, capfd):
    save(houses(120), "houses.csv")
    table = ("data=table", "data.file=houses.csv", "data.target=kind", "data.drop=[house,price]")
    assert main([*SHORT, *STUDENT, *table, "teacher=none", "method=none", "run_dir=run", "trainer.max_epochs=1"]) == 0
    save({"size": [100.0], "town": ["Ulm"]}, "new.csv")
    assert predict(["run", "new.csv", "output=said.csv"]) == 2
    assert "has no column 'age'" in capfd.readouterr().err
    assert not Path("said.csv").exists()


def test_a_table_without_a_target_is_clustered_and_new_rows_are_assigned(folder, capfd):
    random = np.random.default_rng(0)
    corner = np.arange(200) % 4
    x, y = 4 * (corner % 2) + random.normal(0, 0.3, 200), 4 * (corner // 2) + random.normal(0, 0.3, 200)
    save({"x": x.tolist(), "y": y.tolist(), "town": np.array(["Ulm", "Bonn"])[corner % 2].tolist()}, "points.csv")
    table = ("data=table", "data.file=points.csv", "data.target=none", "task=clustering", "method=assignments")
    teacher = ("teacher=kmeans", "teacher.clusters=4", "baseline=false")
    assert main([*SHORT, *STUDENT, *table, *teacher, "run_dir=run", "trainer.max_epochs=40", "optimizer.lr=0.1"]) == 0
    assert "no target; columns: 2 numbers, categories town (2)" in capfd.readouterr().out
    assert result_of("run")["metrics"]["test/agreement"] > 0.95
    assert predict(["run", "points.csv", "output=said.csv"]) == 0
    said = [max(range(4), key=lambda k: float(row[f"output_{k}"])) for row in rows_of("said.csv")]
    assert len(set(zip(said, corner.tolist(), strict=True))) == 4  # a cluster is a corner
    assert main([*SHORT, *STUDENT, *table[:3], "teacher=none", "method=none", "run_dir=other"]) == 2
    assert "no training sample has a label" in capfd.readouterr().err
