"""A user's own data sets."""

from __future__ import annotations

import threading

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from kd_lightning.batch import UNLABELLED
from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.dataset import DatasetData
from kd_lightning.data.module import read_samples
from kd_lightning.errors import UserError


class Squares(Dataset):
    """What a user would write: image (3, 6, 6) whose pixels are the item's number, class number % 3."""

    def __init__(self, n: int = 60) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int):
        return torch.full((3, 6, 6), float(index)), index % 3


def module(train=None, **settings):
    return DatasetData(train if train is not None else Squares(), **{"batch_size": 6, "val_size": 12, **settings})


def numbers(batches) -> list[int]:
    return [int(x.max()) for b in batches for x in b.inputs]


def test_missing_splits_are_split_off_by_class_without_overlap():
    data = module()
    parts = [numbers(data.train_dataloader()), numbers(data.val_dataloader()), numbers(data.test_dataloader())]
    assert [len(p) for p in parts] == [36, 12, 12]
    assert sorted([*parts[0], *parts[1], *parts[2]]) == list(range(60))
    for part in parts:
        assert torch.tensor(part).remainder(3).bincount().tolist() == [len(part) // 3] * 3


def test_the_test_samples_are_the_same_whatever_the_other_settings():
    one, two = module(), module(seed=4, split_seed=9, val_size=5, augment=True, labelled=9)
    assert numbers(one.test_dataloader()) == numbers(two.test_dataloader())
    assert numbers(one.val_dataloader()) != numbers(two.val_dataloader())


def test_own_validation_and_test_sets_are_used_whole():
    data = module(val=Squares(9), test=Squares(15))
    assert sorted(numbers(data.train_dataloader())) == list(range(60))
    assert numbers(data.val_dataloader()) == list(range(9))
    assert numbers(data.test_dataloader()) == list(range(15))


def test_the_models_are_told_what_they_need():
    data = module()
    assert (data.num_classes, data.in_channels, data.image_size, data.in_features) == (3, 3, 6, 108)
    assert data.mean == [0.0] * 3
    assert data.std == [1.0] * 3
    assert data.views == 1
    assert data.example_batch().inputs.shape == (2, 3, 6, 6)


def test_flat_inputs_and_values_as_targets():
    x, y = torch.randn(50, 7), torch.randn(50, 2)
    data = DatasetData(TensorDataset(x, y), batch_size=8, val_size=10)
    assert (data.num_classes, data.in_features) == (2, 7)
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs.shape == (8, 7)
    assert batch.target.shape == (8, 2)


def test_kept_targets_are_used_only_if_they_are_the_items_own():
    class Kept(Squares):
        targets = property(lambda self: [k % 3 for k in range(self.n)])
        read = 0

        def __getitem__(self, index):
            type(self).read += 1
            return super().__getitem__(index)

    class Wrong(Squares):
        targets = property(lambda self: [k % 5 for k in range(self.n)])

    assert module(Kept()).num_classes == 3
    assert Kept.read < 10
    assert module(Wrong()).num_classes == 3


def test_augmented_views_are_the_same_alone_and_in_any_batch():
    class Ramp(Squares):
        def __getitem__(self, index):
            return torch.arange(36.0).view(1, 6, 6) + index, index % 3

    data = module(Ramp(), augment={"crop_padding": 2, "flip": True})
    assert data.views == 0
    loader = data.train_dataloader()
    loader.set_epoch(3)
    changed = 0
    for batch in loader:
        for place in range(len(batch.index)):
            inputs, target = read_samples(data.train_views_dataset, batch.index[place : place + 1], 3)
            assert torch.equal(inputs[0], batch.inputs[place])
            assert target[0] == batch.target[place]
            other = read_samples(data.train_views_dataset, batch.index[place : place + 1], 4)[0][0]
            changed += not torch.equal(other, inputs[0])
    assert changed > 25


def test_labels_are_hidden_for_the_loss_only():
    data = module(labelled=9)
    targets = torch.cat([b.target for b in data.train_dataloader()])
    assert (targets != UNLABELLED).sum() == 9
    assert targets[targets != UNLABELLED].bincount().tolist() == [3, 3, 3]
    assert all((b.target != UNLABELLED).all() for b in data.val_dataloader())


def test_a_data_set_that_gathers_is_read_in_whole_batches():
    class Counting(ArrayData):
        calls = []

        def gather(self, indices, view):
            self.calls.append(len(indices))
            return super().gather(indices, view)

    pixels = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(60, 1, 4, 4).contiguous()
    data = module(Counting(pixels, torch.arange(60) % 3))
    assert sorted(numbers(data.train_dataloader()) + numbers(data.val_dataloader())) == sorted(
        set(range(60)) - set(numbers(data.test_dataloader()))
    )
    assert sum(size for size in Counting.calls if size > 1) == 60  # single ones are checks when it is made


def test_per_thread_copies_reach_the_users_data_set():
    class Handle(Squares):
        def __init__(self):
            super().__init__()
            self.owner = threading.get_ident()

        def per_thread(self):
            return Handle()

        def __getitem__(self, index):
            assert self.owner == threading.get_ident()
            return super().__getitem__(index)

    data = module(Handle(), num_threads=3)
    assert len(numbers(data.train_dataloader())) == 36


def test_a_failing_item_is_named_by_the_users_own_description():
    class Failing(Squares):
        def __getitem__(self, index):
            if index == 31:
                raise OSError("disk on fire")
            return super().__getitem__(index)

        def describe(self, index):
            return f"/photos/{index}.raw"

    with pytest.raises(UserError, match=r"data\.train: .*/photos/31\.raw.* cannot be read: OSError: disk on fire"):
        module(Failing()).setup()


def test_an_item_that_fails_later_is_named_too():
    class Failing(Squares):
        broken = False

        def __getitem__(self, index):
            if self.broken and index == 31:
                raise OSError("disk on fire")
            return super().__getitem__(index)

    data = module(Failing())
    loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    Failing.broken = True
    with pytest.raises(UserError, match=r"item 31 of the training data.*disk on fire"):
        [list(loader) for loader in loaders]


def test_fingerprints_tell_data_apart():
    class Brighter(Squares):
        def __getitem__(self, index):
            return torch.full((3, 6, 6), index + 0.5), index % 3

    modules = [module(), module(Brighter()), module(Squares(66)), module(split_seed=1), module(labelled=3)]
    assert len({m.data_fingerprint() for m in modules}) == 5
    assert module(batch_size=3, seed=1).data_fingerprint() == modules[0].data_fingerprint()


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(3), 0)])


