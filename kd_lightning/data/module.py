"""What every data module has in common: splits, subsets, missing labels, loaders, fingerprints.

Validation is split off the training data with a seed of its own; the test data is read by ``test_dataloader()`` and
nothing else. A data set's own module says where its samples come from, in :meth:`train_data` and :meth:`test_data`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.augment import CropFlip
from kd_lightning.data.augment_settings import crop_flip_of, mixing_of, policy_of, require_suitable
from kd_lightning.data.loader.threaded_loader import ThreadedLoader
from kd_lightning.data.loader.wrappers import gathers
from kd_lightning.data.mixed_samples import MixedSamples, mixed_samples
from kd_lightning.data.mixing import Mixing
from kd_lightning.data.places import Places
from kd_lightning.data.policy import Policy
from kd_lightning.data.repeats import repeated_views
from kd_lightning.data.samples import Samples, Seeded, SeveralGatheredViews, SeveralViews, labelled, view_number
from kd_lightning.data.split import count_of, hide_labels, keep_first, stratified_order
from kd_lightning.data.summary import described, summary_line
from kd_lightning.errors import UserError
from kd_lightning.tensor_bytes import bytes_of

log = logging.getLogger(__name__)


class DistillationDataModule(LightningDataModule):
    """Base of the data modules.

    Args:
        batch_size: training samples a step (on each device), >= 1.
        eval_batch_size: samples a batch in validation and test, >= 1.
        seed: of the training order and of the augmentation.
        split_seed: of the choice of validation, subset and labelled samples.
        val_size: samples taken from the training data for validation, >= 1, or their fraction, in (0, 1); 0: none, and the
            last epoch is what is tested.
        train_size: training samples kept, None for all; chosen by class, and nested for growing sizes.
        labelled: training samples that keep their label, None for all; chosen by class. The others' target is
            ``UNLABELLED``: they count for the soft loss only.
        device: where data in memory lie: "cpu", or "auto": on the GPU where there is one, so that batches are made there.
        augment: ``False``, ``True`` (:attr:`default_augment`), or the settings as a mapping: of the crop and flip, of
            :class:`~kd_lightning.data.mixing.Mixing`, and, of pictures in memory, of
            :class:`~kd_lightning.data.policy.Policy`.
        views: how often a sample's augmented view changes: 1 never, K > 1 cycles through K views by epoch, 0 a fresh
            view each epoch. None: 0 with augmentation, 1 without.
        extra_views: further views of the same samples in each training batch's ``also``, for methods that compare views:
            each is a function of (seed, epoch, index, which of them). >= 0.
        repeats: views of each sample in a training batch, as samples of their own that ``batch_size`` counts, >= 2: an epoch
            has so many times as many steps (:mod:`kd_lightning.data.repeats`). None: one.
        num_threads, prefetch, timeout, reread: of :class:`~kd_lightning.data.loader.threaded_loader.ThreadedLoader`.
        drop_last: leave out a last, smaller training batch.

    Attributes:
        num_classes: C; None where the data has no classes, or nobody knows how many.
        class_names: their names, or None.
        in_channels, image_size: of the inputs (N, in_channels, image_size, image_size); None for inputs of another kind.
        in_features: values a sample; None where it is no single tensor.
        mean, std: per channel: inputs are ``(x / scale - mean) / std``; None where nobody knows what was done to them.
        reading: how a picture in a file becomes a sample in evaluation, as plain values: the crop and how it is decoded; empty where
            its pixels are the sample's; None where nobody knows.
        notes: what a user should know of the data, a few words each: said once, before training.
    """

    num_classes: int | None = None
    class_names: list[str] | None = None
    in_channels: int | None = None
    image_size: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    scale: float = 255.0
    reading: Mapping[str, Any] | None = {}
    default_augment: Mapping[str, Any] = {"crop_padding": 2, "flip": False}

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        seed: int = 0,
        split_seed: int = 0,
        val_size: float = 0.1,
        train_size: int | None = None,
        labelled: int | None = None,
        augment: bool | Mapping[str, Any] = False,
        views: int | None = None,
        extra_views: int = 0,
        repeats: int | None = None,
        num_threads: int | None = None,
        prefetch: int | None = None,
        timeout: float | None = 120.0,
        reread: int = 0,
        drop_last: bool = True,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        for key, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise UserError(f"data.{key} must be >= 1, got {value}")
        if val_size < 0:
            raise UserError(f"data.val_size must be > 0, or 0 for no validation (protocol=literature), got {val_size}")
        if train_size is not None and train_size < 1:
            raise UserError(f"data.train_size must be >= 1 or null for all, got {train_size}")
        if labelled is not None and labelled < 0:
            raise UserError(f"data.labelled must be >= 0 or null for all, got {labelled}")
        if views is not None and views < 0:
            raise UserError(f"data.views must be 0 (fresh each epoch), 1 (fixed), K > 1 (cycled) or null, got {views}")
        if extra_views < 0:
            raise UserError(f"data.extra_views must be >= 0, got {extra_views}")
        if repeats is not None and (repeats < 1 or batch_size % repeats):
            fits = f": data.batch_size={batch_size // repeats * repeats or repeats} does" if repeats > 1 else ""
            raise UserError(f"data.repeats must be >= 1 and divide data.batch_size={batch_size}, got {repeats}{fits}")
        if device not in ("cpu", "auto"):
            raise UserError(f"data.device must be cpu or auto (the GPU where there is one), got {device}")
        self.device = device
        self._resident: dict[int, ArrayData] = {}
        self.batch_size, self.eval_batch_size, self.drop_last = batch_size, eval_batch_size, drop_last
        self.seed, self.split_seed = seed, split_seed
        self.val_size, self.train_size, self.labelled = val_size, train_size, labelled
        self.augment = self.make_augment(augment)
        settings = self.default_augment if augment is True else augment
        self.policy, self.mixing = policy_of(settings), mixing_of(settings)
        varied = any(part is not None for part in (self.augment, self.policy, self.mixing))
        self.views = (0 if views is None else views) if varied else 1
        self.extra_views, self.repeats = extra_views, repeats if repeats != 1 else None
        self._loading = {"num_threads": num_threads, "prefetch": prefetch, "timeout": timeout, "reread": reread}
        self._train: Samples | None = None
        self._mixed: MixedSamples | None = None  # where these do not mix themselves
        self._val: Samples | None = None
        self._test: Samples | None = None
        self._content = ""
        self._chosen: dict[str, Tensor] = {}
        self._total = 0
        self.notes: list[str] = []

    # ---- what a data set's own module gives -------------------------------------------------------------------------

    def train_data(self) -> tuple[Tensor, Tensor]:
        """All training samples: values (N, C, H, W), uint8 or float, and class numbers (N,), int64."""
        raise NotImplementedError(f"{type(self).__name__} must define train_data()")

    def test_data(self) -> tuple[Tensor, Tensor]:
        """The test samples, in the form of :meth:`train_data`."""
        raise NotImplementedError(f"{type(self).__name__} must define test_data()")

    def make_augment(self, augment: bool | Mapping[str, Any]) -> CropFlip | None:
        """The augmentation from its setting, None where a sample has one view."""
        if not augment:
            return None
        return crop_flip_of(self.default_augment if augment is True else augment)

    def build_splits(self) -> tuple[Samples, Samples, str]:
        """The training and validation data sets, and the hex digest of their content and choice."""
        values, targets = self.train_data()
        train, val = self.choose(targets)
        self._chosen, self._total = {"train": train, "val": val}, len(targets)
        digest = hashlib.blake2b(bytes_of(values), digest_size=16)
        for part in (targets, train, val):
            digest.update(part.numpy().tobytes())
        digest.update(repr(self.labelled).encode())
        name = type(self).__name__
        asked = {"policy": self.policy, "mixing": self.mixing}
        more = {
            key: value for key, value in asked.items() if value is not None
        }  # what a user's own array() may not take
        return (
            self.array(
                values[train], hide_labels(targets[train], self.labelled), f"{name} train", self.augment, **more
            ),
            self.array(values[val], targets[val], f"{name} validation"),
            digest.hexdigest(),
        )

    def build_test(self) -> Samples:
        """The test data set."""
        return self.array(*self.test_data(), f"{type(self).__name__} test")

    # ---- shared parts -----------------------------------------------------------------------------------------------

    def array(
        self,
        values: Tensor,
        targets: Tensor,
        name: str,
        augment: CropFlip | None = None,
        policy: Policy | None = None,
        mixing: Mixing | None = None,
    ) -> ArrayData:
        """A data set in memory with this module's normalisation."""
        return ArrayData(
            values, targets, scale=self.scale, mean=self.mean, std=self.std, augment=augment, policy=policy, mixing=mixing,
            seed=self.seed, name=name,
        )  # fmt: skip

    def choose(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Positions of the training and the validation samples among all, chosen by class with ``split_seed``."""
        order = stratified_order(targets, self.split_seed)
        val_size = count_of(self.val_size, len(order), "data.val_size")
        return keep_first(order[val_size:], self.train_size), order[:val_size]

    @property
    def in_features(self) -> int | None:
        """Values a sample: channels x height x width."""
        if self.in_channels is None or self.image_size is None:
            return None
        return self.in_channels * self.image_size * self.image_size

    def sizes(self) -> dict[str, int]:
        """What a model's configuration may leave to the data, by name; a size that the data does not have is absent."""
        known = {
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "in_features": self.in_features,
            "image_size": self.image_size,
        }
        return {name: size for name, size in known.items() if size is not None}

    def setup(self, stage: str | None = None) -> None:
        """Read and split the training data, once."""
        if self._train is None:
            self._train, self._val, self._content = self.build_splits()
            if self.mixing is not None and getattr(self._train, "mixing", None) is None:
                self._mixed = mixed_samples(self._train, self.mixing, self.seed, self.seeded)
            require_suitable(self, self.train_views_dataset)
            if self.drop_last and len(self._train) < self.batch_size // (self.repeats or 1):
                raise UserError(
                    f"data.batch_size={self.batch_size} is more than the {len(self._train)} training samples, and "
                    "data.drop_last leaves out smaller batches: take a smaller batch_size or drop_last=false"
                )

    def train_dataloader(self) -> ThreadedLoader:
        """Shuffled, augmented batches."""
        dataset = self.resident(self.train_dataset())
        options = {"shuffle": True, "drop_last": self.drop_last, "views": self.views}
        if self.repeats:
            dataset = repeated_views(dataset, self.repeats, self.views, self.seeded)
            return self._loader(dataset, self.batch_size // self.repeats, "train", **options | {"views": 0})
        if self.extra_views:
            dataset = self.several_views(dataset)
            options["extra_views"] = self.extra_views
        return self._loader(dataset, self.batch_size, "train", **options)

    def resident(self, dataset: Any) -> Any:
        """The data set where ``device`` wants it: on the GPU, if there is one with room for it.

        Raises:
            UserError: the samples do not lie in memory.
        """
        if self.device == "cpu":
            return dataset
        if not isinstance(dataset, ArrayData):
            raise UserError(
                f"data.device={self.device}: these samples are read one by one: only data in memory can lie there"
            )
        if not torch.cuda.is_available():
            return dataset
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0))
        if id(dataset) not in self._resident:
            if 2 * dataset.nbytes > torch.cuda.mem_get_info(device)[0]:
                log.info("%s stays on the CPU: it would take more than half of the GPU's free memory", dataset.name)
                return dataset
            self._resident[id(dataset)] = dataset.on(device)
        return self._resident[id(dataset)]

    def several_views(self, dataset: Samples) -> SeveralViews:
        """The training data set with the further views of each sample."""
        if self.seeded is None and gathers(dataset):
            return SeveralGatheredViews(dataset, self.extra_views)
        return SeveralViews(dataset, self.extra_views, self.seeded)

    @property
    def seeded(self) -> Seeded | None:
        """Gives a data set that draws for itself the random numbers of any sample in any view; None: it draws none."""
        return None

    def val_dataloader(self) -> ThreadedLoader:
        """The validation samples in a fixed order, each once."""
        self.setup("validate")
        if not len(self._val):
            raise UserError("data.val_size=0: there are no validation samples (protocol=literature keeps none)")
        return self._loader(self.resident(self._val), self.eval_batch_size, "val", views=1, pad_shards=False)

    def test_dataloader(self) -> ThreadedLoader:
        """The test samples in a fixed order, each once."""
        return self._loader(self.resident(self.test_dataset()), self.eval_batch_size, "test", views=1, pad_shards=False)

    def test_dataset(self) -> Samples:
        """The test samples, read when first asked for."""
        if self._test is None:
            self._test = self.build_test()
        return self._test

    def places(self, split: str) -> Places:
        """Where the samples of "train", "val" or "test" stand in the data as they were given: :meth:`train_data`'s or
        :meth:`test_data`'s.

        Raises:
            UserError: nobody knows.
        """
        self.setup("fit")
        if split == "test":
            samples = len(self.test_dataset())
            return Places("test", torch.arange(samples), samples)
        if split not in self._chosen:
            raise UserError(
                f"data: {type(self).__name__} does not say where its samples stand in the data as they were given, by which "
                "stored answers are found: define places(split)"
            )
        return Places("train", self._chosen[split], self._total)

    def train_groups(self) -> Tensor | None:
        """A number for each training sample, int64 (N,), equal for those that must not be learned from one another (hours
        of a day, paragraphs of a document); None: each is by itself."""
        return None

    def _loader(self, dataset: Any, batch_size: int, split: str, **options: Any) -> ThreadedLoader:
        return ThreadedLoader(
            dataset, batch_size, seed=self.seed, as_batch=True, split=split, **options, **self._loading
        )

    def example_batch(self) -> Batch:
        """Two validation samples, or training samples where there are none, to infer shapes from."""
        self.setup("fit")
        samples, split = (self._val, "val") if len(self._val) else (self._train, "train")
        index = torch.tensor([0, min(1, len(samples) - 1)])
        inputs, target = samples.read(index, 0)
        also = tuple(Batch(inputs, target, index, view_number(0, k + 1), split) for k in range(self.extra_views))
        return Batch(inputs, target, index, 0, split, also)

    def train_dataset(self) -> Samples:
        """What the training loader reads."""
        return self.train_views_dataset

    @property
    def train_views_dataset(self) -> Samples:
        """The training data set, of which any ``(index, view)`` can be read."""
        self.setup("fit")
        return self._mixed or self._train

    @property
    def train_samples(self) -> int:
        """Number of training samples."""
        return len(self.train_views_dataset)

    def train_targets(self) -> Tensor | None:
        """The training samples' targets as far as they keep them; None where nobody knows before reading them."""
        return self.train_views_dataset.targets

    def labelled_in(self, split: str) -> int:
        """How many samples of ``split``, "train", "val" or "test", have a label."""
        self.setup("fit")
        samples: Any = {"train": self._train, "val": self._val}.get(split) or self.test_dataset()
        return len(samples) if samples.targets is None else int(labelled(samples.targets, UNLABELLED).sum())

    @property
    def val_samples(self) -> int:
        """Number of validation samples."""
        self.setup("validate")
        return len(self._val)

    def describe(self) -> dict[str, Any]:
        """What ``result.json`` says of the data: sizes, class names, normalisation, the inputs' form, notes."""
        return described(self)

    def summary(self) -> str:
        """One line to show before training: samples, labels, inputs, and what a user should know."""
        return summary_line(self)

    @property
    def steps_per_epoch(self) -> int:
        """Training batches an epoch, on this process."""
        return len(self.train_dataloader())

    def data_fingerprint(self) -> str:
        """Hex digest of the training samples, their targets, and which were chosen."""
        self.setup("fit")
        return self._content

    def view_settings(self) -> dict[str, Any]:
        """Everything but the samples that a model's training input depends on."""
        alone = self.views == 1 and self.augment is None and self.policy is None
        varied: dict[str, Any] = {} if alone else {"seed": self.seed, "views": self.views}
        if self.policy is not None:
            varied["policy"] = self.policy.settings()
        if self.mixing is not None:  # partners are drawn among the training samples: these are data_fingerprint's
            varied["mixing"] = self.mixing.settings()
        augment = self.augment.settings() if self.augment is not None else None
        return {"mean": self.mean, "std": self.std, "scale": self.scale, "augment": augment, **varied}

    def view_fingerprint(self) -> str:
        """Hex digest of transform, augmentation, its seed and the number of views."""
        return hashlib.blake2b(json.dumps(self.view_settings(), sort_keys=True).encode(), digest_size=16).hexdigest()
