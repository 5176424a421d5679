"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning multiple layers of features from tiny images"): 32x32 RGB."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.idx import download_once
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.errors import UserError


class _Cifar(DistillationDataModule):
    """What the two have in common: batches pickled by Python 2, in the directory that torchvision unpacks.

    Args:
        root: directory for downloads; the unpacked archive is looked for in it, and it may be that directory itself.
        existing: other directories to look in before anything is downloaded.
        download: fetch what is not found, with torchvision.
        settings: those of :class:`~kd_lightning.data.module.DistillationDataModule`.
    """

    in_channels = 3
    image_size = 32
    default_augment = {"crop_padding": 4, "flip": True}
    torchvision_name: str
    folder_name: str
    train_files: Sequence[str]
    test_file: str
    labels_key: bytes
    meta_file: str
    names_key: bytes

    def __init__(
        self, root: str = "data", existing: Sequence[str] = (), download: bool = True, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.root, self.existing, self.download = Path(root), [Path(path) for path in existing], download

    @property
    def class_names(self) -> list[str] | None:
        """The names of the classes, None until the files are there."""
        directory = self._directory()
        if directory is None or not (directory / self.meta_file).is_file():
            return None
        names = read_pickle(directory / self.meta_file).get(self.names_key, [])
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names] or None

    def prepare_data(self) -> None:
        """Fetch and unpack the archive if no directory has its files."""
        if self._directory() is not None:
            return
        if not self.download:
            raise UserError(
                f"{self.torchvision_name}'s files are in none of {', '.join(map(str, self._candidates()))}: "
                f"set data.root to the directory that holds {self.folder_name}, or data.download=true"
            )
        from torchvision import datasets  # two seconds, and only needed here

        dataset = getattr(datasets, self.torchvision_name)
        download_once(self.root, self.torchvision_name, lambda: dataset(str(self.root), download=True))

    def train_data(self) -> tuple[Tensor, Tensor]:
        """The 50,000 samples that training and validation are chosen from."""
        return self._read(self.train_files)

    def test_data(self) -> tuple[Tensor, Tensor]:
        """The 10,000 test samples."""
        return self._read([self.test_file])

    def _candidates(self) -> list[Path]:
        parents = [self.root, *self.existing]
        return [*(parent / self.folder_name for parent in parents), *parents]

    def _directory(self) -> Path | None:
        needed = [*self.train_files, self.test_file]
        return next((d for d in self._candidates() if all((d / name).is_file() for name in needed)), None)

    def _read(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        self.prepare_data()
        directory = self._directory()
        parts = [self._read_batch(directory / name) for name in names]
        return torch.cat([images for images, _ in parts]), torch.cat([targets for _, targets in parts])

    def _read_batch(self, path: Path) -> tuple[Tensor, Tensor]:
        content = read_pickle(path)
        images, labels = content.get(b"data"), content.get(self.labels_key)
        shaped = isinstance(images, np.ndarray) and images.ndim == 2 and images.shape[1] == 3 * 32 * 32
        if not shaped or images.dtype != np.uint8 or labels is None or len(labels) != len(images):
            raise UserError(
                f"{path} is not a batch of {self.torchvision_name}: delete its directory and fetch it again"
            )
        return torch.from_numpy(images.reshape(-1, 3, 32, 32)), torch.tensor(labels, dtype=torch.int64)


class Cifar10Data(_Cifar):
    """CIFAR-10: (N, 3, 32, 32), 10 classes, 50,000 training and 10,000 test samples. Settings as in the base."""

    num_classes = 10
    mean = [0.4914, 0.4822, 0.4465]
    std = [0.2470, 0.2435, 0.2616]
    torchvision_name = "CIFAR10"
    folder_name = "cifar-10-batches-py"
    train_files = [f"data_batch_{k}" for k in range(1, 6)]
    test_file = "test_batch"
    labels_key = b"labels"
    meta_file, names_key = "batches.meta", b"label_names"


class Cifar100Data(_Cifar):
    """CIFAR-100: (N, 3, 32, 32), 100 classes, 50,000 training and 10,000 test samples. Settings as in the base."""

    num_classes = 100
    mean = [0.5071, 0.4867, 0.4408]
    std = [0.2675, 0.2565, 0.2761]
    torchvision_name = "CIFAR100"
    folder_name = "cifar-100-python"
    train_files = ["train"]
    test_file = "test"
    labels_key = b"fine_labels"
    meta_file, names_key = "meta", b"fine_label_names"


class _ArraysOnly(pickle.Unpickler):
    """A pickle may call any function when it is read; this one may only make NumPy arrays."""

    _allowed = {
        ("numpy.core.multiarray", "_reconstruct"): np.ndarray.__reduce__(np.empty(0))[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
    }

    def find_class(self, module: str, name: str) -> Any:
        """Only what arrays are made of."""
        found = self._allowed.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}, which no batch of images needs")
        return found


def read_pickle(path: Path) -> dict[bytes, Any]:
    """The dictionary in a batch file; its strings, from Python 2, are bytes."""
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises anything
        raise UserError(f"cannot read {path}: {error or type(error).__name__}; delete it and fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"cannot read {path}: it holds a {type(content).__name__}; delete it and fetch it again")
    return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}
