"""Validation and test samples that are trained on are counted and told; equal samples that are natural are not."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from sklearn import datasets
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

import kd_lightning as kd
from kd_lightning.data import content
from kd_lightning.data.dataset import DatasetData

DRAW = torch.Generator().manual_seed(0)
X, Y = torch.rand(400, 8, generator=DRAW), torch.arange(400) % 3
NEW = TensorDataset(torch.rand(100, 8, generator=DRAW), Y[:100])
TRAIN = TensorDataset(X, Y)


def told(train, settings_of_data=None, **splits) -> list[str]:
    data = DatasetData(train, batch_size=8, **splits, **(settings_of_data or {}))
    data.setup("fit")
    return [note for note in data.notes if "training samples" in note]


class Own(Dataset):
    """Items by name, made anew each time."""

    def __init__(self, rows) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        row = self.rows[index]
        return {"image": np.array(X[row].tolist()), "size": float(row), "label": int(Y[row])}


def test_a_part_of_the_training_arrays_as_test_data_is_warned_of_once_with_its_count(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        kd.distill(
            teacher=None, student=nn.Linear(8, 3), train=(X, Y), test=(X[:200], Y[:200]), val=(NEW.tensors),
            max_epochs=1, batch_size=8, run_dir="run", baseline=False, verbose=False,
        )  # fmt: skip
    lines = [record.getMessage() for record in caplog.records if "training samples" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("WARNING: data.test: 200 of its 200 samples are training samples too")


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize(
    ("samples", "count"),
    [
        (TensorDataset(torch.cat([X[7:27], NEW.tensors[0][:80]]), Y[:100]), "20 of its 100"),
        (TensorDataset(X.flip(0).double(), Y), "400 of its 400"),
        (Subset(TRAIN, range(0, 400, 4)), "100 of its 100"),
    ],
    ids=["a fifth, with other labels", "in another order and width", "rows of the same data set"],
)
def test_samples_of_both_are_counted(split, samples, count):
    given = {"test": NEW, "val": NEW, split: samples}
    (note,) = told(TRAIN, **given)
    assert note.startswith(f"data.{split}: {count} samples are training samples too")


def test_only_what_is_trained_on_counts():
    rest = Subset(TRAIN, range(200, 400))
    assert told(Subset(TRAIN, range(200)), test=rest) == []
    (note,) = told(TRAIN, {"val_size": 100}, test=TensorDataset(X, Y + 0))
    assert note.startswith("data.test: these are the training samples")
    (note,) = told(TRAIN, {"val_size": 100}, test=TensorDataset(X[:300], Y[:300]))
    assert "of its 300" in note
    assert 200 < int(note.split()[1]) < 250


def test_data_sets_of_ones_own_are_compared_by_their_items():
    assert told(Own(range(200)), test=Own(range(200, 400))) == []
    (note,) = told(Own(range(200)), {"val_size": 20}, test=Own(range(100, 300)))
    assert "of its 200 samples are training samples too" in note


def test_of_many_training_samples_a_part_is_looked_at_and_the_count_is_said_to_be_about(monkeypatch):
    monkeypatch.setattr(content, "ITEMS", 100)
    (note,) = told(TRAIN, val=NEW, test=TensorDataset(X[:300], Y[:300]))
    share = int(note.split("about ")[1].split("%")[0])
    assert 85 <= share <= 100
    assert told(TRAIN, val=NEW, test=NEW) == []


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.parametrize("name", ["iris", "digits", "three columns", "seven columns"])
def test_equal_samples_that_are_natural_are_not_told(name, seed):
    order = torch.Generator().manual_seed(seed)
    if name in ("iris", "digits"):
        x, y = (torch.tensor(part) for part in getattr(datasets, f"load_{name}")(return_X_y=True))
    else:
        x = torch.randint(5, (900, 3 if name == "three columns" else 7), generator=order)
        y = x[:, 0] % 2
    rows = torch.randperm(len(x), generator=order)
    test, train = rows[: len(x) // 5], rows[len(x) // 5 :]
    assert told(TensorDataset(x[train].float(), y[train]), test=TensorDataset(x[test].float(), y[test])) == []
