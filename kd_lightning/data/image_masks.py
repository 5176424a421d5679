"""A folder of pictures and their masks, a class number for each pixel: ``root/images/NAME.jpg`` and ``root/masks/NAME.png``.

Both are resized so that the shorter side has ``image_size`` pixels, and cut to the square in the middle; a picture is
interpolated, a mask takes its nearest pixel. Augmentation crops and flips them together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from kd_lightning.data.dataset import DatasetData
from kd_lightning.data.images.decode import read_image
from kd_lightning.data.images.image_files import EXTENSIONS
from kd_lightning.data.images.normalization import require_normalization
from kd_lightning.data.mask_values import MaskValues, Value
from kd_lightning.errors import UserError


class ImageMaskFiles(Dataset):
    """Pictures (3, S, S), float32, normalised, and masks (S, S), int64, ``UNLABELLED`` where a value is to be ignored.

    Args:
        root: holds the two folders.
        images, masks: their names; a mask has its picture's name, whatever the suffix.
        image_size: S, >= 1.
        mean, std: of each channel, pixels in [0, 1].
        ignore: values of a mask that mean "no label".
        mask_values: the value, or colour, of each class in a mask's file (:class:`~kd_lightning.data.mask_values.MaskValues`).
        key: configuration key of ``root``, for messages.
    """

    thread_safe = True

    def __init__(
        self,
        root: str | Path,
        images: str = "images",
        masks: str = "masks",
        image_size: int = 224,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        ignore: Sequence[Value] = (255,),
        key: str = "data.root",
        mask_values: Sequence[Value] | None = None,
    ) -> None:
        pictures, labels = (_by_stem(Path(root) / name, key) for name in (images, masks))
        lacking = sorted(pictures.keys() - labels.keys())
        if lacking:
            raise UserError(
                f"{key}: {len(lacking)} of {len(pictures)} pictures have no mask, the first: {pictures[lacking[0]]}; put a file "
                f"{Path(root) / masks / lacking[0]}.png there, or remove the picture"
            )
        self.pairs = [(pictures[stem], labels[stem]) for stem in sorted(pictures)]
        self.image_size, self.values = image_size, MaskValues(mask_values, ignore)
        self.mean, self.std = (torch.tensor(list(values)).view(3, 1, 1) for values in (mean, std))

    def __len__(self) -> int:
        return len(self.pairs)

    def describe(self, index: int) -> str:
        """How an error message calls a sample."""
        return self.pairs[index][0]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture, mask = self.pairs[index]
        pixels, _ = read_image(picture)
        numbers = self.values.read(mask)
        if pixels.shape[:2] != numbers.shape:
            raise UserError(
                f"{mask}: the mask has {numbers.shape[1]}x{numbers.shape[0]} pixels, its picture "
                f"{pixels.shape[1]}x{pixels.shape[0]}: they must be of one size"
            )
        values = torch.from_numpy(self._square(Image.fromarray(pixels), Image.Resampling.BILINEAR)).permute(2, 0, 1)
        found = self._square(Image.fromarray(numbers), Image.Resampling.NEAREST)
        target = torch.from_numpy(self.values.classes(found, mask))
        return ((values.float() / 255 - self.mean) / self.std).contiguous(), target

    def _square(self, picture: Image.Image, resampling: Image.Resampling) -> np.ndarray:
        factor = self.image_size / min(picture.size)
        width, height = (max(self.image_size, round(side * factor)) for side in picture.size)
        left, top = (width - self.image_size) // 2, (height - self.image_size) // 2
        resized = picture.resize((width, height), resampling)
        return np.array(resized.crop((left, top, left + self.image_size, top + self.image_size)))


SETTINGS = (
    "test_size", "num_classes", "class_names", "batch_size", "eval_batch_size", "seed", "split_seed", "val_size", "train_size",
    "labelled", "augment", "views", "extra_views", "repeats", "num_threads", "prefetch", "timeout", "reread", "drop_last",
)  # fmt: skip
"""Arguments that are handed on as they are."""


class ImageMasksData(DatasetData):
    """Pictures with masks from a directory.

    Args:
        root: holds ``images`` and ``masks``, or ``train_dir`` and ``test_dir`` do in it.
        train_dir, val_dir, test_dir: folders in ``root`` with pictures and masks of their own; None: what lies in ``root``
            itself, of which validation (``val_size``) and test (``test_size``) are split off.
        images, masks, image_size, mean, std, ignore, mask_values: see :class:`ImageMaskFiles`.
        num_classes: None: counted in the training masks, or as many as ``mask_values``.
        test_size, class_names, …: see :class:`~kd_lightning.data.dataset.DatasetData`.
    """

    scale = 1.0
    reading: (
        Mapping[str, Any] | None
    ) = {}  # kd-predict's way with pictures of any size is the evaluation's: resized, cut to squares
    default_augment = {"crop_padding": 16, "flip": True}

    def __init__(
        self,
        root: str,
        train_dir: str | None = None,
        val_dir: str | None = None,
        test_dir: str | None = None,
        images: str = "images",
        masks: str = "masks",
        image_size: int = 224,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        ignore: Sequence[Value] = (255,),
        mask_values: Sequence[Value] | None = None,
        test_size: float = 0.2,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        batch_size: int = 16,
        eval_batch_size: int = 32,
        seed: int = 0,
        split_seed: int = 0,
        val_size: float = 0.1,
        train_size: int | None = None,
        labelled: int | None = None,
        augment: bool | Mapping[str, Any] = True,
        views: int | None = None,
        extra_views: int = 0,
        repeats: int | None = None,
        num_threads: int | None = None,
        prefetch: int | None = None,
        timeout: float | None = 120.0,
        reread: int = 0,
        drop_last: bool = True,
    ) -> None:
        # named, as a DatasetData has further ones that would mean nothing here
        num_classes = len(mask_values) if num_classes is None and mask_values is not None else num_classes
        settings = {name: value for name, value in locals().items() if name in SETTINGS}
        if image_size < 1:
            raise UserError(f"data.image_size must be >= 1, got {image_size}")
        require_normalization(mean, std)

        def files(folder: str | None, key: str) -> ImageMaskFiles:
            place = Path(root) if folder is None else Path(root) / folder
            return ImageMaskFiles(place, images, masks, image_size, mean, std, ignore, key, mask_values)

        super().__init__(
            train=files(train_dir, "data.root" if train_dir is None else "data.train_dir"),
            val=None if val_dir is None else files(val_dir, "data.val_dir"),
            test=None if test_dir is None else files(test_dir, "data.test_dir"),
            mean=mean,
            std=std,
            target_type="classes",
            **settings,
        )
        self._unlabelled = tuple(ignore)

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]  # elsewhere a plain attribute
        """How many classes the masks tell apart.

        Raises:
            UserError: one only, as in masks of 0 and 255 where 255 means "no label".
        """
        count = super().num_classes
        if count == 1:
            unlabelled = ", ".join(map(str, self._unlabelled)) or "none"
            raise UserError(
                f"data: the masks hold one class only, besides values that mean no label ({unlabelled}; data.ignore): "
                "write classes as 0, 1, …, or say which value is which class, data.mask_values=[0,255]"
            )
        return count


def _by_stem(folder: Path, key: str) -> dict[str, str]:
    """The picture files of a folder and those below it, by their path without suffix."""
    if not folder.is_dir():
        raise UserError(
            f"{key}: there is no directory {folder}: pictures and masks lie in folders of their own (data.images, data.masks)"
        )
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                path = Path(place) / name
                found[path.relative_to(folder).with_suffix("").as_posix()] = os.fspath(path)
    if not found:
        raise UserError(f"{key}: {folder} has no pictures ({', '.join(EXTENSIONS[:3])}, …)")
    return found
