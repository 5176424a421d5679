"""Mixing of samples that are read one by one: files and data sets of one's own."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.dataset import DatasetData
from kd_lightning.data.image_folder import ImageFolderData
from kd_lightning.data.mixed_samples import mixed_samples
from kd_lightning.data.mixing import Mixing
from kd_lightning.errors import UserError
from kd_lightning.teachers.cache.opening import open_or_write_cache
from kd_lightning.teachers.frozen import FrozenTeacher

BOTH = {"mixup": 0.2, "cutmix": 1.0}


class Pictures(Dataset):
    """Pictures that differ, and, if wanted, draw random numbers from the generators of the process."""

    def __init__(self, draws: bool = False) -> None:
        self.draws = draws
        self.pixels = torch.rand(60, 3, 6, 5, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int):
        moved = torch.rand(1) + random.random() + np.random.rand() if self.draws else 0.0
        return self.pixels[index] + moved, index % 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    directory = tmp_path_factory.mktemp("images")
    for number, name in enumerate(("one", "two")):
        (directory / name).mkdir()
        for k in range(12):
            pixels = np.random.RandomState(50 * number + k).randint(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(directory / name / f"{k:02}.png")
    return directory


def of_own(draws=False, **settings):
    return DatasetData(Pictures(draws), **{"batch_size": 6, "val_size": 12, "augment": BOTH, **settings})


def folder(root, **settings):
    options = {"image_size": 16, "resize": 18, "batch_size": 6, "val_size": 4, "train_dir": None, "augment": BOTH}
    return ImageFolderData(str(root), cache_dir=str(root / "cache"), **{**options, **settings})


def whole(data, view):
    """The epoch's samples in order: inputs, weights, partners' classes."""
    loader = data.train_dataloader()
    loader.set_epoch(view)
    rows = {}
    for batch in loader:
        for row, i in enumerate(batch.index.tolist()):
            rows[i] = (batch.inputs[row], batch.weight[row], batch.partner_target[row], batch.target[row])
    return [torch.stack(column) for column in zip(*(rows[i] for i in sorted(rows)), strict=True)]


def makers(root):
    cropped = {**BOTH, "crop_padding": 1, "flip": True}
    return {
        "items": of_own,
        "items that draw": lambda **settings: of_own(True, **settings),
        "cropped items": lambda **settings: of_own(**{"augment": cropped, **settings}),
        "tensors": lambda **settings: DatasetData(
            TensorDataset(Pictures().pixels, torch.arange(60) % 3),
            **{"batch_size": 6, "val_size": 12, "augment": BOTH, **settings},
        ),
        "files": lambda **settings: folder(root, **settings),
    }


KINDS = ["items", "items that draw", "cropped items", "tensors", "files"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_mixed_with_the_view_that_its_partner_shows_of_itself(root, kind):
    data = makers(root)[kind](drop_last=False)
    mixed, weight, partner_target, target = whole(data, 3)
    samples, indices = data.train_views_dataset, torch.arange(data.train_samples)
    alone, classes = samples.unmixed().read(indices, 3)
    plan = data.mixing.plan(data.seed, 3, indices, len(indices), *alone.shape[-2:])
    assert torch.equal(mixed, torch.lerp(alone[plan.partner], alone, plan.mask.expand_as(alone)))
    assert torch.equal(weight, plan.weight)
    assert len(weight.unique()) > 10
    assert torch.equal(partner_target, classes[plan.partner])
    assert torch.equal(target, classes)
    assert torch.equal(samples.read(indices, 3)[0], mixed)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_size_and_threads_change_nothing(root, kind):
    make = makers(root)[kind]
    first = whole(make(drop_last=False), 7)
    for settings in ({"batch_size": 1}, {"batch_size": 19, "num_threads": 2}, {"num_threads": 7}):
        again = whole(make(drop_last=False, **settings), 7)
        assert all(map(torch.equal, first, again)), settings


def test_what_lies_in_memory_and_what_is_read_one_by_one_are_mixed_alike():
    pixels, classes = Pictures().pixels, torch.arange(60) % 3
    in_memory = ArrayData(pixels, classes, mixing=Mixing(**BOTH), seed=4)
    one_by_one = mixed_samples(ArrayData(pixels, classes), Mixing(**BOTH), seed=4)
    for view in (0, 5):
        left, right = (made.gather(torch.tensor([3, 59, 0]), view) for made in (in_memory, one_by_one))
        assert torch.equal(left[0], right[0])
        assert torch.equal(left[2].target, right[2].target)
        assert torch.equal(left[2].weight, right[2].weight)


@pytest.mark.parametrize("kind", ["items that draw", "files"])
def test_stored_answers_are_those_of_the_live_teacher_on_every_mixed_view(root, kind, tmp_path):
    data = makers(root)[kind]()
    example = data.example_batch().inputs
    torch.manual_seed(0)
    teacher = FrozenTeacher(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(example[0].numel(), 3)))
    cached = open_or_write_cache(teacher, data, str(tmp_path), epochs=4, precision="fp32")
    loader = data.train_dataloader()
    for epoch in (0, 3):
        loader.set_epoch(epoch)
        for batch in loader:
            torch.testing.assert_close(cached(batch).logits, teacher(batch).logits, rtol=1e-5, atol=1e-6)


def test_other_mixing_is_another_view_of_the_same_files(root):
    made = [folder(root, **more).view_fingerprint() for more in ({}, {"seed": 1}, {"augment": {"mixup": 0.3}})]
    assert len({*made, folder(root, augment={}).view_fingerprint()}) == 4
    assert folder(root, augment={"mixup": None}).view_fingerprint() == folder(root, augment=True).view_fingerprint()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: DatasetData(TensorDataset(torch.rand(40, 3, 6, 6), torch.rand(40)), augment=BOTH, batch_size=4),
         r"data\.augment\.mixup and data\.augment\.cutmix: for float pictures \(C, H, W\) that have one class number each; these "
         r"data have inputs float32 of shape \(3, 6, 6\) and targets float32"),
        (lambda root: DatasetData(TensorDataset(torch.rand(40, 6), torch.arange(40) % 2), augment=BOTH, batch_size=4),
         r"inputs float32 of shape \(6,\)"),
        (lambda root: folder(root, normalize_on_device=True), r"data\.normalize_on_device=true normalises later"),
        (lambda root: folder(root, views=1), r"data\.views=1 would show each sample with one partner"),
        (lambda root: folder(root, extra_views=1), r"each view would be mixed with another partner"),
        (lambda root: folder(root, augment={"trivial": True}), r"it takes scale, ratio, flip, mixup and cutmix"),
        (lambda root: of_own(augment={"trivial": True}), r"only pictures that lie in memory are changed so"),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_refused(root, make, message):
    with pytest.raises(UserError, match=message):
        make(root).setup("fit")
