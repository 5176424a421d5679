"""What is handed over becomes overrides and data: nothing is taken twice, nothing is lost on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import kd_lightning as kd
from kd_lightning.api.datasets import choose_data
from kd_lightning.api.distill import chosen
from kd_lightning.api.options import Options
from kd_lightning.config.given import module_digest
from kd_lightning.data.content import item_digest
from kd_lightning.errors import UserError
from kd_lightning.tensor_bytes import bytes_of

X, Y = np.random.RandomState(0).rand(30, 4).astype("float32"), np.arange(30) % 3


def call(**changes):
    given = {"teacher": None, "student": "mlp", "train": "digits", "val": None, "test": None, "method": "kd"}
    given |= {"optimizer": None, "baseline": True, "settings": None, "weights": None}
    return chosen(**{**given, **changes}).overrides


def data_of(train):
    options = Options()
    choose_data(options, train)
    return options.objects[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 2, "settings": {"method.temperature": 8}},
         "method.temperature: given twice, temperature=2 and method.temperature=8: which of them is meant"),
        ({"max_epochs": 2, "settings": {"trainer.max_epochs": 1}}, "trainer.max_epochs: given twice"),
        ({"weights": {"kd": 0.5}, "settings": {"method.weights.kd": 1}}, "method.weights.kd: given twice"),
        ({"baseline": False, "settings": {"baseline": True}}, "baseline: given twice"),
        ({"seed": 3, "settings": {"seed": 5}}, "seed: given twice, seed=5 and seed=3"),
        ({"run_dir": "a", "settings": {"run_dir": "b"}}, "run_dir: given twice"),
    ],
)  # fmt: skip
def test_a_key_that_is_given_twice_is_refused(arguments, message, folder):
    with pytest.raises(UserError, match=message):
        kd.distill(**arguments)
    assert not any(folder.iterdir())


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("temprature", "; did you mean 'temperature'?"),
        ("epochs", "; did you mean 'max_epochs'?"),
        ("precision", '; a key of the configuration is given as settings={"precision": ...}'),
    ],
)
def test_an_unknown_argument_is_one_line_with_the_one_that_was_meant(word, hint):
    for function, needed in ((kd.distill, {}), (kd.sweep, {"over": {"lr": [1]}})):
        with pytest.raises(UserError) as told:
            function(**needed, **{word: 3})
        assert str(told.value) == f"{word}: {function.__name__} has no such argument{hint}"


def test_a_list_of_methods_is_what_it_is_on_the_command_line():
    assert "method='kd+rkd'" in call(method=["kd", "rkd"])


def test_a_key_that_a_sweep_varies_is_not_given_beside(folder):
    with pytest.raises(UserError, match=r"method\.temperature: given twice, temperature=2 and method\.temperature=1,4"):
        kd.sweep(temperature=2, over={"method.temperature": [1, 4]})


def test_the_same_value_twice_and_the_seed_among_the_settings_are_taken():
    assert "method.temperature=2" in call(temperature=2, settings={"method.temperature": 2})
    assert "seed=5" in call(settings={"seed": 5})
    assert "baseline=false" in call(settings={"baseline": False})


@pytest.mark.parametrize(
    "train",
    [
        (X[::-1], Y[::-1]),
        (X[::-1].astype(">f4"), Y[::-1].astype(">i8")),
        (X[::-1].tolist(), Y[::-1].tolist()),
        (torch.from_numpy(X[::-1].copy()), torch.from_numpy(Y[::-1].copy())),
    ],
    ids=["backwards", "big endian", "lists", "tensors"],
)
def test_arrays_of_any_order_are_the_same_samples(train, recwarn):
    inputs, target = data_of(train).tensors
    assert torch.equal(inputs, torch.from_numpy(X[::-1].copy()))
    assert torch.equal(target, torch.from_numpy(Y[::-1].copy()))
    assert not recwarn.list


def test_an_array_that_cannot_be_written_to_is_copied_without_a_word(recwarn):
    fixed = X.copy()
    fixed.setflags(write=False)
    assert data_of((fixed, Y)).tensors[0].data_ptr() != torch.from_numpy(X).data_ptr()
    assert not recwarn.list


def test_labels_that_begin_with_none_are_labels():
    assert data_of((X, [None, None, *Y[2:].tolist()]))[1][1] is None


def test_masked_values_are_not_taken_for_numbers():
    with pytest.raises(UserError, match="train: 1 values of an array are masked"):
        data_of((np.ma.masked_where(X[3, 2] == X, X), Y))


def test_a_single_value_of_any_stride_has_a_digest():
    column = torch.arange(6).view(3, 2)[:1, 1:]
    assert bytes_of(column).tobytes() == bytes_of(torch.tensor([[1]])).tobytes()
    assert item_digest(column[0]) == item_digest(torch.tensor([1]))
    layer = nn.Linear(1, 1)
    layer.weight = nn.Parameter(torch.rand(4, 4)[:1, ::4])
    assert len(module_digest(layer)) == 32
