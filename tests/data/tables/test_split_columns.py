"""A split by time follows time, or is refused."""

from __future__ import annotations

import datetime
import random

import numpy as np
import pytest

from kd_lightning.data.tables.reading import given_table
from kd_lightning.data.tables.split_columns import numbers_of
from kd_lightning.errors import UserError

DAYS = [datetime.datetime(2022, 11, 1, 7, 30) + datetime.timedelta(days=k) for k in range(120)]
random.Random(0).shuffle(DAYS)
ORDER = np.argsort(np.argsort(DAYS))


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S+01:00", "%s"])
def test_moments_that_begin_with_the_year_are_in_their_order(form):
    column = given_table({"when": [day.strftime(form) for day in DAYS]}).columns["when"]
    assert (numbers_of(column, "when", by_time=True) == ORDER).all()


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%y", "%b %d %Y", "%H:%M %Y-%m-%d"])
def test_moments_whose_letters_do_not_sort_in_time_are_refused(form):
    column = given_table({"when": [day.strftime(form) for day in DAYS]}).columns["when"]
    with pytest.raises(UserError, match=r"^data.time=when: '.*' sorts by its letters, not in time"):
        numbers_of(column, "when", by_time=True)
    assert len(set(numbers_of(column, "when", by_time=False))) == 120  # groups need no order


def test_one_part_without_its_nought_and_two_forms_are_refused():
    unpadded = given_table({"when": [f"{day.year}-{day.month}-{day.day}" for day in DAYS]}).columns["when"]
    with pytest.raises(UserError, match="sorts by its letters"):
        numbers_of(unpadded, "when", by_time=True)
    mixed = np.array(["2023-05-17", "2023/05/18"], dtype=object)
    with pytest.raises(UserError, match="are of two forms"):
        numbers_of(mixed, "when", by_time=True)


def test_dates_of_a_frame_or_parquet_file_are_moments():
    for values in (DAYS, [day.date() for day in DAYS]):
        column = given_table({"when": values}).columns["when"]
        assert (numbers_of(column, "when", by_time=True) == ORDER).all()


def test_a_missing_date_of_pandas_is_missing():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"when": pandas.to_datetime(["2023-05-17", None]), "y": pandas.array([1, None])})
    columns = given_table(frame).columns
    assert columns["when"].tolist()[1] is None
    assert np.isnan(columns["y"][1])
