"""Several views of a picture in one batch (``data.repeats``): which they are, however they are read, and a cache of them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from kd_lightning.data.dataset import DatasetData
from kd_lightning.data.digits import DigitsData
from kd_lightning.data.image_folder import ImageFolderData
from kd_lightning.data.images import image_data
from kd_lightning.data.table import TableData
from kd_lightning.errors import UserError
from kd_lightning.teachers.cache.cached import CachedTeacher
from kd_lightning.teachers.cache.opening import open_or_write_cache
from kd_lightning.teachers.ensemble import draws
from kd_lightning.teachers.frozen import FrozenTeacher

KINDS = [
    "in memory",
    "mixed",
    "pictures in files",
    pytest.param("a data set", marks=pytest.mark.slow),
    pytest.param("one that draws", marks=pytest.mark.slow),
]


class Pictures(Dataset):
    """Pictures that differ, and, if wanted, draw random numbers from the generators of the process."""

    thread_safe = True

    def __init__(self, draws: bool = False) -> None:
        self.draws, self.read = draws, 0

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int):
        self.read += 1
        moved = torch.rand(1) + random.random() + np.random.rand() if self.draws else 0.0
        return torch.arange(108.0).view(3, 6, 6) / 99 + index + moved, index % 3


class Looks(nn.Module):
    """Answers with some pixels: the same to the last bit in batches of every size."""

    asked = 0

    def forward(self, x):
        self.asked += 1
        return x.flatten(1)[:, 20:25]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    directory = tmp_path_factory.mktemp("images")
    for number, name in enumerate(("one", "two")):
        (directory / name).mkdir()
        for k in range(20):
            pixels = np.random.RandomState(50 * number + k).randint(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(directory / name / f"{k:02}.jpg")
    return directory


def made(kind: str, root, **settings):
    settings = {"batch_size": 12, "repeats": 3, **settings}
    if kind in ("in memory", "mixed"):
        augment = {"crop_padding": 2, "flip": True} | ({"mixup": 0.4, "cutmix": 1.0} if kind == "mixed" else {})
        return DigitsData(val_size=200, train_size=30, augment=augment, **settings)
    if kind == "pictures in files":
        sizes = {"image_size": 8, "resize": 9, "train_dir": None, "cache_dir": str(root / "cache"), "augment": True}
        return ImageFolderData(str(root), **sizes, **settings)
    augment = {"crop_padding": 2, "flip": True} if kind == "a data set" else False
    return DatasetData(Pictures(kind == "one that draws"), val_size=4, test_size=6, augment=augment, **settings)


def batches_of(data, epoch: int, skip: int = 0):
    loader = data.train_dataloader()
    loader.set_epoch(epoch)
    return list(loader)[skip:]


def same(one, other) -> bool:
    fields = zip(one, other, strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in fields)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_holds_each_sample_in_views_of_its_own_that_can_be_read_again(kind, root):
    data = made(kind, root, num_threads=3)
    batches = batches_of(data, 2)
    assert len(batches) == len(data.train_views_dataset) // 4
    for batch in batches:
        assert len(batch.inputs) == len(batch.target) == len(batch.index) == len(batch.view) == 12
        assert batch.view.tolist() == [6] * 4 + [7] * 4 + [8] * 4
        assert len(set(batch.index.tolist())) == 4
        for number in (6, 7, 8):
            rows = batch.view == number
            assert batch.index[rows].tolist() == batch.index[:4].tolist()
            inputs, target = data.train_views_dataset.read(batch.index[rows], number)
            assert torch.equal(batch.inputs[rows], inputs)
            assert torch.equal(batch.target[rows], target)
        assert not torch.equal(batch.inputs[:4], batch.inputs[4:8])


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_the_same_for_every_number_of_threads_and_where_they_are_continued(kind, root):
    data = {threads: made(kind, root, num_threads=threads) for threads in (1, 2, 7)}
    whole = batches_of(data[1], 1)
    for threads in (2, 7):
        assert all(map(same, batches_of(data[threads], 1), whole))
    loader = data[2].train_dataloader()
    loader.set_epoch(1)
    begun = iter(loader)
    next(begun)
    state = loader.state_dict()
    begun = None
    other = data[7].train_dataloader()
    other.load_state_dict(state)
    assert all(map(same, list(other), whole[1:]))


def test_a_views_pixels_do_not_depend_on_the_batch_size(root):
    seen = {}
    for size in (6, 12):
        for batch in batches_of(made("mixed", root, batch_size=size, drop_last=False), 0):
            for row, key in enumerate(zip(batch.index.tolist(), batch.view.tolist(), strict=True)):
                assert torch.equal(seen.setdefault(key, batch.inputs[row]), batch.inputs[row])
    assert len(seen) == 90


def test_a_picture_is_decoded_once_for_all_its_views(root, monkeypatch):
    read = []
    monkeypatch.setattr(image_data, "read_image", lambda file, *rest: read.append(file) or decode(file, *rest))
    batches = batches_of(made("pictures in files", root, num_threads=1), 0)
    assert len(read) == len(set(read)) == 4 * len(batches)
    data = made("a data set", root)
    batches = batches_of(data, 0)
    items = data.train_views_dataset.dataset
    before = items.read
    assert len(batches_of(data, 1)) == len(batches)
    assert items.read - before <= 4 * (len(batches) + 1)


decode = image_data.read_image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("views", [0, 4])
def test_stored_answers_are_those_of_the_live_teacher(kind, views, root, tmp_path):
    data = made(kind, root, views=views)
    looks, told = Looks(), []
    teacher = FrozenTeacher(looks)
    cached = open_or_write_cache(teacher, data, str(tmp_path), epochs=2, precision="fp32", announce=told.append)
    assert isinstance(cached, CachedTeacher)
    assert f"{views or 6} views of" in told[0]
    for epoch in (0, 1):
        for batch in batches_of(data, epoch):
            live, asked = teacher(batch).logits, looks.asked
            assert torch.equal(cached(batch).logits, live)
            assert looks.asked == asked


def test_a_member_that_is_drawn_is_drawn_for_each_view_of_its_own():
    index, view = torch.tensor([3, 4, 3, 4]), torch.tensor([6, 6, 7, 7])
    assert torch.equal(draws(index, view, 1), torch.cat([draws(index[:2], 6, 1), draws(index[:2], 7, 1)]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 10}, r"data\.repeats must be >= 1 and divide data\.batch_size=10, got 3"),
        ({"repeats": 0}, r"data\.repeats must be >= 1"),
        ({"augment": False}, r"data\.repeats=3: shows each sample in several views, and these data have one"),
        ({"augment": True, "extra_views": 1}, r"data\.repeats=3: .*data\.extra_views=1 beside each sample"),
    ],
)
def test_what_cannot_be_meant_is_one_line(settings, message):
    with pytest.raises(UserError, match=message):
        DigitsData(**{"augment": True, "batch_size": 12, "repeats": 3, **settings}).setup("fit")
    if settings == {"augment": False}:
        with pytest.raises(UserError, match=message):
            TableData(bundled="iris", batch_size=12, repeats=3).setup("fit")


def test_one_repeat_is_none(root):
    one, none = made("in memory", root, repeats=1), made("in memory", root, repeats=None)
    assert all(map(same, batches_of(one, 1), batches_of(none, 1)))
