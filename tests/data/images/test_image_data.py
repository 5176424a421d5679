"""Image files read straight into a batch, alone and by the loader's threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from kd_lightning.data.images.crops import CentreCrop, RandomResizedCrop
from kd_lightning.data.images.decode import ImageError, read_image
from kd_lightning.data.images.image_data import ImageData, normalise
from kd_lightning.data.loader.threaded_loader import SampleError, ThreadedLoader

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    directory = tmp_path_factory.mktemp("images")
    random = np.random.RandomState(0)
    made = []
    for k in range(24):
        photo = Image.fromarray(load_sample_image(("china.jpg", "flower.jpg")[k % 2]))
        width, height = random.randint(60, 300, 2).tolist()
        path = directory / f"{k:02}.{'png' if k % 5 == 0 else 'jpg'}"
        photo.resize((width, height)).save(path)
        made.append(str(path))
    return made


def data(files, crop=None, **options):
    return ImageData(files, torch.arange(len(files)), crop or RandomResizedCrop(32, seed=1), MEAN, STD, **options)


def read(dataset, indices, view):
    buffers = dataset.allocate(len(indices))
    dataset.fill(buffers, 0, torch.tensor(indices), view, lambda: False)
    return dataset.finish(buffers, torch.tensor(indices), view)


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("crop", [RandomResizedCrop(32, seed=1), CentreCrop(32, 36)])
def test_batches_do_not_depend_on_threads_and_equal_samples_read_alone(files, crop, scaled, as_bytes):
    dataset = data(files, crop, scaled_decode=scaled, as_bytes=as_bytes)
    epochs = []
    for threads in (1, 2, 3, 7):
        loader = ThreadedLoader(dataset, 7, shuffle=True, seed=3, num_threads=threads, as_batch=True)
        loader.set_epoch(2)
        epochs.append([(b.inputs.clone(), b.target, b.index) for b in loader])
    for batches in epochs[1:]:
        for one, two in zip(epochs[0], batches, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    for inputs, target, index in epochs[0]:
        assert inputs.dtype == (torch.uint8 if as_bytes else torch.float32)
        assert torch.equal(target, index)
        for place, sample in enumerate(index.tolist()):
            assert torch.equal(read(dataset, [sample], 2)[0][0], inputs[place])


def test_bytes_normalised_later_equal_what_is_normalised_at_once(files):
    plain, raw = read(data(files), [3, 9, 5], 6)[0], read(data(files, as_bytes=True), [3, 9, 5], 6)[0]
    assert torch.equal(normalise(raw, MEAN, STD), plain)
    wanted = (raw / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(plain, wanted, rtol=1e-5, atol=1e-5)


def test_an_item_is_view_0_and_pictures_are_what_the_crop_shows(files):
    dataset = data(files, CentreCrop(32, 36), as_bytes=True)
    inputs, target = dataset[4]
    assert torch.equal(inputs, CentreCrop(32, 36).cut(*read_image(files[4]), None)[0])
    assert target == 4


def test_two_batches_in_hand_are_not_the_same_memory(files):
    loader = ThreadedLoader(data(files), 6, num_threads=2)
    kept = [(inputs, inputs.clone()) for inputs, _ in loader]
    assert all(torch.equal(one, copy) for one, copy in kept)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_batches_can_be_consumed_in_inference_mode(files, as_bytes):
    dataset = data(files, as_bytes=as_bytes)
    loader = ThreadedLoader(dataset, 6, num_threads=2)
    with torch.inference_mode():
        inside = [inputs for inputs, _ in loader]
    loader.set_epoch(0)
    assert all(torch.equal(one, two[0]) for one, two in zip(inside, loader, strict=True))


def test_stopping_leaves_the_rest_unread(files):
    dataset, asked = data(files), []
    dataset.fill(dataset.allocate(9), 0, torch.arange(9), 0, lambda: len(asked) == 4 or asked.append(1))
    assert len(asked) == 4


def test_a_damaged_file_is_named_with_its_position(files, tmp_path):
    bad = tmp_path / "half.jpg"
    bad.write_bytes(Path(files[1]).read_bytes()[:900])
    dataset = data([*files, str(bad)])
    with pytest.raises(ImageError, match=r"half\.jpg is damaged"):
        read(dataset, [24], 0)
    with pytest.raises(SampleError, match=r"sample 24 \(.*half\.jpg.*data\.on_bad_image=skip") as caught:
        list(ThreadedLoader(dataset, 5, num_threads=3))
    assert caught.value.index == 24


def test_files_and_targets_must_match(files):
    with pytest.raises(ValueError, match="24 files and 3 targets"):
        ImageData(files, torch.arange(3), CentreCrop(32, 32), MEAN, STD)
