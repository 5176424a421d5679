"""Items of any structure: what is the target, what are the inputs, how they become a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_lightning.data.items import ItemForm
from kd_lightning.errors import UserError

X = torch.arange(3.0)


class Named(NamedTuple):
    pixels: Tensor
    label: int


@dataclass
class Made:
    left: Tensor
    right: Tensor
    y: int


@pytest.mark.parametrize(
    ("item", "inputs", "target"),
    [
        ((X, 1), X, 1),
        ([X, 1], X, 1),
        ((X, X, 1), (X, X), 1),
        ((X,), X, None),
        (X, X, None),
        ({"x": X, "y": 1}, X, 1),
        ({"a": X, "b": X, "labels": 1}, {"a": X, "b": X}, 1),
        ({"a": X, "b": X}, {"a": X, "b": X}, None),
        (Named(X, 1), X, 1),
        (Made(X, X, 1), {"left": X, "right": X}, 1),
        (({"a": X, "b": X}, 1), {"a": X, "b": X}, 1),
    ],
)
def test_an_item_is_taken_apart_by_its_form(item, inputs, target):
    assert repr(ItemForm().split(item)) == repr((inputs, target))


def test_the_configuration_names_target_and_inputs():
    item = {"id": "a", "pixels": X, "kind": 2, "label": 1}
    assert repr(ItemForm("kind", ["pixels"]).split(item)) == repr((X, 2))
    assert repr(ItemForm("kind", "pixels").split(item)) == repr((X, 2))
    assert repr(ItemForm(1).split((X, 1, 7))) == repr(((X, 7), 1))
    assert repr(ItemForm(1, [0]).split((X, 1, 7))) == repr((X, 1))
    assert repr(ItemForm("none").split((X, X))) == repr(((X, X), None))
    with pytest.raises(
        UserError, match=r"data\.target=klass: an item has no such field, it has id, pixels, kind, label"
    ):
        ItemForm("klass").split(item)
    with pytest.raises(UserError, match=r"data\.inputs=image: an item has no such field"):
        ItemForm(None, ["image"]).split(item)
    with pytest.raises(UserError, match=r"data\.target=label: items are no structure but Tensor"):
        ItemForm("label").split(X)


def test_tensors_arrays_and_numbers_are_stacked_and_texts_stay_a_list():
    items = [{"x": X + k, "a": np.full(2, k), "n": [1, 2, k], "text": f"t{k}", "y": k} for k in range(3)]
    inputs, target = ItemForm().batch(items)
    assert torch.equal(inputs["x"], torch.stack([X, X + 1, X + 2]))
    assert inputs["a"].shape == (3, 2)
    assert inputs["n"].tolist() == [[1, 2, 0], [1, 2, 1], [1, 2, 2]]
    assert inputs["text"] == ["t0", "t1", "t2"]
    assert target.tolist() == [0, 1, 2]


def test_a_batch_without_targets_has_none():
    inputs, target = ItemForm().batch([X, X])
    assert (inputs.shape, target) == ((2, 3), None)


def test_a_collate_function_gets_the_items_as_they_are():
    seen = []

    def pad(items):
        seen.extend(items)
        longest = max(len(item["ids"]) for item in items)
        ids = torch.tensor([item["ids"] + [0] * (longest - len(item["ids"])) for item in items])
        return {"ids": ids, "mask": ids != 0, "label": torch.tensor([item["label"] for item in items])}

    items = [{"ids": [1, 2, 3], "label": 1}, {"ids": [4], "label": 0}]
    inputs, target = ItemForm(collate_fn=pad).batch(items)
    assert seen == items
    assert inputs["ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert target.tolist() == [1, 0]


def test_what_cannot_be_stacked_says_so():
    with pytest.raises(ValueError, match=r"has the shape \(4,\), others have \(3,\): .*data\.collate_fn"):
        ItemForm().batch([(X, 0), (torch.zeros(4), 0)])
    with pytest.raises(TypeError, match=r"tensors, arrays, numbers and texts, got builtins\.object"):
        ItemForm().batch([(object(), 0)])
