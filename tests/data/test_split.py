"""Splits, subsets and hidden labels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_lightning.batch import UNLABELLED
from kd_lightning.data.split import count_of, hide_labels, keep_first, stratified_order
from kd_lightning.errors import UserError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(0, 5))
def test_an_order_is_a_permutation_whose_prefixes_hold_the_classes_in_proportion(classes, seed):
    targets = torch.tensor(classes)
    order = stratified_order(targets, seed)
    assert sorted(order.tolist()) == list(range(len(classes)))
    share = targets.bincount(minlength=5) / len(classes)
    for size in range(1, len(classes) + 1):
        assert ((targets[order[:size]].bincount(minlength=5) - size * share).abs() <= 5 / 2 + 1e-3).all()


def test_the_order_is_fixed_for_ever():
    # splits must not change between machines or versions: these are the values of the first release
    assert stratified_order(torch.arange(10) % 2, 0).tolist() == [3, 0, 9, 4, 2, 7, 6, 1, 5, 8]
    assert stratified_order(torch.arange(10).float(), 1).tolist() == [2, 8, 1, 4, 7, 3, 6, 0, 9, 5]


def test_seeds_give_different_orders_and_values_are_shuffled():
    targets = torch.arange(200) % 4
    assert not torch.equal(stratified_order(targets, 0), stratified_order(targets, 1))
    order = stratified_order(torch.linspace(0, 1, 200), 0)
    assert sorted(order.tolist()) == list(range(200))
    assert not torch.equal(order, torch.arange(200))


def test_sizes_are_numbers_or_fractions():
    assert count_of(0.25, 8, "data.val_size") == 2
    assert count_of(0.001, 8, "data.val_size") == 1
    assert count_of(3, 8, "data.val_size") == 3
    with pytest.raises(UserError, match=r"data\.val_size=8 leaves nothing of 8"):
        count_of(8, 8, "data.val_size")


def test_subsets_are_nested_and_bounded():
    order = torch.arange(10)
    assert torch.equal(keep_first(order, 4), keep_first(order, 6)[:4])
    assert keep_first(order, None) is order
    with pytest.raises(UserError, match=r"data\.train_size=11"):
        keep_first(order, 11)


def test_labels_are_hidden_behind_the_first():
    targets = torch.tensor([3, 1, 2])
    assert hide_labels(targets, 1).tolist() == [3, UNLABELLED, UNLABELLED]
    assert hide_labels(targets, 0).tolist() == [UNLABELLED] * 3
    assert targets.tolist() == [3, 1, 2]
    with pytest.raises(UserError, match=r"data\.labelled=4"):
        hide_labels(targets, 4)
    values = hide_labels(targets.float(), 1)
    assert values[0] == 3
    assert values[1:].isnan().all()
