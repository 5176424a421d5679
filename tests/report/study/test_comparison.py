"""Methods compared: p values against scipy's, ties against a definition worked out by hand, seeds against a simulation."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from scipy import stats
from sweep_maker import make_sweep

from kd_lightning.report.charts import figures
from kd_lightning.report.pages.comparison_card import comparison_cards
from kd_lightning.report.study.comparison import ALONE, STEP_TIME, compare, seeds_to_separate
from kd_lightning.report.study.statistics import interval

FIVE = [0.0, 0.002, -0.001, 0.003, 0.001]
NOISE = {"kd": [1, -1, 2, 0, -2], "dkd": [0, 1, -1, 2, -2], "dist": [2, 0, -1, -2, 1], "hint": [-1, 2, 0, 1, -2]}


def set_accuracies(folder, means: dict[str, float], alone: float, by_student=(0.0,)) -> None:
    """Give the runs of a made sweep accuracies whose differences are known."""
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        seed = result["seed"]
        chosen = dict(override.split("=") for override in result["overrides"])
        base = alone if result["role"] == "alone" else means[chosen["method"]]
        own = 0.0 if result["role"] == "alone" else 0.001 * NOISE[chosen["method"]][seed]
        lift = by_student[int(chosen.get("student.width", 0)) // 16 - 1] if "student.width" in chosen else 0.0
        result["metrics"] |= {"test/acc": base + FIVE[seed] + own + lift, "best/val_acc": base + own + lift}
        path.write_text(json.dumps(result))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = make_sweep(tmp_path_factory.mktemp("c") / "s", {"method": ["kd", "dkd", "dist", "hint"]}, seeds=5)
    set_accuracies(folder, {"kd": 0.90, "dkd": 0.9005, "dist": 0.93, "hint": 0.85}, alone=0.88)
    return figures.load(folder)


def test_the_p_values_are_those_of_scipys_paired_test_and_holm_says_which_are_sure(compared):
    found = compare(compared, "test/acc")
    assert [entry.name for entry in found.entries] == ["dist", "dkd", "kd", ALONE, "hint"]
    ps = {}
    for pair, gain in found.gains.items():
        first, second = (list(found.entries[place].values.values()) for place in pair)
        ps[pair] = stats.ttest_rel(first, second).pvalue
        assert gain.p == pytest.approx(ps[pair], rel=1e-9)
        assert gain.mean > 0
    sure, left = set(), len(ps)
    for p, pair in sorted((p, pair) for pair, p in ps.items()):
        if p > 0.05 / left:
            break
        sure.add(pair)
        left -= 1
    assert {pair for pair, gain in found.gains.items() if gain.sure} == sure


def test_what_cannot_be_told_apart_is_a_tie_and_shares_its_rank(compared):
    found = compare(compared, "test/acc")
    assert found.ties == [(1, 2)]  # dkd and kd
    assert [entry.rank for entry in found.entries] == [1, 2, 2, 4, 5]
    for first, second in itertools.pairwise(found.entries):
        assert first.rank <= second.rank


def test_the_card_says_ranks_gains_and_who_is_ahead(compared):
    (card,) = comparison_cards(compared)
    head, *rows = card["table"]
    assert head[:5] == ["rank", "", "test accuracy [%]", "n", "better than alone by"]
    assert [row[1] for row in rows] == ["dist", "dkd", "kd", ALONE, "hint"]
    assert rows[0][4].startswith("+5.0 [")
    assert rows[0][4].endswith("\u25cf")
    assert rows[4][4].startswith("\u22123.0 [")
    assert "dist is ahead of dkd" in card["text"]
    assert len(card["figure"]["layout"]["shapes"]) == 1
    assert card["figure"]["data"][0]["x"][0] == pytest.approx(93.1)


def test_less_is_better_of_an_error(tmp_path):
    grid = {"method": ["kd", "dkd"]}
    study = figures.load(make_sweep(tmp_path / "s", grid, seeds=4, metric="rmse", mode="min", task="regression"))
    (card,) = comparison_cards(study)
    assert [row[1] for row in card["table"][1:]] == ["dkd", "kd", ALONE]
    assert card["table"][1][4].startswith("+0.1")
    assert "dkd and kd differ by the same for every seed" in card["text"]  # as this sweep is made up


def test_a_figure_is_the_mean_over_students_and_of_its_own_keys_the_one_chosen_by_validation(tmp_path):
    grid = {"method": ["kd", "dkd"], "student.width": [16, 32], "method.temperature": [1, 4]}
    folder = make_sweep(tmp_path / "s", grid, seeds=3, alone=False)
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        chosen = dict(override.split("=") for override in result["overrides"])
        hot, wide = chosen["method.temperature"] == "4", chosen["student.width"] == "32"
        # validation prefers T = 1 for the wide student and T = 4 for the other; test prefers the opposite
        result["metrics"] = {
            "best/val_acc": 0.9 + 0.01 * (hot != wide),
            "test/acc": 0.8 - 0.01 * (hot != wide) + 0.1 * wide,
        }
        result["metrics"]["test/acc"] += 0.001 * result["seed"] + 0.02 * (chosen["method"] == "dkd")
        path.write_text(json.dumps(result))
    found = compare(figures.load(folder), "test/acc")
    assert found.settings == 2
    assert [entry.name for entry in found.entries] == ["dkd", "kd"]
    assert [entry.tried for entry in found.entries] == [2, 2]
    assert found.entries[1].summary.mean == pytest.approx((0.79 + 0.89) / 2 + 0.001)


def test_a_method_that_lacks_a_student_is_left_out_and_named(tmp_path):
    grid = {"method": ["kd", "dkd", "hint"], "student.width": [16, 32]}
    folder = make_sweep(tmp_path / "s", grid, seeds=3, alone=False)
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        if "method=hint" in result["overrides"] and "student.width=32" in result["overrides"]:
            path.write_text(json.dumps({**result, "status": "failed", "metrics": {}}))
    (card,) = comparison_cards(figures.load(folder))
    assert {row[1] for row in card["table"][1:]} == {"kd", "dkd"}
    assert "Left out, as they lack some of these: hint." in card["text"]


@pytest.mark.parametrize("grid", [{"method.temperature": [1, 4]}, {"method": ["kd"]}])
def test_there_is_no_card_where_no_names_are_compared(tmp_path, grid):
    assert comparison_cards(figures.load(make_sweep(tmp_path / "s", grid, seeds=2, alone=False))) == []


def test_one_seed_compares_nothing(tmp_path):
    assert comparison_cards(figures.load(make_sweep(tmp_path / "s", {"method": ["kd", "dkd"]}, seeds=1))) == []


def test_so_many_seeds_find_the_difference_four_times_in_five():
    draw = random.Random(3)
    gain = interval([draw.gauss(0.4, 1.0) for _ in range(20)], "seed")
    n = seeds_to_separate(gain)
    deviation = (gain.high - gain.mean) / stats.t.ppf(0.975, gain.n - 1) * gain.n**0.5

    def power(count: int) -> float:
        shift = abs(gain.mean) / deviation * count**0.5
        return 1 - stats.nct.cdf(stats.t.ppf(0.975, count - 1), count - 1, shift)

    assert power(n) == pytest.approx(0.8, abs=0.02)
    assert seeds_to_separate(interval([0.5, -0.5], "seed")) is None
    assert seeds_to_separate(interval([1e-9, 1.0, -1.0], "seed")) is None


def test_the_cost_of_a_step_is_told_in_steps_of_the_student_alone(compared, tmp_path):
    folder = make_sweep(tmp_path / "s", {"method": ["kd", "dkd"]}, seeds=2)
    for place in folder.iterdir():
        if place.is_dir():
            time = {"kd": 3.0, "dkd": 4.0}.get(place.name.split("_")[0], 2.0)
            with open(place / "metrics.jsonl", "a") as file:
                file.write(json.dumps({"step": 1000, "epoch": 20, STEP_TIME: time}) + "\n")
    (card,) = comparison_cards(figures.load(folder))
    assert {row[1]: row[-1] for row in card["table"][1:]} == {
        "kd": "1.50 \u00d7",
        "dkd": "2.00 \u00d7",
        ALONE: "1.00 \u00d7",
    }
    (without,) = comparison_cards(compared)
    assert "cost of a step" not in without["table"][0]


def test_values_of_a_key_that_is_no_method_are_called_by_the_key_and_two_seeds_are_cautioned(tmp_path):
    (card,) = comparison_cards(figures.load(make_sweep(tmp_path / "s", {"student.width": ["wide", "thin"]}, seeds=2)))
    assert {row[1] for row in card["table"][1:]} == {"width=wide", "width=thin", ALONE}
    assert "take no ranking from them" in card["text"]
