"""A user's own data sets."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from kd_lightning.batch import UNLABELLED
from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.dataset import DatasetData
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


def loops(made):
    loaders = (made.train_dataloader, made.val_dataloader, made.test_dataloader)
    return [lambda loader=loader: list(loader()) for loader in loaders]


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
    assert data.sizes() == {"num_classes": 3, "in_channels": 3, "image_size": 6, "in_features": 108}
    assert (data.mean, data.std) == (None, None)  # nobody said what was done to the pixels
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
            inputs, target = data.train_views_dataset.read(batch.index[place : place + 1], 3)
            assert torch.equal(inputs[0], batch.inputs[place])
            assert target[0] == batch.target[place]
            other = data.train_views_dataset.read(batch.index[place : place + 1], 4)[0][0]
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


class Rewriting(Squares):
    memory = torch.zeros(3, 6, 6)

    def __getitem__(self, index):
        return self.memory.fill_(index), index % 3


class Ragged(Squares):
    def __getitem__(self, index):
        return torch.zeros(3, 6, 6 + (index == 33)), index % 3


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train": Stream()}, r"data\.train must be a data set with len"),
        ({"train": Squares(0)}, r"data\.train: Squares has no samples"),
        ({"train": type("Odd", (Items,), {"item": (object(), 1)})()}, r"expected tensors, arrays, numbers and texts"),
        ({"train": type("Same", (Items,), {"item": (torch.zeros(3), 1)})()}, r"have the label 1: there is nothing"),
        ({"train": Rewriting()}, r"data\.train: Rewriting writes every item into the memory of the one before"),
        ({"train": Ragged()}, r"item 33 of the training data has the shape \(3, 6, 7\), others have \(3, 6, 6\)"),
        (
            {"val": TensorDataset(torch.zeros(9, 4), torch.arange(9))},
            r"data\.val: inputs have the shape \(4,\), those of",
        ),
        ({"eval": Squares(59)}, r"data\.eval: has 59 samples, data\.train 60"),
        ({"target": "label"}, r"data\.target=label: an item has no such field, it has 0, 1"),
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
        [read() for made in [module(**settings)] for read in (made.setup, made.test_dataloader, *loops(made))]
    assert "\n" not in str(caught.value)


class Texts(Dataset):
    """Token numbers of different lengths, a text, and a label."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int):
        return {"ids": [1] * (3 + index % 4), "text": f"number {index}", "label": "odd" if index % 2 else "even"}


def pad(items):
    longest = max(len(item["ids"]) for item in items)
    ids = torch.tensor([item["ids"] + [0] * (longest - len(item["ids"])) for item in items])
    return {
        "ids": ids,
        "mask": (ids != 0).long(),
        "text": [i["text"] for i in items],
        "label": [i["label"] for i in items],
    }


def test_items_by_name_with_a_collate_function_and_texts_as_labels():
    data = module(Texts(), collate_fn=pad)
    assert data.sizes() == {"num_classes": 2}
    assert data.class_names == ["even", "odd"]
    batch = next(iter(data.train_dataloader()))
    assert set(batch.inputs) == {"ids", "mask", "text"}
    assert [int(text.split()[1]) % 2 for text in batch.inputs["text"]] == batch.target.tolist()
    assert data.describe()["example"]["fields"]["ids"]["dtype"] == "int64"
    assert "ids: 6 int64" in data.summary()


def test_data_without_targets_is_unlabelled():
    data = DatasetData(TensorDataset(torch.randn(50, 7)), batch_size=8, val_size=10)
    batch = next(iter(data.train_dataloader()))
    assert batch.target.tolist() == [UNLABELLED] * 8
    assert (data.sizes(), data.labelled_in("train")) == ({"in_features": 7}, 0)
    assert "no labels" in data.summary()


