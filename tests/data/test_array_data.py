"""Data in memory, gathered a batch at a time."""

from __future__ import annotations

import threading

import pytest
import torch

from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.augment import CropFlip
from kd_lightning.data.loader.threaded_loader import ThreadedLoader


def pixels(n=50, channels=3):
    return torch.randint(0, 256, (n, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
def test_inputs_are_normalised_per_channel(channels):
    mean, std = [0.1, 0.2, 0.3][:channels], [0.5, 0.25, 0.3][:channels]
    x = pixels(channels=channels)
    data = ArrayData(x, torch.arange(50), scale=255, mean=mean, std=std)
    indices = torch.tensor([3, 3, 49, 0])
    inputs, target = data.gather(indices, 7)
    wanted = (x[indices] / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous()
    torch.testing.assert_close(inputs, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(target, indices)


def test_values_without_normalisation_are_untouched_and_not_shared():
    x = torch.randn(20, 4)
    data = ArrayData(x, torch.randn(20, 2))
    inputs, target = data.gather(torch.arange(20), 0)
    assert torch.equal(inputs, x)
    inputs.zero_()
    assert torch.equal(data.gather(torch.arange(20), 0)[0], x)
    assert target.shape == (20, 2)


def test_a_sample_alone_equals_the_sample_in_a_batch_bit_for_bit():
    data = ArrayData(pixels(), torch.arange(50), scale=255, mean=[0.4] * 3, std=[0.3] * 3, augment=CropFlip(2, True))
    batch = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    inputs, _ = data.gather(batch, 9)
    for place, index in enumerate(batch.tolist()):
        assert torch.equal(data.gather(torch.tensor([index]), 9)[0][0], inputs[place])


def test_threads_that_gather_at_once_get_what_one_gets():
    data = ArrayData(pixels(), torch.arange(50), scale=255, mean=[0.4] * 3, std=[0.3] * 3, augment=CropFlip(2, True))
    alone = [data.gather(torch.arange(50), view)[0] for view in range(40)]
    got = {}

    def gather(views):
        for view in views:
            got[view] = data.gather(torch.arange(50), view)[0]

    threads = [threading.Thread(target=gather, args=(range(k, 40, 4),)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(got[view], alone[view]) for view in range(40))


def test_batches_can_be_consumed_in_inference_mode():
    data = ArrayData(pixels(), torch.arange(50), scale=255, mean=[0.4] * 3, std=[0.3] * 3, augment=CropFlip(2, True))
    loader = ThreadedLoader(data, 7, num_threads=2)
    with torch.inference_mode():
        inside = [inputs for inputs, _ in loader]
    loader.set_epoch(0)
    assert all(torch.equal(one, two[0]) for one, two in zip(inside, loader, strict=True))


def test_an_item_is_view_0():
    data = ArrayData(pixels(), torch.arange(50), augment=CropFlip(2))
    inputs, target = data[-1]
    assert torch.equal(inputs, data.gather(torch.tensor([49]), 0)[0][0])
    assert target == 49
    with pytest.raises(IndexError):
        data[50]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"targets": torch.arange(3)}, "50 inputs and 3 targets"),
        ({"mean": [0.1]}, "both or neither"),
        ({"mean": [0.1], "std": [0.1]}, "need 3 values"),
    ],
)
def test_what_does_not_fit_is_told(options, told):
    with pytest.raises(ValueError, match=told):
        ArrayData(pixels(), **{"targets": torch.arange(50), **options})


def test_data_on_another_device_gives_the_same_views_and_leaves_the_original_where_it_is():
    pictures = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).reshape(2, 3, 8, 8)
    data = ArrayData(pictures, torch.arange(2), scale=255, augment=CropFlip(2, True))
    there = data.on(torch.device("cpu"))
    for view in range(3):
        assert torch.equal(there.gather(torch.tensor([1, 0]), view)[0], data.gather(torch.tensor([1, 0]), view)[0])
    assert data.on(torch.device("meta"))._storage.is_meta
    assert not data._storage.is_meta
    assert data.nbytes > pictures.nbytes
