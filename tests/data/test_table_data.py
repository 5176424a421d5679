"""Tables: types, categories, gaps, splits without leaks, targets, and what is refused with a line."""

from __future__ import annotations

import csv
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_lightning.data.table import TableData
from kd_lightning.data.tables.encoding import TableEncoder
from kd_lightning.data.tables.reading import bundled_table, read_table
from kd_lightning.data.tables.row_numbers import row_numbers
from kd_lightning.errors import UserError


def write(path, rows, header=("size", "kind", "day", "dull", "price"), delimiter=","):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return str(path)


@pytest.fixture
def houses(tmp_path):
    """60 rows: 12 days of 5; a gap in every column that may have one."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(60):
        size = "" if k == 7 else f"{20 + 100 * rng.random():.2f}"
        kind = "NA" if k == 8 else "abc"[k % 3]
        rows.append([size, kind, f"2024-01-{1 + k // 5:02d}", "1", f"{k + rng.random():.3f}"])
    return write(tmp_path / "houses.csv", rows)


def made(file, **settings):
    return TableData(file=file, **{"target": "price", "batch_size": 4, **settings})


def rows_of(data, split):
    data.setup("fit")
    return data._split()[{"train": 0, "val": 1, "test": 2}[split]]


def test_types_are_inferred_and_what_was_done_is_said(houses):
    data = made(houses)
    line = data.summary()
    assert data.encoder.feature_names == [
        "size",
        "kind=a",
        "kind=b",
        "kind=c",
        *sorted(n for n in data.encoder.feature_names if n.startswith("day=")),
    ]
    assert "target price: values" in line
    assert "left out, one value in all training rows: dull" in line
    assert "columns: 1 number, categories kind (3), day (12)" in line
    assert data.in_features == len(data.encoder.feature_names) == data.sizes()["in_features"]


def test_gaps_are_filled_by_the_training_rows_and_counted(houses):
    data = made(houses, test_size=2, val_size=2, split_seed=1)
    data.setup("fit")
    train = rows_of(data, "train")
    assert {7, 8} <= set(train.tolist())
    assert "missing values filled: size (1, the median), kind (1, none of its categories)" in data.summary()
    sizes = data.table.columns["size"][train.numpy()]
    known = sizes[~np.isnan(sizes)]
    encoded = data.encoder.encode(data.table.rows(np.array([7, 8])))
    assert float(encoded[0, 0]) == pytest.approx((np.median(known) - known.mean()) / known.std(), rel=1e-5)
    assert encoded[1, 1:4].tolist() == [0, 0, 0]


def test_standardisation_sees_no_validation_and_no_test_row(tmp_path):
    """Rows that are not training may be anything: the training inputs do not change by a bit."""
    rng = np.random.default_rng(1)
    rows = [[f"{rng.random():.4f}", "ab"[k % 2], "d", "0", f"{rng.random():.4f}"] for k in range(40)]
    before = made(write(tmp_path / "a.csv", rows))
    kept = set(rows_of(before, "train").tolist())
    changed = [row if k in kept else ["1e6", "new", "d", "9", row[-1]] for k, row in enumerate(rows)]
    after = made(write(tmp_path / "b.csv", changed))
    assert set(rows_of(after, "train").tolist()) == kept
    assert after.encoder.as_plain() == before.encoder.as_plain()
    for data in (before, after):
        data.inputs = data.train_views_dataset.gather(torch.arange(len(kept)), 0)[0]
    assert torch.equal(before.inputs, after.inputs)
    wild = after.encoder.encode(after.table.rows(rows_of(after, "test").numpy()))
    assert wild.abs().max() <= 10  # far beyond what training has seen, and bounded
    assert (wild[:, 1:] == 0).all()  # a category that training has not seen


def test_a_subset_for_the_student_leaves_the_inputs_as_a_teacher_of_all_rows_sees_them(houses):
    whole, subset = made(houses), made(houses, train_size=8)
    whole.setup("fit"), subset.setup("fit")
    assert whole.encoder.as_plain() == subset.encoder.as_plain()
    assert subset.train_samples == 8


@pytest.mark.parametrize("split", ["random", "group", "time"])
def test_every_row_is_in_one_split(houses, split):
    data = made(houses, split=split, group="day", time="day")
    parts = [rows_of(data, name) for name in ("train", "val", "test")]
    assert sorted(torch.cat(parts).tolist()) == list(range(60))
    assert all(len(part) for part in parts)
    assert "day" not in {code.name for code in data.encoder.codes} or split == "random"


def test_a_split_by_group_keeps_groups_together_and_its_test_is_always_the_same(houses):
    tests = []
    for seed in (0, 1, 2):
        data = made(houses, split="group", group="day", split_seed=seed)
        days = [
            {data.table.columns["day"][k] for k in rows_of(data, name).tolist()} for name in ("train", "val", "test")
        ]
        assert sum(map(len, days)) == len(set().union(*days))
        tests.append(days[2])
    assert tests[0] == tests[1] == tests[2]


def test_a_split_by_time_tests_on_what_comes_last(houses):
    data = made(houses, split="time", time="day")
    latest = [max(data.table.columns["day"][k] for k in rows_of(data, name).tolist()) for name in ("train", "val")]
    first = [min(data.table.columns["day"][k] for k in rows_of(data, name).tolist()) for name in ("val", "test")]
    assert latest[0] < first[0]
    assert latest[1] < first[1]


def test_a_row_without_a_target_is_training_and_unlabelled(tmp_path):
    rows = [[str(k), "a", "d", str(k % 5), "" if k % 3 == 0 else f"{k}.5"] for k in range(60)]
    data = made(write(tmp_path / "t.csv", rows))
    assert {k for k in range(60) if k % 3 == 0} <= set(rows_of(data, "train").tolist())
    assert data.labelled_in("train") == data.train_samples - 20
    assert data.labelled_in("val") == data.val_samples
    few = made(write(tmp_path / "t.csv", rows), labelled=3)
    few.setup("fit")
    assert int((~few.train_targets().isnan()).sum()) == 3


def test_targets_are_classes_or_values_as_they_look_or_as_is_said(tmp_path):
    rows = [[str(k), "xy"[k % 2], "d", str(k % 7), str(k % 3)] for k in range(40)]
    file = write(tmp_path / "t.csv", rows)
    assert (made(file).num_classes, made(file).class_names) == (3, ["0", "1", "2"])
    assert made(file).targets.dtype == torch.int64
    assert made(file, target_type="values").targets.dtype == torch.float32
    kinds = made(file, target="kind")
    assert kinds.class_names == ["x", "y"]
    assert kinds.targets.tolist() == [k % 2 for k in range(40)]
    several = made(file, target=["price", "dull"])
    assert (several.targets.shape, several.num_classes) == ((40, 2), 2)


def test_a_csv_may_be_compressed_have_semicolons_and_a_parquet_is_the_same_table(tmp_path):
    rows = [[f"{k}.5", "ab"[k % 2], "d", "true" if k % 2 else "false", str(k)] for k in range(30)]
    plain = read_table(write(tmp_path / "t.csv", rows))
    for other in (write(tmp_path / "z.csv.gz", rows), write(tmp_path / "s.csv", rows, delimiter=";")):
        table = read_table(other)
        assert all((table.columns[name] == plain.columns[name]).all() for name in plain.columns)
    assert plain.columns["dull"].tolist() == [float(k % 2) for k in range(30)]
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    typed = {
        "size": [k + 0.5 for k in range(30)],
        "kind": ["ab"[k % 2] for k in range(30)],
        "dull": [k % 2 == 1 for k in range(30)],
    }
    parquet.write_table(pyarrow.table(typed), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert all((table.columns[name] == plain.columns[name]).all() for name in typed)


def test_an_encoder_comes_back_from_a_result_file(houses):
    data = made(houses)
    data.setup("fit")
    again = TableEncoder.from_plain(json.loads(json.dumps(data.encoder.as_plain())))
    assert torch.equal(again.encode(data.table), data.encoder.encode(data.table))


def test_bikeshare_ships_and_is_split_by_day():
    data = TableData(
        bundled="bikeshare",
        target="bikers",
        drop=["casual", "registered"],
        target_type="values",
        split="group",
        group="day",
    )
    assert len(data.table) == 8645
    assert not {"casual", "registered", "bikers", "day"} & {code.name for code in _ready(data).encoder.codes}
    days = [set(data.table.columns["day"][rows_of(data, name).numpy()].tolist()) for name in ("train", "val", "test")]
    assert sum(map(len, days)) == len(set().union(*days)) == 365
    total = data.table.columns["casual"] + data.table.columns["registered"]
    assert (total == data.table.columns["bikers"]).all()


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer", "iris", "wine"])
def test_scikit_learns_sets_are_tables(name):
    data = _ready(TableData(bundled=name, batch_size=4))
    inputs, target = data.train_views_dataset.gather(torch.arange(4), 0)
    assert inputs.shape == (4, data.in_features)
    assert target.is_floating_point() == (name == "diabetes")


def test_the_same_table_has_the_same_fingerprint_and_another_cell_another(houses, tmp_path):
    one, two = made(houses), made(houses)
    assert one.data_fingerprint() == two.data_fingerprint()
    assert made(houses, labelled=5).data_fingerprint() != one.data_fingerprint()
    text = Path(houses).read_text()
    row = int(rows_of(one, "train")[0]) + 1
    lines = text.splitlines()
    lines[row] = lines[row].rsplit(",", 1)[0] + ",999"
    (tmp_path / "other.csv").write_text("\n".join(lines))
    assert made(str(tmp_path / "other.csv")).data_fingerprint() != one.data_fingerprint()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target": "prize"}, "has no column 'prize'; it has size, kind"),
        ({"target": None}, "data.target: name the column"),
        ({"drop": ["sise"]}, "no column 'sise'"),
        ({"split": "group"}, r"data.split=group: name the column, data.group=NAME"),
        ({"inputs": ["size", "price"]}, "'price' is the target"),
        ({"inputs": ["dull"]}, "no column is left as input"),
        (
            {"target": "kind", "target_type": "values"},
            "data.target_type=values: column 'kind' holds 'a', which is no number",
        ),
        (
            {"target": ["price", "kind"]},
            "column 'kind' holds 'a', which is no number.*several columns are numbers each",
        ),
        ({"augment": True}, "data.augment"),
        ({"bundled": "iris"}, "one of them"),
        ({"split": "group", "group": "size"}, "rows have no size"),
        ({"test_size": 200}, "data.test_size=200 leaves nothing"),
        ({"train_size": 500}, "data.train_size=500"),
    ],
)
def test_what_cannot_be_meant_is_one_line(houses, settings, words):
    with pytest.raises(UserError, match=words) as caught:
        made(houses, **settings).setup("fit")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3\n", "line 3 has 1 cells, the first line names 2 columns"),
        ("a,a\n1,2\n", "names 'a' twice"),
        ("", "is empty"),
        ("a,b\n", "no rows"),
        ("a,b\n1,inf\n2,3\n4,5\n6,7\n8,9\n1,2\n1,3\n1,4\n", "holds inf"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        TableData(
            file=str(tmp_path / "t.csv"), target="a", target_type="values", batch_size=1, test_size=1, val_size=1
        ).setup("fit")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        made(str(tmp_path / "none.csv"))


def test_a_column_of_numbers_with_a_slip_is_told_and_not_left_out(tmp_path):
    rows = [[f"{k}.5", "ab"[k % 2], "1", "1", str(k)] for k in range(60)]
    rows[33][0] = "3O.5"
    made(write(tmp_path / "right.csv", [row for row in rows if row[0] != "3O.5"])).setup("fit")
    file = write(tmp_path / "typo.csv", rows)
    with pytest.raises(
        UserError,
        match=r"column 'size' holds numbers, but '3O\.5' is none: mend or empty it, or say data\.drop=\[size\]",
    ):
        made(file, val_size=2, test_size=2, split_seed=1).setup("fit")
    made(file, drop=["size"]).setup("fit")


def _ready(data):
    data.setup("fit")
    return data


@pytest.mark.parametrize(
    ("settings", "head"), [({}, "data.target"), ({"target_type": "values"}, "data.target_type=values")]
)
def test_prices_with_a_currency_are_shown_with_the_number_to_write(tmp_path, settings, head):
    rows = [[k, f"${100 + k // 2},967.8"] for k in range(60)]
    file = write(tmp_path / "prices.csv", rows, ("size", "price"))
    with pytest.raises(
        UserError, match=rf"{head}: column 'price' holds '\$100,967\.8'.*write plain numbers, 100967\.8"
    ):
        made(file, **settings)
    assert made(file, target_type="classes").num_classes == 30


def test_yes_and_no_in_several_columns_are_ones_and_zeros(tmp_path):
    rows = [[k, ("Yes", "no")[k % 2], ("true", "false")[k % 3 > 0], "" if k == 3 else "ny"[k % 2]] for k in range(40)]
    data = made(write(tmp_path / "tags.csv", rows, ("size", "a", "b", "c")), target=["a", "b", "c"])
    assert data.targets[:2].tolist() == [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert torch.isnan(data.targets[3]).tolist() == [False, False, True]


def test_inputs_in_a_unit_far_too_large_for_them_are_no_constants(tmp_path):
    rows = [[f"{1e-13 * (k % 7)}", k + 0.5] for k in range(60)]
    data = made(write(tmp_path / "farads.csv", rows, ("capacity", "price")))
    data.setup("fit")
    assert data.encoder.feature_names == ["capacity"]


@pytest.mark.parametrize(
    ("size", "price", "words"),
    [
        ("1.5", "inf", r"houses.csv, row 6: column 'price' holds inf, values must be finite: mend it"),
        ("-inf", "2.5", r"houses.csv, row 6: column 'size' holds -inf, values must be finite"),
        ("1.5", "1e39", r"houses.csv, row 6: column 'price' holds 1e\+39, more than a float32 holds"),
    ],
)
def test_an_infinite_cell_is_told_with_file_row_and_column_whatever_split_it_is_in(tmp_path, size, price, words):
    rows = [[f"{k}.5", f"{k}.25"] for k in range(40)]
    rows[5] = [size, price]
    with pytest.raises(UserError, match=words):
        made(write(tmp_path / "houses.csv", rows, ("size", "price")))


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (lambda k: f"{758621 + k},0", r"holds '758621,0', .*write plain numbers, 758621\.0;"),
        (lambda k: f"1.{234 + k},56", r"holds '1\.234,56', .*write plain numbers, 1234\.56;"),
        (lambda k: f"1,{234 + k},000", r"holds '1,234,000', .*write plain numbers, 1234000;"),
        (lambda k: f"1.{234 + k}.000", r"holds '1\.234\.000', .*write plain numbers, 1234000;"),
        (
            lambda k: f"758,{621 + k}",
            r"'758,621', .*, 758621 if the comma separates thousands, 758\.621 if it is a dec",
        ),
        (lambda k: f"0,{123 + k}", r"holds '0,123', .*write plain numbers, 0\.123;"),
        (lambda k: f"758,{621 + k}" if k else "758,62", r"holds '758,62', .*write plain numbers, 758\.62;"),
    ],
)
def test_decimal_commas_are_no_thousands(tmp_path, cells, words):
    file = write(tmp_path / "prices.csv", [[k, cells(k)] for k in range(59, -1, -1)][::-1], ("size", "price"))
    with pytest.raises(UserError, match=words):
        made(file)


def test_inputs_with_decimal_commas_are_left_out_with_what_to_write(tmp_path):
    file = write(tmp_path / "areas.csv", [[f"{k},5", k % 9, k + 0.5] for k in range(150)], ("area", "rooms", "price"))
    told = r"column 'area' holds numbers, with a comma, like '\d+,5', which is not read as a number: write plain .*it is left out"
    assert re.search(told, made(file).summary())


def test_a_column_that_numbers_the_rows_is_an_input_that_is_told(tmp_path):
    rng = np.random.default_rng(0)
    mixed = rng.permutation(60)
    rows = [[10_000 + k, 3 * k, mixed[k], f"{k}.5", rng.integers(9), 7 * mixed[k], k + 0.5] for k in range(60)]
    file = write(tmp_path / "a.csv", rows, ("id", "order", "mixed", "real", "rooms", "unlike", "price"))
    assert (
        "; id, order, mixed: whole numbers, another in each row, like an identifier: data.drop=[id,order,mixed] leaves"
        in made(file).summary()
    )
    assert "id" in _ready(made(file)).encoder.feature_names
    assert "identifier" not in made(file, drop=["id", "order", "mixed"]).summary()
    assert "identifier" not in made(file, inputs=["id", "rooms"]).summary()  # these were chosen


@pytest.mark.parametrize("name", ["bikeshare", "diabetes", "breast_cancer", "iris", "wine"])
def test_no_shipped_table_has_a_column_that_numbers_its_rows(name):
    table = bundled_table(name)
    assert row_numbers(table, list(table.columns)) == []


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        (
            ["a", "b", "a|b", "a|c", "b|c"],
            "price: classes, each combination is a class of its own ('a|b'); several labels",
        ),
        (["New York, NY", "Austin, TX", "Reno, NV"], None),
        (["cat", "dog"], None),
    ],
)
def test_labels_put_together_in_one_cell_are_told_as_the_classes_that_they_become(tmp_path, kinds, told):
    rows = [[k % 7, kinds[k % len(kinds)]] for k in range(60)]
    summary = made(write(tmp_path / "tags.csv", rows, ("size", "price"))).summary()
    assert told in summary if told else "combination" not in summary