class Items(Squares):
    item: object = None

    def __getitem__(self, index):
        return self.item


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train": Stream()}, r"data\.train must be a data set with len"),
        ({"train": Squares(0)}, r"data\.train: Squares has no samples"),
        ({"train": type("One", (Items,), {"item": torch.zeros(3)})()}, r"an item of One must be \(inputs, target\)"),
        ({"train": type("Three", (Items,), {"item": (1, 2, 3)})()}, r"an item of Three must be \(inputs, target\)"),
        ({"train": type("Odd", (Items,), {"item": (object(), 1)})()}, r"of tensors, arrays or numbers, got \(object"),
        ({"train": type("Dicts", (Items,), {"item": ({"x": 1}, 1)})()}, r"one tensor each, got dict"),
        ({"test": Squares(0)}, r"data\.test: Squares has no samples"),
        ({"val": Squares(0)}, r"data\.val: Squares has no samples"),
        ({"num_classes": 2}, r"data\.num_classes=2, but a target is 2"),
        ({"test_size": 0}, r"data\.test_size"),
        ({"test_size": 60}, r"data\.test_size=60 leaves nothing"),
        ({"val_size": 48}, r"data\.val_size=48 leaves nothing"),
        ({"labelled": 37}, r"data\.labelled=37 is more than the 36"),
        ({"train_size": 37}, r"data\.train_size=37"),
        ({"train": TensorDataset(torch.randn(20, 4), torch.zeros(20)), "augment": True}, r"data\.augment crops images"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(settings, told):
    with pytest.raises(UserError, match=told) as caught:
        [read() for made in [module(**settings)] for read in (made.setup, made.test_dataloader)]
    assert "\n" not in str(caught.value)
