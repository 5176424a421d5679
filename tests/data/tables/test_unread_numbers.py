"""Numbers that are read as texts, and codes for missing values, are warned of; healthy columns are not."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from kd_lightning.data.table import TableData
from kd_lightning.data.tables.reading import bundled_table
from kd_lightning.data.tables.sentinels import sentinel
from kd_lightning.data.tables.unread_numbers import unread_numbers


def texts(cells):
    return np.array(list(cells), dtype=object)


def test_decimal_commas_are_told_whether_left_out_or_categories():
    told = unread_numbers("area", texts(f"{k},5" for k in range(150)), 100)
    assert told is not None
    assert told.startswith("column 'area' holds numbers, with a comma, like '0,5'")
    assert told.endswith("it is left out")
    assert str(unread_numbers("area", texts(f"{k},5" for k in range(60)), 100)).endswith("its 60 texts are categories")


def test_a_column_with_a_few_words_among_numbers_is_told():
    told = unread_numbers("age", texts([*map(str, range(90)), *(f"about {k}" for k in range(9))]), 100)
    assert told is not None
    assert "holds numbers, but 'about 0' is none" in told


@pytest.mark.parametrize(
    "cells",
    [
        [f"street {k}" for k in range(200)],
        [f"{1 + k % 28:02}.{1 + k % 12:02}.2024" for k in range(200)],
        ["0,5", "1,5", "2,5"] * 60,
        [*(f"PC {k}" for k in range(50)), *map(str, range(150))],
    ],
)
def test_texts_dates_few_kinds_and_mixed_numbers_of_tickets_are_silent(cells):
    assert unread_numbers("x", texts(cells), 100) is None
    assert unread_numbers("x", np.arange(200.0), 100) is None


def test_a_repeated_value_far_from_the_others_is_told():
    values = np.random.default_rng(0).uniform(3, 9, 300)
    values[:64] = -999
    assert "column 'price': -999 occurs 64 times, far below the others (3." in str(sentinel("price", values))
    assert "-999 occurs 64 times" in str(sentinel("price", np.where(values > 0, values * 5000, values)))
    assert "999 occurs 64 times, far above" in str(sentinel("price", -values))


def test_healthy_values_are_silent():
    rng = np.random.default_rng(0)
    for values in (
        *(rng.normal(size=500), rng.pareto(1, 500), rng.poisson(3, 500) * 1.0, np.maximum(rng.normal(size=500), 0)),
        *(np.array([-999.0, 5.0] * 50), np.append(rng.normal(size=100), 1e6), np.minimum(rng.pareto(1, 500), 5)),
    ):
        assert sentinel("y", values) is None


@pytest.mark.parametrize("name", ["bikeshare", "diabetes", "linnerud", "breast_cancer", "iris", "wine"])
def test_no_shipped_table_is_warned_of(name):
    table = bundled_table(name)
    assert [sentinel(column, table.columns[column]) for column in table.target] == [None] * len(table.target)
    assert not any(unread_numbers(column, cells, 100) for column, cells in table.columns.items())


def test_both_are_warnings_of_a_table(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("kd_lightning.data.loader.foreign._told", set())  # lines are told once in a process
    rows = [f"{k},5;{k % 7};{-999 if k % 5 == 0 else k + 0.5}" for k in range(150)]
    (tmp_path / "a.csv").write_text("\n".join(["area;rooms;price", *rows]))
    with caplog.at_level(logging.WARNING):
        TableData(str(tmp_path / "a.csv"), target="price", batch_size=16).setup("fit")
    assert "WARNING: data: column 'area' holds numbers, with a comma" in caplog.text
    assert "-999 occurs 30 times, far below the others" in caplog.text
