"""Fashion-MNIST and CIFAR-100 with noise in them: files of the real form, for tests that care for no figure."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def write_idx(path: Path, values: np.ndarray) -> None:
    """One file in the format of MNIST."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(head + values.astype(np.uint8).tobytes())


def write_fashion_mnist(data_dir: Path, train: int = 7500, test: int = 200) -> None:
    """28x28 grey images where torchvision would put them; 7,500 leave enough beside the 5,000 of validation."""
    random = np.random.default_rng(0)
    for name, size in (("train", train), ("t10k", test)):
        raw = data_dir / "FashionMNIST" / "raw"
        write_idx(raw / f"{name}-images-idx3-ubyte", random.integers(0, 256, (size, 28, 28)))
        write_idx(raw / f"{name}-labels-idx1-ubyte", np.arange(size) % 10)


def write_cifar100(data_dir: Path, train: int = 1300, test: int = 200) -> None:
    """32x32 colour images of 100 classes, in the archive's unpacked form."""
    random = np.random.default_rng(0)
    folder = data_dir / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, size in (("train", train), ("test", test)):
        images = random.integers(0, 256, (size, 3072)).astype(np.uint8)
        (folder / name).write_bytes(pickle.dumps({b"fine_labels": [k % 100 for k in range(size)], b"data": images}, 2))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [f"kind{k}".encode() for k in range(100)]}, 2))


def write_imagenet(data_dir: Path) -> None:
    """``images/train`` and ``images/val``, each with two classes of a few pictures."""
    for split in ("train", "val"):
        for number, name in enumerate(("n01440764", "n02102040")):
            folder = data_dir / "images" / split / name
            folder.mkdir(parents=True)
            for picture in range(12):
                pixels = np.random.default_rng(100 * number + picture).integers(0, 256, (48, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{picture}.JPEG")
