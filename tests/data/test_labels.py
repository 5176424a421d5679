"""What targets mean: cast where there is one meaning, refused where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kd_lightning.data.labels import read_labels
from kd_lightning.errors import UserError

N = 40
Y = torch.arange(N) % 4
SOFT = torch.softmax(torch.randn(N, 4, generator=torch.Generator().manual_seed(0)), 1)


@pytest.mark.parametrize(
    ("raw", "settings", "classes", "encoded", "note"),
    [
        (Y, {}, 4, Y, ""),
        (Y.int(), {}, 4, Y, "int32 become int64"),
        (Y.to(torch.uint8), {}, 4, Y, "uint8 become int64"),
        (Y > 1, {}, 2, (Y > 1).long(), "bool become int64"),
        (Y[:, None], {}, 4, Y, "labels (N, 1) become (N,)"),
        (F.one_hot(Y), {}, 4, Y, "one-hot rows"),
        (F.one_hot(Y).float(), {}, 4, Y, "one-hot rows"),
        (Y.double(), {"num_classes": 4}, 4, Y, "float64 become int64"),
        (Y.float(), {"target_type": "classes"}, 4, Y, "float32 become int64"),
        (Y.numpy(), {}, 4, Y, ""),
        ([f"c{k}" for k in Y], {}, 4, Y, "sorted"),
        ([f"c{k}" for k in Y], {"class_names": ["c3", "c2", "c1", "c0"]}, 4, 3 - Y, "the given order"),
        (2 * (Y % 2) - 1, {}, 2, Y % 2, "-1 and 1 become classes 0 and 1"),
        (Y + 1, {"classes": [1, 2, 3, 4]}, 4, Y, ""),
        ([f"c{k}" for k in Y], {"classes": ["c3", "c2", "c1", "c0"]}, 4, 3 - Y, ""),
        (torch.where(Y == 3, -100, Y), {}, 3, torch.where(Y == 3, -1, Y), "label -100 count as unlabelled"),
        (torch.where(Y == 3, 255, Y), {}, 3, torch.where(Y == 3, -1, Y), "10 samples with label 255"),
        (torch.where(Y == 3, 255, Y), {"num_classes": 5}, 5, torch.where(Y == 3, -1, Y), "label 255"),
        (torch.where(Y == 3, -1, Y), {}, 3, torch.where(Y == 3, -1, Y), "10 samples with label -1 are unlabelled"),
        (torch.where(Y == 3, torch.nan, Y.float()), {"num_classes": 3}, 3, torch.where(Y == 3, -1, Y), "become int64"),
        ([None if k == 3 else int(k) for k in Y], {}, 3, torch.where(Y == 3, -1, Y), "10 samples with label -1"),
        ([None if k == 3 else k for k in Y], {}, 3, torch.where(Y == 3, -1, Y), "10 samples with label -1"),
        ([None if k == 3 else "ab"[k % 2] for k in Y], {}, 2, torch.where(Y == 3, -1, Y % 2), "texts"),
    ],
)
def test_labels_with_one_meaning_become_class_numbers(raw, settings, classes, encoded, note):
    labels = read_labels(raw, "data.train", **settings)
    assert (labels.kind, labels.num_classes) == ("classes", classes)
    got = labels.encode(raw, N)
    assert got.dtype == torch.int64
    assert torch.equal(got, encoded)
    assert (note in "; ".join(labels.notes)) if note else not labels.notes


@pytest.mark.parametrize(
    ("raw", "settings", "kind", "size"),
    [
        (SOFT.double(), {}, "soft", 4),
        (torch.randn(N), {}, "values", 1),
        (torch.randn(N, 2).double(), {}, "values", 2),
        (Y.float(), {}, "values", 1),
        (Y + 18, {"target_type": "values"}, "values", 1),
        (torch.randint(2, (N, 6), generator=torch.Generator().manual_seed(0)), {}, "several", 6),
        (None, {}, "none", None),
        ([None] * N, {"num_classes": 7}, "none", 7),
        (None, {"class_names": ["cat", "dog", "cow"]}, "none", 3),
    ],
)
def test_targets_that_are_no_class_numbers_are_left_as_they_are(raw, settings, kind, size):
    labels = read_labels(raw, "data.train", **settings)
    assert (labels.kind, labels.num_classes) == (kind, size)
    got = labels.encode(raw, N)
    if kind == "none":
        assert got.tolist() == [-1] * N
    else:
        assert torch.equal(got, raw if kind == "several" else raw.float())


@pytest.mark.parametrize(
    ("raw", "settings", "told"),
    [
        (Y + 1, {}, r"labels count from 1 \(1, 2, 3, 4\): data\.classes=\[1,2,3,4\] numbers them from 0"),
        (
            Y + 1,
            {"num_classes": 4},
            r"num_classes=4, but a target is 4: classes count from 0; data\.classes=\[1,2,3,4\]",
        ),
        (torch.tensor([3, 17, 101, 9000])[Y], {}, r"labels leave numbers out \(3, 17, 101, 9000\): data\.classes="),
        (10**9 + Y, {}, r"labels leave numbers out"),
        (
            Y - 2,
            {},
            r"labels are -2, 0, 1: class numbers count from 0, and -1 marks no label; data\.classes=\[-2,0,1\]",
        ),
        (Y * 0, {}, r"all 40 labelled samples have the label 0: there is nothing to learn"),
        (["a"] * N, {}, r"all samples have the label 'a'"),
        (torch.arange(N), {}, r"40 samples have 40 different labels, from 0 to 39: these are positions or values"),
        ([f"{k}.jpg" for k in range(N)], {}, r"40 different texts as labels"),
        ([f"text {max(k, 3)}" for k in range(N)], {}, r"40 samples have 37 different texts as labels"),
        (Y + 0.5, {"target_type": "classes"}, r"a target is 0\.5: class numbers are whole"),
        ([{"y": 1}] * N, {}, r"a target is dict: expected a number, a text, or a tensor"),
        ([[1], [1, 2]] * 20, {}, r"a target is list"),
        (SOFT, {"num_classes": 3}, r"num_classes=3, but a target of data\.train has 4 columns"),
        (
            [f"c{k}" for k in Y],
            {"class_names": ["c0", "c1", "c2"]},
            r"label 'c3', which data\.class_names does not have",
        ),
        (Y, {"classes": [0, 1, 2]}, r"a sample has the label 3, the classes are 0, 1, 2"),
        (Y, {"classes": [0, 0, 1]}, r"data\.classes must name each label once"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused_with_what_to_type(raw, settings, told):
    with pytest.raises(UserError, match=told) as caught:
        read_labels(raw, "data.train", **settings)
    assert "\n" not in str(caught.value)


def test_another_data_set_has_the_training_labels():
    labels = read_labels(["cat", "dog"] * 9, "data.train").of("data.val")
    assert labels.encode(["dog", None], 2).tolist() == [1, -1]
    with pytest.raises(UserError, match=r"data\.val: a sample has the label 'cow', the classes are cat, dog"):
        labels.encode(["cow"], 1)
    numbers = read_labels(Y, "data.train").of("data.test")
    with pytest.raises(UserError, match=r"data\.test: a label is 4, the classes count from 0 to 3"):
        numbers.encode(np.array([4]), 1)
    with pytest.raises(UserError, match=r"data\.test: a label is -7: class numbers count from 0"):
        numbers.encode(torch.tensor([-7]), 1)


def test_masks_are_class_numbers_with_one_ignored():
    masks = torch.randint(3, (6, 4, 4), generator=torch.Generator().manual_seed(0))
    masks[0, 0] = 255
    labels = read_labels(masks, "data.train")
    assert (labels.kind, labels.num_classes, labels.ignored) == ("classes", 3, (255,))
    assert int(labels.encode(masks, 6)[0, 0, 0]) == -1


def test_class_names_that_differ_by_capitals_or_blanks_are_warned_of(caplog):
    read_labels(["low", "Low", "high", " low"] * 10, "data.train")
    assert "WARNING: data.train: classes that differ by capitals or blanks only" in caplog.text
    assert all(name in caplog.text for name in ("' low'", "'Low'", "'low'"))


@pytest.mark.parametrize("names", [["low", "high"], ["a", "A"], ["one two", "onetwo"]])
def test_other_class_names_and_single_letters_are_not(caplog, names):
    read_labels(names * 10, "data.train")
    assert "WARNING" not in caplog.text