@pytest.mark.parametrize(
    ("dtype", "settings", "shape", "got", "largest"),
    [
        (torch.float64, {}, (3, 6, 6), torch.float32, 59.0),
        (torch.float16, {}, (3, 6, 6), torch.float32, 59.0),
        (torch.uint8, {}, (3, 6, 6), torch.float32, 59 / 255),
        (torch.uint8, {}, (6, 6, 3), torch.float32, 59 / 255),
        (torch.uint8, {"input_type": "float32"}, (3, 6, 6), torch.float32, 59.0),
        (torch.int32, {}, (5,), torch.int64, 59),
        (torch.int64, {}, (5,), torch.int64, 59),
        (torch.int64, {"input_type": "float32"}, (5,), torch.float32, 59.0),
        (torch.bool, {}, (5,), torch.float32, 1.0),
    ],
)
def test_inputs_of_any_type_become_what_models_compute_with(dtype, settings, shape, got, largest):
    class Typed(Squares):
        def __getitem__(self, index):
            return torch.full(shape, index).to(dtype), index % 3

    data = module(Typed(), **settings)
    inputs = torch.cat([b.inputs for b in [*data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()]])
    assert inputs.dtype is got
    assert inputs.max() == pytest.approx(largest)
    assert inputs.shape[1:] == ((3, 6, 6) if len(shape) == 3 else shape)
    assert ("become" in data.summary()) == (dtype is not torch.int64 or bool(settings))


class Drawing(Squares):
    """Ordinary random augmentation, from the generators of the process."""

    def __getitem__(self, index):
        return torch.full((3, 6, 6), float(index)) + torch.rand(1) + random.random() + np.random.rand(), index % 3


def test_a_data_set_that_draws_has_one_fingerprint_and_fresh_views_that_can_be_made_again():
    data, other = module(Drawing(), num_threads=2), module(Drawing())
    torch.rand(5)
    assert data.data_fingerprint() == other.data_fingerprint()
    assert data.views == 0
    loader = data.train_dataloader()
    epochs = [torch.cat([b.inputs[b.index.argsort()] for b in loader]) for _ in range(2)]
    assert not torch.equal(*epochs)
    for batch in loader:
        assert torch.equal(batch.inputs, data.train_views_dataset.read(batch.index, batch.view)[0])
    assert module(Drawing(), seed=1).view_fingerprint() != data.view_fingerprint()
    assert "data.eval gives the same samples without" in data.summary()


def test_a_data_set_with_a_generator_of_its_own_is_told_and_keeps_its_fingerprint():
    class Own(Squares):
        def __init__(self):
            super().__init__()
            self.generator = np.random.default_rng()

        def __getitem__(self, index):
            return torch.full((3, 6, 6), index + self.generator.random()), index % 3

    data = module(Own())
    assert data.data_fingerprint() == module(Own()).data_fingerprint()
    assert data.views == 0
    assert "a generator of its own, which nobody can seed" in data.summary()


def test_further_views_of_a_data_set_that_draws_differ_and_can_be_read_again():
    data = module(Drawing(), extra_views=2)
    batches = list(data.train_dataloader())
    assert batches
    for batch in batches:
        assert len(batch.also) == 2
        for other in batch.also:
            assert not torch.equal(other.inputs, batch.inputs)
            assert torch.equal(other.inputs, data.train_views_dataset.read(other.index, other.view)[0])


def test_what_is_split_off_is_read_from_the_evaluation_data_set():
    class Both(Drawing):
        def for_evaluation(self):
            return Squares()

    for data in (module(Drawing(), eval=Squares()), module(Both())):
        assert all((b.inputs == b.inputs.round()).all() for b in [*data.val_dataloader(), *data.test_dataloader()])
        assert not any((b.inputs == b.inputs.round()).all() for b in data.train_dataloader())
        assert "data.eval" not in data.summary()


