"""What no training row was like is said of a table's rows; healthy rows say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from kd_lightning.data.tables.encoding import TableEncoder
from kd_lightning.data.tables.reading import Table
from kd_lightning.data.tables.unfamiliar import unfamiliar


def table(size: list, town: list) -> Table:
    return Table({"size": np.array(size, dtype=float), "town": np.array(town, dtype=object)}, "a table")


@pytest.fixture
def codes():
    encoder, _ = TableEncoder.fitted(table([30, 100, 90, 200], ["Ulm", "Bonn", None, "Ulm"]), ["size", "town"], [], 100)
    return TableEncoder.from_plain(encoder.as_plain()).codes


def test_rows_like_those_of_training_say_nothing(codes):
    assert unfamiliar(codes, table([30, 200, np.nan, -100, 370], ["Ulm", None, "Bonn", "Bonn", "Ulm"])) == []


def test_new_categories_far_values_and_empty_rows_are_counted_with_the_first_of_them(codes):
    said = unfamiliar(codes, table([50, np.nan, 371, np.nan, -141], ["Rome", None, "Ulm", None, "Oslo"]))
    assert said == [
        "2 rows (the first: 2) have nothing in any column of inputs: answered like an average row",
        "2 rows (the first: 3) have a value of 'size' far off the training rows' 30 to 200 (the first: 371)",
        "2 rows (the first: 1) have a value of 'town' that is in no training row: taken as none of its categories "
        "(the first: 'Rome')",
    ]


def test_of_a_run_that_kept_no_range_far_is_what_is_cut_off(codes):
    plain = [{k: v for k, v in entry.items() if k not in ("low", "high")} for entry in TableEncoder(codes).as_plain()]
    old = TableEncoder.from_plain(plain).codes
    assert unfamiliar(old, table([371], ["Ulm"])) == []
    (said,) = unfamiliar(old, table([1e4], ["Ulm"]))
    assert said.startswith("row 1 has a value of 'size' more than 10 standard deviations off")


def test_a_column_that_is_empty_or_nearly_though_training_had_it_is_told(codes):
    assert unfamiliar(codes, table([np.nan] * 3, ["Ulm"] * 3)) == [
        "none of the 3 rows has a value of 'size', which all training rows have: taken as the training rows' median, 95"
    ]
    mostly = [np.nan] * 6 + [50.0, 60.0]
    (said,) = unfamiliar(codes, table(mostly, ["Ulm"] * 8))
    assert said.startswith("6 rows (the first: 1) have no value of 'size', which all training rows have: taken as")
    (said,) = unfamiliar(codes, table([50.0] * 8, [None] * 8))
    assert said == (
        "none of the 8 rows has a value of 'town', which 75% of the training rows have: taken as none of its categories"
    )
    assert unfamiliar(codes, table([50.0] * 3, [None, None, "Ulm"])) == []


def test_gaps_as_many_as_training_had_say_nothing():
    rng = np.random.default_rng(0)
    size = np.where(rng.random(300) < 0.6, np.nan, rng.normal(size=300))
    encoder, _ = TableEncoder.fitted(table(size, ["Ulm", "Bonn"] * 150), ["size", "town"], [], 100)
    for start in range(0, 300, 10):
        assert unfamiliar(encoder.codes, table(size[start : start + 10], ["Ulm"] * 10)) == []
    assert unfamiliar(encoder.codes, table([np.nan], ["Ulm"])) == []


def test_of_a_run_that_kept_no_gaps_an_empty_column_is_told(codes):
    plain = [{k: v for k, v in entry.items() if k != "lacking"} for entry in TableEncoder(codes).as_plain()]
    old = TableEncoder.from_plain(plain).codes
    (said,) = unfamiliar(old, table([np.nan, np.nan], ["Ulm", "Ulm"]))
    assert said == "none of the 2 rows has a value of 'size': taken as the training rows' median, 95"
    assert unfamiliar(old, table([np.nan, 50], ["Ulm", "Ulm"])) == []
