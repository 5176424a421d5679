"""A directory of images, one folder a class.

Either ``root/train/<class>/*.jpg`` and ``root/test/<class>/*.jpg`` (the folders' names are keys), with validation split
off the training images or in a folder of its own; or ``root/<class>/*.jpg``, from which the test images are split off
as well, the same ones whatever the configuration. Without labels: images at any depth, whatever the folders are called.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kd_lightning.data.augment_settings import MIXES
from kd_lightning.data.images.crops import CentreCrop, RandomResizedCrop
from kd_lightning.data.images.decode import MAX_PIXELS
from kd_lightning.data.images.image_data import ImageData, ImagePixels
from kd_lightning.data.images.image_files import (
    class_folders,
    digest_files,
    left_out,
    list_images,
    unlabelled_images,
    unreadable,
)
from kd_lightning.data.images.normalization import require_normalization
from kd_lightning.data.images.shared_files import shared_files
from kd_lightning.data.loader.foreign import tell_once
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.data.places import Places
from kd_lightning.data.samples import Samples
from kd_lightning.data.split import hide_labels, keep_first, stratified_order
from kd_lightning.errors import UserError

_TEST_SEED = 1013
_log = logging.getLogger(__name__)


class ImageFolderData(DistillationDataModule):
    """Images by class from a directory: (N, 3, image_size, image_size); grey ones become RGB.

    Args:
        root: the directory.
        train_dir, val_dir, test_dir: folders in it. ``val_dir`` None: validation is split off the training images.
            ``train_dir`` None: the class folders lie in ``root`` itself, and ``test_size`` of their images are test.
        labels: ``folders``, or ``none``: images at any depth below ``root`` (below ``train_dir`` and ``test_dir`` in it, where
            ``train_dir`` is there), none of which has a label; what is not there is split off.
        test_size: fraction of the images that are test where they have no folder, in (0, 1).
        image_size: pixels of a side of the model's input, >= 1.
        resize: evaluation resizes the shorter side to so many pixels and cuts out the middle, >= ``image_size``.
        mean, std: of each channel, pixels in [0, 1].
        decode: ``full``, or ``scaled``: JPEGs at 1/2, 1/4 or 1/8 of their size where the crop has the pixels for it,
            see :func:`~kd_lightning.data.images.decode.read_image`.
        normalize_on_device: training batches travel as bytes, a quarter of the memory, and are normalised by their
            ``to(device)``, see :class:`~kd_lightning.data.images.image_data.PixelBatch`.
        on_bad_image: ``error``: an unreadable image stops the run and is named; ``skip``: all images are decoded once
            before the first run, the unreadable are left out and counted.
        max_pixels: images with more pixels are unreadable (decompression bombs), >= 1.
        grey_white: which value of a grey image of more than 8 bits is white, > 0; None: told by its largest value, see
            :func:`~kd_lightning.data.images.decode.read_image`.
        cache_dir: where the list of unreadable images is kept.
        settings: those of :class:`~kd_lightning.data.module.DistillationDataModule`; ``augment`` is ``True``, or the
            ``scale``, ``ratio`` and ``flip`` of :class:`~kd_lightning.data.images.crops.RandomResizedCrop` and the keys of
            :class:`~kd_lightning.data.mixing.Mixing`.
    """

    in_channels = 3
    default_augment: Mapping[str, Any] = {}

    def __init__(
        self,
        root: str,
        train_dir: str | None = "train",
        val_dir: str | None = None,
        test_dir: str = "test",
        labels: Literal["folders", "none"] = "folders",
        test_size: float = 0.2,
        image_size: int = 224,
        resize: int = 256,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        decode: Literal["full", "scaled"] = "full",
        normalize_on_device: bool = False,
        on_bad_image: Literal["error", "skip"] = "error",
        max_pixels: int = MAX_PIXELS,
        grey_white: int | None = None,
        cache_dir: str = "outputs/cache",
        **settings: Any,
    ) -> None:
        for key, value, allowed in (
            ("labels", labels, ("folders", "none")),
            ("decode", decode, ("full", "scaled")),
            ("on_bad_image", on_bad_image, ("error", "skip")),
        ):
            if value not in allowed:
                raise UserError(f"data.{key} must be {' or '.join(allowed)}, got {value!r}")
        if not 0 < test_size < 1:
            raise UserError(f"data.test_size must be a fraction between 0 and 1, got {test_size}")
        require_normalization(mean, std)
        if grey_white is not None and grey_white < 1:
            raise UserError(f"data.grey_white must be >= 1 or null, got {grey_white}")
        self.grey_white = grey_white
        self.image_size, self.resize, self.mean, self.std = image_size, resize, list(mean), list(std)
        self.eval_crop = CentreCrop(image_size, resize)
        super().__init__(**settings)
        if normalize_on_device and self.mixing is not None:
            raise UserError(
                f"{self.mixing.keys}: mixes normalised pictures, and data.normalize_on_device=true normalises later, on "
                "the device: leave one of them out"
            )
        self.root, self.train_dir, self.val_dir, self.test_dir = Path(root), train_dir, val_dir, test_dir
        self.labels = labels
        for key, folder in (("test_dir", test_dir), ("val_dir", val_dir)):
            if train_dir is not None and folder is not None and Path(folder) == Path(train_dir):
                raise UserError(f"data.{key}={folder}: these are the training images: name another folder")
        if labels == "none":
            if train_dir is not None and not (self.root / train_dir).is_dir():
                self.train_dir = None
            elif not (self.root / test_dir).is_dir():  # test images are split off those in train_dir
                self.root, self.train_dir = self._train_root, None
        self.test_size, self.decode, self.on_bad_image = test_size, decode, on_bad_image
        self.normalize_on_device, self.max_pixels, self.cache_dir = normalize_on_device, max_pixels, Path(cache_dir)
        self.skipped: dict[str, str] = {}
        self.reading = {
            **self.eval_crop.settings(), "decode": decode, "max_pixels": max_pixels, "grey_white": grey_white,
        }  # fmt: skip

    @property
    def class_names(self) -> list[str] | None:  # type: ignore[override]
        """The names of the training images' folders, sorted; None without labels."""
        if self.labels == "none":
            return None
        names = class_folders(self._train_root, self._train_key)
        if len(names) < 2:
            raise UserError(
                f"{self._train_key}: {self._train_root} has the single class folder {names[0]!r}: "
                "classification needs at least two"
            )
        return names

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]
        """Number of class folders; None without labels."""
        names = self.class_names
        return None if names is None else len(names)

    def prepare_data(self) -> None:
        """Find the unreadable images, if they are to be skipped (in a distributed run: one process for all)."""
        if self.on_bad_image == "skip":
            self._kept(*self._pool(test=False))

    def make_augment(self, augment: bool | Mapping[str, Any]) -> RandomResizedCrop | None:
        """The random crop from its settings; None: training sees what evaluation would see."""
        if not augment and not isinstance(augment, Mapping):
            return None
        settings = {} if augment is True else dict(augment)
        unknown = sorted(set(settings) - {"scale", "ratio", "flip", *MIXES})
        if unknown:
            raise UserError(
                f"data.augment has no key {unknown[0]!r}: for images in files it takes scale, ratio, flip, "
                f"{' and '.join(MIXES)}"
            )
        crop = {key: value for key, value in settings.items() if key not in MIXES}
        return RandomResizedCrop(self.image_size, seed=self.seed, **crop)

    def build_splits(self) -> tuple[ImageData, ImageData, str]:
        """Training and validation images, and the digest of their names, sizes, some content, and the choice."""
        files, targets = self._kept(*self._pool(test=False))
        test_files, _ = self._pool(test=True)  # a folder that is not there shall not be told after the training
        self.notes += filter(None, [left_out(self._train_root, self.class_names or ["."])])
        if self.val_dir is None:
            train, val = self.choose(targets)
            val_files, val_targets = [files[i] for i in val.tolist()], targets[val]
        else:
            train = keep_first(stratified_order(targets, self.split_seed), self.train_size)
            key = "data.val_dir"
            val_files, val_targets = self._kept(*self._listed(self.root / self.val_dir, key, False), False)
        train_files = [files[i] for i in train.tolist()]
        for told in shared_files({"validation": val_files, "test": test_files}, train_files):
            tell_once(f"WARNING: data: {told}", logging.WARNING)
            self.notes.append(told)
        content = digest_files([*train_files, *val_files], self.root, f"{len(train_files)} {self.labelled}")
        train_data = self._images(
            train_files, hide_labels(targets[train], self.labelled), self.augment or self.eval_crop
        )
        return train_data, self._images(val_files, val_targets, self.eval_crop), content

    def build_test(self) -> ImageData:
        """The test images."""
        return self._images(*self._kept(*self._pool(test=True), False), self.eval_crop)

    def places(self, split: str) -> Places:
        """The images by their paths below ``root``: what stored answers call them."""
        self.setup("fit")
        samples: Any = {"train": self._train, "val": self._val}.get(split) or self.test_dataset()
        ids = [Path(file).relative_to(self.root).as_posix() for file in samples.files]
        return Places("train", torch.arange(len(ids)), None, ids)

    def train_dataset(self) -> Samples:
        """What the training loader reads: pixels with ``normalize_on_device``, otherwise the normalised images."""
        if not self.normalize_on_device:
            return super().train_dataset()
        self.setup("fit")
        data: Any = self._train
        crop, scaled = data.crop, data.scaled_decode
        return ImagePixels(
            data.files, data.targets, crop, self.mean, self.std, scaled, True, self.max_pixels, self.grey_white
        )

    def teardown(self, stage: str | None = None) -> None:
        """Say again how many images were skipped."""
        if self.skipped:
            _log.warning("%d unreadable images were skipped, the first: %s", len(self.skipped), _first(self.skipped))

    def view_settings(self) -> dict[str, Any]:
        """Everything but the samples that a model's training input depends on."""
        crop = self.augment or self.eval_crop
        settings = {"mean": self.mean, "std": self.std, "crop": type(crop).__name__, "decode": self.decode}
        if self.grey_white is not None:
            settings["grey_white"] = self.grey_white
        if self.mixing is not None:
            settings |= {"mixing": self.mixing.settings(), "seed": self.seed}
        return {**settings, **crop.settings(), "views": self.views}

    @property
    def _train_root(self) -> Path:
        return self.root if self.train_dir is None else self.root / self.train_dir

    @property
    def _train_key(self) -> str:
        return "data.root" if self.train_dir is None else "data.root, data.train_dir"

    def _pool(self, test: bool) -> tuple[list[str], Tensor]:
        """The test images, or all others; with folders of their own, or split."""
        if test and self.train_dir is not None:
            return self._listed(self.root / self.test_dir, "data.test_dir", all_needed=False)
        files, targets = self._listed(self._train_root, self._train_key)
        if self.train_dir is not None:
            return files, targets
        order = stratified_order(targets, _TEST_SEED)
        cut = max(1, round(self.test_size * len(files)))
        chosen = order[:cut] if test else order[cut:].sort().values
        return [files[i] for i in chosen.tolist()], targets[chosen]

    def _listed(self, directory: Path, key: str, all_needed: bool = True) -> tuple[list[str], Tensor]:
        names = self.class_names
        return unlabelled_images(directory, key) if names is None else list_images(directory, names, key, all_needed)

    def _kept(self, files: list[str], targets: Tensor, all_needed: bool = True) -> tuple[list[str], Tensor]:
        """What can be read of some files, all of them unless they are to be skipped."""
        if self.on_bad_image == "error":
            return files, targets
        bad = unreadable(files, self._loading["num_threads"], self.max_pixels, self.cache_dir, self.grey_white)
        if not bad.keys() <= self.skipped.keys():
            self.skipped |= bad
            _log.warning("skipping %d of %d images, the first: %s", len(bad), len(files), _first(bad))
        keep = [i for i, file in enumerate(files) if file not in bad]
        lost = sorted(set(targets.tolist()) - set(targets[keep].tolist()))
        if not keep:
            raise UserError(f"data.root: none of the {len(files)} images can be read, the first: {_first(bad)}")
        if lost and all_needed and self.class_names is not None:
            name = self.class_names[lost[0]]
            first = next(bad[file] for file, target in zip(files, targets.tolist(), strict=True) if target == lost[0])
            raise UserError(
                f"data.root: none of the images of class {name!r} can be read, the first: {first.rsplit('; ', 1)[0]}; "
                "mend them, or remove the folder"
            )
        return [files[i] for i in keep], targets[keep]

    def _images(self, files: list[str], targets: Tensor, crop: RandomResizedCrop | CentreCrop) -> ImageData:
        scaled = self.decode == "scaled"
        return ImageData(files, targets, crop, self.mean, self.std, scaled, False, self.max_pixels, self.grey_white)


def _first(bad: Mapping[str, str]) -> str:
    return next(iter(bad.values())).rsplit("; ", 1)[0]
