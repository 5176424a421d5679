"""Columns that are the target in other words, rows on both sides of the split: told where they are, and not where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from kd_lightning.data.table import TableData
from kd_lightning.data.tables.leaks import leaks
from kd_lightning.data.tables.reading import OF_SKLEARN, Table

RNG = np.random.default_rng(0)
ROWS = 200
PARTS = {"train": np.arange(120), "validation": np.arange(120, 150), "test": np.arange(150, ROWS)}


def told(columns, target="y", classes=False, parts=PARTS):
    table = Table(columns, "t")
    return leaks(table, [name for name in columns if name != target], [target], classes, parts)


def test_the_target_in_another_unit_is_told_and_a_good_input_is_not():
    y = RNG.normal(50, 20, ROWS)
    near = y + RNG.normal(0, 0.5, ROWS)
    assert told({"a": RNG.normal(size=ROWS), "near": near, "y": y}) == []
    (line,) = told({"a": RNG.normal(size=ROWS), "y_cm": np.round(100 * y + 3), "y": y})
    assert line.startswith("y_cm: tells the target y exactly")
    assert line.endswith("data.drop=[y_cm] leaves it out")


def test_numbers_of_the_classes_are_told():
    kind = RNG.choice(np.array(["cat", "dog", "cow"], dtype=object), ROWS)
    number = np.array([{"cat": 3.0, "dog": 7.0, "cow": 1.0}[k] for k in kind])
    other = np.where(number == 3, 3.0, RNG.choice([1.0, 7.0], ROWS))
    inputs = {"a": RNG.normal(size=ROWS), "other": other}
    assert told({**inputs, "y": kind}, classes=True) == []
    (line,) = told({**inputs, "number": number, "y": kind}, classes=True)
    assert line.startswith("number: tells the target y exactly")


def test_a_file_that_has_its_rows_twice_is_told():
    a, y = np.tile(RNG.normal(size=ROWS // 2), 2), np.tile(RNG.normal(size=ROWS // 2), 2)
    order = RNG.permutation(ROWS)
    lines = told({"a": a[order], "b": np.zeros(ROWS), "y": y[order]})
    assert [line.split(" ")[4] for line in lines] == ["validation", "test"]
    assert "are training rows too, equal in every column" in lines[0]


def test_rows_of_few_kinds_repeat_by_themselves():
    few = {name: RNG.integers(0, 3, ROWS).astype(float) for name in "abcy"}
    assert told(few, classes=True) == []


@pytest.mark.parametrize("name", ["bikeshare", *OF_SKLEARN])
def test_nothing_is_told_of_the_tables_that_ship(name):
    data = TableData(bundled=name, target="bikers" if name == "bikeshare" else None, batch_size=8)
    data.setup("fit")
    assert [note for note in data.notes if "training rows too" in note or "tells the target" in note] == []
