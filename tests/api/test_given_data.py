"""What people hand over as data becomes ``data=dataset``; what would be lost on the way is refused."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from given_models import blobs
from quick import QUICK
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

import kd_lightning as kd
from kd_lightning.api.datasets import choose_data
from kd_lightning.api.options import Options
from kd_lightning.config import given
from kd_lightning.errors import UserError


def node_of(train, val=None, test=None) -> tuple[dict, Options]:
    options = Options()
    choose_data(options, train, val, test)
    return options._nodes["data", "given"], options


def held(node: dict):
    return given.itself(node["path"], node["content"])


def test_a_loader_says_its_batch_size_and_its_collate_function():
    def collate(items):
        return torch.stack([item[0] for item in items]), torch.tensor([int(item[1]) for item in items])

    dataset = TensorDataset(*blobs(20))
    node, _options = node_of(DataLoader(dataset, batch_size=5, shuffle=True, collate_fn=collate, drop_last=True))
    assert (node["batch_size"], node["drop_last"]) == (5, True)
    assert held(node["train"]) is dataset
    assert held(node["collate_fn"]) is collate


def test_a_data_module_gives_its_three_loaders():
    class Module(pl.LightningDataModule):
        def setup(self, stage):
            self.sets = [TensorDataset(*blobs(rows)) for rows in (20, 12)]

        def train_dataloader(self):
            return DataLoader(self.sets[0], batch_size=4)

        def val_dataloader(self):
            return DataLoader(self.sets[1], batch_size=9)

    module = Module()
    node, _options = node_of(module)
    assert held(node["val"]) is module.sets[1]
    assert node["batch_size"] == 4
    assert "test" not in node


@pytest.mark.parametrize("columns", [(np.zeros((6, 2)), np.arange(6)), (torch.zeros(6, 2), np.arange(6))])
def test_arrays_are_rows(columns):
    node, _options = node_of(columns)
    assert [len(part) for part in held(node["train"])[0:3]] == [3, 3]


def test_a_table_of_pandas_with_its_columns_in_another_order_is_taken_by_name_to_the_last_call(folder):
    pandas = pytest.importorskip("pandas")
    inputs, target = blobs(120)
    table = pandas.DataFrame(inputs.numpy(), columns=list("abcdefgh"))
    turned = table[list("hgfedcba")]
    node, _options = node_of((table, target), test=(turned + 1, target))
    assert torch.equal(held(node["test"]).tensors[0], inputs + 1)
    result = kd.distill(
        None,
        lambda: nn.Linear(8, 3),
        (table, target),
        test=(turned + 0.01, target),
        max_epochs=1,
        settings=QUICK,
        verbose=False,
    )
    assert torch.equal(result.predict(turned), result.predict(inputs))
    told = "the columns are not those of the training table: a missing; q new"
    for refused in (
        lambda: node_of((table, target), val=(table.rename(columns={"a": "q"}), target)),
        lambda: result.predict(table.rename(columns={"a": "q"})),
    ):
        with pytest.raises(UserError, match=told):
            refused()


def test_tables_of_pandas_and_texts_as_labels_are_rows():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": [0.5, 1.5], "b": [2.0, 3.0]})
    node, _options = node_of((table, pandas.Series(["cat", "dog"])))
    inputs, target = held(node["train"])[1]
    assert (inputs.tolist(), target) == ([1.5, 3.0], "dog")


@pytest.mark.parametrize("labels", [[0, 2], ["cat", "dog"]])
def test_a_plain_list_of_labels_is_a_column(labels):
    node, _options = node_of((np.zeros((2, 3)), labels))
    assert [held(node["train"])[row][1] for row in range(2)] == labels


@pytest.mark.parametrize("labels", [torch.arange(5), [0, 1, 0, 1, 0]])
def test_a_list_of_inputs_and_targets_is_the_pair(labels):
    node, _options = node_of([torch.zeros(5, 3), labels])
    assert len(held(node["train"])) == 5
    assert held(node["train"])[3][0].shape == (3,)
    assert int(held(node["train"])[3][1]) == int(labels[3])


@pytest.mark.parametrize("samples", [[torch.zeros(3)] * 3, [1, 2], [(0.0, 1), (0.0,)], [{"x": 1, "y": 0}] * 3])
def test_a_list_that_is_neither_a_pair_nor_samples_is_one_line(samples):
    with pytest.raises(UserError, match=r"train: a list .*give arrays \(inputs, targets\)"):
        node_of(samples)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("train", "line"),
    [
        (
            DataLoader(TensorDataset(*blobs(6)), sampler=WeightedRandomSampler([1.0] * 6, 6)),
            "train: the loader draws by WeightedRandomSampler",
        ),
        (Stream(), "train: a stream has no positions"),
        (DataLoader(Stream()), "train: "),
        (blobs, "train: give a torch Dataset"),
    ],
)
def test_what_would_be_lost_is_refused(train, line):
    with pytest.raises(UserError, match=line):
        node_of(train)


class Noise(Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return torch.rand(3), index


def test_the_digest_of_a_data_set_is_of_what_is_in_it():
    first, same, other = (given.node_of_dataset(TensorDataset(*blobs(30, seed))) for seed in (0, 0, 1))
    assert first == same != other
    longer = given.node_of_dataset(TensorDataset(*blobs(31, 0)))
    assert longer != first
    noise = Noise()
    assert given.node_of_dataset(noise) == given.node_of_dataset(noise)
