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
