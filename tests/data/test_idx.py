"""MNIST's file format: made-up files of the real form, plain and gzipped, whole and damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_lightning.data.fashion_mnist import FashionMnistData
from kd_lightning.data.idx import read_idx
from kd_lightning.data.mnist import MnistData
from kd_lightning.errors import UserError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def idx_bytes(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def write_set(directory: Path, gz: bool, n: int = 40) -> None:
    directory.mkdir(parents=True)
    random = np.random.RandomState(0)
    for name, size in (("train", n), ("t10k", n // 2)):
        for kind, values in (
            ("images-idx3-ubyte", random.randint(0, 256, (size, 28, 28))),
            ("labels-idx1-ubyte", np.arange(size) % 10),
        ):
            raw = idx_bytes(values)
            path = directory / f"{name}-{kind}{'.gz' if gz else ''}"
            path.write_bytes(gzip.compress(raw) if gz else raw)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("place", [".", "MNIST/raw", "mnist"])
def test_the_files_are_found_in_every_usual_place(tmp_path, gz, place):
    write_set(tmp_path / "data" / place, gz)
    module = MnistData(root=str(tmp_path / "data"), existing=[], download=False, val_size=10, batch_size=5)
    module.prepare_data()
    images, targets = module.train_data()
    assert images.shape == (40, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert targets.tolist() == [k % 10 for k in range(40)]
    assert len(module.test_data()[1]) == 20
    assert next(iter(module.train_dataloader())).inputs.shape == (5, 1, 28, 28)


def test_another_directory_is_used_before_a_download(tmp_path):
    write_set(tmp_path / "elsewhere", gz=True)
    module = FashionMnistData(root=str(tmp_path / "data"), existing=[str(tmp_path / "elsewhere")], val_size=10)
    module.prepare_data()
    assert len(module.train_data()[0]) == 40
    assert not (tmp_path / "data").exists()


def test_missing_files_name_the_directories_and_the_key(tmp_path):
    module = MnistData(root=str(tmp_path), existing=[], download=False)
    with pytest.raises(UserError, match=r"MNIST.*set data\.root.*data\.download=true"):
        module.prepare_data()


def test_a_download_that_fails_is_told_in_one_line(tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens on the discard port
    module = MnistData(root=str(tmp_path), existing=[])
    with pytest.raises(UserError, match=r"cannot download MNIST to .*set data\.root") as caught:
        module.prepare_data()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda raw: raw[:-100], "truncated"),
        (lambda raw: b"", "not an IDX file"),
        (lambda raw: raw[:6], "truncated"),
        (lambda raw: b"<html>not found</html>", "not an IDX file"),
    ],
)
@pytest.mark.parametrize("gz", [False, True])
def test_a_damaged_file_is_named(tmp_path, damage, told, gz):
    raw = damage(idx_bytes(np.zeros((5, 28, 28))))
    path = tmp_path / ("images.gz" if gz else "images")
    path.write_bytes(gzip.compress(raw) if gz else raw)
    with pytest.raises(UserError, match=f"{path}.*{told}"):
        read_idx(path)


def test_a_cut_off_gzip_file_is_named(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.random.RandomState(0).randint(0, 256, (9, 28, 28))))[:-200])
    with pytest.raises(UserError, match=r"images\.gz.*fetch it again"):
        read_idx(path)


def test_images_and_labels_that_do_not_belong_together_are_told(tmp_path):
    write_set(tmp_path / "data", gz=False)
    (tmp_path / "data" / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(7)))
    with pytest.raises(UserError, match="do not belong together"):
        MnistData(root=str(tmp_path / "data"), existing=[]).train_data()


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_debians_package_is_read_and_normalised(tmp_path):
    module = FashionMnistData(root=str(tmp_path / "nothing"), val_size=5000, augment=True)
    module.setup()
    assert module.train_samples == 55_000
    assert module.class_names[9] == "boot"
    images, targets = module.train_data()
    assert targets.bincount().tolist() == [6000] * 10
    assert abs(float(images.float().mean() / 255) - module.mean[0]) < 1e-3
    assert abs(float((images / 255).std()) - module.std[0]) < 1e-3


def test_each_data_set_has_directories_of_its_own():
    mnist, fashion = MnistData(), FashionMnistData()
    assert mnist.existing == [Path("/usr/share/datasets/mnist")]
    assert fashion.existing == [DEBIAN]
    assert mnist.raw_dir != fashion.raw_dir
