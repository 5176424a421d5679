"""Further views of the samples of a batch (``data.extra_views``)."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset

from kd_lightning.data.dataset import DatasetData
from kd_lightning.data.digits import DigitsData
from kd_lightning.data.samples import Samples, view_number
from kd_lightning.errors import UserError


class Ramp(Dataset):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int):
        return torch.arange(36.0).view(1, 6, 6) + index, index % 2


def made(kind: str, **settings):
    settings = {"batch_size": 10, "extra_views": 2, "augment": {"crop_padding": 2, "flip": True}, **settings}
    if kind == "in memory":
        return DigitsData(val_size=200, train_size=50, **settings)
    return DatasetData(Ramp(), val_size=8, test_size=8, **settings)


@pytest.mark.parametrize("kind", ["in memory", "read one by one"])
def test_a_batch_carries_further_views_of_its_samples_that_can_be_read_again(kind):
    data = made(kind, num_threads=3)
    loader = data.train_dataloader()
    loader.set_epoch(1)
    batches = list(loader)
    assert len(batches) >= 2
    for batch in batches:
        assert len(batch.also) == 2
        assert len({batch.view, *(other.view for other in batch.also)}) == 3
        for which, other in enumerate(batch.also, 1):
            assert other.view == view_number(batch.view, which)
            assert torch.equal(other.index, batch.index)
            assert torch.equal(other.target, batch.target)
            assert other.split == "train"
            assert not torch.equal(other.inputs, batch.inputs)
            assert torch.equal(other.inputs, data.train_views_dataset.read(other.index, other.view)[0])


@pytest.mark.parametrize("kind", ["in memory", "read one by one"])
def test_the_first_view_is_the_one_without_further_views(kind):
    batches = [list(made(kind, extra_views=number).train_dataloader()) for number in (0, 1)]
    assert len(batches[0]) >= 2
    for alone, beside in zip(*batches, strict=True):
        assert torch.equal(alone.inputs, beside.inputs)
        assert alone.view == beside.view
        assert (alone.also, len(beside.also)) == ((), 1)


def test_evaluation_has_no_further_views_and_the_example_has():
    data = made("in memory")
    assert next(iter(data.val_dataloader())).also == ()
    assert len(data.example_batch().also) == 2


def test_data_sets_of_a_module_are_samples():
    data = made("in memory")
    assert isinstance(data.train_views_dataset, Samples)
    with pytest.raises(UserError, match=r"data\.extra_views must be >= 0"):
        made("in memory", extra_views=-1)
