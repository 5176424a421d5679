"""CIFAR's file format: tiny archives in the real form, as Python 2 pickled them."""

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_lightning.data.cifar import Cifar10Data, Cifar100Data, read_pickle
from kd_lightning.errors import UserError


class Python2Pickler(pickle._Pickler):
    """Writes every string as Python 2 did: as bytes without an encoding."""

    def save_string(self, text: str | bytes) -> None:
        raw = text.encode("latin1") if isinstance(text, str) else text
        self.write(b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(text)

    dispatch = {**pickle._Pickler.dispatch, str: save_string, bytes: save_string}


def python2_pickle(content: dict) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue().replace(b"numpy._core.", b"numpy.core.")


def write_cifar10(directory: Path, n: int = 20) -> np.ndarray:
    directory.mkdir(parents=True)
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (6, n, 3072)).astype(np.uint8)
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        batch = {"batch_label": "made up", "labels": [i % 10 for i in range(n)], "data": images[k]}
        (directory / name).write_bytes(python2_pickle(batch))
    names = {"label_names": [f"kind{k}" for k in range(10)], "num_cases_per_batch": n}
    (directory / "batches.meta").write_bytes(python2_pickle(names))
    return images


def write_cifar100(directory: Path, n: int = 200) -> None:
    directory.mkdir(parents=True)
    random = np.random.RandomState(0)
    for name in ("train", "test"):
        labels = [i % 100 for i in range(n)]
        images = random.randint(0, 256, (n, 3072)).astype(np.uint8)
        batch = {"fine_labels": labels, "coarse_labels": [0] * n, "data": images}
        (directory / name).write_bytes(python2_pickle(batch))
    (directory / "meta").write_bytes(python2_pickle({"fine_label_names": ["fish"] * 100}))


def test_cifar10_is_read_in_its_own_order_and_form(tmp_path):
    made = write_cifar10(tmp_path / "cifar-10-batches-py")
    module = Cifar10Data(root=str(tmp_path), download=False, val_size=20, batch_size=16, augment=True)
    images, targets = module.train_data()
    assert images.shape == (100, 3, 32, 32)
    assert torch.equal(images, torch.from_numpy(made[:5].reshape(100, 3, 32, 32)))
    assert targets.tolist() == [i % 10 for i in range(20)] * 5
    assert module.class_names[3] == "kind3"
    assert torch.equal(module.test_data()[0], torch.from_numpy(made[5].reshape(20, 3, 32, 32)))
    batch = next(iter(module.train_dataloader()))
    assert batch.inputs.shape == (16, 3, 32, 32)
    assert batch.inputs.abs().max() < 3


def test_torchvision_reads_the_made_up_archive_alike(tmp_path):
    from torchvision.datasets import CIFAR10

    class Unchecked(CIFAR10):
        def _check_integrity(self):
            return True

        meta = {**CIFAR10.meta, "md5": None}

    write_cifar10(tmp_path / "cifar-10-batches-py")
    theirs = Unchecked(str(tmp_path), train=True)
    images, targets = Cifar10Data(root=str(tmp_path), download=False).train_data()
    assert np.array_equal(theirs.data.transpose(0, 3, 1, 2), images.numpy())
    assert theirs.targets == targets.tolist()


def test_cifar100_takes_the_fine_labels(tmp_path):
    write_cifar100(tmp_path / "cifar-100-python")
    module = Cifar100Data(root=str(tmp_path), download=False, val_size=100)
    assert module.train_data()[1].max() == 99
    assert module.num_classes == len(module.class_names) == 100


def test_the_root_may_be_the_unpacked_directory(tmp_path):
    write_cifar100(tmp_path / "here")
    assert len(Cifar100Data(root=str(tmp_path / "here"), download=False).test_data()[1]) == 200


def test_missing_files_name_the_directories_and_the_key(tmp_path):
    with pytest.raises(UserError, match=r"CIFAR10's files are in none of .*data\.download=true"):
        Cifar10Data(root=str(tmp_path), download=False).prepare_data()


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Evil()}, protocol=2))
    with pytest.raises(UserError, match=r"data_batch_1.*wants to call .*system"):
        read_pickle(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1]), pickle.dumps({b"data": 1})[:-4]])
def test_a_damaged_batch_is_named(tmp_path, content):
    path = tmp_path / "train"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"cannot read {path}.*fetch it again") as caught:
        read_pickle(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "batch",
    [
        {b"labels": [0]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
        {b"data": np.zeros((1, 99), np.uint8), b"labels": [0]},
        {b"data": np.zeros((1, 3072)), b"labels": [0]},
    ],
)
def test_a_batch_of_another_form_is_named(tmp_path, batch):
    write_cifar10(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(UserError, match="data_batch_3 is not a batch of CIFAR10"):
        Cifar10Data(root=str(tmp_path), download=False).train_data()
