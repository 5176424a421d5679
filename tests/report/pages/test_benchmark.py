"""The benchmark's page: made from results, its own words kept, each run in the TSV with a command that makes it again."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from sweep_maker import TEACHER, make_sweep

from kd_lightning.metrics.show import NONE
from kd_lightning.report.pages.benchmark import MARK, main, write_benchmark


@pytest.fixture
def page(tmp_path) -> Path:
    grid = {"optimizer.lr": [0.02, 0.05], "method": ["kd", "dkd", "dist"]}
    sweep = make_sweep(tmp_path / "bench", grid, seeds=3)
    for path in sweep.glob("*/result.json"):
        result = json.loads(path.read_text())
        result["overrides"] += ["sweep=benchmark", f"sweep_dir={sweep}", "paths.output_dir=/elsewhere"]
        result["host"] = {"cpu": "made up", "cores": 2, "threads": 1, "gpus": []}
        path.write_text(json.dumps(result))
    write_benchmark(sweep, tmp_path / "page.md")
    return tmp_path / "page.md"


def test_a_table_over_all_pairs_and_one_for_each(page):
    text = page.read_text()
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["# bench", "## Over all pairs", "## lr = 0.02", "## lr = 0.05"]
    tables = [part for part in text.split("\n\n") if part.startswith("| rank")]
    assert len(tables) == 3
    assert all(f"| {name} |" in made for made in tables for name in ("kd", "dkd", "dist"))
    assert "made up, 2 cores, threads: 1, no GPU" in text
    assert "mean over 2 settings" in text


def test_a_pairs_table_has_the_means_of_its_own_runs(page):
    part = page.read_text().partition("## lr = 0.05")[2]
    row = next(line for line in part.splitlines() if "| dkd |" in line)
    runs = [r for r in rows(page) if r["optimizer.lr"] == "0.05" and r["method"] == "dkd" and r["role"] == "distilled"]
    mean = sum(float(run["test/acc"]) for run in runs) / len(runs)
    assert len(runs) == 3
    assert f"| {100 * mean:.2f} ±" in row


def test_words_above_the_mark_stay_when_the_page_is_written_again(page, tmp_path):
    page.write_text(f"# Our benchmark\n\nWhy.\n\n{MARK}\n\nold figures\n")
    write_benchmark(tmp_path / "bench", page)
    text = page.read_text()
    assert text.startswith("# Our benchmark\n\nWhy.\n\n")
    assert "old figures" not in text
    assert "## Over all pairs" in text


def test_every_run_stands_in_the_tsv_with_a_command_that_composes(page):
    found = rows(page)
    assert len(found) == 2 * 3 * 3 + 3
    for row in found:
        words = shlex.split(row["command"])
        assert words[0] == "kd-train"
        assert not any(word.startswith(("sweep", "paths.")) for word in words)
    row = next(r for r in found if r["optimizer.lr"] == "0.05" and r["method"] == "dist" and r["seed"] == "2")
    with initialize_config_dir(str(Path(__file__).parents[3] / "conf"), version_base=None):
        config = compose("train", overrides=shlex.split(row["command"])[1:])
    assert config.seed == 2
    assert config.optimizer.lr == 0.05
    assert set(config.method.terms) == {"inter", "intra"}


def rows(page: Path) -> list[dict[str, str]]:
    with open(page.with_suffix(".tsv")) as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_of_one_seed_each_nothing_is_compared_and_the_page_says_so(tmp_path):
    sweep = make_sweep(tmp_path / "bench", {"method": ["kd", "dkd"]}, seeds=1, teacher={**TEACHER, "parameters": None})
    assert main([str(sweep), str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "no two methods have two seeds in common" in text
    assert f"%, {NONE} parameters; student: 1,930" in text  # an estimator's, which nobody knows
    assert len(rows(tmp_path / "page.md")) == 3


def test_a_directory_that_is_none_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "page.md")]) == 2
    assert capsys.readouterr().err.startswith("error: no directory")
    assert not (tmp_path / "page.md").exists()
