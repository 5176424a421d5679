"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747): 28x28 grey images of 10 kinds of clothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from kd_lightning.data.idx import download_once, find_directory, read_split
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.errors import UserError

KINDS = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]


class FashionMnistData(DistillationDataModule):
    """Fashion-MNIST: (N, 1, 28, 28), 10 classes, 60,000 training and 10,000 test samples.

    Args:
        root: directory for downloads; the four IDX files (plain or .gz) are looked for in it, in torchvision's
            ``FashionMNIST/raw`` and in ``fashion-mnist`` below it.
        existing: other directories to look in before anything is downloaded. None: :attr:`usual_directories`.
        download: fetch what is not found, with torchvision.
        settings: those of :class:`~kd_lightning.data.module.DistillationDataModule`.
    """

    num_classes = 10
    class_names: list[str] | None = KINDS
    in_channels = 1
    image_size = 28
    mean = [0.2860]
    std = [0.3530]
    default_augment = {"crop_padding": 2, "flip": True}
    torchvision_name = "FashionMNIST"
    folder_name = "fashion-mnist"
    usual_directories: Sequence[str] = ("/usr/share/datasets/fashion-mnist",)  # Debian's dataset-fashion-mnist

    def __init__(
        self,
        root: str = "data",
        existing: Sequence[str] | None = None,
        download: bool = True,
        **settings,
    ) -> None:
        super().__init__(**settings)
        self.root, self.download = Path(root), download
        self.existing = [Path(path) for path in (self.usual_directories if existing is None else existing)]

    @property
    def raw_dir(self) -> Path:
        """Where torchvision puts the files."""
        return self.root / self.torchvision_name / "raw"

    def prepare_data(self) -> None:
        """Fetch the files if no directory has them."""
        if self._directory() is not None:
            return
        if not self.download:
            raise UserError(
                f"{self.torchvision_name}'s four IDX files are in none of {', '.join(map(str, self._candidates()))}: "
                "set data.root to their directory, or data.download=true"
            )
        from torchvision import datasets  # two seconds, and only needed here

        dataset = getattr(datasets, self.torchvision_name)
        download_once(self.root, self.torchvision_name, lambda: dataset(str(self.root), download=True))

    def train_data(self) -> tuple[Tensor, Tensor]:
        """The 60,000 samples that training and validation are chosen from."""
        return self._read("train")

    def test_data(self) -> tuple[Tensor, Tensor]:
        """The 10,000 test samples."""
        return self._read("test")

    def _candidates(self) -> list[Path]:
        return [self.root, self.raw_dir, self.root / self.folder_name, *self.existing]

    def _directory(self) -> Path | None:
        return find_directory(self._candidates())

    def _read(self, split: str) -> tuple[Tensor, Tensor]:
        self.prepare_data()
        return read_split(self._directory(), split)
