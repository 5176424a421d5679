"""Validation and test data are looked at before anything is trained: their form, their labels, whether they are new."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import kd_lightning as kd
from kd_lightning.api.datasets import Rows
from kd_lightning.data.dataset import DatasetData
from kd_lightning.errors import UserError

X, Y = torch.rand(60, 8, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
TRAIN = TensorDataset(X, Y)


def module(**settings):
    made = DatasetData(**{"train": TRAIN, "batch_size": 8, **settings})
    made.setup("fit")
    return made


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (TensorDataset((X * 16).to(torch.uint8), Y), "inputs are of type uint8, those of data.train float: give both alike"),
        (TensorDataset(X[:, :4], Y), r"inputs have the shape \(4,\), those of data.train \(8,\)"),
        (TensorDataset(X + 1, nn.functional.one_hot(Y)), r"a target has the shape \(3,\), one of data.train \(\): give both alike"),
        (TensorDataset(X, Y + 7), "a label is 9, the classes count from 0 to 2"),
    ],
    ids=["bytes", "shape", "one-hot", "labels"],
)  # fmt: skip
def test_what_is_not_like_the_training_samples_is_told_before_anything_is_trained(split, samples, message):
    with pytest.raises(UserError, match=rf"data\.{split}: {message}"):
        module(**{split: samples})


def test_class_numbers_beside_one_hot_rows_are_refused_and_beside_a_column_taken():
    one_hot = TensorDataset(X, nn.functional.one_hot(Y).float())
    with pytest.raises(
        UserError, match=r"data\.test: a target has the shape \(\), one of data.train \(3,\): give both"
    ):
        module(train=one_hot, test=TensorDataset(X + 1, Y))
    for target in (Y, X.sum(1)):
        module(train=TensorDataset(X, target[:, None]), test=TensorDataset(X + 1, target))
        module(train=TensorDataset(X, target), test=TensorDataset(X + 1, target[:, None]))


def test_a_text_label_that_only_the_test_set_has_is_told_as_it_is_written():
    texts = np.array(list("abc"))[Y]
    with pytest.raises(UserError, match=r"data\.test: a sample has the label 'd', the classes are a, b, c"):
        module(train=Rows((X.numpy(), texts)), test=Rows((X.numpy(), np.where(texts == "b", "d", texts))))


def test_floats_of_another_width_and_bytes_that_are_cast_are_alike():
    assert module(test=TensorDataset(X.double() + 1, Y)).notes == []
    whole = TensorDataset((X * 16).to(torch.uint8), Y)
    module(test=whole, input_type="float32")


def test_the_training_samples_in_the_place_of_new_ones_are_told_of():
    assert any(note.startswith("data.test: these are the training samples") for note in module(test=TRAIN).notes)
    assert any("data.val: these are" in note for note in module(val=TensorDataset(X.clone(), Y)).notes)


def test_a_sample_of_validation_that_holds_nan_is_warned_of(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    broken = X.clone()
    broken[5, 2] = float("nan")
    settings = {"teacher": None, "student": nn.Linear(8, 3), "train": TRAIN, "max_epochs": 1, "batch_size": 8}
    with caplog.at_level(logging.WARNING):
        result = kd.distill(val=TensorDataset(broken, Y), run_dir="run", baseline=False, verbose=False, **settings)
    assert "the inputs of sample 5, item 5 of the validation data hold nan or inf" in caplog.text
    assert any("hold nan or inf" in text for text in result.result["warnings"])


class Named(Dataset):
    """Items with a field beside picture and label."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int):
        return {"image": X[index], "w": torch.tensor(1.0), "label": int(Y[index])}


def test_several_inputs_where_a_model_takes_one_are_told_with_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"teacher": None, "batch_size": 8, "verbose": False}
    with pytest.raises(UserError, match=r"its inputs are called image, w: .*inputs.*image"):
        kd.distill(student=nn.Linear(8, 3), train=Named(), **settings)


def test_a_batch_of_one_is_tried_as_such_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    with pytest.raises(UserError, match=r"student fails on one batch.*Expected more than 1 value per channel"):
        kd.distill(teacher=None, student=layers, train=TRAIN, batch_size=1, verbose=False)