def test_labelled_counts_samples_that_have_a_label_and_evaluation_has_only_those():
    class Half(Squares):
        def __getitem__(self, index):
            return torch.full((3, 6, 6), float(index)), index % 3 if index % 2 else -1

    data = module(Half(200), labelled=30)
    targets = torch.cat([b.target for b in module(Half(200), labelled=30, drop_last=False).train_dataloader()])
    assert int((targets != UNLABELLED).sum()) == 30 == data.labelled_in("train")
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert all((b.target != UNLABELLED).all() for b in loader)
    with pytest.raises(
        UserError, match=r"data\.labelled=90 is more than the \d+ of the \d+ training samples that have a"
    ):
        module(Half(200), labelled=90).setup()


def test_every_row_and_the_class_itself_belong_to_the_fingerprint():
    class Changed(Squares):
        row = 0

        def __getitem__(self, index):
            return torch.full((3, 6, 6), index + 0.5 * (index == self.row)), index % 3

    train = module().setup() or module()
    train.setup()
    rows = train.train_views_dataset.rows.tolist()

    def fingerprint(row):
        dataset = Changed()
        dataset.row = row
        return module(dataset).data_fingerprint()

    assert len({fingerprint(row) for row in rows}) == len(rows)

    class SameItems(Squares):
        def __getitem__(self, index):
            return torch.full((3, 6, 6), float(index)), (index + 3) % 3

    assert module(SameItems()).data_fingerprint() != module().data_fingerprint()


def test_all_of_a_tensor_in_a_large_data_set_belongs_to_the_fingerprint(monkeypatch):
    monkeypatch.setattr("kd_lightning.data.content.ITEMS", 10)
    x, y = torch.randn(500, 4), torch.arange(500) % 5
    digests = set()
    for row in range(0, 500, 50):
        changed = x.clone()
        changed[row + 7] += 1
        digests.add(DatasetData(TensorDataset(changed, y), batch_size=8).data_fingerprint())
    assert len(digests) == 10


def test_masks_move_with_their_pictures():
    class Masks(Squares):
        def __getitem__(self, index):
            mask = torch.arange(36).view(6, 6) % 7
            return mask.float().expand(3, 6, 6) + 1, mask

    data = module(Masks(), augment={"crop_padding": 2, "flip": True})
    moved = 0
    for batch in data.train_dataloader():
        assert torch.equal(batch.inputs[:, 0].long() - 1, batch.target)  # outside: 0 in the picture, -1 in the mask
        moved += int((batch.target == UNLABELLED).any((1, 2)).sum())
    assert moved > 10


def test_what_makes_inputs_of_items_belongs_to_the_views():
    def shorter(items):
        return {name: values[:2] if name == "ids" else values for name, values in pad(items).items()}

    modules = [
        module(Texts(), collate_fn=pad),
        module(Texts(), collate_fn=shorter),
        module(Texts(), collate_fn=pad, inputs=["ids"]),
    ]
    assert len({data.view_fingerprint() for data in modules}) == 3
    assert module(Texts(), collate_fn=pad).view_fingerprint() == modules[0].view_fingerprint()
    assert module(input_type="int64").view_fingerprint() != module().view_fingerprint()


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("width", [(), (2,)])
def test_an_infinite_target_is_told_with_its_place_before_training(split, width):
    sets = {name: TensorDataset(torch.rand(30, 4), torch.rand(30, *width)) for name in ("train", "val", "test")}
    sets[split].tensors[1][(17, *(1,) * len(width))] = torch.inf
    made = DatasetData(**sets, batch_size=6)
    with pytest.raises(UserError, match=rf"data.{split}: the target of sample 17 .*is inf.*finite"):
        list(made.val_dataloader())


def test_an_infinite_class_number_is_told():
    targets = torch.arange(30) % 3 * torch.ones(30)
    targets[4] = torch.inf
    with pytest.raises(UserError, match="a target is inf: class numbers are whole"):
        module(TensorDataset(torch.rand(30, 4), targets), target_type="classes").setup("fit")
