"""What people hand over as data: data sets, loaders, arrays, data modules, names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from kd_lightning.api.options import Options
from kd_lightning.data.tables.by_name import in_order, is_table, names_of
from kd_lightning.errors import UserError


class Rows(Dataset):
    """Rows of arrays that are no tensors (labels that are texts): ``(x[i], y[i])``."""

    thread_safe = True

    def __init__(self, columns: tuple[Any, ...]) -> None:
        self.columns = columns

    @property
    def targets(self) -> Any:
        """The last column, where there are several: known without reading rows."""
        return self.columns[-1] if len(self.columns) > 1 else None

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(column[index] for column in self.columns)


def choose_data(options: Options, train: Any, val: Any = None, test: Any = None) -> None:
    """Add the data's options: a name's own, or data sets behind ``data=dataset``.

    Raises:
        UserError: something is no data, or a loader draws its samples in a way of its own.
    """
    if isinstance(train, (str, Mapping)):
        for key, value in (("val", val), ("test", test)):
            if value is not None:
                raise UserError(f"{key}: train={train!r} names data that have their own validation and test samples")
        options.choose("data", train)
        return
    if isinstance(train, LightningDataModule):
        train, val, test = _of_module(train, val, test)
    node: dict[str, Any] = {"defaults": ["dataset"]}
    for key, value in (("train", train), ("val", val), ("test", test)):
        if value is not None:
            dataset, settings = _dataset(options, key, _by_name(key, value, train))
            node[key] = options.dataset(dataset)
            node |= settings
    options.overrides += [f"data={options.register('data', 'given', node)}", "name=python"]


def _by_name(key: str, value: Any, train: Any) -> Any:
    """Tables with their columns in the order of those of the training data."""
    parts, own = _parts(value), _parts(train)
    both = [is_table(a) and is_table(b) for a, b in zip(parts, own, strict=False)]
    if len(parts) != len(own) or not any(both):
        return value
    return tuple(in_order(key, a, names_of(b)) if tables else a for a, b, tables in zip(parts, own, both, strict=True))


def _of_module(module: LightningDataModule, val: Any, test: Any) -> tuple[Any, Any, Any]:
    """The loaders of somebody's data module."""
    module.prepare_data()
    module.setup("fit")
    module.setup("test")
    asked = {"train": module.train_dataloader, "val": module.val_dataloader, "test": module.test_dataloader}
    loaders = {}
    for name, ask in asked.items():
        try:
            loaders[name] = ask()
        except Exception as error:  # Lightning's own default raises one that is not public
            if type(error).__name__ != "MisconfigurationException" or name == "train":
                raise
    return loaders.get("train"), val or loaders.get("val"), test or loaders.get("test")


def _dataset(options: Options, key: str, value: Any) -> tuple[Any, dict[str, Any]]:
    """A map-style data set, and what a loader around it says."""
    settings: dict[str, Any] = {}
    if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], DataLoader):
        value = value[0]
    if isinstance(value, DataLoader):
        _require_plain_order(key, value)
        if key == "train" and value.batch_size is not None:
            settings["batch_size"] = value.batch_size
            settings["drop_last"] = bool(value.drop_last)
        if key == "train" and value.collate_fn is not default_collate:
            settings["collate_fn"] = options.function(value.collate_fn)
        value = value.dataset
    if isinstance(value, IterableDataset):
        raise UserError(f"{key}: a stream has no positions to split and repeat by: give a data set with a length")
    columns = _columns(value)
    if columns:
        inputs, rows = _parts(value)[0], _rows(key, columns)
        if is_table(inputs) and len(columns) <= 2:
            rows.table_columns = names_of(inputs)  # type: ignore[attr-defined]  # a finished run takes such a table
        value = rows
    if not (hasattr(value, "__getitem__") and hasattr(value, "__len__")):
        raise UserError(
            f"{key}: give a torch Dataset, a DataLoader, arrays (inputs, targets) or the name of data; got "
            f"{type(value).__name__}"
        )
    if not len(value):
        raise UserError(f"{key}: has no samples")
    if isinstance(value, (list, tuple)):
        value = _of_samples(key, value)
    return value, settings


def _of_samples(key: str, samples: Sequence[Any]) -> Dataset:
    """A list of samples ``(input, target)`` as columns: a list itself cannot be kept track of."""
    odd = next((sample for sample in samples if not isinstance(sample, (list, tuple))), None)
    if odd is not None or len({len(sample) for sample in samples}) > 1:
        what = f"of {type(odd).__name__}" if odd is not None else "whose samples have different numbers of parts"
        raise UserError(
            f"{key}: a {type(samples).__name__} {what}: give arrays (inputs, targets), or samples (input, target)"
        )
    return Rows(tuple(zip(*samples, strict=True)))


def _require_plain_order(key: str, loader: DataLoader) -> None:
    """Shuffling is ours; a sampler that weighs or leaves out samples would be lost without a word."""
    plain = (RandomSampler, SequentialSampler, type(None))
    batches = type(loader.batch_sampler) in (BatchSampler, type(None))
    if type(loader.sampler) not in plain or not batches:
        sampler = loader.sampler if batches else loader.batch_sampler
        raise UserError(
            f"{key}: the loader draws by {type(sampler).__name__}, which kd.distill would not follow: give its data set, "
            "or train a Distiller with a Trainer of your own"
        )


def _columns(value: Any) -> tuple[Any, ...]:
    """An array, or a pair of arrays (of pandas' tables and plain lists of labels, too); empty for anything else, such as a list of samples."""
    parts = _parts(value)
    arrays = tuple(_array(part, len(parts) > 1) for part in parts)
    return arrays if arrays and all(isinstance(array, (Tensor, np.ndarray)) for array in arrays) else ()


def _parts(value: Any) -> tuple[Any, ...]:
    pair = isinstance(value, list) and len(value) == 2 and (hasattr(value[0], "shape") or hasattr(value[0], "to_numpy"))
    return tuple(value) if isinstance(value, tuple) or pair else (value,)


def _array(part: Any, one_of_several: bool) -> Any:
    """A column of a pandas table, or a list of labels (None: no label) or of equally long rows of numbers, as an array."""
    if hasattr(part, "to_numpy"):
        return part.to_numpy()
    if not (one_of_several and isinstance(part, list) and part):
        return part
    if all(item is None or isinstance(item, (str, bool, int, float)) for item in part):
        return np.asarray(part)
    try:
        made = np.asarray(part)
    except ValueError:  # rows of several lengths
        return part
    return made if made.dtype.kind in "biuf" else part


def _rows(key: str, columns: tuple[Any, ...]) -> Dataset:
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise UserError(f"{key}: the arrays have {' and '.join(map(str, sorted(lengths)))} rows")
    for column in columns:
        if isinstance(column, np.ma.MaskedArray) and np.ma.is_masked(column):
            raise UserError(
                f"{key}: {np.ma.count_masked(column):,} values of an array are masked, and torch knows no mask: fill them "
                "(.filled(value)), or leave their samples out"
            )
    if all(isinstance(column, Tensor) or column.dtype.kind in "biuf" for column in columns):
        return TensorDataset(*map(_tensor, columns))
    return Rows(columns)


def _tensor(column: Any) -> Tensor:
    """An array as a tensor that shares its memory where torch can: in the machine's order of bytes, forwards, not read-only."""
    if isinstance(column, Tensor):
        return column
    values = np.require(column, column.dtype.newbyteorder("="), ["C_CONTIGUOUS", "WRITEABLE"])
    return torch.from_numpy(values)
